"""How sure a measured number is: bootstrap intervals, and verdicts on the difference between two models.

Every metric of this room is a ratio of sums over independent units (documents, answers): nats over targets,
bits over bytes, right answers over answers. Resampling whole units keeps what belongs together together.
Nothing that knows a model, a tokenizer or a file may enter here.

Shapes: N units, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Verdict = Literal["better", "worse", "within noise"]

RESAMPLES = 2000
CONFIDENCE = 0.95
MOST_UNITS = 5000
"""More units than this are pooled, neighbours together: the interval is the same, the work bounded."""
CHUNK = 2_000_000
"""Drawn indices held at once."""


class PerUnit(NamedTuple):
    """What was measured on each unit; the metric is sum(total) / sum(weight). Both float64, shape (N,)."""

    total: Array
    weight: Array

    @classmethod
    def of(cls, total: Any, weight: Any = None) -> PerUnit:
        """From anything numpy can read; without weights the metric is the mean over units.

        Raises:
            ValueError: shapes that differ, no units, a value that is not finite, or no weight at all.
        """
        totals = np.asarray(total, dtype=np.float64).ravel()
        weights = np.ones_like(totals) if weight is None else np.asarray(weight, dtype=np.float64).ravel()
        if totals.shape != weights.shape:
            raise ValueError(f"{totals.size} totals for {weights.size} weights")
        if not (np.isfinite(totals).all() and np.isfinite(weights).all()):
            raise ValueError("a measured value is not finite")
        if weights.sum() <= 0 or (weights < 0).any():
            raise ValueError("weights must be at least 0 and not all 0")
        return cls(totals, weights)


class Interval(NamedTuple):
    """A value and its confidence interval. One unit alone has no interval: `low` and `high` are NaN then."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """For JSON, where what is not finite is null."""
        return {name: x if math.isfinite(x) else None for name, x in self._asdict().items()}


Transform = Callable[[Array], Array]
"""A monotonic function from the ratio to the metric, such as exp for perplexity."""


def identity(ratio: Array) -> Array:
    """The ratio is the metric."""
    return ratio


def interval(
    unit: PerUnit,
    *,
    transform: Transform = identity,
    method: Literal["percentile", "bca"] = "percentile",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A bootstrap interval of the metric (Efron & Tibshirani 1993, chapters 13 and 14).

    Args:
        unit: what was measured.
        transform: applied to value and both ends.
        method: "percentile", or "bca", which corrects bias and skewness and costs one more pass.
        confidence: of the interval, between 0 and 1.
        resamples: how often the units are drawn anew.
        seed: of the draws; the same units and seed give the same interval.
    """
    value = unit.total.sum() / unit.weight.sum()
    low = high = np.float64(math.nan)
    (unit,) = _pooled([unit])
    if unit.total.size > 1:
        (ratio_R,) = _resampled([unit], resamples, seed)
        tail = (1 - confidence) / 2
        ends = (tail, 1 - tail) if method == "percentile" else _bca_ends(unit, ratio_R, tail)
        low, high = np.quantile(ratio_R, ends)
    shown = transform(np.array([value, low, high]))
    return Interval(*(float(x) for x in shown))


def difference(
    before: PerUnit,
    after: PerUnit,
    *,
    transform: Transform = identity,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The metric of `after` minus that of `before`, with a paired percentile interval.

    Both must hold the same units in the same order: each resample draws the same units for both, so that
    what makes a unit hard for either model cancels.

    Raises:
        ValueError: the numbers of units differ.
    """
    if before.total.size != after.total.size:
        raise ValueError(f"{before.total.size} units before, {after.total.size} after: they must be the same")
    first, second = (transform(np.array(u.total.sum() / u.weight.sum())) for u in (before, after))
    value = float(second - first)
    pooled = _pooled([before, after])
    if pooled[0].total.size < 2:
        return Interval(value, math.nan, math.nan)
    before_R, after_R = _resampled(pooled, resamples, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(transform(after_R) - transform(before_R), (tail, 1 - tail))
    return Interval(value, float(low), float(high))


def judge(change: Interval, higher_is_better: bool) -> Verdict:
    """What a difference means: "within noise" unless its whole interval lies on one side of zero."""
    if change.low > 0:
        return "better" if higher_is_better else "worse"
    if change.high < 0:
        return "worse" if higher_is_better else "better"
    return "within noise"


def verdict(
    before: PerUnit,
    after: PerUnit,
    *,
    higher_is_better: bool,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Verdict:
    """Whether `after` is better than `before`, by the paired bootstrap of their difference."""
    change = difference(before, after, confidence=confidence, resamples=resamples, seed=seed)
    return judge(change, higher_is_better)


def _pooled(units: Sequence[PerUnit]) -> list[PerUnit]:
    """Without the units that weigh nothing anywhere, and with at most `MOST_UNITS` of them."""
    counted = np.any([unit.weight > 0 for unit in units], axis=0)
    kept = [PerUnit(unit.total[counted], unit.weight[counted]) for unit in units]
    size = kept[0].total.size
    if size <= MOST_UNITS:
        return kept
    starts = np.arange(MOST_UNITS) * size // MOST_UNITS
    return [PerUnit(np.add.reduceat(u.total, starts), np.add.reduceat(u.weight, starts)) for u in kept]


def _resampled(units: Sequence[PerUnit], resamples: int, seed: int) -> Array:
    """The ratio in each resample, shape (len(units), R); the same units are drawn for all."""
    size = units[0].total.size
    generator = np.random.default_rng(seed)
    ratio_UR = np.empty((len(units), resamples))
    rows = max(1, CHUNK // size)
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, size, size=(min(rows, resamples - start), size))
        for index, unit in enumerate(units):
            total, weight = unit.total[drawn].sum(axis=1), unit.weight[drawn].sum(axis=1)
            # a resample of units that all weigh nothing has no ratio; the whole set's stands in
            whole = unit.total.sum() / unit.weight.sum()
            ratio = np.divide(total, weight, out=np.full_like(total, whole), where=weight > 0)
            ratio_UR[index, start : start + len(drawn)] = ratio
    return ratio_UR


def _bca_ends(unit: PerUnit, ratio_R: Array, tail: float) -> tuple[float, float]:
    """The quantiles of the resamples that a bias-corrected, accelerated interval takes (Efron 1987,
    Better bootstrap confidence intervals, equations 3.8 and 6.6)."""
    normal = NormalDist()
    value = unit.total.sum() / unit.weight.sum()
    below = float((ratio_R < value).mean() + (ratio_R == value).mean() / 2)
    bias = normal.inv_cdf(min(max(below, 1 / (2 * ratio_R.size)), 1 - 1 / (2 * ratio_R.size)))
    weight_left = unit.weight.sum() - unit.weight
    left_out = np.divide(
        unit.total.sum() - unit.total,
        weight_left,
        out=np.full_like(weight_left, value),
        where=weight_left > 0,
    )
    spread = left_out.mean() - left_out
    scale = float((spread**2).sum()) ** 1.5
    acceleration = float((spread**3).sum()) / (6 * scale) if scale > 0 else 0.0

    def end(share: float) -> float:
        point = bias + normal.inv_cdf(share)
        return normal.cdf(bias + point / (1 - acceleration * point))

    return end(tail), end(1 - tail)
