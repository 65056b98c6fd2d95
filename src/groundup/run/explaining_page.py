"""The page of an explanation, with its pictures: the image as the model sees it, and what each pixel adds, in colour.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.data.files import write_atomic
from groundup.report.explanation import Picture, explanation_page
from groundup.run.explained import Explanation
from groundup.run.pictures import as_png

FOR, AGAINST = (255, 128, 32), (64, 144, 255)
"""Red, green and blue of what speaks for a label and against it: apart on black, on white, and for the colour-blind."""

LONGEST = 336
"""Pixels of the page that a picture's longer side takes at least half of."""

LOUDEST = 0.99
"""The share of pixels below full colour: a few outliers would leave all others grey."""

SAID = 3


def write_page(found: Explanation, place: Path) -> None:
    """Write the page. Raises E-DATA-012 if it cannot be written."""
    write_atomic(place, explanation_page(found.as_dict(), pictures(found)).encode())


class Drawn(NamedTuple):
    """A picture of an explanation: uint8, what stands below it, and what it shows in words."""

    image_CHW: NDArray[np.uint8]
    caption: str
    description: str


def pictures(found: Explanation) -> list[Picture]:
    """What `drawn` gives, as PNG files with their size on the page."""
    drawings = []
    for image_CHW, caption, description in drawn(found):
        _, height, width = image_CHW.shape
        factor = max(1, LONGEST // max(height, width))
        drawings.append(Picture(as_png(image_CHW), caption, description, width * factor, height * factor))
    return drawings


def drawn(found: Explanation) -> list[Drawn]:
    """Of an image the image itself and its heat map; of anything else none."""
    if found.image_CHW is None or found.heat_HW is None:
        return []
    _, height, width = found.image_CHW.shape
    top = sorted(found.parts, key=lambda part: -abs(part.amount))[:SAID]
    listed = "; ".join(f"{part.name} ({part.amount:+.3g})" for part in top)
    about = "the number" if found.label is None else f"the label {found.label}"
    return [
        Drawn(found.image_CHW, "as the model sees it", f"The image, {width} by {height} pixels"),
        Drawn(
            overlay(found.image_CHW, found.heat_HW),
            "what counts, in colour",
            f"The image with each pixel coloured by what it adds to {about}. What counts most: {listed}",
        ),
    ]


def overlay(image_CHW: NDArray[np.uint8], heat_HW: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The image in grey with the heat over it, uint8 (3, H, W): the stronger a pixel counts, the less grey is left."""
    grey_HW: Any = image_CHW.mean(axis=0) * 0.55 + 50  # softened, so that colour shows on black and on white
    size_HW = np.abs(heat_HW)
    some = size_HW[size_HW > 0]
    loud = float(np.quantile(some, LOUDEST)) if some.size else 1.0
    share_HW = np.minimum(size_HW / loud, 1.0) ** 0.75
    colour_HW3 = np.where(heat_HW[..., None] > 0, np.array(FOR), np.array(AGAINST))
    mixed_HW3 = grey_HW[..., None] * (1 - share_HW[..., None]) + colour_HW3 * share_HW[..., None]
    return np.ascontiguousarray(mixed_HW3.round().astype(np.uint8).transpose(2, 0, 1))
