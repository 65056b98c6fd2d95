"""Foreign weights in and out: Hugging Face folders, GGUF files, llama2.c checkpoints, PEFT adapters.

Everything here speaks two languages, the foreign one and groundup's own names, and nothing else: no network
is built, no pickle is opened, no code from a file is run. Files come from outside and are not trusted.
"""
