"""Baselines: guessers in closed form, classical methods beside scikit-learn itself, and input that cannot serve."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest

from groundup.errors import GroundupError
from groundup.evaluation import baselines


def test_the_majority_is_guessed_and_the_smallest_of_equals() -> None:
    found = baselines.majority_label([2, 2, 1, 1, 0], [1, 1, 2, 0])
    assert found.predicted_M.tolist() == [1] * 4
    assert found.accuracy.value == 0.5 and 0 <= found.accuracy.low < 0.5 < found.accuracy.high <= 1


def test_the_mean_explains_nothing() -> None:
    generator = np.random.default_rng(0)
    value, test = generator.normal(3, 2, 400), generator.normal(3, 2, 300)
    found = baselines.mean_value(value, test)
    assert (found.predicted_M == value.mean()).all() and len(found.predicted_M) == 300
    assert found.rmse.value == pytest.approx(math.sqrt(((test - value.mean()) ** 2).mean()))
    assert found.mae.value == pytest.approx(np.abs(test - value.mean()).mean())
    for one in (found.mae, found.rmse):
        assert one.low < one.value < one.high


@pytest.mark.parametrize("labels", [([], [0]), ([0], []), ([0, -1], [0])])
def test_guessers_need_labels(labels: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError):
        baselines.majority_label(*labels)
    with pytest.raises(ValueError):
        baselines.mean_value([1.0, math.nan], [1.0])


def test_logistic_regression_beats_the_majority_whatever_the_scale() -> None:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_breast_cancer(return_X_y=True)
    train, test = np.arange(0, len(y), 2), np.arange(1, len(y), 2)
    found = baselines.logistic_regression(x[train], y[train], x[test])
    assert (found == y[test]).mean() > 0.95 > baselines.majority_label(y[train], y[test]).accuracy.value + 0.2
    expected = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[train], y[train])
    assert found.dtype == np.int64 and (found == expected.predict(x[test])).all()
    scaled = baselines.logistic_regression(x[train] * 1e4 + 7, y[train], x[test] * 1e4 + 7)
    assert (scaled == found).mean() > 0.99


def test_ridge_is_the_closed_form_on_scaled_features() -> None:
    generator = np.random.default_rng(0)
    x, test = generator.normal(5, [1, 10, 0.1], (50, 3)), generator.normal(5, [1, 10, 0.1], (20, 3))
    y = x @ np.array([1.0, 0.1, 5.0]) + generator.normal(size=50)
    found = baselines.ridge_regression(x, y, test, penalty=2.0)
    z, z_test = (x - x.mean(0)) / x.std(0), (test - x.mean(0)) / x.std(0)
    weight = np.linalg.solve(z.T @ z + 2.0 * np.eye(3), z.T @ (y - y.mean()))
    assert found == pytest.approx(z_test @ weight + y.mean())


def test_a_feature_that_is_constant_in_training_says_nothing() -> None:
    x, test = np.array([[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]]), np.array([[2.0, 0.1], [2.0, 0.4]])
    found = baselines.ridge_regression(x, [1.0, 2.0, 3.0], test, penalty=1e-9)
    assert found == pytest.approx([2.0, 2.0], abs=1e-6)


def test_neighbours_know_the_digits_as_images() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, label = digits.images, digits.target
    order = np.random.default_rng(0).permutation(len(label))
    train, test = order[:900], order[900:1300]
    found = baselines.nearest_neighbours(images[train], label[train], images[test])
    assert found.shape == (400,) and (found == label[test]).mean() > 0.96
    assert baselines.nearest_neighbours(images[:2], label[:2], images[:2], neighbours=50).shape == (2,)


def test_the_svm_tells_texts_apart_and_reads_single_characters() -> None:
    words = {0: ["goal", "match", "team", "win"], 1: ["vote", "law", "party", "state"]}
    generator = np.random.default_rng(0)
    label = np.arange(60) % 2
    texts = [" ".join(generator.choice([*words[one], "the", "a"], 6)) for one in label]
    found = baselines.text_svm(texts[:40], label[:40], texts[40:])
    assert (found == label[40:]).all() and found.dtype == np.int64
    assert (baselines.text_svm(texts[:40], label[:40], texts[40:]) == found).all()
    assert baselines.text_svm(["猫 鱼", "狗 骨", "猫", "狗"], [0, 1, 0, 1], ["狗", "猫"]).tolist() == [1, 0]


def test_texts_without_a_word_are_refused() -> None:
    with pytest.raises(GroundupError) as caught:
        baselines.text_svm(["?!", ""], [0, 1], ["a word"])
    assert caught.value.code == "E-EVAL-054" and caught.value.exit_code == 2
    assert baselines.text_svm(["yes", "no"], [0, 1], ["", "?"]).shape == (2,)


METHODS = [baselines.logistic_regression, baselines.ridge_regression, baselines.nearest_neighbours]


@pytest.mark.parametrize("method", METHODS)
def test_missing_numbers_name_their_row_and_feature(method: Any) -> None:
    x = np.arange(12.0).reshape(4, 3)
    bad = x.copy()
    bad[2, 1] = math.nan
    bad[3, 0] = math.inf
    for train, test, part in ((bad, x, "training"), (x, bad, "test")):
        with pytest.raises(GroundupError) as caught:
            method(train, [0, 1, 0, 1], test)
        fault = caught.value
        assert fault.code == "E-EVAL-055" and "2 numbers" in fault.what and part in fault.what
        assert "row 2, feature 1" in fault.where


@pytest.mark.parametrize("method", METHODS)
def test_shapes_that_do_not_fit_are_refused(method: Any) -> None:
    with pytest.raises(ValueError):
        method(np.ones((4, 3)), [0, 1, 0, 1], np.ones((2, 5)))
    with pytest.raises(ValueError):
        method(np.ones((4, 3)), [0, 1], np.ones((2, 3)))


def test_a_single_label_in_training_is_always_predicted() -> None:
    x = np.arange(6.0).reshape(3, 2)
    for method in (baselines.logistic_regression, baselines.nearest_neighbours):
        assert method(x, [2, 2, 2], x).tolist() == [2, 2, 2]
    assert baselines.text_svm(["a b", "c"], [1, 1], ["d", "e", "a"]).tolist() == [1, 1, 1]


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    x = np.ones((2, 2))
    calls = [lambda method=method: method(x, [0, 1], x) for method in METHODS]
    for call in [*calls, lambda: baselines.text_svm(["a", "b"], [0, 1], ["a"])]:
        with pytest.raises(GroundupError) as caught:
            call()
        assert caught.value.code == "E-MACHINE-901" and "groundup[classify]" in caught.value.fix
    assert baselines.majority_label([0, 1, 1], [1]).accuracy.value == 1.0
