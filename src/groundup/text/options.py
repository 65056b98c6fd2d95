"""What a tokenizer is made from: the names of the special tokens and the options of its training.

Kept apart from the code that trains, so that a recipe can be checked without loading the library of
tokenizers. No algorithm may enter this file.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from groundup.errors import GroundupError

SPECIALS = ("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
"""The special tokens of every tokenizer trained here; their ids are their places in this tuple."""

PAD, BEGIN, END = SPECIALS[:3]

MASK = "<|mask|>"
"""Stands for a hidden token, in tokenizers that are asked for it; its id is the last of the vocabulary."""

FOREIGN_MASKS = ("[MASK]", "<mask>")
"""What other tokenizers call it."""

Kind = Literal["bpe", "unigram", "wordpiece", "char", "byte"]

LARGEST_VOCABULARY = 1_000_000
SMALLEST_VOCABULARY: dict[str, int] = {
    "bpe": len(SPECIALS) + 256 + 1,
    "unigram": len(SPECIALS) + 256 + 1,
    "wordpiece": len(SPECIALS) + 2 * 256 + 1,
}
"""Every byte is a token, so that any text can be encoded; WordPiece has a second set, inside words."""


class TokenizerOptions(BaseModel):
    """How a tokenizer is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Kind = Field(
        default="bpe",
        description="how text is cut into tokens: byte-level byte-pair encoding, unigram language model, "
        "WordPiece, one token per character, or one token per byte",
    )
    vocabulary: int | None = Field(
        default=None,
        description="number of tokens, special tokens and single bytes included; at least "
        f"{SMALLEST_VOCABULARY['bpe']} ({SMALLEST_VOCABULARY['wordpiece']} for wordpiece), at most "
        f"{LARGEST_VOCABULARY}; follows from the text for char and is "
        f"{len(SPECIALS) + 256} for byte, so it is not set there",
    )
    minimum_frequency: int | None = Field(
        default=None,
        description="how often a token must occur in the training text, at least 1; default 2, for char 1; "
        "not set for byte",
    )
    mask: bool | None = Field(
        default=None,
        description="whether there is a token that stands for a hidden one, which masked pretraining needs; it counts "
        "in `vocabulary`, and is one more for char and byte; derived: whether the objective is masked_token, or "
        "data.augment hides tokens",
    )


def check_options(options: TokenizerOptions) -> None:
    """Refuse options that no tokenizer can be trained with.

    Raises:
        GroundupError: E-TOKEN-001 with the field, its value and the legal range.
    """
    kind, vocabulary = options.kind, options.vocabulary
    learned = kind in SMALLEST_VOCABULARY
    if learned and vocabulary is None:
        raise _fault("vocabulary", None, kind, f"set a number of tokens, such as 4096 ({_legal(options)})")
    if not learned and vocabulary is not None:
        why = "it follows from the text" if kind == "char" else "there are always 256 bytes"
        raise _fault("vocabulary", vocabulary, kind, f"leave it out: {why}")
    if vocabulary is not None and not _smallest(options) <= vocabulary <= LARGEST_VOCABULARY:
        raise _fault("vocabulary", vocabulary, kind, f"legal range: {_legal(options)}")
    if options.minimum_frequency is not None and kind == "byte":
        raise _fault("minimum_frequency", options.minimum_frequency, kind, "leave it out: nothing is counted")
    if options.minimum_frequency is not None and options.minimum_frequency < 1:
        raise _fault("minimum_frequency", options.minimum_frequency, kind, "legal range: 1 and more")


def _smallest(options: TokenizerOptions) -> int:
    return SMALLEST_VOCABULARY[options.kind] + bool(options.mask)


def _legal(options: TokenizerOptions) -> str:
    return f"{_smallest(options)} to {LARGEST_VOCABULARY}"


def _fault(name: str, value: int | None, kind: str, fix: str) -> GroundupError:
    given = f"{value}" if value is not None else "missing"
    return GroundupError(
        code="E-TOKEN-001",
        what=f"{name} {given} does not fit a tokenizer of kind {kind}",
        where=f"tokenizer.{name}",
        why=f"{len(SPECIALS)} special tokens and all single bytes must have a place, so that any text can "
        "be encoded, and what is fixed by the kind cannot be set",
        fix=fix,
        exit_code=2,
    )
