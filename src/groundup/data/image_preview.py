"""A picture of training images before and after their random changes, to be looked at before a run.

Only drawing is done here; what is drawn comes from the stream.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.contract import Batch
from groundup.data.files import write_atomic
from groundup.data.image_decode import import_pillow
from groundup.data.image_operations import AugmentOptions
from groundup.data.image_set import ImageSet, Preparation
from groundup.data.image_stream import collate
from groundup.errors import printable

SMALLEST, LARGEST = 64, 256
"""Pixels of the longer side of an image on the sheet; smaller ones are enlarged by a whole factor."""
GAP, CAPTION = 4, 14


def preview(images: ImageSet, augment: AugmentOptions, path: Path, *, number: int = 16, seed: int = 0) -> None:
    """Write a contact sheet of training images: above as they are, in the middle changed, below their labels.

    Args:
        images: a set with a training part.
        augment: the changes; without operations each image is shown once.
        path: the PNG.
        number: how many images, drawn with `seed`.

    Raises:
        GroundupError: E-DATA-014 without pillow, E-DATA-012 if the file cannot be written.
    """
    part, preparation = images.part("train"), images.preparation._replace(normalise="unit")
    chosen = np.random.default_rng(seed).permutation(len(part.index))[:number]
    before = collate(part, preparation, chosen)
    after = collate(part, preparation, chosen, augment, (seed, 0, 1))
    captions = [_caption(after, row, preparation) for row in range(len(chosen))]
    contact_sheet(path, before["image_BCHW"], after["image_BCHW"] if augment.operations else None, captions)


def _caption(batch: Batch, row: int, preparation: Preparation) -> str:
    if "value_B" in batch:
        return f"{float(batch['value_B'][row]):.4g}"
    if "label_B" not in batch:
        return ""
    label = preparation.labels[int(batch["label_B"][row])]
    if "share_B" not in batch:
        return label
    other, share = preparation.labels[int(batch["other_label_B"][row])], float(batch["share_B"][row])
    return f"{label} {share:.0%} {other} {1 - share:.0%}"


def contact_sheet(
    path: Path, before_BCHW: Tensor, after_BCHW: Tensor | None, captions: Sequence[str], *, columns: int = 8
) -> None:
    """Write images side by side as a PNG.

    Args:
        path: replaced whole or not at all.
        before_BCHW, after_BCHW: float32, 0 to 1, one or three channels; `after_BCHW` is drawn below `before_BCHW`.
        captions: a text for each image, cut to its width; what the built-in font lacks is spelled as an escape.
        columns: images in a row.

    Raises:
        GroundupError: E-DATA-014 without pillow, E-DATA-012 if the file cannot be written.
    """
    pillow = import_pillow(str(path))
    import PIL.ImageDraw
    import PIL.ImageFont

    height, width = before_BCHW.shape[-2:]
    factor = max(1, SMALLEST // max(height, width)) if max(height, width) <= LARGEST else LARGEST / max(height, width)
    high, wide = max(1, round(height * factor)), max(1, round(width * factor))
    layers = [before_BCHW] if after_BCHW is None else [before_BCHW, after_BCHW]
    cell_high, cell_wide = (high + GAP) * len(layers) + CAPTION + GAP, max(wide, SMALLEST) + GAP
    columns = max(1, min(columns, len(before_BCHW)))
    lines = -(-len(before_BCHW) // columns)
    sheet = pillow.Image.new("RGB", (columns * cell_wide + GAP, lines * cell_high + GAP), "white")
    draw, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default()
    for number, caption in enumerate(captions):
        x = GAP + number % columns * cell_wide
        y = GAP + number // columns * cell_high
        for layer in layers:
            sheet.paste(_drawn(layer[number], (wide, high), pillow), (x, y))
            y += high + GAP
        draw.text((x, y), _fitting(caption, font, cell_wide - GAP), fill="black", font=font)
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    write_atomic(path, content.getvalue())


def _drawn(image_CHW: Tensor, size: tuple[int, int], pillow: Any) -> Any:
    values = (image_CHW.clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).numpy()
    image = pillow.Image.fromarray(np.ascontiguousarray(values), "RGB")
    # enlarged pixels stay visible as squares
    sampling = pillow.Image.Resampling.NEAREST if size[0] >= image.width else pillow.Image.Resampling.BOX
    return image.resize(size, sampling)


def _fitting(caption: str, font: Any, width: int) -> str:
    """As much of a caption as has room, in letters that every font has."""
    text = printable(caption).encode("ascii", "backslashreplace").decode("ascii")
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
