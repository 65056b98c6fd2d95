"""How good a classifier is: the metrics of scikit-learn with their intervals, the confusion matrix, and the curves.

Probabilities come in as arrays and labels as indices with names; no model, text or file may enter here.
scikit-learn is an extra, imported by the functions that need it.

Shapes: N rows, L labels.
"""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.errors import GroundupError, printable
from groundup.evaluation import counts
from groundup.evaluation.counts import Counts, Resampling
from groundup.evaluation.label_curves import Areas, Curve, area_metrics, curves, measure_areas
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES, Array, Interval, PerUnit, interval

TOP = (3, 5)
SMALLEST = float(np.finfo(np.float64).eps)
"""Smaller probabilities count as this in a logarithm, as in scikit-learn, so that no row makes it infinite."""


class LabelScore(NamedTuple):
    """One label: how often it is true and predicted, and how well; an area is None where it has no meaning."""

    label: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float
    roc_area: float | None
    average_precision: float | None
    threshold: float | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return self._asdict()


@dataclass(frozen=True, kw_only=True)
class ClassificationScores:
    """What was measured on one set.

    labels: their names, in the order of the columns.
    rows: how many were measured.
    confidence: of the intervals.
    headline: each metric with its interval; the ends are NaN where there is none.
    per_label: one entry for each label.
    confusion_LL: truth down, prediction across; with several labels a row there is none, and it is (0, 0).
    curves: "roc" (false against true positive rate) and "precision_recall" (recall against precision).
    notes: what a reader has to know: labels that do not occur, ties.
    """

    labels: list[str]
    rows: int
    confidence: float
    headline: dict[str, Interval]
    per_label: list[LabelScore]
    confusion_LL: Counts
    curves: dict[str, list[Curve]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the confusion matrix as its cells [truth, prediction, rows] that are not empty."""
        truth, predicted = np.nonzero(self.confusion_LL)
        filled = zip(truth.tolist(), predicted.tolist(), self.confusion_LL[truth, predicted].tolist())
        return {
            "labels": self.labels,
            "rows": self.rows,
            "confidence": self.confidence,
            "headline": {name: found.as_dict() for name, found in self.headline.items()},
            "per_label": [one.as_dict() for one in self.per_label],
            "confusion": [list(cell) for cell in filled],
            "curves": {kind: [curve.as_dict() for curve in found] for kind, found in self.curves.items()},
            "notes": self.notes,
        }


def sklearn_metrics() -> ModuleType:
    """`sklearn.metrics`, or the error that says how to install it."""
    try:
        import sklearn.metrics
    except ImportError as error:
        raise GroundupError(
            "E-MACHINE-901",
            "measuring a classifier needs scikit-learn, which is not installed",
            where=printable(sys.executable),
            why="it is large, so it is an optional extra",
            fix='pip install "groundup[classify]"',
        ) from error
    return sklearn.metrics


def softmax(logits_NL: Any) -> Array:
    """Probabilities of one label per row, float64 (N, L).

    Raises:
        GroundupError: E-EVAL-003 when a logit is not finite.
    """
    logits = finite(logits_NL)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def sigmoid(logits_NL: Any) -> Array:
    """Probabilities of each label by itself, float64 (N, L). Raises as `softmax` does."""
    logits = finite(logits_NL)
    small = np.exp(-np.abs(logits))  # never overflows
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def finite(logits_NL: Any) -> Array:
    """The logits as float64, every one of them finite."""
    logits = np.asarray(logits_NL, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if bad.size:
        raise GroundupError(
            code="E-EVAL-003",
            what=f"the logits of {bad.size} of {len(logits)} rows are not finite",
            where=f"rows {', '.join(map(str, bad[:8]))}",
            why="the weights are damaged, or the training that made them diverged",
            fix="groundup verify MODEL   (are the files whole?), then use an earlier checkpoint",
        )
    return logits


def checked(probability_NL: Any, label_N: Any, labels: list[str]) -> tuple[Array, Counts]:
    """The arguments of this room as arrays.

    Raises:
        ValueError: no rows, fewer than two labels, shapes or labels that do not fit, or rows that do not sum to 1.
    """
    probability, label = np.asarray(probability_NL, dtype=np.float64), np.asarray(label_N, dtype=np.int64)
    if probability.ndim != 2 or probability.shape[1] != len(labels) or len(labels) < 2:
        raise ValueError(f"probabilities of shape {probability.shape} for {len(labels)} labels")
    if label.shape != probability.shape[:1] or not label.size:
        raise ValueError(f"{label.size} labels for {len(probability)} rows")
    if label.min() < 0 or label.max() >= len(labels):
        raise ValueError(f"labels from {label.min()} to {label.max()}, expected 0 to {len(labels) - 1}")
    if not ((probability >= 0).all() and np.allclose(probability.sum(axis=1), 1.0, rtol=0, atol=1e-5)):
        raise ValueError("the probabilities of a row must be at least 0 and sum to 1: logits need softmax() first")
    return probability, label


def classification_scores(
    probability_NL: Any,
    label_N: Any,
    labels: list[str],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ClassificationScores:
    """Measure a classifier that gives one label to each row.

    The prediction is the most probable label; of equally probable ones the first, also among the top k.
    Values are scikit-learn's. Intervals are percentile bootstraps over rows, except that of the mean ROC area,
    which is the normal interval of DeLong, DeLong & Clarke-Pearson (1988). A label that is never true has no
    areas, and takes no part in their means; `notes` says which.

    Args:
        probability_NL: float64 (N, L), each row summing to 1 (`softmax` makes them of logits).
        label_N: the true label of each row, 0 to L - 1.
        labels: the names of the labels.
        confidence: of the intervals, between 0 and 1.
        resamples: how often the rows are drawn anew.
        seed: of the draws; the same rows and seed give the same intervals.

    Raises:
        ValueError: arguments that do not fit each other.
        GroundupError: E-MACHINE-901 without scikit-learn.
    """
    probability, label = checked(probability_NL, label_N, labels)
    metrics, size = sklearn_metrics(), len(labels)
    predicted = probability.argmax(axis=1)
    truth_NL = np.eye(size, dtype=bool)[label]
    how = Resampling(confidence=confidence, resamples=resamples, seed=seed)
    values = label_values(metrics, label, predicted)
    bounds = counts.intervals(
        lambda sums: counts.label_metrics(counts.split(sums)), *counts.cells(label, predicted, size), **how
    )
    headline = {name: Interval(value, *bounds[name][1:]) for name, value in values.items()}
    nats = -np.log(np.clip(probability[np.arange(len(label)), label], SMALLEST, 1 - SMALLEST))
    headline["log_loss"] = interval(PerUnit.of(nats), **how)
    rank = ranks(probability, label)
    for top in TOP:
        if top < size:
            headline[f"top_{top}_accuracy"] = interval(PerUnit.of(rank < top), **how)
    areas = measure_areas(metrics, probability, truth_NL)
    headline |= area_metrics(areas, probability, truth_NL, confidence)
    return ClassificationScores(
        labels=list(labels),
        rows=len(label),
        confidence=confidence,
        headline=headline,
        per_label=per_label(metrics, areas, truth_NL, np.eye(size, dtype=bool)[predicted], labels),
        confusion_LL=metrics.confusion_matrix(label, predicted, labels=range(size)),
        curves=curves(metrics, areas, probability, truth_NL, labels),
        notes=notes(probability, truth_NL, labels),
    )


def label_values(metrics: ModuleType, label_N: Any, predicted_N: Any) -> dict[str, float]:
    """Accuracy, balanced accuracy, precision, recall and F1 by scikit-learn; `label_N` may be (N, L) of bool."""
    found = {"accuracy": float(metrics.accuracy_score(label_N, predicted_N))}
    if np.ndim(label_N) == 1:
        with warnings.catch_warnings():  # it warns of labels that are predicted and never true; `notes` says so
            warnings.simplefilter("ignore")
            found["balanced_accuracy"] = float(metrics.balanced_accuracy_score(label_N, predicted_N))
    for average in ("micro", "macro", "weighted"):
        three = metrics.precision_recall_fscore_support(label_N, predicted_N, average=average, zero_division=0)
        found |= {f"{name}_{average}": float(v) for name, v in zip(("precision", "recall", "f1"), three)}
    return found


def ranks(probability_NL: Array, label_N: Counts) -> Counts:
    """How many labels come before the true one in each row, equally probable ones in their order, int64 (N,)."""
    own = np.take_along_axis(probability_NL, label_N[:, None], axis=1)
    earlier = np.arange(probability_NL.shape[1]) < label_N[:, None]
    ahead: Counts = ((probability_NL > own) | ((probability_NL == own) & earlier)).sum(axis=1)
    return ahead


def per_label(
    metrics: ModuleType,
    areas: Areas,
    truth_NL: NDArray[np.bool_],
    predicted_NL: NDArray[np.bool_],
    labels: list[str],
    threshold_L: Array | None = None,
) -> list[LabelScore]:
    """The scores of each label by itself, against all others."""
    each = metrics.precision_recall_fscore_support(truth_NL, predicted_NL, average=None, zero_division=0)
    precision, recall, f1 = each[:3]

    def known(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return [
        LabelScore(
            label=name,
            support=int(truth_NL[:, index].sum()),
            predicted=int(predicted_NL[:, index].sum()),
            precision=float(precision[index]),
            recall=float(recall[index]),
            f1=float(f1[index]),
            roc_area=known(areas.roc_L[index]),
            average_precision=known(areas.precision_L[index]),
            threshold=None if threshold_L is None else float(threshold_L[index]),
        )
        for index, name in enumerate(labels)
    ]


def notes(probability_NL: Array, truth_NL: NDArray[np.bool_], labels: list[str]) -> list[str]:
    """What a reader has to know about these rows."""
    found = []
    absent = [labels[index] for index in np.flatnonzero(~truth_NL.any(axis=0))]
    if absent:
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        found.append(
            f"{len(absent)} of {len(labels)} labels are true of no row ({shown}): they have no recall and no areas, "
            "and the means over labels are taken without them, unless they were predicted."
        )
    if truth_NL.all(axis=0).any():
        found.append("One label is true of every row, so that areas under curves have no meaning for it.")
    tied = int(((probability_NL == probability_NL.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    if tied and (truth_NL.sum(axis=1) == 1).all():
        plural = "row has" if tied == 1 else "rows have"
        found.append(f"{tied:,} {plural} several most probable labels; the first of them counts as the prediction.")
    return found
