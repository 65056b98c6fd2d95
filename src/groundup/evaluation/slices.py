"""Where a classifier fails: groups of rows with their accuracy, confused pairs of labels, and sure mistakes.

Texts come in as plain strings, to be cut and counted; no model or file may enter here.

Shapes: N rows, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.evaluation.counts import Counts
from groundup.evaluation.statistics import CONFIDENCE

MOST_SLICES = 20
MOST_MISTAKES = 20
MOST_PAIRS = 20
LONGEST_TEXT = 300


class Slice(NamedTuple):
    """Rows that have something in common: `kind` says what, `name` which; low and high bound the accuracy."""

    kind: str
    name: str
    rows: int
    accuracy: float
    low: float
    high: float


class Mistake(NamedTuple):
    """A row predicted wrongly: `probability` of the prediction, `true_probability` of the true label."""

    row: int
    text: str
    label: str
    predicted: str
    probability: float
    true_probability: float


class Confused(NamedTuple):
    """How often `label` was taken for `predicted`; `share` is of the rows of `label`."""

    label: str
    predicted: str
    rows: int
    share: float


def wilson(right: int, rows: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927), which holds for few rows and for shares of 0 and 1 too."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, pull = right / rows, z * z / rows
    middle = (share + pull / 2) / (1 + pull)
    reach = z * math.sqrt(share * (1 - share) / rows + pull / (4 * rows)) / (1 + pull)
    return max(min(middle - reach, share), 0.0), min(max(middle + reach, share), 1.0)


def worst_slices(
    label_N: Any,
    predicted_N: Any,
    labels: Sequence[str],
    *,
    texts: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[object]] | None = None,
    confidence: float = CONFIDENCE,
    limit: int = MOST_SLICES,
) -> list[Slice]:
    """The slices with the lowest accuracy: by true label, predicted label, quarter of text length, given column.

    They are sorted by the upper end of their interval, so that a slice of two rows does not lead by chance.

    Args:
        label_N, predicted_N: int64.
        labels: names of the labels.
        texts: what was classified, for the length (characters).
        groups: further columns by name, each with one value a row.
        confidence: of the Wilson intervals.
        limit: how many to return.
    """
    label, predicted = np.asarray(label_N, dtype=np.int64), np.asarray(predicted_N, dtype=np.int64)
    right = label == predicted
    columns: list[tuple[str, list[str]]] = [
        ("label", [labels[index] for index in label]),
        ("predicted label", [labels[index] for index in predicted]),
    ]
    if texts is not None:
        columns.append(("text length", length_quarters(texts)))
    columns += [(kind, [str(value) for value in values]) for kind, values in (groups or {}).items()]
    found = [one for kind, names in columns for one in _slices(kind, names, right, confidence)]
    return sorted(found, key=lambda one: (one.high, one.accuracy, one.kind, one.name))[:limit]


def _slices(kind: str, names: list[str], right_N: NDArray[np.bool_], confidence: float) -> list[Slice]:
    if len(names) != len(right_N):
        raise ValueError(f"{kind} has {len(names)} values for {len(right_N)} rows")
    tally: dict[str, list[int]] = {}
    for name, right in zip(names, right_N.tolist()):
        counted = tally.setdefault(name, [0, 0])
        counted[0] += right
        counted[1] += 1
    if len(tally) < 2:
        return []  # all rows: no slice of them
    return [
        Slice(kind, name, rows, hits / rows, *wilson(hits, rows, confidence)) for name, (hits, rows) in tally.items()
    ]


def length_quarters(texts: Sequence[str]) -> list[str]:
    """The quarter of each text by its length, named by the lengths it holds; equally long texts share one."""
    length = np.array([len(text) for text in texts])
    edges = np.quantile(length, (0.25, 0.5, 0.75), method="inverted_cdf")
    place = np.searchsorted(edges, length, side="left")
    names = {}
    for index in np.unique(place):
        inside = length[place == index]
        names[int(index)] = f"{inside.min()} to {inside.max()} characters"
    return [names[int(index)] for index in place]


def sure_mistakes(
    probability_NL: Any, label_N: Any, labels: Sequence[str], texts: Sequence[str], limit: int = MOST_MISTAKES
) -> list[Mistake]:
    """The wrong predictions with the highest probability, the surest first, their texts cut to 300 characters."""
    probability, label = np.asarray(probability_NL, dtype=np.float64), np.asarray(label_N, dtype=np.int64)
    predicted, confidence = probability.argmax(axis=1), probability.max(axis=1)
    wrong = np.flatnonzero(predicted != label)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    return [
        Mistake(
            int(row),
            texts[row] if len(texts[row]) <= LONGEST_TEXT else texts[row][: LONGEST_TEXT - 1] + "…",
            labels[label[row]],
            labels[predicted[row]],
            float(confidence[row]),
            float(probability[row, label[row]]),
        )
        for row in order
    ]


def confused_pairs(confusion_LL: Counts, labels: Sequence[str], limit: int = MOST_PAIRS) -> list[Confused]:
    """The pairs of truth and prediction with the most rows, most first; of equals the larger share first."""
    wrong = confusion_LL * (1 - np.eye(len(labels), dtype=np.int64))
    support = confusion_LL.sum(axis=1)
    pairs = [
        Confused(labels[i], labels[j], int(wrong[i, j]), float(wrong[i, j] / support[i])) for i, j in np.argwhere(wrong)
    ]
    return sorted(pairs, key=lambda one: (-one.rows, -one.share, one.label, one.predicted))[:limit]
