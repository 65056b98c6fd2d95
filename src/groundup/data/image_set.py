"""A set of images made ready: found, decoded into one form, divided, measured, with a card whose numbers add up.

Pixels stay bytes here; the stream makes numbers of them for a model.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.data.chat_rows import SetAside
from groundup.data.image_arrays import Block
from groundup.data.image_augment import check_augment
from groundup.data.image_check import ImageRow, check_options, choose_form, find_faults, findings, shared_images, shown
from groundup.data.image_decode import Form, Pixels
from groundup.data.image_files import find_images
from groundup.data.image_load import Found, answers_of, load, look, measure
from groundup.data.image_options import ImageLimits, ImageOptions, Normalise, Resize
from groundup.data.labelled_check import Shared, label_counts
from groundup.data.labelled_options import Side
from groundup.data.labelled_rows import LabelledLedger
from groundup.data.labelled_set import sorted_labels
from groundup.data.labelled_split import divide
from groundup.data.set_faults import SHOWN, SIDES, refuse_contradictions
from groundup.errors import GroundupError, printable

Index = NDArray[np.int64]


class Preparation(NamedTuple):
    """What makes an image into what the model sees; kept beside the model, so that it sees the same ever after.

    Attributes:
        form: size, channels and how another size is changed.
        normalise: how bytes become numbers.
        mean, deviation: of each channel of the training part, from 0 to 1.
        labels: in the order of their numbers; empty if the task has none.
    """

    form: Form
    normalise: Normalise
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    labels: tuple[str, ...]

    def to_unit(self, images_NCHW: Pixels) -> Tensor:
        """Bytes to float32 from 0 to 1."""
        return torch.from_numpy(images_NCHW).to(torch.float32).div_(255.0)

    def to_model(self, unit_NCHW: Tensor) -> Tensor:
        """float32 from 0 to 1 to what the model sees."""
        if self.normalise == "none":
            return unit_NCHW * 255.0
        if self.normalise == "unit":
            return unit_NCHW
        mean = torch.tensor(self.mean, dtype=torch.float32)[:, None, None]
        # a channel of one single value stays at 0 instead of being divided by 0
        deviation = torch.tensor([one or 1.0 for one in self.deviation], dtype=torch.float32)[:, None, None]
        return (unit_NCHW - mean) / deviation

    def as_dict(self) -> dict[str, Any]:
        """JSON values; the inverse is `from_dict`."""
        return {
            "size": [self.form.height, self.form.width], "channels": self.form.channels, "resize": self.form.resize,
            "normalise": self.normalise, "mean": list(self.mean), "deviation": list(self.deviation),
            "labels": list(self.labels),
        }  # fmt: skip

    @staticmethod
    def from_dict(value: dict[str, Any]) -> Preparation:
        """The inverse of `as_dict`."""
        resize: Resize = value["resize"]
        form = Form(value["size"][0], value["size"][1], value["channels"], resize)
        mean, deviation, labels = (tuple(value[name]) for name in ("mean", "deviation", "labels"))
        return Preparation(form, value["normalise"], mean, deviation, labels)


@dataclass(frozen=True)
class ImagePart:
    """One side of a set: which images of the set it is, int64 (rows,), and all of them with all their answers.

    `images` is uint8 (N, C, H, W), possibly on disk. `answers` is int64 (N,) for labels, float32 (N,) for numbers, None
    without either.
    """

    images: Pixels
    index: Index
    answers: NDArray[Any] | None


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images ready for a stream.

    Attributes:
        images: of all sides, in the order they were found, uint8 (N, C, H, W); some may have been set aside since.
        rows: of those that are kept: their number among `images`, where each stands, its label and its side.
        answers: int64 (N,) numbers of labels, float32 (N,) numbers, or None.
        preparation: for the model folder.
        card: what was read and what became of it, to be stored beside the run.
        findings: what deserves a look, a sentence each, to be shown before training.
    """

    images: Pixels
    rows: list[ImageRow]
    answers: NDArray[Any] | None
    preparation: Preparation
    card: dict[str, Any]
    findings: list[str]

    def part(self, side: Side) -> ImagePart:
        """One side, its images in order."""
        index = np.array([row.number for row in self.rows if row.side == side], dtype=np.int64)
        return ImagePart(self.images, index, self.answers)


def read_images(options: ImageOptions, aside: list[SetAside], cache: Path | None = None) -> ImageSet:
    """Find, decode, divide, check and measure.

    Args:
        options: what to read.
        aside: takes every image that is set aside, also where this raises; it is what quarantine.jsonl holds.
        cache: a folder for the pixels where they are more than limits.memory_bytes; without it they stay in memory.

    Raises:
        GroundupError: the first of all faults of the set with the rest in `others`: E-DATA-003 too many broken
            images, -001 an empty set, -136 leaks, -102 labels unseen in training, -103 a single label; E-DATA-015 for
            options that contradict each other; -135 images of several sizes without data.size; -137 an image over
            the limit where that is refused; and what `find_images` raises.
    """
    check_options(options)
    ledger = LabelledLedger()
    found = _find(options, ledger, aside)
    _require_groups(found, options)
    headers, found = look(found, options.limits, ledger, aside)
    form = choose_form(options, headers, [item.name for item in found])
    if headers:
        check_augment(options.augment, form.channels, labels=options.task == "classify")
    images, rows = load(found, form, options, ledger, aside, cache)
    rows = _divide(rows, options, ledger, aside)
    leaks = shared_images(rows)
    if options.split.leaks == "drop":
        rows = _without_leaks(rows, leaks, ledger, aside)
    faults = find_faults(rows, options, ledger, aside, leaks)
    if faults:
        faults[0].others = faults[1:]
        raise faults[0]
    if ledger.rows != ledger.kept + sum(ledger.set_aside.values()) or ledger.kept != len(rows):
        raise AssertionError(f"images do not add up: {ledger.as_dict()}")
    labels = tuple(options.labels or sorted_labels({label for row in rows for label in row.labels}))
    mean, deviation = measure(images, np.array([row.number for row in rows if row.side == "train"]))
    said = findings(rows, options, ledger, aside, leaks if options.split.leaks == "allow" else [], deviation)
    said += [item.note for item in found if isinstance(item, Block) and item.note]
    preparation = Preparation(form, options.normalise, mean, deviation, labels)
    return ImageSet(
        images=images,
        rows=rows,
        answers=answers_of(rows, len(images), labels),
        preparation=preparation,
        card=_card(rows, options, ledger, leaks, preparation, said),
        findings=said,
    )


def _find(options: ImageOptions, ledger: LabelledLedger, aside: list[SetAside]) -> Found:
    files: dict[Side, list[str]] = {
        "train": options.files, "validation": options.validation_files, "test": options.test_files
    }  # fmt: skip
    found: Found = []
    for side in SIDES:
        for item in find_images(files[side], options, ledger, side=side, labelled=options.task != "none"):
            if isinstance(item, SetAside):
                aside.append(item)
            else:
                # files that were named for one side belong there, whatever their names say
                found.append(item if side == "train" else item._replace(side=side))
    return found


def _require_groups(found: Found, options: ImageOptions) -> None:
    """Refuse a grouped split of images that say no group: they would be divided one by one, in silence."""
    alone = [item for item in found if isinstance(item, Block) or not item.listed]
    if options.split_kind == "grouped" and alone:
        name = printable(alone[0].name)
        refuse_contradictions([f"data.split.kind is grouped, but {name} says no group: only lists of paths can"])


def _divide(
    rows: list[ImageRow], options: ImageOptions, ledger: LabelledLedger, aside: list[SetAside]
) -> list[ImageRow]:
    """The rows with their sides; a side that has files of its own takes nothing of the others. In a fold of a
    cross-validation images that say of themselves that they are for tests take no part."""
    own = {row.side for row in rows}
    test = 0.0 if options.test_files or "test" in own else options.split.test
    validation = 0.0 if options.validation_files or "validation" in own else options.split.validation
    pool = [row for row in rows if row.side == "train"]
    found = divide(pool, options.split, options.split_kind, ledger, aside, test=test, validation=validation)
    found += [row for row in rows if row.side == "validation"]
    for row in rows:
        if row.side == "test" and options.split.folds:
            aside.append(ledger.withdraw(row, "a cross-validation leaves the test set out"))
        elif row.side == "test":
            found.append(row)
    return sorted(found, key=lambda row: row.number)


def _without_leaks(
    rows: list[ImageRow], leaks: list[Shared], ledger: LabelledLedger, aside: list[SetAside]
) -> list[ImageRow]:
    """The measured sets stay whole, and what they share with training or validation leaves those."""
    for leak in leaks:
        aside.append(ledger.withdraw(leak.row, f"it also stands in the {leak.like.side} set"))
    gone = {id(leak.row) for leak in leaks}
    return [row for row in rows if id(row) not in gone]


def _card(
    rows: list[ImageRow],
    options: ImageOptions,
    ledger: LabelledLedger,
    leaks: list[Shared],
    preparation: Preparation,
    said: list[str],
) -> dict[str, Any]:
    counts = ledger.as_dict()
    counts["images"] = counts.pop("rows")
    del counts["files"]
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.key + f"\0{row.side}\0{row.answer}\0".encode("utf-8", "surrogatepass"))
    return {
        "task": options.task,
        "images": counts,
        "sides": {side: sum(row.side == side for row in rows) for side in SIDES},
        "labels": dict(sorted(label_counts(rows).items())),
        "split": {"kind": options.split_kind, "seed": options.split.seed},
        "preparation": preparation.as_dict(),
        "leaks": {
            "policy": options.split.leaks,
            "count": len(leaks),
            "examples": [shown(one) for one in leaks[:SHOWN]],
        },
        "findings": said,
        "sha256": digest.hexdigest(),
    }


def read_unlabelled(
    files: Sequence[str], preparation: Preparation, limits: ImageLimits, aside: list[SetAside]
) -> tuple[Pixels, list[str]]:
    """Images to predict, in the form that the model was trained on, uint8 (N, C, H, W), and where each stands.

    Raises:
        GroundupError: E-DATA-001 if there is none; what `find_images` raises.
    """
    form = preparation.form
    options = ImageOptions(files=list(files), task="none", limits=limits, size=[form.height, form.width])
    ledger = LabelledLedger()
    found = _find(options, ledger, aside)
    _, found = look(found, limits, ledger, aside)
    images, rows = load(found, form, options, ledger, aside, None)
    if not rows:
        raise GroundupError(
            "E-DATA-001",
            f"no image is left to predict: {ledger.rows:,} came in, all were set aside",
            where="\n".join(f"{printable(item.file)}: {printable(item.reason)}" for item in aside[:SHOWN])
            or printable(", ".join(files)),
            why="a prediction needs an image that can be decoded",
            fix="mend or convert the files, or name others",
        )
    return images[[row.number for row in rows]], [row.place for row in rows]
