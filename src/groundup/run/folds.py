"""What one fold of a cross-validation leaves in its run folder: metrics on the fold's test rows, those of the simple
baselines of the same rows, and what the model said of each.

Which folds there are, and what is made of them together, stands in cross_validation.py.

Shapes: N rows to train on, M test rows, L labels.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from groundup.data.labelled_options import Side
from groundup.data.labelled_rows import LabelledRow
from groundup.data.table_scaler import MOST_CATEGORIES
from groundup.data.table_set import TableSet
from groundup.errors import GroundupError
from groundup.evaluation import METRICS, measure
from groundup.evaluation.baselines import (
    logistic_regression,
    majority_label,
    mean_value,
    nearest_neighbours,
    ridge_regression,
    text_svm,
)
from groundup.evaluation.classification import sigmoid, softmax
from groundup.run.answers import METRICS_OF, Rows, logits_of, score_rows
from groundup.run.language import LanguageWork
from groundup.run.prediction import PredictionWork
from groundup.run.train import write_json
from groundup.run.work import Work

FOLD_FILE, ANSWERS_FILE = "fold.json", "test_answers.jsonl"
SMALLEST = 1e-15
"""A probability is not taken to be smaller, so that the loss of a row stays finite."""

Metrics = dict[str, float]
Values = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class FoldMeasure:
    """What was measured on one fold.

    Attributes:
        task: of the rows.
        rows: how many each side has.
        metrics: of the model, on the test rows; NaN where one cannot be measured.
        baselines: the same of each baseline, as far as it has them.
    """

    task: str
    rows: dict[str, int]
    metrics: Metrics
    baselines: dict[str, Metrics]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, where what is not finite is null."""
        return {
            "task": self.task,
            "rows": self.rows,
            "metrics": _finite(self.metrics),
            "baselines": {name: _finite(found) for name, found in self.baselines.items()},
        }

    @classmethod
    def read(cls, folder: Path) -> FoldMeasure:
        """What `measure_fold` wrote."""
        said = json.loads((folder / FOLD_FILE).read_text(encoding="utf-8"))
        return cls(
            task=said["task"],
            rows=said["rows"],
            metrics=_numbers(said["metrics"]),
            baselines={name: _numbers(found) for name, found in said["baselines"].items()},
        )


def _finite(found: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _numbers(found: Mapping[str, float | None]) -> Metrics:
    return {name: math.nan if value is None else value for name, value in found.items()}


def measure_fold(work: Work, model: nn.Module, folder: Path) -> None:
    """Measure a model on the test rows of its fold, and the baselines; writes both files into the run folder, the
    measure last."""
    how = {"device": work.device, "autocast": work.dtype}
    (test, test_rows), (train, _), (validation, _) = (side_of(work, side) for side in ("test", "train", "validation"))
    if test.task in ("classify", "multilabel", "regress"):
        said, truth = _in_units(work, logits_of(model, test, **how)), _in_units(work, test.targets)
        metrics = measure_answers(test.task, said, truth)
        _write_answers(folder / ANSWERS_FILE, test.task, test_rows, said, labels_of(work))
        baselines = measure_baselines(work)
    else:
        scores = score_rows(model, test, **how)
        metrics = {name: measure(name, scores).value for name in METRICS_OF[test.task]}
        baselines = {}
    rows = {"train": len(train), "validation": len(validation), "test": len(test)}
    found = FoldMeasure(task=test.task, rows=rows, metrics=metrics, baselines=baselines)
    write_json(folder / FOLD_FILE, found.as_dict())


def side_of(work: Work, side: Side) -> tuple[Rows, list[LabelledRow]]:
    """One side of the data: to answer, and as it was read."""
    if isinstance(work, PredictionWork):
        if work.images is not None:
            return work.rows(side), [row for row in work.images.rows if row.side == side]
        assert work.table is not None
        return work.rows(side), [*work.table.parts[side].rows]
    assert isinstance(work, LanguageWork) and work.labels is not None
    return work.labels.rows(side), work.labels.parts[side].rows


def labels_of(work: Work) -> list[str]:
    """The labels in the order of their numbers."""
    if isinstance(work, PredictionWork):
        return list(work.said.labels)
    assert isinstance(work, LanguageWork) and work.labels is not None
    return list(work.labels.labels)


def _in_units(work: Work, values: Values) -> Values:
    """Numbers in the unit of the table, where the network learns a scaled target; labels as they are."""
    if isinstance(work, PredictionWork) and work.table is not None and work.said.kind == "regress":
        return work.table.preprocessor.restore_target(np.asarray(values, dtype=np.float64))
    return values


def measure_answers(task: str, said: Values, truth: Values) -> Metrics:
    """Metrics of logits (M, L), or values (M,), against what is right."""
    if task == "regress":
        return measure_values(said, truth)
    if task == "multilabel":
        probability = np.clip(sigmoid(said), SMALLEST, 1 - SMALLEST)
        loss = -(truth * np.log(probability) + (1 - truth) * np.log(1 - probability)).mean()
        return {"label_loss": float(loss)} | measure_labels(probability > 0.5, truth > 0.5)
    probability = softmax(said)
    loss = -np.log(np.maximum(probability[np.arange(len(truth)), truth], SMALLEST)).mean()
    return {"label_loss": float(loss)} | measure_labels(probability.argmax(axis=1), truth)


def measure_labels(predicted: Values, truth: Values) -> Metrics:
    """Metrics of labels (M,), or of several of a row as truth values (M, L), whose accuracy is that of single ones.

    Balanced accuracy is the mean recall of the labels that occur; the macro F1 is the mean over the labels that occur
    or are said, with several of a row over all of them.
    """
    found = {"accuracy": float((predicted == truth).mean())}
    if truth.ndim == 1:
        size = int(max(predicted.max(), truth.max())) + 1
        given, said, hit = (np.bincount(one, minlength=size) for one in (truth, predicted, truth[predicted == truth]))
        found["balanced_accuracy"] = float((hit / np.maximum(given, 1))[given > 0].mean())
    else:
        given, said, hit = (one.sum(axis=0) for one in (truth, predicted, truth & predicted))
    f1 = 2 * hit / np.maximum(given + said, 1)
    found["f1_macro"] = float(f1[given + said > 0].mean() if truth.ndim == 1 else f1.mean())
    return found


def measure_values(predicted_M: Values, truth_M: Values) -> Metrics:
    """Errors of numbers in their unit, and the share of the variance that is explained; NaN where there is none."""
    error, spread = predicted_M - truth_M, float(((truth_M - truth_M.mean()) ** 2).sum())
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": 1.0 - float((error**2).sum()) / spread if spread > 0 else math.nan,
    }


def measure_baselines(work: Work) -> dict[str, Metrics]:
    """The simple methods for this kind of data, fitted on the training rows of the fold alone. One that cannot be
    fitted has NaN for all that it would have been measured by."""
    (train, _), (test, _) = (side_of(work, side) for side in ("train", "test"))
    target, truth = (_in_units(work, one.targets) for one in (train, test))
    if test.task == "multilabel":
        usual = np.broadcast_to(target.mean(axis=0) > 0.5, truth.shape)
        return {"majority labels": measure_labels(usual, truth > 0.5)}
    regress = test.task == "regress"
    measured = measure_values if regress else measure_labels
    if regress:
        found = {"mean value": measured(mean_value(target, truth, resamples=1).predicted_M, truth)}
    else:
        guess = majority_label(target, truth, resamples=1).predicted_M
        assert guess is not None
        found = {"majority label": measured(guess, truth)}
    classical = _classical(work, target, regress)
    if classical is not None and importlib.util.find_spec("sklearn") is not None:
        name, fit = classical
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a solver that stopped early: it is a baseline all the same
                found[name] = measured(fit(), truth)
        except GroundupError:
            found[name] = dict.fromkeys(next(iter(found.values())), math.nan)
    return found


def _classical(work: Work, target: Values, regress: bool) -> tuple[str, Callable[[], Values]] | None:
    """The name of the classical method for this data, and what fits it and predicts the test rows."""
    (_, train), (_, test) = (side_of(work, side) for side in ("train", "test"))
    if isinstance(work, PredictionWork) and work.table is not None:
        if max(work.table.preprocessor.codes, default=0) > MOST_CATEGORIES:
            return None
        features, others = (_one_hot(work.table, side) for side in ("train", "test"))
        if regress:
            return "ridge regression", lambda: ridge_regression(features, target, others)
        return "logistic regression", lambda: logistic_regression(features, target, others)
    if regress:
        return None
    if isinstance(work, PredictionWork):
        assert work.images is not None
        images, shown = work.images.images, [work.images.part(side).index for side in ("train", "test")]
        return "nearest neighbours", lambda: nearest_neighbours(images[shown[0]], target, images[shown[1]])
    texts, other = ([f"{row.text} {row.other or ''}" for row in rows] for rows in (train, test))
    return "TF-IDF and SVM", lambda: text_svm(texts, target, other)


def _one_hot(table: TableSet, side: Side) -> Values:
    """The features of a side, those that the network embeds as ones and zeros."""
    part = table.parts[side]
    if part.category_NK is None:
        return part.features_NF
    return table.preprocessor.one_hot().transform([row.cells for row in part.rows])


def _write_answers(path: Path, task: str, rows: list[LabelledRow], said: Values, labels: list[str]) -> None:
    """A line for each test row: where it stands, its answer, and what the model said."""
    with path.open("w", encoding="utf-8") as file:
        for row, values in zip(rows, softmax(said) if task == "classify" else said, strict=True):
            line: dict[str, Any] = {"file": row.file, "line": row.line, "place": row.place}
            if task == "regress":
                line |= {"value": row.value, "predicted": float(values)}
            else:
                shown = values if task == "classify" else sigmoid(values)
                line |= {"labels": list(row.labels), "probability": dict(zip(labels, np.round(shown, 9).tolist()))}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def rises(metric: str) -> bool:
    """Whether more of a metric is better."""
    if metric in METRICS:
        return METRICS[metric].higher_is_better
    return metric not in ("mae", "rmse")
