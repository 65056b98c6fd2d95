"""Precision, recall and F1 out of counts per label, and what those counts would have been in other samples.

Accuracy and its like are means over rows, for which statistics.py has intervals. A macro average is not: it is
resampled here, from whole rows, so that what one row adds to several labels stays together. Nothing that knows a
model, a text or a file may enter here.

Shapes: N rows, L labels, U kinds of rows (rows that count alike), C columns, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from groundup.evaluation.statistics import CHUNK, Array, Interval

Counts = NDArray[np.int64]


class Resampling(TypedDict):
    """How intervals are made: their confidence between 0 and 1, how often rows are drawn, the seed of the draws."""

    confidence: float
    resamples: int
    seed: int


class LabelCounts(NamedTuple):
    """How often each label was predicted rightly, was true, and was predicted: float64, shape (…, L)."""

    right: Array
    true: Array
    predicted: Array


def label_metrics(counts: LabelCounts, *, absent_count: bool = False) -> dict[str, Array]:
    """Accuracy, balanced accuracy, precision, recall and F1 out of counts, each of shape (…).

    A macro average takes in the labels that occur, as truth or as prediction; balanced accuracy those that
    occur as truth. A precision, recall or F1 of 0/0 counts as 0. These are scikit-learn's own rules.

    Args:
        counts: of any number of samples.
        absent_count: whether labels that do not occur count as 0 in macro averages: so with several labels a row.
    """
    right, true, predicted = counts
    occurs = ((true + predicted) > 0) | absent_count
    each = {
        "precision": _ratio(right, predicted),
        "recall": _ratio(right, true),
        "f1": _ratio(2 * right, true + predicted),
    }
    total = true.sum(-1)
    found = {
        "accuracy": _ratio(right.sum(-1), total),
        "balanced_accuracy": _ratio(each["recall"].sum(-1), (true > 0).sum(-1)),
        "precision_micro": _ratio(right.sum(-1), predicted.sum(-1)),
        "recall_micro": _ratio(right.sum(-1), total),
        "f1_micro": _ratio(2 * right.sum(-1), total + predicted.sum(-1)),
    }
    for name, value in each.items():
        found[f"{name}_macro"] = _ratio(value.sum(-1), occurs.sum(-1))
        found[f"{name}_weighted"] = _ratio((value * true).sum(-1), total)
    return found


def resampled(count_U: Any, column_UC: Array, resamples: int, seed: int) -> Iterator[Array]:
    """The sums of `column_UC` in resamples of the rows, in pieces of shape (r, C) that make up R.

    Rows that count alike are drawn together: how often each kind turns up among N rows drawn with
    replacement is multinomial, which is the bootstrap itself and not an approximation of it.

    Args:
        count_U: how many rows there are of each kind.
        column_UC: what one row of the kind adds to each sum, float64.
    """
    counts = np.asarray(count_U, dtype=np.int64)
    total, generator = int(counts.sum()), np.random.default_rng(seed)
    share_U = counts / total
    at_once = max(1, CHUNK // max(counts.size, column_UC.shape[1]))
    for start in range(0, resamples, at_once):
        drawn_RU = generator.multinomial(total, share_U, size=min(at_once, resamples - start))
        yield drawn_RU.astype(np.float64) @ column_UC


def intervals(
    metrics: Callable[[Array], dict[str, Array]],
    count_U: Any,
    column_UC: Array,
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of metrics that are functions of sums over rows (Efron & Tibshirani 1993,
    chapter 13); one row alone has none.

    Args:
        metrics: sums of shape (R, C) to metrics of shape (R,).
        count_U, column_UC: as in `resampled`.
    """
    counts = np.asarray(count_U, dtype=np.float64)
    values = {name: float(value[0]) for name, value in metrics(counts[None] @ column_UC).items()}
    if counts.sum() < 2:
        return {name: Interval(value, math.nan, math.nan) for name, value in values.items()}
    pieces = [metrics(sums) for sums in resampled(count_U, column_UC, resamples, seed)]
    tail = (1 - confidence) / 2
    found = {}
    for name, value in values.items():
        drawn_R = np.concatenate([piece[name] for piece in pieces])
        usable = drawn_R[np.isfinite(drawn_R)]
        low, high = np.quantile(usable, (tail, 1 - tail)) if usable.size else (math.nan, math.nan)
        found[name] = Interval(value, float(low), float(high))
    return found


def cells(label_N: Counts, predicted_N: Counts, labels: int) -> tuple[Counts, Array]:
    """The kinds of rows by truth and prediction: how many of each, and their columns.

    Returns:
        count_U, and column_UC with C = 3 L: right, true and predicted for each label.
    """
    cell_U, count_U = np.unique(label_N * labels + predicted_N, return_counts=True)
    return count_U, cell_columns(cell_U // labels, cell_U % labels, labels)


def cell_columns(truth_U: Counts, predicted_U: Counts, labels: int) -> Array:
    """What a row of each kind adds to the counts of `LabelCounts`, float64 (U, 3 L)."""
    true, predicted = np.eye(labels)[truth_U], np.eye(labels)[predicted_U]
    return np.concatenate([true * predicted, true, predicted], axis=1)


def split(sums: Array) -> LabelCounts:
    """The sums of `cell_columns` as counts."""
    right, true, predicted = np.split(sums, 3, axis=-1)
    return LabelCounts(right, true, predicted)


def _ratio(above: Array, below: Any) -> Array:
    """`above` / `below`, 0 where both are 0."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=np.asarray(below) > 0)
