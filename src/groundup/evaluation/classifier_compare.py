"""Two classifiers on the same rows: each metric's difference with its verdict, and McNemar's test.

Probabilities come in as arrays, row by row the same texts; no model, text or file may enter here.

Shapes: N rows, L labels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from groundup.evaluation import counts
from groundup.evaluation.classification import SMALLEST, checked
from groundup.evaluation.compare import Comparison
from groundup.evaluation.counts import Resampling
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES, Array, PerUnit, difference, interval, judge

COUNTED = ("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted")


class McNemar(NamedTuple):
    """The rows that only one of two classifiers has right, and the probability of so uneven a split by chance."""

    only_before: int
    only_after: int
    p: float


class ClassifierComparison(NamedTuple):
    """Differences are after minus before, on the same rows."""

    metrics: list[Comparison]
    mcnemar: McNemar

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"metrics": [one.as_dict() for one in self.metrics], "mcnemar": self.mcnemar._asdict()}


def mcnemar(right_before_N: Any, right_after_N: Any) -> McNemar:
    """McNemar's test, exact and two-sided: the rows that only one has right split like fair coins (McNemar 1947).

    Args:
        right_before_N, right_after_N: bool, whether each row is right.
    """
    before, after = np.asarray(right_before_N, dtype=bool), np.asarray(right_after_N, dtype=bool)
    first, second = int((before & ~after).sum()), int((after & ~before).sum())
    tosses, fewer = first + second, min(first, second)

    def logarithm(heads: int) -> float:
        ways = math.lgamma(tosses + 1) - math.lgamma(heads + 1) - math.lgamma(tosses - heads + 1)
        return ways - tosses * math.log(2)

    tail = math.fsum(math.exp(logarithm(heads)) for heads in range(fewer + 1))
    return McNemar(first, second, min(1.0, 2 * tail))


def compare_classifiers(
    before_NL: Any,
    after_NL: Any,
    label_N: Any,
    labels: list[str],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ClassifierComparison:
    """Judge accuracy, balanced accuracy, F1 and log loss by the paired bootstrap: better or worse only if the
    whole interval of the difference lies on one side of zero.

    Args:
        before_NL, after_NL: probabilities of the two on the same rows in the same order.
        label_N: the true labels.
        labels: their names.
        confidence, resamples, seed: as in `classification_scores`.
    """
    size = len(labels)
    (before, label), (after, _) = (checked(one, label_N, labels) for one in (before_NL, after_NL))
    first, second = before.argmax(axis=1), after.argmax(axis=1)
    kind_U, count_U = np.unique((label * size + first) * size + second, return_counts=True)
    truth, first_U, second_U = kind_U // size**2, kind_U // size % size, kind_U % size
    columns = [counts.cell_columns(truth, predicted, size) for predicted in (first_U, second_U)]

    def metrics(sums: Array) -> dict[str, Array]:
        one, other = (counts.label_metrics(counts.split(half)) for half in np.split(sums, 2, axis=-1))
        paired = {(name, "before"): one[name] for name in COUNTED} | {(name, "after"): other[name] for name in COUNTED}
        paired |= {(name, "difference"): other[name] - one[name] for name in COUNTED}
        return {" ".join(key): value for key, value in paired.items()}

    how = Resampling(confidence=confidence, resamples=resamples, seed=seed)
    found = counts.intervals(metrics, count_U, np.concatenate(columns, axis=1), **how)
    rows = [
        Comparison(
            name,
            found[f"{name} before"],
            found[f"{name} after"],
            found[f"{name} difference"],
            judge(found[f"{name} difference"], True),
        )
        for name in COUNTED
    ]
    nats = [PerUnit.of(-np.log(one[np.arange(len(label)), label].clip(SMALLEST))) for one in (before, after)]
    change = difference(*nats, **how)
    ends = [interval(one, **how) for one in nats]
    rows.append(Comparison("log_loss", ends[0], ends[1], change, judge(change, False)))
    return ClassifierComparison(rows, mcnemar(first == label, second == label))
