"""Inference: the key-value cache, the choice of the next token, and generation alone or in batches.

A decoder comes in through the `LanguageModel` protocol, text through a decoder handed in; no model family,
tokenizer, file or server may enter this room.
"""

from groundup.inference.cache import KeyValueCache, cache_for
from groundup.inference.generate import Decoder, Finish, Piece, Result, StopScanner, generate, generate_batch
from groundup.inference.sample import SampleOptions, sample, sample_options

__all__ = [
    "Decoder",
    "Finish",
    "KeyValueCache",
    "Piece",
    "Result",
    "SampleOptions",
    "StopScanner",
    "cache_for",
    "generate",
    "generate_batch",
    "sample",
    "sample_options",
]
