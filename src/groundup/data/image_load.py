"""Files and arrays of images made into one array of bytes, each image with its row; what is broken is set aside.

Dividing and judging the set as a whole is done elsewhere.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.data.chat_layout import RowFault
from groundup.data.chat_rows import SetAside
from groundup.data.files import cannot_write, check_free_space
from groundup.data.image_arrays import Block
from groundup.data.image_check import ImageRow
from groundup.data.image_decode import Form, Header, ImageFault, Pixels, decode, read_header, shape_images
from groundup.data.image_files import Picture
from groundup.data.image_options import ImageLimits, ImageOptions
from groundup.data.labelled_rows import LabelledLedger, _label, _number
from groundup.errors import GroundupError, printable

CHUNK_BYTES = 1 << 24
"""Bytes of pixels that are resized or counted at a time."""

Found = list[Picture | Block]


def look(
    found: Found, limits: ImageLimits, ledger: LabelledLedger, aside: list[SetAside]
) -> tuple[list[Header], Found]:
    """The size of everything, without decoding, and what is left once what cannot be read is set aside.

    Raises:
        GroundupError: E-DATA-137 an image over the limit, where that is refused or stands in an array.
    """
    headers: list[Header] = []
    kept: Found = []
    for item in found:
        if isinstance(item, Block):
            count, channels, height, width = item.images.shape
            if height * width > limits.max_pixels:
                raise _too_large(item.name, f"{height:,} × {width:,} pixels, limit {limits.max_pixels:,}")
            ledger.rows += count
            header = Header(height, width, channels)
        else:
            ledger.rows += 1
            try:
                header = read_header(item.path, limits.max_pixels)
            except ImageFault as fault:
                _reject(item, fault, limits, ledger, aside)
                continue
        headers.append(header)
        kept.append(item)
    return headers, kept


def load(
    found: Found,
    form: Form,
    options: ImageOptions,
    ledger: LabelledLedger,
    aside: list[SetAside],
    cache: Path | None,
) -> tuple[Pixels, list[ImageRow]]:
    """Every image in the form, uint8 (N, C, H, W), and a row for each that is kept.

    Raises:
        GroundupError: E-DATA-012 if the cache cannot be written.
    """
    total = sum(len(item.images) if isinstance(item, Block) else 1 for item in found)
    images = _room((total, form.channels, form.height, form.width), options.limits.memory_bytes, cache)
    rows: list[ImageRow] = []
    at = 0
    for item in found:
        try:
            if isinstance(item, Block):
                _load_block(item, images[at : at + len(item.images)], form)
            else:
                pixels = decode(item.path, options.limits.max_pixels)
                if options.size is None and pixels.shape[1:] != (form.height, form.width):
                    raise ImageFault(f"another size than its header says: {pixels.shape[1]} × {pixels.shape[2]}")
                images[at] = shape_images(pixels[None], form)[0]
        except ImageFault as fault:
            if not isinstance(item, Picture):
                raise
            _reject(item, fault, options.limits, ledger, aside)
            continue
        for line, label in _labels(item):
            key = hashlib.blake2b(images[at], digest_size=16).digest()
            group = item.group if isinstance(item, Picture) else ""
            try:
                named, value = _answer(label, options)
            except RowFault as fault:
                aside.append(SetAside(item.name, line, fault.reason, "label", fault.malformed, {"label": label}))
                ledger.reject(aside[-1])
            else:
                rows.append(
                    ImageRow(
                        text="", key=key, file=item.name, line=line, side=item.side or "train", labels=named,
                        value=value, group=group, number=at,
                    )
                )  # fmt: skip
                ledger.kept += 1
            at += 1
    return images[:at], rows


def _load_block(block: Block, into: Pixels, form: Form) -> None:
    step = max(1, CHUNK_BYTES // math.prod(block.images.shape[1:]))
    for start in range(0, len(block.images), step):
        into[start : start + step] = shape_images(block.images[start : start + step], form)


def _labels(item: Picture | Block) -> Sequence[tuple[int, Any]]:
    """The number of each image in its file, from 1 (0 for a file that is one image), and its label."""
    if isinstance(item, Picture):
        return [(0, item.label)]
    if item.answers is None:
        return [(number, None) for number in range(1, len(item.images) + 1)]
    return list(enumerate(item.answers.tolist(), start=1))


def _answer(label: Any, options: ImageOptions) -> tuple[tuple[str, ...], float | None]:
    """The label, or the number that it spells."""
    if label is None:
        return (), None
    if options.task == "regress":
        return (), _number(label, "label")
    label = _label(label, "label")
    if options.labels is not None and label not in options.labels:
        raise RowFault(f"the label is not in data.labels: {printable(label, 60)}", "label")
    return (label,), None


def _reject(
    item: Picture, fault: ImageFault, limits: ImageLimits, ledger: LabelledLedger, aside: list[SetAside]
) -> None:
    if fault.too_large and limits.over_limit == "refuse":
        raise _too_large(item.name, fault.reason)
    record = {"label": item.label, "side": item.side, "listed": item.listed}
    aside.append(SetAside(item.name, 0, fault.reason, "", not fault.too_large, record))
    ledger.reject(aside[-1])


def _too_large(name: str, what: str) -> GroundupError:
    return GroundupError(
        "E-DATA-137",
        f"an image is too large: {printable(what)}",
        where=printable(name),
        why="a small file can claim more pixels than the machine has memory for",
        fix="make it smaller, or raise data.limits.max_pixels if you trust it\n"
        "or go on without such files: data.limits.over_limit=set_aside",
    )


def _room(shape: tuple[int, ...], memory_bytes: int, cache: Path | None) -> Pixels:
    """Zeros in memory, or in a file without a name that vanishes with the process."""
    size = math.prod(shape)
    if cache is None or size <= memory_bytes:
        return np.zeros(shape, dtype=np.uint8)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        check_free_space(cache, size)
        with tempfile.TemporaryFile(dir=cache) as file:
            # written, not left as a hole: a disk that fills up later would kill the process without a word
            for start in range(0, size, CHUNK_BYTES):
                file.write(bytes(min(CHUNK_BYTES, size - start)))
            file.flush()
            return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
    except OSError as error:
        raise cannot_write(cache, error) from error


def measure(images_NCHW: Pixels, index: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over the pixels of some images, from 0 to 1. Values are counted,
    not summed, so that neither order nor number of images costs a digit."""
    channels = images_NCHW.shape[1]
    count = np.zeros((channels, 256), dtype=np.int64)
    step = max(1, CHUNK_BYTES // max(1, math.prod(images_NCHW.shape[1:])))
    for start in range(0, len(index), step):
        chosen = images_NCHW[index[start : start + step]]
        for channel in range(channels):
            count[channel] += np.bincount(chosen[:, channel].ravel(), minlength=256)
    value = np.arange(256) / 255.0
    pixels = max(1, int(count[0].sum()))
    mean = (count * value).sum(axis=1) / pixels
    variance = (count * (value - mean[:, None]) ** 2).sum(axis=1) / pixels
    return tuple(map(float, mean)), tuple(map(float, np.sqrt(variance)))


def answers_of(rows: Sequence[ImageRow], total: int, labels: Sequence[str]) -> NDArray[Any] | None:
    """The answer of each image by its number, int64 (labels) or float32 (numbers), None without; 0
    for an image that was set aside."""
    if not rows or not (rows[0].labels or rows[0].value is not None):
        return None
    place = [row.number for row in rows]
    if rows[0].labels:
        number = {label: index for index, label in enumerate(labels)}
        answers: NDArray[Any] = np.zeros(total, dtype=np.int64)
        answers[place] = [number[row.labels[0]] for row in rows]
        return answers
    answers = np.zeros(total, dtype=np.float32)
    answers[place] = [row.value for row in rows]
    return answers
