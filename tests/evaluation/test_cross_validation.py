"""Cross-validation: the corrected interval, folds that measured different things, and the choice of a setting."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groundup.errors import GroundupError
from groundup.evaluation.cross_validation import best_setting, student, summarise


def line(rows: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 5))
    return x, x @ np.array([1.0, -1.0, 0.5, 0.0, 0.0]) + generator.normal(size=rows)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706205), (2, 4.302653), (4, 2.776445), (9, 2.262157), (30, 2.042272)]
)
def test_student_is_the_printed_table(freedom: int, expected: float) -> None:
    assert student(0.95, freedom) == pytest.approx(expected, abs=1e-6)


def test_student_nears_the_normal_distribution() -> None:
    assert student(0.95, 500) == pytest.approx(1.964720, abs=1e-6)


def test_mean_and_interval_are_nadeau_and_bengios() -> None:
    values = [0.80, 0.84, 0.78, 0.86, 0.82]
    per_fold = [{"accuracy": value} for value in values]
    found = summarise(per_fold, [(80, 20)] * 5)
    spread = math.sqrt(sum((x - 0.82) ** 2 for x in values) / 4)
    reach = 2.776445 * spread * math.sqrt(1 / 5 + 20 / 80)
    got = found.metrics["accuracy"]
    assert got.value == pytest.approx(0.82)
    assert (got.low, got.high) == pytest.approx((0.82 - reach, 0.82 + reach), abs=1e-6)
    assert found.per_fold == per_fold
    narrow = summarise(per_fold, [(80, 20)] * 5, confidence=0.5).metrics["accuracy"]
    assert narrow.high - narrow.low < got.high - got.low


def test_the_corrected_interval_covers_where_the_plain_one_does_not() -> None:
    """Repeated random splits of one data set: the truth is the error on 20,000 fresh rows."""
    x_new, y_new = line(20_000, seed=999)
    corrected = plain = 0
    for trial in range(40):
        x, y = line(60, seed=trial)
        per_fold, weights = [], []
        for repeat in range(15):
            order = np.random.default_rng(100 * trial + repeat).permutation(60)
            train, test = order[12:], order[:12]
            weights.append(np.linalg.lstsq(x[train], y[train])[0])
            per_fold.append({"mse": float(((x[test] @ weights[-1] - y[test]) ** 2).mean())})
        truth = float(np.mean([((x_new @ weight - y_new) ** 2).mean() for weight in weights[:3]]))
        got = summarise(per_fold, [(48, 12)] * 15).metrics["mse"]
        corrected += got.low <= truth <= got.high
        narrow = (got.high - got.value) / math.sqrt(1 + 15 * 12 / 48)
        plain += abs(truth - got.value) <= narrow
    assert plain < 30 < corrected


def test_what_a_fold_cannot_measure_has_no_mean() -> None:
    found = summarise([{"auc": 0.9, "loss": 1.0}, {"auc": math.nan, "loss": 2.0}], [(5, 5)] * 2)
    assert all(math.isnan(x) for x in found.metrics["auc"]) and found.metrics["loss"].value == 1.5
    shown = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert shown["metrics"]["auc"] == {"value": None, "low": None, "high": None}
    assert [scores["auc"] for scores in shown["per_fold"]] == [0.9, None]


@pytest.mark.parametrize("second", [{"loss": 1.0, "auc": 0.5}, {}])
def test_folds_that_measure_different_things_are_refused(second: dict[str, float]) -> None:
    with pytest.raises(GroundupError) as caught:
        summarise([{"loss": 1.0}, second], [(5, 5)] * 2)
    assert caught.value.code == "E-EVAL-051" and "fold 1" in caught.value.what


def test_equally_good_settings_leave_the_first_and_a_failed_one_is_not_chosen() -> None:
    found = {"failed": math.nan, "b": 1.0, "a": 1.0, "high": 2.0}
    assert best_setting(found, "loss", False, "fold-1", ["loss"]) == "b"
    assert best_setting(found, "accuracy", True, "fold-1", ["accuracy"]) == "high"
    for nothing in ({"failed": math.nan}, {}):
        with pytest.raises(GroundupError) as caught:
            best_setting(nothing, "auc", True, "fold-1", ["loss"])
        assert caught.value.code == "E-EVAL-052"
        assert caught.value.where.startswith("fold-1") and "loss" in caught.value.fix
