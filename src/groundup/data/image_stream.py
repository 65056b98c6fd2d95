"""The stream that feeds a model of images: bytes made into numbers, training images changed at random on the way.

Which images batch number n of an epoch holds, and how each is changed, is a function of (seed, epoch, n) alone, so
the state is two integers and the ledger. No file is read here.

Shapes: B rows, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contract import Batch
from groundup.data.image_augment import augment, check_augment
from groundup.data.image_operations import AugmentOptions
from groundup.data.image_set import ImagePart, Preparation
from groundup.data.labelled_stream import _balanced
from groundup.errors import GroundupError


class ImageStream:
    """Batches of `rows` images, for ever; implements contract.Source.

    Each image is in exactly one batch of an epoch, and the last batch may be smaller. `balanced` instead draws each
    label equally often: an epoch has as many draws as there are images.

    A batch has `image_BCHW` float32, `row_B` int64 (which image of its part) and the answer, if the part has answers:
    `label_B` int64 or `value_B` float32. Where images are mixed, also `other_label_B` int64 and `share_B` float32: the
    share of `label_B`.

    Args:
        part: of an image set.
        preparation: of the same set.
        rows: rows in a batch.
        seed: of the order and of the changes.
        balanced: labels alone.
        augment: the changes; none without it.

    Attributes:
        epoch, batch: what comes next.
        ledger: rows so far; `seen` = `trained` + `masked` + `padded`, the last two always 0.

    Raises:
        GroundupError: E-DATA-001 without images; E-DATA-015 if `balanced` or `augment` does not fit them.
    """

    def __init__(
        self,
        part: ImagePart,
        preparation: Preparation,
        *,
        rows: int,
        seed: int,
        balanced: bool = False,
        augment: AugmentOptions | None = None,
    ) -> None:
        self.part, self.preparation, self.rows, self.seed = part, preparation, rows, seed
        self.augment = augment if augment is not None and augment.operations else None
        labels = part.answers is not None and part.answers.dtype == np.int64
        _check(part, labels, balanced)
        if self.augment is not None:
            check_augment(self.augment, preparation.form.channels, labels=labels)
        self._class = part.answers[part.index] if balanced and part.answers is not None else None
        self.epoch = self.batch = 0
        self.ledger = {"seen": 0, "trained": 0, "masked": 0, "padded": 0}
        self._planned: int | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch; the same in each."""
        return -(-len(self.part.index) // self.rows)

    def next(self, turn: str) -> Batch:
        """The next batch; the epochs follow each other without end."""
        if self.batch >= self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
        batch = self.make(self.epoch, self.batch)
        self.batch += 1
        self.ledger["seen"] += len(batch["row_B"])
        self.ledger["trained"] += len(batch["row_B"])
        return batch

    def make(self, epoch: int, number: int) -> Batch:
        """Batch `number` of an epoch, wherever the stream stands."""
        chosen = self._order(epoch)[number * self.rows : (number + 1) * self.rows]
        # one more than the number of the batch: a trailing 0 would give the generator of the order
        return collate(self.part, self.preparation, chosen, self.augment, (self.seed, epoch, number + 1))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._planned != epoch:
            random = np.random.default_rng([self.seed, epoch])
            size = len(self.part.index)
            self._plan = random.permutation(size) if self._class is None else _balanced(self._class, random)
            self._planned = epoch
        return self._plan

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, and the ledger."""
        return {"epoch": self.epoch, "batch": self.batch, "ledger": dict(self.ledger)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which `state_dict` was taken."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.ledger = dict(state["ledger"])


def collate(
    part: ImagePart,
    preparation: Preparation,
    chosen: NDArray[np.int64],
    changes: AugmentOptions | None = None,
    counters: tuple[int, int, int] = (0, 0, 0),
) -> Batch:
    """The batch of some images of a part, see ImageStream.

    Args:
        chosen: which, int64 (B,).
        changes: how they are changed.
        counters: seed, epoch and number of the batch, from which all that is random follows.
    """
    place = part.index[chosen]
    images_BCHW = preparation.to_unit(part.images[place])
    answers = None if part.answers is None else torch.from_numpy(part.answers[place])
    batch: Batch = {"row_B": torch.from_numpy(chosen)}
    if answers is not None:
        batch["label_B" if answers.dtype == torch.int64 else "value_B"] = answers
    if changes is not None:
        images_BCHW, mixed = augment(images_BCHW, changes, np.random.default_rng(counters))
        if mixed is not None and answers is not None:
            batch["other_label_B"], batch["share_B"] = answers[mixed.other_B], mixed.share_B
    return {"image_BCHW": preparation.to_model(images_BCHW), **batch}


def image_batches(part: ImagePart, preparation: Preparation, *, rows: int) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
    """Every image once and unchanged, in order, for evaluation: batches, and which images of the part they hold."""
    everything = np.arange(len(part.index))
    for start in range(0, len(everything), rows):
        chosen = everything[start : start + rows]
        yield collate(part, preparation, chosen), chosen


def _check(part: ImagePart, labels: bool, balanced: bool) -> None:
    if not len(part.index):
        raise GroundupError(
            "E-DATA-001",
            "the set has no images to learn from",
            where=f"{len(part.images):,} images in all sets together",
            why="a stream repeats its images for ever, so it needs one at least",
            fix="give this set a share: data.split, or files of its own",
        )
    if balanced and not labels:
        raise GroundupError(
            "E-DATA-015",
            "images without labels cannot be balanced",
            where="data.balanced: true",
            why="only where each image has exactly one label can all labels be drawn equally often",
            fix="leave it out",
            exit_code=2,
        )
