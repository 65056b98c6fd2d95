"""Two models on the same units: each metric before and after, the difference, and a verdict.

The units must be the same in the same order. Nothing that knows a model or a file may enter here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from groundup.evaluation.metrics import METRICS, AnyScores
from groundup.evaluation.statistics import Interval, Verdict, difference, interval, judge


class Comparison(NamedTuple):
    """One metric on two models. `difference` is after minus before, with its paired interval."""

    metric: str
    before: Interval
    after: Interval
    difference: Interval
    verdict: Verdict

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "metric": self.metric,
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "difference": self.difference.as_dict(),
            "verdict": self.verdict,
        }


def compare(
    before: AnyScores,
    after: AnyScores,
    metrics: Iterable[str],
    *,
    seed: int = 0,
) -> list[Comparison]:
    """Judge each metric by the paired bootstrap: better or worse only if the whole 95 % interval of the
    difference lies on one side of zero.

    Args:
        before, after: scores of the same units in the same order.
        metrics: names out of `METRICS` that these scores allow.
        seed: of the resampling.
    """
    rows = []
    for name in metrics:
        metric = METRICS[name]
        first, second = metric.measure(before), metric.measure(after)
        change = difference(first, second, transform=metric.transform, seed=seed)
        rows.append(
            Comparison(
                name,
                interval(first, transform=metric.transform, seed=seed),
                interval(second, transform=metric.transform, seed=seed),
                change,
                judge(change, metric.higher_is_better),
            )
        )
    return rows


def cells(rows: Iterable[Comparison]) -> list[list[str]]:
    """The comparisons as rows of text: metric, before, after, difference with its interval, verdict."""

    def shown(found: Interval, sign: str = "") -> str:
        return f"{found.value:{sign}.4f} [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"

    return [[r.metric, shown(r.before), shown(r.after), shown(r.difference, "+"), r.verdict] for r in rows]
