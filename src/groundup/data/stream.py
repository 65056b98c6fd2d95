"""The stream that feeds a language model: rows of several sources, mixed by weight, stacked into batches.

Which source gives row number n is a function of (seed, n) alone, so the order of samples depends neither on
the size of a micro-batch nor on how often the run was stopped. The state is a handful of integers.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from groundup.contract import IGNORE, Batch
from groundup.data.pack import Row


class Packer(Protocol):
    """Rows by (epoch, index); see pack.py."""

    def rows(self, epoch: int) -> int: ...
    def row(self, epoch: int, index: int) -> Row: ...


class PackedStream:
    """Batches of `rows` packed rows, for ever; implements contract.Source.

    Args:
        packers: one per source.
        weights: how much of the rows each source gives; any positive numbers.
        rows: rows in a micro-batch.
        seed: of the choice of source.

    Attributes:
        ledger: tokens so far: `seen` = `trained` + `masked` + `padded`, exactly.
    """

    def __init__(
        self, packers: dict[str, Packer], *, weights: dict[str, float], rows: int, seed: int
    ) -> None:
        self.packers, self.rows, self.seed = packers, rows, seed
        total = sum(weights[name] for name in packers)
        self.bounds = np.cumsum([weights[name] / total for name in packers])
        self.drawn = 0
        self.cursor = {name: {"epoch": 0, "row": 0} for name in packers}
        self.ledger = {"seen": 0, "trained": 0, "masked": 0, "padded": 0}

    def next(self, turn: str) -> Batch:
        """The next micro-batch; every source starts over when it is through."""
        rows = [self._next_row() for _ in range(self.rows)]
        fields = ("tokens", "target", "position", "document")
        batch = {f"{name}_BT": np.stack([vars(row)[name] for row in rows]) for name in fields}
        padded = sum(row.padded for row in rows)
        trained = int((batch["target_BT"] != IGNORE).sum())
        size = batch["target_BT"].size
        self.ledger["seen"] += size
        self.ledger["trained"] += trained
        self.ledger["padded"] += padded
        self.ledger["masked"] += size - trained - padded
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def _next_row(self) -> Row:
        name = self._source_of(self.drawn)
        self.drawn += 1
        cursor = self.cursor[name]
        if cursor["row"] >= self.packers[name].rows(cursor["epoch"]):
            cursor["epoch"], cursor["row"] = cursor["epoch"] + 1, 0
        row = self.packers[name].row(cursor["epoch"], cursor["row"])
        cursor["row"] += 1
        return row

    def _source_of(self, number: int) -> str:
        if len(self.packers) == 1:
            return next(iter(self.packers))
        point = np.random.default_rng([self.seed, number]).random()
        return list(self.packers)[min(int(np.searchsorted(self.bounds, point, side="right")), len(self.bounds) - 1)]

    def state_dict(self) -> dict[str, Any]:
        """Where each source stands, and the ledger."""
        return {
            "drawn": self.drawn,
            "cursor": {name: dict(cursor) for name, cursor in self.cursor.items()},
            "ledger": dict(self.ledger),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the item at which `state_dict` was taken."""
        self.drawn = state["drawn"]
        self.cursor = {name: dict(cursor) for name, cursor in state["cursor"].items()}
        self.ledger = dict(state["ledger"])
