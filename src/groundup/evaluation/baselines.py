"""The simple baseline that stands beside every model: what guessing gives, and what a classical method does.

Arrays and lists of texts come in, predictions for the test part come out; whatever is fitted sees the training part
alone. scikit-learn is an extra, imported by the functions that need it. No model of ours and no file may enter here.

Shapes: N training rows, M test rows, F features.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from groundup.errors import GroundupError, printable
from groundup.evaluation.counts import Counts
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES, Array, Interval, PerUnit, interval


class LabelBaseline(NamedTuple):
    """A guesser of labels; predicted_M is its guess for each test row."""

    accuracy: Interval
    predicted_M: Counts


class ValueBaseline(NamedTuple):
    """A guesser of values; the errors are in their unit."""

    mae: Interval
    rmse: Interval
    predicted_M: Array


def majority_label(
    label_N: Any, test_label_M: Any, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> LabelBaseline:
    """Always the label that is most frequent in training, of several the smallest.

    Args:
        label_N, test_label_M: int64, from 0.
        confidence, resamples, seed: of the bootstrap interval over test rows.

    Raises:
        ValueError: no labels, or labels below 0.
    """
    label, test = _labels(label_N), _labels(test_label_M)
    predicted = np.full(len(test), np.bincount(label).argmax())
    hit = PerUnit.of(predicted == test)
    return LabelBaseline(interval(hit, confidence=confidence, resamples=resamples, seed=seed), predicted)


def mean_value(
    value_N: Any, test_value_M: Any, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> ValueBaseline:
    """Always the mean of the training values: an explained variance of about 0.

    Args:
        value_N, test_value_M: float64, finite.
        confidence, resamples, seed: of the bootstrap intervals over test rows.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    value, test = (np.asarray(one, dtype=np.float64).ravel() for one in (value_N, test_value_M))
    if not (value.size and test.size and np.isfinite(value).all() and np.isfinite(test).all()):
        raise ValueError("values must be finite, and one at least on either side")
    predicted = np.full(len(test), value.mean())
    error = np.abs(predicted - test)
    mae = interval(PerUnit.of(error), confidence=confidence, resamples=resamples, seed=seed)
    rmse = interval(PerUnit.of(error**2), transform=np.sqrt, confidence=confidence, resamples=resamples, seed=seed)
    return ValueBaseline(mae, rmse, predicted)


def logistic_regression(features_NF: Any, label_N: Any, test_MF: Any, *, penalty: float = 1.0) -> Counts:
    """Logistic regression on features scaled to mean 0 and deviation 1, int64 (M,).

    Args:
        features_NF, test_MF: float64, finite; further dimensions are flattened.
        label_N: int64, from 0.
        penalty: of the squared weights (scikit-learn's 1 / C).

    Raises:
        ValueError: arrays that do not fit each other.
        GroundupError: E-EVAL-055 a feature is not finite; E-MACHINE-901 without scikit-learn.
    """
    _require_sklearn()
    from sklearn.linear_model import LogisticRegression

    features, test = _scaled(features_NF, test_MF)
    return _fitted(LogisticRegression(C=1.0 / penalty, max_iter=1000), features, _labels(label_N), test)


def ridge_regression(features_NF: Any, value_N: Any, test_MF: Any, *, penalty: float = 1.0) -> Array:
    """Linear regression with a penalty on the squared weights, on features scaled to mean 0 and deviation 1
    (Hoerl & Kennard 1970), float64 (M,). Arguments and errors as for `logistic_regression`."""
    _require_sklearn()
    from sklearn.linear_model import Ridge

    features, test = _scaled(features_NF, test_MF)
    value = np.asarray(value_N, dtype=np.float64).ravel()
    if len(value) != len(features):
        raise ValueError(f"{len(value)} values for {len(features)} rows")
    return np.asarray(Ridge(alpha=penalty).fit(features, value).predict(test), dtype=np.float64)


def nearest_neighbours(images_N: Any, label_N: Any, test_M: Any, *, neighbours: int = 5) -> Counts:
    """The most frequent label among the nearest training images by Euclidean distance (Cover & Hart 1967), int64 (M,).

    Args:
        images_N, test_M: (N, …) and (M, …), finite numbers of one scale, such as pixels; not scaled further.
        label_N: int64, from 0.
        neighbours: that vote; all rows where there are fewer.

    Raises:
        As `logistic_regression`.
    """
    _require_sklearn()
    from sklearn.neighbors import KNeighborsClassifier

    images, test = _features(images_N, test_M)
    return _fitted(KNeighborsClassifier(min(neighbours, len(images))), images, _labels(label_N), test)


def text_svm(texts: Sequence[str], label_N: Any, test_texts: Sequence[str], *, penalty: float = 1.0) -> Counts:
    """A linear support vector machine on TF-IDF of words and pairs of words (Joachims 1998; term frequencies
    dampened by their logarithm), int64 (M,).

    Args:
        texts, test_texts: N and M of them, plain.
        label_N: int64, from 0.
        penalty: of the squared weights (scikit-learn's 1 / C).

    Raises:
        ValueError: not one label for each text.
        GroundupError: E-EVAL-054 no training text has a word; E-MACHINE-901 without scikit-learn.
    """
    _require_sklearn()
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    # single characters are words too: in some scripts they are most of a text
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    analyse = vectorizer.build_analyzer()
    if not any(analyse(text) for text in texts):
        raise GroundupError(
            "E-EVAL-054",
            f"none of {len(texts):,} texts to train on has a word",
            where="the texts of the training part",
            why="the baseline counts words, and there are none to count",
            fix="groundup data show FILE   (is the column of texts the right one?)",
            exit_code=2,
        )
    features, test = vectorizer.fit_transform(texts), vectorizer.transform(test_texts)
    return _fitted(LinearSVC(C=1.0 / penalty, random_state=0), features, _labels(label_N), test)


def _fitted(method: Any, features: Any, label_N: Counts, test: Any) -> Counts:
    """Predictions of a classifier of scikit-learn; with a single label in training that one, since none can be fitted.

    Raises:
        ValueError: not one label for each row.
    """
    if len(label_N) != features.shape[0]:
        raise ValueError(f"{len(label_N)} labels for {features.shape[0]} rows")
    if label_N.min() == label_N.max():
        return np.full(test.shape[0], label_N[0])
    return np.asarray(method.fit(features, label_N).predict(test), dtype=np.int64)


def _labels(label_N: Any) -> Counts:
    label = np.asarray(label_N, dtype=np.int64).ravel()
    if not label.size or label.min() < 0:
        raise ValueError("labels must be 0 or above, and one at least")
    return label


def _features(features_N: Any, test_M: Any) -> tuple[Array, Array]:
    """Both parts as float64 with one row each, every number finite."""
    parts = [np.asarray(one, dtype=np.float64) for one in (features_N, test_M)]
    features, test = (one.reshape(len(one), -1) for one in parts)
    if parts[0].shape[1:] != parts[1].shape[1:] or not len(features):
        raise ValueError(f"features of shape {parts[0].shape} to train on, {parts[1].shape} to test on")
    for name, part in (("training", features), ("test", test)):
        rows, columns = (~np.isfinite(part)).nonzero()
        if rows.size:
            raise GroundupError(
                "E-EVAL-055",
                f"{rows.size:,} numbers of the {name} features are missing or not finite",
                where=f"first in row {rows[0]}, feature {columns[0]} (both from 0): {part[rows[0], columns[0]]}",
                why="neither distances nor weighted sums can be made of them",
                fix="fill in missing values from the training part, or leave the rows out",
                exit_code=2,
            )
    return features, test


def _scaled(features_NF: Any, test_MF: Any) -> tuple[Array, Array]:
    """Both parts in units of the training part's deviation, from its mean; a constant feature is 0 there."""
    features, test = _features(features_NF, test_MF)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)
    return (features - mean) / deviation, (test - mean) / deviation


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise GroundupError(
            "E-MACHINE-901",
            "this baseline needs scikit-learn, which is not installed",
            where=printable(sys.executable),
            why="it is large, so it is an optional extra",
            fix='pip install "groundup[classify]"',
        ) from error
