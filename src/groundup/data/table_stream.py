"""The stream of batches of a table, with noise on its numbers and features of other rows if asked for.

Which rows batch number n of an epoch holds, and the noise on them, are functions of (seed, epoch, n) alone, so the
state is two integers and the ledger. Reading and scaling are done before; no model enters here.

Shapes: B rows, F columns of features, K columns of codes, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contract import Batch
from groundup.data.labelled_stream import _balanced as balanced_order
from groundup.data.table_options import TableTask
from groundup.data.table_set import TablePart
from groundup.errors import GroundupError

TARGET_NAMES: dict[TableTask, str] = {"classify": "label_B", "multilabel": "label_BL", "regress": "value_B"}


class TableStream:
    """Shuffled batches of `rows` rows, for ever; implements contract.Source.

    Each row is in exactly one batch of an epoch, whose last batch may be smaller. `balanced` instead draws each class
    equally often: an epoch has as many draws as there are rows, rows of a small class come several times and those of a
    large one take turns from epoch to epoch.

    Args:
        part: the training rows as numbers.
        task: which names the target.
        rows: rows in a batch.
        seed: of order and noise.
        balanced: task classify only.
        noise: standard deviation of the Gaussian noise on the first `numeric` columns, in units of the scaled
            features; 0 is off (Bishop 1995 on why it regularises).
        numeric: columns of scaled numbers, which come first.
        swap: share of the features of a row that are taken from another training row, each from one of its own; 0 is
            off (Bahri et al. 2021, arXiv:2106.15147, section 3, who take them from the same distribution).
        feature_of: for each column of features, then each column of codes, the number of the feature that it was made
            of: what was made of one is taken together. Int64 (F + K,); without it each column is a feature.

    Attributes:
        epoch, batch: what comes next.
        ledger: rows so far: `seen` = `trained` + `masked` + `padded`, exactly.

    Raises:
        GroundupError: E-DATA-117 if there are fewer rows than a batch has, E-DATA-015 if `balanced` does not fit the
            task.
    """

    def __init__(
        self,
        part: TablePart,
        *,
        task: TableTask,
        rows: int,
        seed: int,
        balanced: bool = False,
        noise: float = 0.0,
        numeric: int = 0,
        swap: float = 0.0,
        feature_of: Sequence[int] | None = None,
    ) -> None:
        _check(part, task, rows, balanced)
        self.part, self.task, self.rows, self.seed = part, task, rows, seed
        self.balanced, self.noise, self.numeric, self.swap = balanced, noise, numeric, swap
        columns = part.features_NF.shape[1] + (0 if part.category_NK is None else part.category_NK.shape[1])
        self.feature_of = np.arange(columns) if feature_of is None else np.asarray(feature_of, dtype=np.int64)
        self.epoch = self.batch = 0
        self.ledger = {"seen": 0, "trained": 0, "masked": 0, "padded": 0}
        self._planned: int | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch; the same in each."""
        return -(-len(self.part.features_NF) // self.rows)

    def next(self, turn: str) -> Batch:
        """The next batch: `features_BF` float32, `row_B` int64, `category_BK` int64 where features are embedded, and
        `label_B` int64 or `label_BL` or `value_B` float32, as `task` says."""
        if self.batch >= self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
        chosen = self.indices(self.epoch, self.batch)
        batch = collate(self.part, chosen, self.task)
        if self.noise or self.swap:
            self.change(batch, chosen, self.epoch, self.batch)
        self.batch += 1
        self.ledger["seen"] += len(chosen)
        self.ledger["trained"] += len(chosen)
        return batch

    def change(self, batch: Batch, chosen: NDArray[np.int64], epoch: int, number: int) -> None:
        """Put the noise of batch `number` of an epoch, and its features of other rows, into a batch of the rows
        `chosen`, int64 (B,)."""
        # one more than the number of the batch: a trailing 0 would give the generator of the order
        random = np.random.default_rng([self.seed, epoch, number + 1])
        added = np.zeros((len(chosen), self.numeric), dtype=np.float32)
        if self.noise:
            added = random.standard_normal(added.shape, dtype=np.float32) * self.noise
        if self.swap:
            swap_features(batch, self.part, chosen, self.swap, self.feature_of, random)
        batch["features_BF"][:, : self.numeric] += torch.from_numpy(added.astype(np.float32))

    def indices(self, epoch: int, batch: int) -> NDArray[np.int64]:
        """Which rows a batch holds, int64 (B,)."""
        if self._planned != epoch:
            random = np.random.default_rng([self.seed, epoch])
            target = self.part.target
            if self.balanced and target is not None:
                self._order = balanced_order(target, random)
            else:
                self._order = random.permutation(len(self.part.features_NF))
            self._planned = epoch
        return self._order[batch * self.rows : (batch + 1) * self.rows]

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, and the ledger."""
        return {"epoch": self.epoch, "batch": self.batch, "ledger": dict(self.ledger)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which `state_dict` was taken."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.ledger = dict(state["ledger"])


def table_batches(part: TablePart, *, task: TableTask, rows: int) -> Iterator[Batch]:
    """Every row once and in order, without noise, for evaluation and prediction."""
    for start in range(0, len(part.features_NF), rows):
        yield collate(part, np.arange(start, min(start + rows, len(part.features_NF))), task)


def collate(part: TablePart, chosen: NDArray[np.int64], task: TableTask) -> Batch:
    """Rows as a batch of their own memory; the target is left out where the part has none."""
    batch: Batch = {
        "features_BF": torch.from_numpy(part.features_NF[chosen]), "row_B": torch.from_numpy(chosen.astype(np.int64))
    }  # fmt: skip
    if part.category_NK is not None:
        batch["category_BK"] = torch.from_numpy(part.category_NK[chosen])
    if part.target is not None:
        batch[TARGET_NAMES[task]] = torch.from_numpy(part.target[chosen])
    return batch


def swap_features(
    batch: Batch,
    part: TablePart,
    chosen: NDArray[np.int64],
    share: float,
    feature_of: NDArray[np.int64],
    random: np.random.Generator,
) -> None:
    """Put features of other rows of the part into a batch, its answers as they were; see TableStream.

    Args:
        chosen: the rows of the batch, int64 (B,).
    """
    rows, columns = len(part.features_NF), part.features_NF.shape[1]
    shape = (len(chosen), int(feature_of.max(initial=-1)) + 1)
    taken = random.random(shape) < share
    # any row but its own; where there is one row alone, that one
    other = (chosen[:, None] + random.integers(1, max(rows, 2), shape)) % rows
    source = np.where(taken, other, chosen[:, None])[:, feature_of]
    batch["features_BF"] = torch.from_numpy(np.take_along_axis(part.features_NF, source[:, :columns], axis=0))
    if part.category_NK is not None:
        batch["category_BK"] = torch.from_numpy(np.take_along_axis(part.category_NK, source[:, columns:], axis=0))


def _check(part: TablePart, task: TableTask, rows: int, balanced: bool) -> None:
    if len(part.features_NF) < rows:
        raise GroundupError(
            "E-DATA-117",
            f"{len(part.features_NF):,} training rows do not fill one batch of {rows:,}",
            where=f"rows of a batch: {rows:,}; training rows: {len(part.features_NF):,}",
            why="every step would see all rows, fewer than it was asked to, and its size would not be the one that the "
            "learning rate was chosen for",
            fix=f"give batches of at most {len(part.features_NF):,} rows: a smaller budget.micro_batch, or more rows",
        )
    if balanced and task != "classify":
        raise GroundupError(
            "E-DATA-015",
            f"classes cannot be balanced for task {task}",
            where="balanced: true",
            why="only where each row has exactly one label can all labels be drawn equally often",
            fix="leave it out, or weight the labels in the loss",
            exit_code=2,
        )
