"""Scores before and after a run, and what they say: the `evaluations` of results.json and report.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from groundup.evaluation import METRICS, Interval, measure
from groundup.evaluation.compare import compare
from groundup.evaluation.metrics import AnyScores

FIELDS: dict[type, tuple[str, ...]] = {kind: kind._fields for kind in get_args(AnyScores)}


@dataclass
class Scores:
    """Scores by the name of the data they were taken on."""

    by_data: dict[str, AnyScores]
    partial: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        found = {
            name: {"kind": type(scores).__name__, **{k: v.tolist() for k, v in scores._asdict().items()}}
            for name, scores in self.by_data.items()
        }
        return {"scores": found, "partial": self.partial}

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Scores:
        """What `as_dict` gave."""
        kinds = {kind.__name__: kind for kind in FIELDS}
        by_data = {}
        for name, entry in said["scores"].items():
            kind = kinds[entry["kind"]]
            by_data[name] = kind(**{field: np.array(entry[field]) for field in FIELDS[kind]})
        return cls(by_data, said["partial"])


def outside(before: float, after: Interval, higher_is_better: bool) -> str:
    """The verdict where the units differ: whether the earlier value lies outside the later interval."""
    if not (after.low <= before <= after.high):
        return "better" if (after.value > before) == higher_is_better else "worse"
    return "within noise"


def evaluations(
    stage: str, before: Scores, after: Scores, metric_names: Callable[[Any], Sequence[str]]
) -> list[dict[str, Any]]:
    """[{stage, data, metric, before, after, low, high, verdict}]: low and high are the 95 % interval of
    `after`; the verdict is by the paired bootstrap where both were measured on the same units."""
    lines = []
    for data, scores in after.by_data.items():
        names = metric_names(scores)
        earlier = before.by_data.get(data)
        same = earlier is not None and len(earlier[0]) == len(scores[0]) and not before.partial
        verdicts = {c.metric: c for c in compare(earlier, scores, names)} if same and earlier else {}
        for name in names:
            interval = measure(name, scores)
            line: dict[str, Any] = {"stage": stage, "data": data, "metric": name}
            line |= {"before": measure(name, earlier).value if earlier is not None else None}
            if before.partial and name in ("exact_match", "f1", "ended"):
                line["before"] = None  # the model was not asked to answer before
            line |= {"after": interval.value, "low": interval.low, "high": interval.high}
            line["higher_is_better"] = METRICS[name].higher_is_better
            if name in verdicts:
                change = verdicts[name].difference
                line |= {"verdict": verdicts[name].verdict, "change": [change.low, change.high]}
            elif line["before"] is not None:
                line["verdict"] = outside(line["before"], interval, METRICS[name].higher_is_better)
            lines.append(line)
    return lines
