"""What a tracker is told: lines of events.jsonl turned into numbers and texts at a step. No library may enter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol


class Row(NamedTuple):
    """Numbers and texts that belong to one step.

    Attributes:
        key: what kind of row; of each kind, steps rise.
        time: when it was written, in seconds since 1970.
    """

    key: str
    step: int
    time: float
    values: dict[str, float]
    texts: dict[str, str]


class Tracker(Protocol):
    """One of the libraries. All calls come from one thread, in the order below; each may raise whatever it likes,
    and is then never called again."""

    def begin(self, config: dict[str, Any], known: str | None) -> str:
        """Open the run, and return a name by which it can be opened again.

        Args:
            config: the resolved recipe.
            known: what an earlier call returned for the same run, which is then gone on with.
        """
        ...

    def tell(self, row: Row) -> None: ...

    def flush(self) -> None:
        """Put down what was told, so that it is there if the process dies now."""
        ...

    def end(self, row: Row, outcome: str) -> None:
        """Tell how the run ended; `row` has the outcome and its reason as texts."""
        ...

    def close(self) -> None: ...


def row_of(line: Mapping[str, Any]) -> Row | None:
    """A line of events.jsonl as a row; None if it says nothing that belongs into a chart.

    Steps become `train/…` and `clock/…`, evaluations carry the name of their data, as in `held_out/loss`.
    """
    event, step = line["event"], line["step"]
    values: dict[str, float] = {}
    texts: dict[str, str] = {}
    key = event
    if event == "step":
        fields = {name: value for name, value in line.items() if name not in ("event", "step", "clock")}
        values = _numbers(fields, "train") | _numbers(line["clock"], "clock")
    elif event == "evaluate":
        key = f"evaluate {line['data']}"
        values = _numbers(line["metrics"], line["data"])
    elif event == "plateau":
        values = _numbers({"factor": line["factor"]}, event)
    elif event == "sample":
        texts = {"samples": "\n\n".join("\n".join(map(str, sample.values())) for sample in line["samples"])}
    elif event == "end":
        texts = {"outcome": f"{line['outcome']}: {line['reason']}" if line["reason"] else str(line["outcome"])}
    if not values and not any(texts.values()):
        return None
    return Row(key, step, datetime.fromisoformat(line["clock"]["time"]).timestamp(), values, texts)


def _numbers(fields: Mapping[str, Any], group: str) -> dict[str, float]:
    """The finite numbers among fields, those of nested ones by their path."""
    found: dict[str, float] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{group}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[f"{group}/{name}"] = float(value)
    return found


def flat(tree: Any, path: str = "") -> dict[str, str]:
    """A recipe as dotted names and texts, for trackers that know no nesting."""
    if isinstance(tree, Mapping) and tree:
        return {name: text for key, item in tree.items() for name, text in flat(item, f"{path}.{key}").items()}
    if isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        return flat(dict(enumerate(tree)), path)
    return {path.removeprefix("."): "null" if tree is None else str(tree)}
