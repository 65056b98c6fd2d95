"""Cross-validation: the corrected interval, the choice inside each fold, and folds that would lie."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groundup.errors import GroundupError
from groundup.evaluation.cross_validation import (
    Fold,
    Indices,
    cross_validate,
    learning_curve,
    nested,
    student,
    summarise,
)


def folds(rows: int, k: int, seed: int = 0) -> list[Fold]:
    part = np.random.default_rng(seed).permutation(rows) % k
    return [(np.flatnonzero(part != one), np.flatnonzero(part == one)) for one in range(k)]


def line(rows: int, seed: int, noise: float = 1.0) -> tuple[NDArray[Any], NDArray[Any]]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 5))
    return x, x @ np.array([1.0, -1.0, 0.5, 0.0, 0.0]) + noise * generator.normal(size=rows)


def least_squares(x: NDArray[Any], y: NDArray[Any], penalty: float = 0.0) -> Any:
    def fit_and_score(train: Indices, test: Indices) -> dict[str, float]:
        weight = np.linalg.solve(x[train].T @ x[train] + penalty * np.eye(x.shape[1]), x[train].T @ y[train])
        error = x[test] @ weight - y[test]
        return {"mse": float((error**2).mean()), "mae": float(np.abs(error).mean())}

    return fit_and_score


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706205), (2, 4.302653), (4, 2.776445), (9, 2.262157), (30, 2.042272)]
)
def test_student_is_the_printed_table(freedom: int, expected: float) -> None:
    assert student(0.95, freedom) == pytest.approx(expected, abs=1e-6)


def test_student_nears_the_normal_distribution() -> None:
    assert student(0.95, 500) == pytest.approx(1.964720, abs=1e-6)


def test_mean_and_interval_are_nadeau_and_bengios() -> None:
    values = [0.80, 0.84, 0.78, 0.86, 0.82]
    queue = iter(values)
    found = cross_validate(lambda train, test: {"accuracy": next(queue)}, folds(100, 5))
    spread = math.sqrt(sum((x - 0.82) ** 2 for x in values) / 4)
    reach = 2.776445 * spread * math.sqrt(1 / 5 + 20 / 80)
    got = found.metrics["accuracy"]
    assert got.value == pytest.approx(0.82)
    assert (got.low, got.high) == pytest.approx((0.82 - reach, 0.82 + reach), abs=1e-6)
    assert [scores["accuracy"] for scores in found.per_fold] == values
    narrow = cross_validate(lambda train, test: {"accuracy": values[int(test[0]) % 5]}, folds(100, 5), confidence=0.5)
    assert narrow.metrics["accuracy"].high - narrow.metrics["accuracy"].low < got.high - got.low


def test_the_corrected_interval_covers_where_the_plain_one_does_not() -> None:
    """Repeated random splits of one data set: the truth is the error on 20,000 fresh rows."""
    x_new, y_new = line(20_000, seed=999)
    corrected = plain = 0
    for trial in range(40):
        x, y = line(60, seed=trial)
        splits = [folds(60, 5, seed=100 * trial + repeat)[0] for repeat in range(15)]
        found = cross_validate(least_squares(x, y), splits)
        truth = float(np.mean([((x_new @ np.linalg.lstsq(x[a], y[a])[0] - y_new) ** 2).mean() for a, _ in splits[:3]]))
        got = found.metrics["mse"]
        corrected += got.low <= truth <= got.high
        narrow = (got.high - got.value) / math.sqrt(1 + 15 * 12 / 48)
        plain += abs(truth - got.value) <= narrow
    assert plain < 30 < corrected


def test_what_a_fold_cannot_measure_has_no_mean() -> None:
    queue = iter([{"auc": 0.9, "loss": 1.0}, {"auc": math.nan, "loss": 2.0}])
    found = cross_validate(lambda train, test: next(queue), folds(10, 2))
    assert all(math.isnan(x) for x in found.metrics["auc"]) and found.metrics["loss"].value == 1.5
    shown = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert shown["metrics"]["auc"] == {"value": None, "low": None, "high": None}
    assert [scores["auc"] for scores in shown["per_fold"]] == [0.9, None]


ROWS = np.arange
BAD: dict[str, tuple[list[Fold], str]] = {
    "a leak": ([(ROWS(5), ROWS(4, 8)), (ROWS(5, 8), ROWS(5))], "fold 0: 1 rows to train on and to test on: 4"),
    "nothing to test on": ([(ROWS(5), ROWS(0)), (ROWS(5), ROWS(5, 8))], "fold 0: no row to test on"),
    "nothing to train on": ([(ROWS(5), ROWS(5, 8)), (ROWS(0), ROWS(5))], "fold 1: no row to train on"),
    "one fold": ([(ROWS(5), ROWS(5, 8))], "1 folds: two at least"),
    "a row before the first": ([(ROWS(5), ROWS(5, 8)), (ROWS(-1, 3), ROWS(3, 8))], "rows -1 to 2"),
    "none": ([], "0 folds"),
}


@pytest.mark.parametrize("case", BAD)
def test_folds_that_would_lie_are_refused(case: str) -> None:
    bad, words = BAD[case]
    with pytest.raises(GroundupError) as caught:
        cross_validate(lambda train, test: {"loss": 0.0}, bad)
    assert caught.value.code == "E-EVAL-050" and words in caught.value.where and caught.value.exit_code == 2


def test_all_faults_of_folds_are_told_before_anything_is_trained() -> None:
    def never(train: Indices, test: Indices) -> dict[str, float]:
        raise AssertionError("trained")

    with pytest.raises(GroundupError) as caught:
        cross_validate(never, [(ROWS(5), ROWS(4, 6)), (ROWS(3), ROWS(0))])
    assert "fold 0" in caught.value.where and "fold 1" in caught.value.where and caught.value.what.startswith("2 ")


def test_folds_that_measure_different_things_are_refused() -> None:
    queue = iter([{"loss": 1.0}, {"loss": 1.0, "auc": 0.5}])
    with pytest.raises(GroundupError) as caught:
        cross_validate(lambda train, test: next(queue), folds(10, 2))
    assert caught.value.code == "E-EVAL-051" and "auc" in caught.value.what
    with pytest.raises(GroundupError):
        summarise([{"loss": 1.0}, {}], folds(10, 2))


def test_nested_chooses_inside_each_fold_and_never_sees_its_test_rows() -> None:
    x, y = line(60, seed=3, noise=0.3)
    outer = folds(60, 4)
    asked: list[tuple[set[int], set[int]]] = []

    def fit_and_score(penalty: float, train: Indices, test: Indices) -> dict[str, float]:
        asked.append((set(train.tolist()), set(test.tolist())))
        return least_squares(x, y, penalty)(train, test)

    settings = {"huge": 1e6, "small": 0.1, "large": 1e3}
    divide = lambda rows: folds(len(rows), 3, seed=7)  # noqa: E731
    found = nested(fit_and_score, settings, outer, divide, metric="mse", higher_is_better=False)
    assert found.chosen == ["small"] * 4
    expected = cross_validate(least_squares(x, y, 0.1), outer)
    assert found.outer == expected
    per_outer = 3 * len(settings) + 1
    assert len(asked) == 4 * per_outer
    for number, (train, test) in enumerate(outer):
        calls = asked[number * per_outer : (number + 1) * per_outer]
        for trained, tested in calls[:-1]:
            assert trained | tested == set(train.tolist()) and not trained & tested
        assert calls[-1] == (set(train.tolist()), set(test.tolist()))
    worst = nested(fit_and_score, settings, outer, divide, metric="mse", higher_is_better=True)
    assert worst.chosen == ["huge"] * 4 and set(worst.inner[0]) == set(settings)
    json.dumps(found.as_dict(), allow_nan=False)


def test_equally_good_settings_leave_the_first_and_a_failed_one_is_not_chosen() -> None:
    def score(value: float, train: Indices, test: Indices) -> dict[str, float]:
        return {"loss": value}

    divide = lambda rows: folds(len(rows), 2)  # noqa: E731
    settings = {"failed": math.nan, "b": 1.0, "a": 1.0}
    found = nested(score, settings, folds(12, 2), divide, metric="loss", higher_is_better=False)
    assert found.chosen == ["b", "b"]
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["inner"][0]["failed"] is None
    for metric, given in (("auc", settings), ("loss", {"failed": math.nan}), ("loss", {})):
        with pytest.raises(GroundupError) as caught:
            nested(score, given, folds(12, 2), divide, metric=metric, higher_is_better=False)
        assert caught.value.code == "E-EVAL-052"


def test_inner_folds_beyond_their_rows_are_refused() -> None:
    with pytest.raises(GroundupError) as caught:
        nested(
            lambda setting, train, test: {"loss": 0.0},
            {"one": 1},
            folds(12, 2),
            lambda rows: folds(12, 2),
            metric="loss",
            higher_is_better=False,
        )
    assert caught.value.code == "E-EVAL-050" and "outer fold 0, inner fold 0" in caught.value.where


def test_a_learning_curve_falls_on_the_same_test_rows_with_nested_samples() -> None:
    x, y = line(200, seed=1)
    parts = folds(200, 5)
    seen: dict[int, list[tuple[set[int], list[int]]]] = {}

    def fit_and_score(train: Indices, test: Indices) -> dict[str, float]:
        seen.setdefault(len(train), []).append((set(train.tolist()), test.tolist()))
        return least_squares(x, y)(train, test)

    curve = learning_curve(fit_and_score, parts, [160, 8, 40, 8], seed=2)
    assert list(curve) == [8, 40, 160]
    values = [curve[size].metrics["mse"].value for size in curve]
    assert values == sorted(values, reverse=True) and values[0] > 1.3 * values[-1]
    assert curve[160] == cross_validate(least_squares(x, y), parts)
    for number, (train, test) in enumerate(parts):
        small, middle, large = (seen[size][number] for size in (8, 40, 160))
        assert small[0] < middle[0] < large[0] == set(train.tolist())
        assert small[1] == middle[1] == test.tolist()
    assert learning_curve(least_squares(x, y), parts, [40], seed=2)[40] == curve[40]
    assert learning_curve(least_squares(x, y), parts, [40], seed=3)[40] != curve[40]


@pytest.mark.parametrize("sizes", [[], [0], [5, 9]])
def test_sizes_that_do_not_fit_are_refused(sizes: list[int]) -> None:
    with pytest.raises(GroundupError) as caught:
        learning_curve(lambda train, test: {"loss": 0.0}, folds(12, 3), sizes)
    assert caught.value.code == "E-EVAL-053" and "from 1 to 8" in caught.value.fix
