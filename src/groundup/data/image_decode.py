"""One image file made into numbers, or set aside with a reason: whatever its bytes are, nothing else comes of it.

The header is read before anything is decoded. Formats that run programs (EPS) or are no pixels (PDF) are not among
those that are opened. What the image is for does not enter here.

Shapes: H height, W width, C channels (1 grey, 3 red, green and blue).
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from groundup.data.image_options import Resize
from groundup.errors import GroundupError, printable

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm",
)  # fmt: skip
LARGEST_FILE = 1 << 29
"""Bytes of one image file; some formats are read whole before their header is known."""

ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""

# What pillow raises on bytes that are no image, or not the whole of one; which of them differs between its formats.
DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError, AssertionError,
    RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip

Pixels = NDArray[np.uint8]
"""Values 0 to 255, (C, H, W) or (N, C, H, W)."""


class ImageFault(Exception):
    """Why an image is set aside. What follows a colon is about this image alone."""

    def __init__(self, reason: str, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.too_large = reason, too_large


class Header(NamedTuple):
    """What a file says of its image before it is decoded, its EXIF orientation applied."""

    height: int
    width: int
    channels: int


class Form(NamedTuple):
    """What every image of a set is made into."""

    height: int
    width: int
    channels: int
    resize: Resize


def import_pillow(where: str) -> ModuleType:
    """pillow with its reader of images, or the error that says how to install it."""
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise GroundupError(
            "E-DATA-014",
            "reading and writing image files needs pillow, which is not installed",
            where=printable(where),
            why="most of what groundup does needs no images, so it is an optional extra",
            fix='pip install "groundup[vision]"',
        ) from error
    return PIL


def read_header(path: Path, max_pixels: int) -> Header:
    """What a file says of its image; no pixel is decoded.

    Raises:
        ImageFault: it is missing, no image, too large, or holds several images.
        GroundupError: E-DATA-014 without pillow.
    """
    with _opened(path, max_pixels) as image:
        # of a TIFF pillow may have turned the size already, and the tags have it as it is stored
        width, height = (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size
        # of a PNG the tag may stand behind the pixels, and asking for it would decode them
        known = image.format != "PNG" or {"exif", "Raw profile type exif"} & set(image.info)
        if known and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8):
            width, height = height, width
        return Header(height, width, 1 if _is_grey(image.mode) else 3)


def decode(path: Path, max_pixels: int) -> Pixels:
    """The pixels of a file as it is meant to be seen, (C, H, W): turned as its EXIF orientation says, transparent parts
    on white, 16 bits made 8, CMYK and palettes made red, green and blue.

    Raises:
        ImageFault, GroundupError: as `read_header`; and where the pixels are damaged or cut short.
    """
    with _opened(path, max_pixels) as image:
        pillow = import_pillow(str(path))
        # before the turn, which forgets the format
        sixteen = image.format in ("PNG", "PPM")
        image.load()
        return _pixels(pillow.ImageOps.exif_transpose(image), pillow, sixteen)


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Any]:
    """A file opened as an image, its limits checked; every fault of its bytes becomes an ImageFault."""
    pillow = import_pillow(str(path))
    with warnings.catch_warnings():
        # pillow warns of sizes below its own limit, and of odd metadata; both are judged here
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if not size or size > LARGEST_FILE:
                    raise ImageFault("the file is empty" if not size else f"the file is too large: {size:,} bytes")
                file.seek(0)
                with pillow.Image.open(file, formats=FORMATS) as image:
                    _check(image, max_pixels)
                    yield image
        except pillow.Image.DecompressionBombError as error:
            reason = f"too many pixels: more than pillow opens, limit {max_pixels:,}"
            raise ImageFault(reason, too_large=True) from error
        except pillow.UnidentifiedImageError as error:
            raise ImageFault(f"no image of a known kind ({', '.join(FORMATS)})") from error
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise ImageFault(f"the file cannot be opened: {error.strerror}") from error
        except DAMAGE as error:
            raise ImageFault(f"damaged: {printable(str(error) or type(error).__name__, 100)}") from error


def _check(image: Any, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageFault(
            f"too many pixels: {height:,} × {width:,} = {height * width:,}, limit {max_pixels:,}", too_large=True
        )
    if image.format == "MPO":
        return  # a photograph with a preview or a second view behind it
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
    else:
        raise ImageFault("several images in one file, such as an animation")


def _is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;16")


def _pixels(image: Any, pillow: ModuleType, sixteen: bool) -> Pixels:
    """`sixteen`: whether whole numbers of 32 bits, in this format, only ever hold 16."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and sixteen):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageFault(f"values outside 16 bits: {values.min():,} to {values.max():,}")
        return ((values + 128) // 257).astype(np.uint8)[None]
    if mode in ("I", "F"):
        raise ImageFault(f"pixels of 32 bits, whose range is not known: mode {mode}")
    kept = "L" if _is_grey(mode) else "RGB"
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        image = pillow.Image.alpha_composite(pillow.Image.new("RGBA", clear.size, "white"), clear)
    array = np.array(image.convert(kept))
    return array[None] if kept == "L" else np.ascontiguousarray(array.transpose(2, 0, 1))


def shape_images(images_NCHW: Pixels, form: Form) -> Pixels:
    """Images of one size made into the form, (N, C, H, W); the same array where nothing has to change."""
    height, width = images_NCHW.shape[-2:]
    if images_NCHW.shape[1] != form.channels:
        images_NCHW = _with_channels(images_NCHW, form.channels)
    if (height, width) == (form.height, form.width):
        return images_NCHW
    ratios = (form.height / height, form.width / width)
    factor = {"fit": min(ratios), "crop": max(ratios)}.get(form.resize)
    if factor is None:
        return _resampled(images_NCHW, form.height, form.width)
    if form.resize == "fit":
        inner = [max(1, min(form.height, round(height * factor))), max(1, min(form.width, round(width * factor)))]
        result = np.zeros((*images_NCHW.shape[:2], form.height, form.width), dtype=np.uint8)
        top, left = (form.height - inner[0]) // 2, (form.width - inner[1]) // 2
        result[..., top : top + inner[0], left : left + inner[1]] = _resampled(images_NCHW, inner[0], inner[1])
        return result
    # the part that is kept is cut out first: what is cut off may be far larger than the result
    high = max(1, min(height, round(form.height / factor)))
    wide = max(1, min(width, round(form.width / factor)))
    top, left = (height - high) // 2, (width - wide) // 2
    return _resampled(images_NCHW[..., top : top + high, left : left + wide], form.height, form.width)


def _resampled(images_NCHW: Pixels, height: int, width: int) -> Pixels:
    """Bilinear, with as much blur as keeps fine patterns from turning into coarse ones."""
    if images_NCHW.shape[-2:] == (height, width):
        return images_NCHW
    images = torch.from_numpy(np.ascontiguousarray(images_NCHW))
    small = F.interpolate(images.float(), (height, width), mode="bilinear", align_corners=False, antialias=True)
    return small.round_().clamp_(0, 255).to(torch.uint8).numpy()


def _with_channels(images_NCHW: Pixels, channels: int) -> Pixels:
    """Grey repeated, or the brightness of red, green and blue (BT.601, as pillow rounds it)."""
    if channels == 3:
        return np.repeat(images_NCHW, 3, axis=1)
    red, green, blue = (images_NCHW[:, channel].astype(np.uint32) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)[:, None]
