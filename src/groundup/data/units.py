"""Text as a sequence of hashed units, for comparing documents by the runs of units they share.

A unit is a word; in scripts that write no spaces (Chinese, Japanese, Thai …) it is a single character, and
so is each symbol. All of it is array arithmetic over code points, because a Python loop over words would cost
more than tokenization does. A unit's hash is a polynomial over its code points (Karp and Rabin 1987), taken
from prefix sums and then mixed; the numbers are the same on every machine.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

UNSPACED_RANGES = (
    (0x0E01, 0x0EFF),  # Thai, Lao
    (0x0F40, 0x0FBC),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17D3),  # Khmer
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),
    (0x20000, 0x3FFFF),
)
UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED_RANGES)

SPACE, WORD, CHARACTER, SYMBOL = 0, 1, 2, 3
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
BATCH_CHARACTERS = 1 << 20
RUN_BASE = np.uint64(0xD6E8FEB86659FD93)


class Units(NamedTuple):
    """The units of several texts one after another.

    Attributes:
        hashes: uint64, shape (units,).
        kinds: WORD, CHARACTER or SYMBOL, uint8, shape (units,).
        owner: the text that a unit belongs to, int64, shape (units,), ascending.
        texts: how many texts there were.
    """

    hashes: np.ndarray
    kinds: np.ndarray
    owner: np.ndarray
    texts: int

    def of_kind(self, *kinds: int) -> Units:
        """Only the units of these kinds, in order."""
        chosen = np.isin(self.kinds, kinds)
        return Units(self.hashes[chosen], self.kinds[chosen], self.owner[chosen], self.texts)

    def counts(self) -> np.ndarray:
        """Units of each text, int64, shape (texts,)."""
        return np.bincount(self.owner, minlength=self.texts)

    def runs(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The hashes of all runs of `length` units within a text, and the text that each belongs to."""
        last = self.hashes.size - length + 1
        if last <= 0:
            return self.hashes[:0], self.owner[:0]
        value = np.zeros(last, dtype=np.uint64)
        for start in range(length):
            value = value * RUN_BASE + self.hashes[start : start + last]
        within = self.owner[:last] == self.owner[length - 1 :]
        return mix(value[within]), self.owner[:last][within]


def mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@functools.cache
def _classes() -> np.ndarray:
    """What each code point below 2^16 is, and one more entry for each group of planes above."""
    classes = np.full(0x10000, SYMBOL, dtype=np.uint8)
    for code in range(0x10000):
        character = chr(code)
        if character.isalnum() or unicodedata.category(character)[0] == "M" or character == "_":
            classes[code] = WORD
        elif character.isspace():
            classes[code] = SPACE
    for first, last in UNSPACED_RANGES[:-1]:
        block = classes[first : last + 1]
        block[block == WORD] = CHARACTER
    return classes


@functools.lru_cache(maxsize=2)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    inverse = pow(BASE, -1, 1 << 64)
    ones = np.ones(1, dtype=np.uint64)
    powers = np.concatenate([ones, np.cumprod(np.full(count, BASE, dtype=np.uint64))])
    inverses = np.concatenate([ones, np.cumprod(np.full(count, inverse, dtype=np.uint64))])
    return powers, inverses


def units_of(texts: list[str]) -> Units:
    """Cut texts into units; upper and lower case are the same. Memory is about 40 bytes a character."""
    lowered = [text.lower() for text in texts]
    joined = "\n".join(lowered)
    if not joined:
        empty = np.zeros(0, dtype=np.int64)
        return Units(empty.astype(np.uint64), empty.astype(np.uint8), empty, len(texts))
    if joined.isascii():
        codes = np.frombuffer(joined.encode("ascii"), dtype=np.uint8)
        classes = _classes()[codes]
    else:
        codes = np.frombuffer(joined.encode("utf-32-le"), dtype="<u4")
        classes = _classes()[np.minimum(codes, 0xFFFF)]
        classes[codes > 0xFFFF] = SYMBOL
        classes[codes >= 0x20000] = CHARACTER
    word = classes == WORD
    alone = classes >= CHARACTER
    begins, ends = word.copy(), word.copy()
    begins[1:] &= ~word[:-1]
    ends[:-1] &= ~word[1:]
    starts = np.flatnonzero(begins | alone)
    stops = np.flatnonzero(ends | alone) + 1
    # A table for the next power of two is enough for every batch up to that size.
    powers, inverses = _powers(1 << int(codes.size).bit_length())
    prefix = np.zeros(codes.size + 1, dtype=np.uint64)
    np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * powers[: codes.size], out=prefix[1:])
    hashes = mix((prefix[stops] - prefix[starts]) * inverses[starts])
    limits = np.cumsum([len(text) + 1 for text in lowered])
    return Units(hashes, classes[starts], np.searchsorted(limits, starts, side="right"), len(texts))


def batches(texts: list[str]) -> Iterator[list[str]]:
    """Consecutive texts of about a million characters together, so that arrays over them stay small."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and characters + len(text) > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch
