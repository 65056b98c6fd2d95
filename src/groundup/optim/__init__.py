"""Optimizers, parameter groups by path, and schedules as pure functions of the step."""
