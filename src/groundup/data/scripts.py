"""Which scripts a text is written in, for the data card: counted over letters, by blocks of code points."""

from __future__ import annotations

import string

import numpy as np

ASCII_LETTERS = string.ascii_letters.encode()
SAMPLE = 400
"""Characters from the beginning of each document that are looked at."""

BLOCKS = (
    (0x41, 0x5B, "Latin"),
    (0x61, 0x7B, "Latin"),
    (0xAA, 0x250, "Latin"),
    (0x370, 0x400, "Greek"),
    (0x400, 0x530, "Cyrillic"),
    (0x531, 0x590, "Armenian"),
    (0x591, 0x600, "Hebrew"),
    (0x600, 0x780, "Arabic"),
    (0x900, 0x980, "Devanagari"),
    (0x980, 0xE00, "other Indic"),
    (0xE01, 0xE80, "Thai"),
    (0x10A0, 0x1100, "Georgian"),
    (0x1100, 0x1200, "Hangul"),
    (0x1E00, 0x1F00, "Latin"),
    (0x1F00, 0x2000, "Greek"),
    (0x3041, 0x3100, "Kana"),
    (0x3400, 0x4DC0, "Han"),
    (0x4E00, 0xA000, "Han"),
    (0xAC00, 0xD7B0, "Hangul"),
    (0xF900, 0xFB00, "Han"),
    (0x20000, 0x40000, "Han"),
)
_EDGES = np.array([edge for first, last, _ in BLOCKS for edge in (first, last)], dtype=np.uint32)


def count_scripts(texts: list[str]) -> dict[str, int]:
    """Letters of each script in the first characters of each text."""
    plain: list[str] = []
    other: list[str] = []
    for text in texts:
        start = text[:SAMPLE]
        (plain if start.isascii() else other).append(start)
    encoded = "".join(plain).encode()
    result = {"Latin": len(encoded) - len(encoded.translate(None, ASCII_LETTERS))}
    codes = np.frombuffer("".join(other).encode("utf-32-le"), dtype="<u4")
    # Odd numbers of edges passed mean within a block: 2i + 1 is block i.
    counts = np.bincount(np.searchsorted(_EDGES, codes, side="right"), minlength=2 * len(BLOCKS) + 1)
    for number, (_, _, name) in enumerate(BLOCKS):
        result[name] = result.get(name, 0) + int(counts[2 * number + 1])
    return {name: count for name, count in result.items() if count}
