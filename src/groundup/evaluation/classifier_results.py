"""Everything that the report shows of one classifier on one set, as the plain dictionary that results.json keeps
under `classification`. What each figure means stands in the files that measure it; nothing is computed here.

Shapes: N rows, M rows of a validation part, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from groundup.evaluation.calibration import choose_threshold, fit_temperature, measure_calibration, selective
from groundup.evaluation.classification import classification_scores, finite, softmax
from groundup.evaluation.classifier_compare import compare_classifiers
from groundup.evaluation.counts import Resampling
from groundup.evaluation.slices import confused_pairs, sure_mistakes, worst_slices
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES


def classification_results(
    logits_NL: Any,
    label_N: Any,
    labels: list[str],
    *,
    data: str = "test",
    texts: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[object]] | None = None,
    validation: tuple[Any, Any] | None = None,
    before_NL: Any = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a classifier in full, for JSON.

    Args:
        logits_NL: float64, before any softmax.
        label_N: the true label of each row, 0 to L - 1.
        labels: the names of the labels.
        data: what the set is called.
        texts: what was classified, for the mistakes and the slices by length.
        groups: further columns to slice by, each with one value a row.
        validation: logits (M, L) and labels (M,) of other rows; the temperature and, with two labels, the
            threshold are chosen on them. Without it there is neither.
        before_NL: the logits of another model on the same rows, to compare with.
        confidence, resamples, seed: as in `classification_scores`.

    Raises:
        ValueError: arguments that do not fit each other.
        GroundupError: E-EVAL-003 when a logit is not finite, E-MACHINE-901 without scikit-learn.
    """
    how = Resampling(confidence=confidence, resamples=resamples, seed=seed)
    probability, label = softmax(logits_NL), np.asarray(label_N, dtype=np.int64)
    scores = classification_scores(probability, label, labels, **how)
    measured: dict[str, Any] = {"before": measure_calibration(probability, label).as_dict()}
    if validation is not None:
        temperature = fit_temperature(finite(validation[0]), validation[1])
        mended = softmax(finite(logits_NL) / temperature.value)
        measured |= {"temperature": temperature._asdict(), "after": measure_calibration(mended, label).as_dict()}
    found = {"data": data} | scores.as_dict() | {"calibration": measured}
    found["selective"] = [point._asdict() for point in selective(probability, label)]
    if validation is not None and len(labels) == 2 and np.any(np.asarray(validation[1]) == 1):
        chosen = choose_threshold(softmax(validation[0])[:, 1], np.asarray(validation[1]) == 1)
        found["threshold"] = {"label": labels[1]} | chosen._asdict()
    predicted = probability.argmax(axis=1)
    sliced = worst_slices(label, predicted, labels, texts=texts, groups=groups, confidence=confidence)
    found["slices"] = [one._asdict() for one in sliced]
    found["confused"] = [one._asdict() for one in confused_pairs(scores.confusion_LL, labels)]
    if texts is not None:
        found["mistakes"] = [one._asdict() for one in sure_mistakes(probability, label, labels, texts)]
    if before_NL is not None:
        compared = compare_classifiers(softmax(before_NL), probability, label, labels, **how)
        found["comparison"] = compared.as_dict()
    return found
