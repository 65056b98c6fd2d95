"""Trackers made for the tests: one that remembers, and ones that fail or hang; and stand-ins for packages."""

from __future__ import annotations

import importlib.machinery
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.toy_run import events, outcome

from groundup import tracking
from groundup.tracking.rows import Row


class Noted:
    """Remembers what it is told; `fails` names the call that raises, `gate` holds all of them up."""

    def __init__(
        self, fails: str = "", fault: BaseException | None = None, gate: threading.Event | None = None
    ) -> None:
        self.fails, self.fault, self.gate = fails, fault or ConnectionError("the server\x1b[31m is down"), gate
        self.config: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.calls: list[str] = []
        self.outcome = ""

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.gate is not None:
            self.gate.wait()
        if name == self.fails:
            raise self.fault

    def begin(self, config: dict[str, Any], known: str | None) -> str:
        self._called("begin")
        self.config, self.known = config, known
        return known or "first"

    def tell(self, row: Row) -> None:
        self._called("tell")
        self.rows.append(row)

    def flush(self) -> None:
        self._called("flush")

    def end(self, row: Row, outcome: str) -> None:
        self._called("end")
        self.outcome = outcome

    def close(self) -> None:
        self._called("close")

    @property
    def steps(self) -> list[tuple[str, int]]:
        return [(row.key, row.step) for row in self.rows]


def use(patch: pytest.MonkeyPatch, tracker: Any) -> dict[str, Any]:
    """Let recipes that name tensorboard get this tracker; returns what is laid over a recipe for that."""
    patch.setitem(tracking.TRACKERS, "tensorboard", lambda options, folder, name: tracker)
    return {"events__track": [{"kind": "tensorboard"}]}


def stand_in(patch: pytest.MonkeyPatch, name: str, **content: Any) -> types.ModuleType:
    """A package of that name with this content, imported instead of the real one."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="a stand-in")
    for key, value in content.items():
        setattr(module, key, value)
    patch.setitem(sys.modules, name, module)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


def installed(name: str) -> bool:
    """Whether the real package is there."""
    return importlib.machinery.PathFinder.find_spec(name) is not None


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_same_training(one: Path, other: Path) -> None:
    """The same weights, optimizer, cursors and measurements, bit for bit; the recipes differ in who is told."""
    before, after = outcome(one), outcome(other)
    assert before.numbers == after.numbers
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.tensors.items())
    written = [
        [line for line in events(folder) if line["event"] not in ("start", "warning")] for folder in (one, other)
    ]
    assert written[0] == written[1]
