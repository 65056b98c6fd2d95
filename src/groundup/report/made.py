"""The part of the page that shows the images that a network made, side by side in one picture.

Pixels come from `made_images` of results.json: {shape: [N, H, W, C], bytes: hexadecimal}. What does not fit its
own shape is not drawn.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass

from groundup.report.collect import RunRecord
from groundup.report.markup import Markup, tag
from groundup.report.png import png
from groundup.report.reading import mapping, text_of

MOST_BYTES = 16 << 20
GAP = 2
"""Transparent pixels between two images."""
SMALLEST_SIDE, WIDEST = 56, 1032
"""Pixels of the page: an image is shown at least so wide, all of them together at most."""


@dataclass(frozen=True)
class Images:
    """Equally large images: N x H x W x C bytes, one channel (grey) or three (RGB)."""

    count: int
    height: int
    width: int
    channels: int
    pixels: bytes


def made_images(record: RunRecord) -> Markup:
    """The contact sheet; empty when results.json holds no images."""
    images = images_of(record.results.get("made_images"))
    if images is None:
        return Markup("")
    columns = columns_for(images)
    data, width, height = contact_sheet(images, columns)
    shown = max(1, min(-(-SMALLEST_SIDE // images.width), WIDEST // width))  # whole pixels stay sharp
    size = f"{images.width} × {images.height} pixels, {'grey' if images.channels == 1 else 'in colour'}"
    restored = text_of(record.model.get("family")) == "autoencoder"
    how = "The first held-out images, as the network restores them" if restored else "Drawn from the seed of the run"
    return tag(
        "figure",
        tag("figcaption", tag("strong", f"{images.count:,} images"), " ", tag("span", size, class_="quiet")),
        tag(
            "img",
            src="data:image/png;base64," + base64.b64encode(data).decode("ascii"),
            alt=f"{images.count} images made by the network, in {columns} columns",
            width=width * shown,
            height=height * shown,
            class_="sheet",
        ),
        tag("p", f"{how}; none was picked out.", class_="quiet small"),
        class_="made",
    )


def images_of(value: object) -> Images | None:
    """The images of results.json, None if their bytes are not what their shape says."""
    found = mapping(value)
    shape, text = found.get("shape"), found.get("bytes")
    if not (isinstance(shape, list) and len(shape) == 4 and isinstance(text, str)):
        return None
    if not all(type(size) is int and 0 < size <= MOST_BYTES for size in shape) or shape[3] not in (1, 3):
        return None
    if math.prod(shape) > MOST_BYTES or len(text) != 2 * math.prod(shape):
        return None
    try:
        count, height, width, channels = shape
        return Images(count, height, width, channels, bytes.fromhex(text))
    except ValueError:
        return None


def columns_for(images: Images) -> int:
    """How many images stand in a row: a sheet about as wide as high or wider, and no wider than the page."""
    fitting = max(1, (WIDEST + GAP) // (images.width + GAP))
    return min(images.count, fitting, max(8, math.ceil(math.sqrt(images.count))))


def contact_sheet(images: Images, columns: int) -> tuple[bytes, int, int]:
    """A PNG of all images in rows of `columns`, transparent between them, and its width and height in pixels."""
    rows = -(-images.count // columns)
    width, height = columns * (images.width + GAP) - GAP, rows * (images.height + GAP) - GAP
    deep = images.channels + 1
    sheet = bytearray(width * height * deep)
    line = images.width * images.channels
    for number in range(images.count):
        row, column = divmod(number, columns)
        for y in range(images.height):
            at = (number * images.height + y) * line
            strip = bytearray(b"\xff") * (images.width * deep)
            for channel in range(images.channels):
                strip[channel::deep] = images.pixels[at + channel : at + line : images.channels]
            start = ((row * (images.height + GAP) + y) * width + column * (images.width + GAP)) * deep
            sheet[start : start + len(strip)] = strip
    return png(bytes(sheet), width, height, deep), width, height
