"""Calibration, temperature and thresholds: by hand, and against what made the data."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.evaluation import (
    Threshold,
    choose_threshold,
    fit_temperature,
    measure_calibration,
    selective,
    softmax,
)


def two(confidence: list[float], right: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two labels that predict the first one with the given confidence."""
    first = np.array(confidence)
    return np.stack([first, 1 - first], axis=1), 1 - np.array(right)


def drawn(rows: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits `scale` times those that the labels were drawn from."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (rows, 4))
    cumulative = softmax(logits).cumsum(axis=1)
    return logits * scale, (generator.random((rows, 1)) > cumulative[:, :-1]).sum(axis=1)


def test_errors_by_hand() -> None:
    probability, label = two([0.95, 0.95, 0.65, 0.65], [1, 1, 1, 0])
    found = measure_calibration(probability, label, bins=10)
    assert [(one.rows, one.accuracy) for one in found.bins] == [(2, 0.5), (2, 1.0)]
    assert [one.confidence for one in found.bins] == pytest.approx([0.65, 0.95])
    assert found.expected_error == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)
    assert found.largest_error == pytest.approx(0.15)
    assert found.brier == pytest.approx((2 * 0.05**2 + 0.35**2 + 0.65**2) / 4)
    assert found.log_loss == pytest.approx(-np.log([0.95, 0.95, 0.65, 0.35]).mean())


def test_bins_are_closed_on_the_right_and_hold_every_row() -> None:
    probability, label = two([0.6, 0.6, 0.8, 1.0], [1, 1, 1, 1])
    found = measure_calibration(probability, label, bins=5)
    assert [(round(one.low, 9), round(one.high, 9), one.rows) for one in found.bins] == [
        (0.4, 0.6, 2),
        (0.6, 0.8, 1),
        (0.8, 1.0, 1),
    ]


def test_bins_of_equal_mass_do_not_cut_ties() -> None:
    probability, label = two([0.6] * 6 + [0.9] * 4, [1, 1, 1, 0, 0, 0, 1, 1, 1, 1])
    found = measure_calibration(probability, label, bins=5)
    assert found.expected_error_equal_mass == pytest.approx(0.6 * 0.1 + 0.4 * 0.1)
    turned = measure_calibration(probability[::-1], label[::-1], bins=5)
    assert turned.expected_error_equal_mass == pytest.approx(found.expected_error_equal_mass)


def test_equal_mass_bins_hold_equally_many_rows() -> None:
    confidence = np.linspace(0.51, 0.99, 30).tolist()
    probability, label = two(confidence, [index % 2 for index in range(30)])
    split = np.array_split(np.arange(30), 5)
    expected = np.mean([abs(np.mean([i % 2 for i in part]) - np.mean([confidence[i] for i in part])) for part in split])
    assert measure_calibration(probability, label, bins=5).expected_error_equal_mass == pytest.approx(expected)


@pytest.mark.parametrize("labels", [2, 4])
def test_brier_score_is_that_of_scikit_learn(labels: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    label = generator.integers(0, labels, 50)
    probability = softmax(generator.normal(size=(50, labels)))
    truth, score = (label, probability[:, 1]) if labels == 2 else (label, probability)
    expected = metrics.brier_score_loss(truth, score)
    assert measure_calibration(probability, label).brier == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_recovers_a_known_scaling(scale: float) -> None:
    logits, label = drawn(20_000, scale)
    found = fit_temperature(logits, label)
    assert found.value == pytest.approx(scale, rel=0.03) and not found.at_limit
    base, _ = drawn(20_000, 1.0)
    assert found.value / fit_temperature(base, label).value == pytest.approx(scale, rel=1e-9)  # exactly scaled


def test_temperature_is_the_lowest_point_of_the_loss() -> None:
    logits, label = drawn(500, 2.5)
    found = fit_temperature(logits, label).value

    def loss(temperature: float) -> float:
        return measure_calibration(softmax(logits / temperature), label).log_loss

    assert loss(found) < min(loss(found * 1.001), loss(found / 1.001), loss(1.0))
    before, after = (measure_calibration(softmax(logits / t), label) for t in (1.0, found))
    assert after.expected_error < before.expected_error


def test_temperature_without_a_lowest_point_stops_at_the_limit() -> None:
    assert fit_temperature([[3.0, 0.0], [0.0, 2.0]], [0, 1]) == (0.01, True)
    assert fit_temperature([[3.0, 0.0], [0.0, 2.0]], [1, 0]) == (100.0, True)
    assert fit_temperature([[900.0, 0.0], [900.0, 0.0], [0.0, 900.0]], [0, 1, 1]).value > 1


def test_thresholds_by_hand() -> None:
    score, truth = [0.9, 0.8, 0.7, 0.6, 0.5], [True, True, False, True, False]
    assert choose_threshold(score, truth) == Threshold(0.6, 0.75, 1.0, pytest.approx(6 / 7))
    assert choose_threshold(score, truth, "precision", 0.9)[:3] == (0.8, 1.0, pytest.approx(2 / 3))
    assert choose_threshold(score, truth, "recall", 0.6)[:2] == (0.8, 1.0)
    assert choose_threshold(score, truth, "recall", 1.0).value == 0.6
    with pytest.raises(ValueError, match=r"no threshold reaches a precision of 0\.9: the highest is 0\.5000"):
        choose_threshold([0.5, 0.4], [False, True], "precision", 0.9)
    with pytest.raises(ValueError, match="true"):
        choose_threshold([0.5], [False])


def test_equal_scores_are_never_cut_apart() -> None:
    assert choose_threshold([0.5] * 4, [True, False, True, False]) == (0.5, 0.5, 1.0, pytest.approx(2 / 3))


def test_best_f1_is_that_of_every_cut() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(2)
    score, truth = np.round(generator.random(200), 2), generator.random(200) < 0.3
    found = choose_threshold(score, truth)
    cuts = [metrics.f1_score(truth, score >= value) for value in np.unique(score)]
    assert found.f1 == pytest.approx(max(cuts)) == metrics.f1_score(truth, score >= found.value)


def test_selective_accuracy_by_hand() -> None:
    probability, label = two([0.9, 0.8, 0.8, 0.6], [1, 1, 0, 0])
    points = [tuple(one) for one in selective(probability, label)]
    assert points == [(0.25, 1.0, 0.9), (0.75, pytest.approx(2 / 3), 0.8), (1.0, 0.5, 0.6)]
    assert len(selective(*two(np.linspace(0.5, 1, 1000).tolist(), [1] * 1000))) == 100
