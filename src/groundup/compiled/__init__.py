"""The compiled room: functions in C for the CPU, compiled once by the machine's own compiler, and torch's way to call
them. Each has a plain form in `groundup.functional`, which is what it is compared with and what runs elsewhere.

Like `groundup.functional` it belongs to the centre: pure functions of tensors, torch and nothing else.
"""
