"""Images as PNG files: one sheet of many, a file for each, or small ones for results.json. Pillow is not needed.

Shapes: N images, C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from groundup.data.files import write_atomic
from groundup.errors import GroundupError, printable
from groundup.report.png import png

Pixels = NDArray[np.uint8]

SMALLEST, GAP = 64, 2
"""Pixels of the longer side of an image on a sheet, to which smaller ones are enlarged by a whole factor; and between
images."""

MOST_CHARACTERS = 200_000
"""Of all pictures that stand in one results.json together, as base64."""
SIDES = (240, 192, 160, 128, 96, 64, 48)
"""Pixels of the longer side of a picture there: the first with which all are within MOST_CHARACTERS. Twelve of the last
are, whatever they show."""


def as_png(image_CHW: Pixels) -> bytes:
    """One image as a PNG file."""
    channels, height, width = image_CHW.shape
    return png(image_CHW.transpose(1, 2, 0).tobytes(), width, height, channels)


def sheet(images_NCHW: Pixels) -> Pixels:
    """All images on one, (C, H, W), in a grid that is about square."""
    factor = max(1, SMALLEST // max(images_NCHW.shape[2:]))
    images = images_NCHW.repeat(factor, axis=2).repeat(factor, axis=3)
    number, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(number))
    lines = -(-number // columns)
    whole = np.full((channels, lines * (height + GAP) + GAP, columns * (width + GAP) + GAP), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = GAP + index // columns * (height + GAP), GAP + index % columns * (width + GAP)
        whole[:, top : top + height, left : left + width] = image
    return whole


def write_images(images_NCHW: Pixels, out: str | Path) -> list[Path]:
    """Write a sheet (FILE.png) or a file for each image (a folder that is new or empty).

    Raises:
        GroundupError: E-GEN-033 a file of another kind, or a folder that holds something; E-DATA-012 if it cannot be
            written.
    """
    place = require_place(out)
    if place.suffix.lower() == ".png":
        write_atomic(place, as_png(sheet(images_NCHW)))
        return [place]
    digits = max(4, len(str(len(images_NCHW))))
    paths = [place / f"{number:0{digits}}.png" for number in range(1, len(images_NCHW) + 1)]
    for path, image in zip(paths, images_NCHW, strict=True):
        write_atomic(path, as_png(image))
    return paths


def require_place(out: str | Path) -> Path:
    """Where images may be written, before any is drawn. Raises E-GEN-033."""
    path = Path(out).expanduser()
    problem = ""
    if path.suffix and path.suffix.lower() != ".png" and not path.is_dir():
        problem, why = f"a file of kind {printable(path.suffix)} is not written", "images are written as PNG alone"
    elif path.suffix.lower() != ".png" and path.exists() and not path.is_dir():
        problem, why = "it is a file", "a folder is needed for one file an image"
    elif path.is_dir() and any(path.iterdir()):
        problem, why = "the folder is not empty", "images of another draw would stand among these"
    if problem:
        raise GroundupError(
            "E-GEN-033",
            f"images cannot be written there: {problem}",
            where=printable(str(out)),
            why=why,
            fix="--out images.png   (one sheet of all)\n--out images   (a new folder, one file an image)",
            exit_code=2,
        )
    return path


def require_sheet(out: str | Path) -> Path:
    """The place of one PNG file. Raises E-GEN-033."""
    path = require_place(out)
    if path.suffix.lower() == ".png" and not path.is_dir():
        return path
    raise GroundupError(
        "E-GEN-033",
        "a sheet of images is one PNG file",
        where=printable(str(out)),
        why="there is one picture to write, and its name does not end in .png",
        fix="--out images.png",
        exit_code=2,
    )


def described(paths: list[Path], images_NCHW: Pixels) -> dict[str, Any]:
    """What was written, for --json."""
    channels, height, width = images_NCHW.shape[1:]
    size = {"images": len(images_NCHW), "channels": channels, "height": height, "width": width}
    return size | {"files": [str(path) for path in paths]}


def bounded(pictures: list[Pixels]) -> list[str]:
    """Pictures as base64 of PNG files, as large as MOST_CHARACTERS let them be."""
    texts: list[str] = []
    for side in SIDES:
        small = [shrunk(picture, side) for picture in pictures]
        files = [png(one.tobytes(), one.shape[1], one.shape[0], 3) for one in small]
        texts = [base64.b64encode(file).decode("ascii") for file in files]
        if sum(map(len, texts)) <= MOST_CHARACTERS:
            break
    return texts


def shrunk(picture_HW3: Pixels, side: int) -> Pixels:
    """A picture whose longer side is `side` at most, each pixel the mean of those it stands for."""
    height, width = picture_HW3.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return picture_HW3
    size = [max(1, round(length * side / longest)) for length in (height, width)]
    pixels = torch.from_numpy(picture_HW3).permute(2, 0, 1)[None].float()
    small: Pixels = F.interpolate(pixels, size, mode="area")[0].permute(1, 2, 0).round().byte().numpy()
    return small
