"""Writing PNG images with the standard library alone. Nothing about a run or a page is known here."""

from __future__ import annotations

import struct
import zlib

COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels to the colour type of the format: grey, grey and opacity, RGB, RGB and opacity."""


def png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    """A PNG file (ISO/IEC 15948) of rows of bytes, top to bottom; every call with the same pixels gives the same file.

    Raises:
        ValueError: the pixels are not width x height x channels bytes, or there is no such number of channels.
    """
    if channels not in COLOUR_TYPE or min(width, height) < 1 or len(pixels) != width * height * channels:
        raise ValueError(f"{len(pixels)} bytes are no image of {width} x {height} pixels of {channels} channels")
    line = width * channels
    filtered = b"".join(b"\0" + pixels[at : at + line] for at in range(0, len(pixels), line))  # 0: rows as they are
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPE[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
