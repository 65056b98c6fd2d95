"""Areas under curves, and the curves themselves: false against true positive rate, and precision against recall.

Probabilities and truth come in as arrays and scikit-learn's metrics as a module; no text or file may enter here.

Shapes: N rows, L labels.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.evaluation.counts import Counts
from groundup.evaluation.statistics import Array, Interval

MOST_POINTS = 200
MOST_CURVES = 4


class Curve(NamedTuple):
    """A curve for the report: its name, the area under all of it, and at most `MOST_POINTS` of its points."""

    name: str
    area: float
    x: list[float]
    y: list[float]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return self._asdict()


def usable(truth_NL: NDArray[np.bool_]) -> Counts:
    """The labels that are true of some rows and not of others, so that they have curves."""
    times = truth_NL.sum(axis=0)
    return np.flatnonzero((times > 0) & (times < len(truth_NL)))


class Areas(NamedTuple):
    """Areas under the curves of each label, float64 (L,), and of all labels pooled; NaN where there is no curve."""

    roc_L: Array
    precision_L: Array
    roc_micro: float
    precision_micro: float


def measure_areas(metrics: ModuleType, probability_NL: Array, truth_NL: NDArray[np.bool_]) -> Areas:
    """The areas by scikit-learn: under the ROC curve, and the average precision."""
    columns, size = usable(truth_NL), truth_NL.shape[1]
    found = Areas(np.full(size, np.nan), np.full(size, np.nan), math.nan, math.nan)
    if not columns.size:
        return found
    truth, score = truth_NL[:, columns].astype(np.int8), probability_NL[:, columns]
    found.roc_L[columns] = metrics.roc_auc_score(truth, score, average=None)
    found.precision_L[columns] = metrics.average_precision_score(truth, score, average=None)
    pooled = truth_NL.ravel(), probability_NL.ravel()
    return found._replace(
        roc_micro=float(metrics.roc_auc_score(*pooled)),
        precision_micro=float(metrics.average_precision_score(*pooled)),
    )


def area_metrics(
    areas: Areas, probability_NL: Array, truth_NL: NDArray[np.bool_], confidence: float
) -> dict[str, Interval]:
    """The areas as headline metrics: the mean over labels (macro), and that of all labels pooled (micro)."""
    columns = usable(truth_NL)
    if not columns.size:
        return {}
    influence_N = sum(delong(probability_NL[:, c], truth_NL[:, c]) for c in columns) / len(columns)
    value = float(areas.roc_L[columns].mean())
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * float(np.linalg.norm(influence_N))

    def alone(area: float) -> Interval:
        return Interval(area, math.nan, math.nan)

    return {
        "roc_area_macro": Interval(value, max(value - reach, 0.0), min(value + reach, 1.0)),
        "roc_area_micro": alone(areas.roc_micro),
        "average_precision_macro": alone(float(areas.precision_L[columns].mean())),
        "average_precision_micro": alone(areas.precision_micro),
    }


def delong(score_N: Array, truth_N: NDArray[np.bool_]) -> Array:
    """What each row adds to the error of the area under the ROC curve: its squares sum to DeLong's variance.

    The structural components of DeLong, DeLong & Clarke-Pearson (1988), equations 3 and 4; a tie counts half.
    """
    found = np.zeros(len(score_N))
    for own, sign in ((truth_N, 1.0), (~truth_N, -1.0)):
        others = np.sort(score_N[~own])
        below = np.searchsorted(others, score_N[own], "left") + np.searchsorted(others, score_N[own], "right")
        component = sign * below / (2 * others.size)
        found[own] = (component - component.mean()) / (max(own.sum() - 1, 1) * own.sum()) ** 0.5
    return found


def thin_curve(x: Array, y: Array, limit: int = MOST_POINTS) -> tuple[list[float], list[float]]:
    """At most `limit` points of a curve, its ends among them, spread evenly along it. None is made up."""
    if len(x) > limit:
        along = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], limit)).clip(0, len(x) - 1))
        kept = np.unique(np.concatenate([[0], kept[1:-1], [len(x) - 1]]))
        x, y = x[kept], y[kept]
    return [float(value) for value in x], [float(value) for value in y]


def shown_columns(area_L: Array) -> list[int]:
    """The labels whose curves are drawn: all of a few, else those with the smallest areas; the second of two,
    since the curves of two labels mirror each other."""
    known = np.flatnonzero(np.isfinite(area_L))
    if len(area_L) == 2:
        return [int(column) for column in known[-1:]]
    if len(known) < MOST_CURVES:
        return [int(column) for column in known]
    return [int(column) for column in known[np.argsort(area_L[known], kind="stable")][: MOST_CURVES - 1]]


def curves(
    metrics: ModuleType, areas: Areas, probability_NL: Array, truth_NL: NDArray[np.bool_], labels: list[str]
) -> dict[str, list[Curve]]:
    """The curves to draw: all labels pooled where there are more than two, then single labels.

    "roc" has the false positive rate across and the true positive rate up; "precision_recall" has recall across
    and precision up, and its area is the average precision.
    """

    def roc(truth: Any, score: Any) -> tuple[Array, Array]:
        false_rate, true_rate, _ = metrics.roc_curve(truth, score)
        return false_rate, true_rate

    def precision_recall(truth: Any, score: Any) -> tuple[Array, Array]:
        precision, recall, _ = metrics.precision_recall_curve(truth, score)
        return recall[::-1], precision[::-1]

    found: dict[str, list[Curve]] = {}
    kinds = {
        "roc": (roc, areas.roc_L, areas.roc_micro),
        "precision_recall": (precision_recall, areas.precision_L, areas.precision_micro),
    }
    for kind, (points, area_L, pooled) in kinds.items():
        found[kind] = drawn = []
        if len(labels) > 2 and math.isfinite(pooled):
            drawn.append(
                Curve("all labels pooled", pooled, *thin_curve(*points(truth_NL.ravel(), probability_NL.ravel())))
            )
        for column in shown_columns(area_L):
            x, y = thin_curve(*points(truth_NL[:, column], probability_NL[:, column]))
            drawn.append(Curve(labels[column], float(area_L[column]), x, y))
    return found
