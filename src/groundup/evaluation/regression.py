"""How near predicted numbers come to true ones: errors, explained variance, rank correlation, residuals.

Arrays come in; no model, text or file may enter here.

Shapes: N rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from groundup.evaluation import counts
from groundup.evaluation.counts import Resampling
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES, Array, Interval, PerUnit, interval

MOST_POINTS = 500


@dataclass(frozen=True, kw_only=True)
class RegressionScores:
    """What was measured on one set.

    headline: "mae", "rmse" (both in the unit of the values), "r2" and "spearman"; NaN where there is none.
    residuals: [predicted, predicted - true] of at most 500 rows, evenly spread over the predictions.
    notes: what a reader has to know.
    """

    rows: int
    confidence: float
    headline: dict[str, Interval]
    residuals: list[list[float]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": self.rows,
            "confidence": self.confidence,
            "headline": {name: found.as_dict() for name, found in self.headline.items()},
            "residuals": self.residuals,
            "notes": self.notes,
        }


def regression_scores(
    predicted_N: Any,
    value_N: Any,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RegressionScores:
    """Measure predicted numbers against true ones. Intervals are percentile bootstraps over rows, except that of
    the rank correlation (see `spearman`).

    Args:
        predicted_N, value_N: float64, finite.
        confidence, resamples, seed: of the intervals.

    Raises:
        ValueError: no rows, different lengths, or a number that is not finite.
    """
    predicted, value = (np.asarray(one, dtype=np.float64).ravel() for one in (predicted_N, value_N))
    if predicted.size != value.size or not value.size:
        raise ValueError(f"{predicted.size} predictions for {value.size} values")
    if not (np.isfinite(predicted).all() and np.isfinite(value).all()):
        raise ValueError("a prediction or a true value is not finite")
    error = predicted - value
    how = Resampling(confidence=confidence, resamples=resamples, seed=seed)
    headline = {
        "mae": interval(PerUnit.of(np.abs(error)), **how),
        "rmse": interval(PerUnit.of(error**2), transform=np.sqrt, **how),
        "r2": _explained(error, value, **how),
        "spearman": spearman(predicted, value, confidence),
    }
    notes = []
    if value.min() == value.max():
        notes.append("All true values are equal: no variance to explain, and no ranks to correlate.")
    elif predicted.min() == predicted.max():
        notes.append("All predictions are equal: there are no ranks to correlate.")
    order = np.argsort(predicted, kind="stable")
    if order.size > MOST_POINTS:
        order = order[np.linspace(0, order.size - 1, MOST_POINTS).round().astype(int)]
    residuals = [[float(predicted[row]), float(error[row])] for row in order]
    return RegressionScores(rows=value.size, confidence=confidence, headline=headline, residuals=residuals, notes=notes)


def _explained(error_N: Array, value_N: Array, confidence: float, resamples: int, seed: int) -> Interval:
    """R²: 1 minus the squared error over that of the mean, which each resample has its own of."""
    if value_N.min() == value_N.max():
        return Interval(math.nan, math.nan, math.nan)
    centred = value_N - value_N.mean()
    columns = np.stack([np.ones_like(centred), centred, centred**2, error_N**2], axis=1)

    def metric(sums: Array) -> dict[str, Array]:
        rows, total, squares, errors = np.moveaxis(sums, -1, 0)
        spread = squares - total**2 / rows
        return {"r2": 1 - np.divide(errors, spread, out=np.full_like(errors, np.nan), where=spread > 0)}

    how = Resampling(confidence=confidence, resamples=resamples, seed=seed)
    return counts.intervals(metric, np.ones(len(value_N)), columns, **how)["r2"]


def spearman(first_N: Any, second_N: Any, confidence: float = CONFIDENCE) -> Interval:
    """Spearman's rank correlation, equal values sharing their mean rank; NaN where one side is constant.

    The interval is Fisher's transform with the variance of Bonett & Wright (2000), and needs four rows.
    """
    ranks = [mean_ranks(np.asarray(one, dtype=np.float64).ravel()) for one in (first_N, second_N)]
    if ranks[0].size != ranks[1].size:
        raise ValueError(f"{ranks[0].size} numbers beside {ranks[1].size}")
    one, other = (rank - rank.mean() for rank in ranks)
    scale = math.sqrt(float((one**2).sum()) * float((other**2).sum()))
    if scale == 0:
        return Interval(math.nan, math.nan, math.nan)
    value = min(max(float((one * other).sum()) / scale, -1.0), 1.0)
    if one.size < 4:
        return Interval(value, math.nan, math.nan)
    if abs(value) == 1:
        return Interval(value, value, value)
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt((1 + value**2 / 2) / (one.size - 3))
    return Interval(value, math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach))


def mean_ranks(value_N: Array) -> Array:
    """Ranks from 1, equal values sharing their mean rank."""
    ordered = np.sort(value_N)
    return (np.searchsorted(ordered, value_N, "left") + np.searchsorted(ordered, value_N, "right") + 1) / 2
