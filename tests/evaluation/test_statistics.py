"""Intervals and verdicts: closed forms, coverage on synthetic data, and a naive bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from groundup.evaluation import statistics
from groundup.evaluation.statistics import Interval, PerUnit, difference, interval, judge, verdict


def test_value_is_the_ratio_of_sums_not_the_mean_of_ratios() -> None:
    assert interval(PerUnit.of([1.0, 9.0], [1.0, 3.0])).value == 2.5
    assert interval(PerUnit.of([1, 2, 6])).value == 3.0


def test_width_of_a_mean_matches_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = interval(PerUnit.of(values), resamples=4000)
    error = values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.1 * error)


def test_ratio_interval_matches_the_delta_method() -> None:
    generator = np.random.default_rng(1)
    weight = generator.integers(5, 200, 500).astype(float)
    total = weight * generator.normal(2.0, 0.3, 500)
    found = interval(PerUnit.of(total, weight), resamples=4000)
    residual = total - found.value * weight
    error = math.sqrt((residual**2).sum()) / weight.sum()
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_interval_equals_a_naive_bootstrap() -> None:
    total, weight = np.array([3.0, 1.0, 4.0, 1.0, 5.0]), np.array([1.0, 2.0, 1.0, 1.0, 3.0])
    generator = np.random.default_rng(7)
    ratios = []
    for row in generator.integers(0, 5, size=(300, 5)):
        ratios.append(sum(total[i] for i in row) / sum(weight[i] for i in row))
    expected = np.quantile(ratios, (0.025, 0.975))
    found = interval(PerUnit.of(total, weight), resamples=300, seed=7)
    assert (found.low, found.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_a_95_percent_interval_covers_about_95_percent(method: str) -> None:
    generator, hits = np.random.default_rng(3), 0
    for trial in range(300):
        weight = generator.integers(1, 50, 60).astype(float)
        total = weight * generator.gamma(4.0, 0.5, 60)  # mean 2, skewed
        found = interval(PerUnit.of(total, weight), method=method, resamples=400, seed=trial)  # type: ignore[arg-type]
        hits += found.low <= 2.0 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_bca_is_shifted_towards_the_long_tail() -> None:
    values = np.random.default_rng(5).exponential(1.0, 40)
    plain = interval(PerUnit.of(values), resamples=4000)
    corrected = interval(PerUnit.of(values), resamples=4000, method="bca")
    assert corrected.low > plain.low and corrected.high > plain.high
    symmetric = np.concatenate([np.arange(30), -np.arange(30)]).astype(float)
    plain, corrected = (interval(PerUnit.of(symmetric), method=m) for m in ("percentile", "bca"))  # type: ignore[arg-type]
    assert corrected.low == pytest.approx(plain.low, abs=0.4)


def test_same_seed_same_interval_other_seed_another() -> None:
    unit = PerUnit.of(np.random.default_rng(0).random(30))
    assert interval(unit, seed=1) == interval(unit, seed=1) != interval(unit, seed=2)


def test_chunks_of_draws_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = PerUnit.of(np.random.default_rng(0).random(30))
    whole = interval(unit, resamples=100)
    monkeypatch.setattr(statistics, "CHUNK", 100)
    assert interval(unit, resamples=100) == whole


def test_many_units_are_pooled_without_changing_value_or_width() -> None:
    values = np.random.default_rng(2).normal(1, 1, 40_000)
    found = interval(PerUnit.of(values), resamples=800)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 / 200, rel=0.1)


def test_one_unit_has_no_interval_and_json_shows_null() -> None:
    found = interval(PerUnit.of([3.0], [2.0]))
    assert found.value == 1.5 and math.isnan(found.low) and math.isnan(found.high)
    assert found.as_dict() == {"value": 1.5, "low": None, "high": None}
    assert judge(difference(PerUnit.of([1]), PerUnit.of([2])), True) == "within noise"


def test_units_that_weigh_nothing_are_left_out() -> None:
    assert interval(PerUnit.of([1, 0, 5], [1, 0, 1])) == interval(PerUnit.of([1, 5], [1, 1]))


def test_wrong_measurements_are_refused() -> None:
    for total, weight in [
        ([1.0], [1.0, 2.0]),
        ([math.nan], None),
        ([1.0], [0.0]),
        ([], None),
        ([1, 1], [2, -1]),
    ]:
        with pytest.raises(ValueError, match=r"weight|finite"):
            PerUnit.of(total, weight)
    with pytest.raises(ValueError, match="2 units before, 1 after"):
        difference(PerUnit.of([1, 2]), PerUnit.of([1]))


def test_pairing_finds_what_separate_intervals_cannot() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(3, 1, 200)
    before, after = PerUnit.of(hard), PerUnit.of(hard - 0.05 + generator.normal(0, 0.02, 200))
    assert interval(before).low < interval(after).high  # they overlap
    assert verdict(before, after, higher_is_better=False) == "better"
    assert verdict(before, after, higher_is_better=True) == "worse"
    assert verdict(after, before, higher_is_better=False) == "worse"


def test_no_difference_is_within_noise_about_95_percent_of_the_time() -> None:
    generator, calm = np.random.default_rng(9), 0
    for trial in range(200):
        base = generator.normal(0, 1, 50)
        units = [PerUnit.of(base + generator.normal(0, 0.5, 50)) for _ in range(2)]
        calm += verdict(*units, higher_is_better=True, resamples=300, seed=trial) == "within noise"
    assert 0.89 <= calm / 200 <= 0.99


def test_transform_moves_value_and_ends() -> None:
    unit = PerUnit.of(np.random.default_rng(0).random(30))
    plain, moved = interval(unit), interval(unit, transform=np.exp)
    assert moved == pytest.approx(Interval(*(math.exp(x) for x in plain)))
