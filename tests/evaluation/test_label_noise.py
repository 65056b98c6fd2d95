"""Confident learning: its tables by hand, and flipped digits found again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from groundup.evaluation.label_noise import confident_joint, estimate_joint, find_label_noise, thresholds

NAMES = ["cat", "dog", "cow"]
PROBABILITY = np.array(
    [
        [0.9, 0.1, 0.0],
        [0.8, 0.1, 0.1],
        [0.1, 0.8, 0.1],  # called a cat, surely a dog
        [0.1, 0.9, 0.0],
        [0.3, 0.7, 0.0],
        [0.1, 0.1, 0.8],
        [0.4, 0.2, 0.4],  # sure of nothing
    ]
)
LABEL = np.array([0, 0, 0, 1, 1, 2, 2])


def test_the_tables_are_those_made_by_hand() -> None:
    threshold = thresholds(PROBABILITY, LABEL)
    assert threshold == pytest.approx([0.6, 0.8, 0.6])
    confident = confident_joint(PROBABILITY, LABEL, threshold)
    assert confident.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]
    joint = estimate_joint(confident, np.bincount(LABEL))
    assert joint == pytest.approx(np.array([[2, 1, 0], [0, 2, 0], [0, 0, 2]]) / 7)
    found = find_label_noise(PROBABILITY, LABEL, NAMES)
    assert [tuple(one)[:3] for one in found.suspects] == [(2, 0, 1)]
    assert found.suspects[0].score == pytest.approx(0.1 - 0.8)
    assert found.share == pytest.approx(1 / 7)
    shown = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert shown["suspects"] == [{"row": 2, "given": "cat", "suggested": "dog", "score": pytest.approx(-0.7)}]
    assert ["cat", "dog", pytest.approx(1 / 7)] in shown["joint"] and len(shown["joint"]) == 4
    own = find_label_noise(PROBABILITY, LABEL, NAMES, ranking="self_confidence")
    assert own.suspects[0].score == pytest.approx(0.1) and own.suspects[0].row == 2


def test_of_several_labels_above_their_thresholds_the_most_probable_counts() -> None:
    probability = np.array([[0.45, 0.55], [0.3, 0.7]])
    confident = confident_joint(probability, np.array([0, 1]), np.array([0.4, 0.5]))
    assert confident.tolist() == [[0, 1], [0, 1]]


def test_a_label_that_no_row_bears_is_never_confident() -> None:
    probability = np.array([[0.6, 0.1, 0.3], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    found = find_label_noise(probability, np.array([0, 1, 1]), NAMES)
    assert np.isnan(found.threshold_L[2]) and found.confident_LL[:, 2].sum() == 0
    assert found.joint_LL.sum() == pytest.approx(1.0) and found.as_dict()["threshold"]["cow"] is None


def test_equal_probabilities_reach_their_own_mean() -> None:
    probability = np.full((3, 3), 1 / 3)
    confident = confident_joint(probability, np.array([0, 1, 2]), thresholds(probability, np.array([0, 1, 2])))
    assert confident.sum() == 3


def test_clean_labels_leave_no_suspects() -> None:
    found = find_label_noise(np.eye(3)[LABEL] * 0.9 + 0.1 / 3, LABEL, NAMES)
    assert found.suspects == [] and found.share == pytest.approx(0.0, abs=1e-12)


def test_logits_and_labels_beyond_the_names_are_refused() -> None:
    with pytest.raises(ValueError, match="softmax"):
        find_label_noise(PROBABILITY * 3, LABEL, NAMES)
    with pytest.raises(ValueError, match="expected 0 to 2"):
        find_label_noise(PROBABILITY, LABEL + 1, NAMES)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flipped_digits_are_found_from_out_of_fold_probabilities(seed: int) -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    pixels, digit = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    flipped = np.zeros(len(digit), dtype=bool)
    flipped[generator.permutation(len(digit))[: len(digit) // 10]] = True
    given = np.where(flipped, (digit + generator.integers(1, 10, len(digit))) % 10, digit)
    parts = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=0.1, max_iter=200)
    probability = cross_val_predict(model, pixels / 16, given, cv=parts, method="predict_proba")
    found = find_label_noise(probability, given, [str(one) for one in range(10)])
    rows = np.array([one.row for one in found.suspects])
    hits = flipped[rows].sum()
    assert hits / len(rows) >= 0.80 and hits / flipped.sum() >= 0.80
    assert found.share == pytest.approx(0.10, abs=0.02)
    assert flipped[rows[:50]].mean() >= 0.98  # the surest stand in front
    right = np.array([one.suggested == digit[one.row] for one in found.suspects])
    assert right[flipped[rows]].mean() > 0.9
    scores = [one.score for one in found.suspects]
    assert scores == sorted(scores)
