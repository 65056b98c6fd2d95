"""How good a classifier is whose rows may have several labels, or none: each label is a decision by itself.

scikit-learn is an extra, imported by the functions that need it. No model, text or file may enter here.

Shapes: N rows, L labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from groundup.evaluation import counts
from groundup.evaluation.calibration import choose_threshold
from groundup.evaluation.classification import (
    ClassificationScores,
    label_values,
    notes,
    per_label,
    sklearn_metrics,
)
from groundup.evaluation.counts import Resampling
from groundup.evaluation.label_curves import area_metrics, curves, measure_areas
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES, Array, Interval, PerUnit, interval


def multilabel_scores(
    probability_NL: Any,
    truth_NL: Any,
    labels: list[str],
    threshold_L: Any = 0.5,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ClassificationScores:
    """Measure a classifier that gives any number of labels to each row.

    A label is given where its probability is at least its threshold. `accuracy` is the share of rows whose
    labels are all right; precision, recall and F1 are over decisions (micro) or means over labels (macro, with
    labels that never occur counted as 0, as scikit-learn does here). There is no confusion matrix.

    Args:
        probability_NL: float64 (N, L), each between 0 and 1 (`sigmoid` makes them of logits).
        truth_NL: which labels each row has, bool or 0 and 1.
        labels: the names of the labels.
        threshold_L: one for each label (`choose_thresholds` finds them on a validation part), or one for all.
        confidence, resamples, seed: as in `classification_scores`.

    Raises:
        ValueError: arguments that do not fit each other.
        GroundupError: E-MACHINE-901 without scikit-learn.
    """
    probability, truth = np.asarray(probability_NL, dtype=np.float64), np.asarray(truth_NL, dtype=bool)
    if probability.shape != truth.shape or probability.ndim != 2 or probability.shape[1] != len(labels):
        raise ValueError(f"probabilities {probability.shape}, truth {truth.shape} and {len(labels)} labels do not fit")
    if not (len(truth) and len(labels) > 1 and (probability >= 0).all() and (probability <= 1).all()):
        raise ValueError("needs a row, two labels, and probabilities between 0 and 1: logits need sigmoid() first")
    metrics, size = sklearn_metrics(), len(labels)
    threshold = np.broadcast_to(np.asarray(threshold_L, dtype=np.float64), (size,))
    predicted = probability >= threshold
    columns = np.concatenate([predicted & truth, truth, predicted], axis=1).astype(np.float64)

    def sums_to_metrics(sums: Array) -> dict[str, Array]:
        return counts.label_metrics(counts.split(sums), absent_count=True)

    how = Resampling(confidence=confidence, resamples=resamples, seed=seed)
    bounds = counts.intervals(sums_to_metrics, np.ones(len(truth)), columns, **how)
    values = label_values(metrics, truth, predicted)
    headline = {name: Interval(value, *bounds[name][1:]) for name, value in values.items() if name != "accuracy"}
    exact = interval(PerUnit.of((predicted == truth).all(axis=1)), **how)
    areas = measure_areas(metrics, probability, truth)
    return ClassificationScores(
        labels=list(labels),
        rows=len(truth),
        confidence=confidence,
        headline={"accuracy": exact} | headline | area_metrics(areas, probability, truth, confidence),
        per_label=per_label(metrics, areas, truth, predicted, labels, threshold),
        confusion_LL=np.zeros((0, 0), np.int64),
        curves=curves(metrics, areas, probability, truth, labels),
        notes=notes(probability, truth, labels),
    )


def choose_thresholds(probability_NL: Any, truth_NL: Any) -> Array:
    """The threshold of the best F1 of each label, float64 (L,); 0.5 for a label that is true of no row.

    Choose on a validation part, never on the rows that are reported.
    """
    probability, truth = np.asarray(probability_NL, dtype=np.float64), np.asarray(truth_NL, dtype=bool)
    chosen = [
        choose_threshold(probability[:, index], truth[:, index]).value if truth[:, index].any() else 0.5
        for index in range(probability.shape[1])
    ]
    return np.array(chosen)
