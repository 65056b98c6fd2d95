"""Whether a classifier's probabilities mean what they say, how to mend them, and where to set a threshold.

A temperature or a threshold is chosen on a validation part, never on the rows that are reported. Arrays come in;
no model, text or file may enter here.

Shapes: N rows, L labels, B bins.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.evaluation.statistics import Array

BINS = 15
COLDEST, HOTTEST = 0.01, 100.0
MOST_POINTS = 100


class Bin(NamedTuple):
    """The rows whose confidence lies in (low, high], with their mean confidence and the share that is right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


class Calibration(NamedTuple):
    """How well probabilities fit what happens; all errors are shares, 0 is best.

    expected_error: mean of |accuracy - confidence| over bins of equal width, weighted by their rows (ECE).
    expected_error_equal_mass: the same over bins of equally many rows.
    largest_error: the largest of these differences, over bins of equal width.
    brier: mean squared error of the probabilities.
    log_loss: mean negative logarithm of the probability of the true label, nats.
    bins: those of equal width that hold rows: the reliability diagram.
    """

    expected_error: float
    expected_error_equal_mass: float
    largest_error: float
    brier: float
    log_loss: float
    bins: list[Bin]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict() | {"bins": [one._asdict() for one in self.bins]}


class Temperature(NamedTuple):
    """Divide logits by `value`. `at_limit`: the best temperature lies outside 0.01 to 100, as where every row of
    the validation part is right and ever more confidence costs nothing."""

    value: float
    at_limit: bool


class Threshold(NamedTuple):
    """Say yes where the score is at least `value`; precision, recall and F1 are those of the rows it was chosen on."""

    value: float
    precision: float
    recall: float
    f1: float


def measure_calibration(probability_NL: Any, label_N: Any, bins: int = BINS) -> Calibration:
    """Measure calibration of the most probable label (Guo et al. 2017, On Calibration of Modern Neural Networks,
    equations 3 and 5; Brier 1950 for the score, halved for two labels, as scikit-learn does).

    Bins are closed on the right; equally confident rows always share a bin, so that bins of equal mass may
    differ by the size of a tie.

    Args:
        probability_NL: float64, each row summing to 1.
        label_N: true labels, 0 to L - 1.
        bins: how many.

    Raises:
        ValueError: no rows, or shapes that differ.
    """
    probability, label = np.asarray(probability_NL, dtype=np.float64), np.asarray(label_N, dtype=np.int64)
    if probability.ndim != 2 or label.shape != probability.shape[:1] or not label.size:
        raise ValueError(f"probabilities {probability.shape} and labels {label.shape} do not fit")
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == label
    even = np.linspace(0.0, 1.0, bins + 1)
    ends = np.ceil(np.arange(1, bins) * label.size / bins).astype(int) - 1
    equal_mass = np.concatenate([[0.0], np.sort(confidence)[ends.clip(0)], [1.0]])
    diagram = reliability(confidence, right, even)
    truth = np.eye(probability.shape[1])[label]
    own = np.clip(probability[np.arange(label.size), label], np.finfo(np.float64).eps, 1.0)
    return Calibration(
        expected_error=expected_error(diagram),
        expected_error_equal_mass=expected_error(reliability(confidence, right, equal_mass)),
        largest_error=max(abs(one.accuracy - one.confidence) for one in diagram),
        brier=float(((probability - truth) ** 2).sum(axis=1).mean()) / (2 if probability.shape[1] == 2 else 1),
        log_loss=float(-np.log(own).mean()),
        bins=diagram,
    )


def reliability(confidence_N: Array, right_N: NDArray[np.bool_], edges: Array) -> list[Bin]:
    """The bins between `edges` that hold rows, in order."""
    place = np.searchsorted(edges[1:-1], confidence_N, side="left")
    found = []
    for index in np.unique(place):
        inside = place == index
        found.append(
            Bin(
                float(edges[index]),
                float(edges[index + 1]),
                int(inside.sum()),
                float(confidence_N[inside].mean()),
                float(right_N[inside].mean()),
            )
        )
    return found


def expected_error(bins: list[Bin]) -> float:
    """The mean of |accuracy - confidence|, weighted by rows."""
    return sum(one.rows * abs(one.accuracy - one.confidence) for one in bins) / sum(one.rows for one in bins)


def fit_temperature(logits_NL: Any, label_N: Any) -> Temperature:
    """The temperature with the least negative log-likelihood on a validation part (Guo et al. 2017, section 4.2).

    The loss is convex in 1/temperature; its root is found by Newton's steps in float64, halving the bracket
    where a step would leave it.

    Args:
        logits_NL: finite, before any softmax.
        label_N: true labels, 0 to L - 1.
    """
    logits, label = np.asarray(logits_NL, dtype=np.float64), np.asarray(label_N, dtype=np.int64)
    centred = logits - logits[np.arange(label.size), label][:, None]

    def slope(inverse: float) -> tuple[float, float]:
        """The first and second derivative of the mean loss by 1/temperature."""
        scaled = inverse * centred
        weight = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        mean_N = (weight * centred).sum(axis=1)
        return float(mean_N.mean()), float(((weight * centred**2).sum(axis=1) - mean_N**2).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low)[0] >= 0:
        return Temperature(HOTTEST, True)
    if slope(high)[0] <= 0:
        return Temperature(COLDEST, True)
    inverse = 1.0
    for _ in range(200):
        first, second = slope(inverse)
        low, high = (inverse, high) if first < 0 else (low, inverse)
        step = inverse - first / second if second > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-13 * inverse:
            break
        inverse = following
    return Temperature(1 / inverse, False)


def choose_threshold(
    score_N: Any, truth_N: Any, goal: Literal["f1", "precision", "recall"] = "f1", at_least: float = 0.0
) -> Threshold:
    """The threshold for a yes or no, out of the scores of a validation part.

    Args:
        score_N: float64, such as the probability of yes.
        truth_N: bool, at least one of them true.
        goal: "f1" takes the largest F1; "precision" the largest recall with at least that precision; "recall"
            the largest precision with at least that recall. Among equals the highest threshold is taken.
        at_least: the precision or recall to reach, 0 to 1.

    Raises:
        ValueError: no row is true, or the precision is reached nowhere.
    """
    score, truth = np.asarray(score_N, dtype=np.float64), np.asarray(truth_N, dtype=bool)
    if score.shape != truth.shape or not truth.any():
        raise ValueError("a threshold needs as many truths as scores, and one row at least that is true")
    order = np.argsort(-score, kind="stable")
    descending = score[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # equal scores are cut together
    right, said = np.cumsum(truth[order])[last], last + 1
    precision, recall = right / said, right / truth.sum()
    f1 = 2 * right / (said + truth.sum())
    if goal == "f1":
        best = int(f1.argmax())
    else:
        kept, sought = (precision, recall) if goal == "precision" else (recall, precision)
        allowed = np.flatnonzero(kept >= at_least)
        if not allowed.size:
            raise ValueError(f"no threshold reaches a {goal} of {at_least}: the highest is {kept.max():.4f}")
        best = int(allowed[sought[allowed].argmax()])
    return Threshold(float(descending[last[best]]), float(precision[best]), float(recall[best]), float(f1[best]))


class Coverage(NamedTuple):
    """Answering only where the confidence is at least `threshold`: the share answered, and how much is right."""

    coverage: float
    accuracy: float
    threshold: float


def selective(probability_NL: Any, label_N: Any) -> list[Coverage]:
    """Accuracy against the share of rows answered, most confident first (El-Yaniv & Wiener 2010); equally
    confident rows are answered together. At most `MOST_POINTS` of its points, the last over all rows."""
    probability = np.asarray(probability_NL, dtype=np.float64)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == np.asarray(label_N)
    order = np.argsort(-confidence, kind="stable")
    descending = confidence[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    if last.size > MOST_POINTS:
        last = last[np.linspace(0, last.size - 1, MOST_POINTS).round().astype(int)]
    share, accuracy = (last + 1) / len(order), np.cumsum(right[order])[last] / (last + 1)
    return [Coverage(*(float(v) for v in point)) for point in zip(share, accuracy, descending[last])]
