"""Schedules beside torch's, at every step, and at the edges of short runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler

from groundup.optim.schedules import ScheduleOptions, factor

PEAK = 0.3


def rates(kind: type[lr_scheduler.LRScheduler], steps: int, **fields: Any) -> Iterator[float]:
    """The rate that torch gives each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = kind(optimizer, **fields)
    for step in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        if step < steps - 1:
            scheduler.step()


def assert_equal(options: ScheduleOptions, steps: int, expected: Iterator[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for step, rate in enumerate(expected):
            assert PEAK * factor(options, step, steps) == pytest.approx(rate, rel=1e-9, abs=1e-12), step


@pytest.mark.parametrize(("every", "drop", "steps"), [(10, 0.1, 37), (1, 0.9, 12), (50, 0.5, 20)])
def test_step_is_torchs(every: int, drop: float, steps: int) -> None:
    options = ScheduleOptions(kind="step", warmup=0, every=every, drop=drop)
    assert_equal(options, steps, rates(lr_scheduler.StepLR, steps, step_size=every, gamma=drop))


@pytest.mark.parametrize(("every", "drop"), [(1, 0.97), (10, 0.5), (7, 0.1)])
def test_exponential_is_torchs(every: int, drop: float) -> None:
    options = ScheduleOptions(kind="exponential", warmup=0, every=every, drop=drop)
    assert_equal(options, 40, rates(lr_scheduler.ExponentialLR, 40, gamma=drop ** (1 / every)))


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_torchs(final: float) -> None:
    options = ScheduleOptions(kind="cosine", warmup=0, final=final)
    assert_equal(options, 40, rates(lr_scheduler.CosineAnnealingLR, 40, T_max=40, eta_min=final * PEAK))


@pytest.mark.parametrize("steps", [5, 7, 40, 101])
@pytest.mark.parametrize(("peak", "start", "final"), [(0.3, 0.04, 0.001), (0.25, 0.1, 0.1), (0.9, 0.5, 1e-6)])
def test_one_cycle_is_torchs(steps: int, peak: float, start: float, final: float) -> None:
    options = ScheduleOptions(kind="one_cycle", peak=peak, start=start, final=final)
    fields = {"pct_start": peak, "div_factor": 1 / start, "final_div_factor": start / final}
    expected = rates(lr_scheduler.OneCycleLR, steps, max_lr=PEAK, total_steps=steps, cycle_momentum=False, **fields)
    assert_equal(options, steps, expected)


def test_torchs_own_defaults_of_one_cycle() -> None:
    options = ScheduleOptions(kind="one_cycle", final=0.04 / 1e4)
    expected = rates(lr_scheduler.OneCycleLR, 50, max_lr=PEAK, total_steps=50, cycle_momentum=False)
    assert_equal(options, 50, expected)


def test_one_cycle_rises_falls_and_has_no_warm_up() -> None:
    options = ScheduleOptions(kind="one_cycle", peak=0.4)
    shape = [factor(options, step, 100) for step in range(100)]
    assert shape[0] == pytest.approx(0.04) and shape[39] == 1.0 and shape[-1] == 0.0
    assert shape[:40] == sorted(shape[:40]) and shape[39:] == sorted(shape[39:], reverse=True)
    with_warmup = options.model_copy(update={"warmup": 20})
    assert [factor(with_warmup, step, 100) for step in range(100)] == shape


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("kind", ["step", "exponential", "one_cycle"])
def test_short_runs_have_a_rate_in_every_step(kind: Any, steps: int) -> None:
    for warmup in range(steps + 1):
        options = ScheduleOptions(kind=kind, warmup=warmup, final=0.01 if kind == "one_cycle" else 0.0)
        found = [factor(options, step, steps) for step in range(steps)]
        assert all(0.0 < one <= 1.0 for one in found) and (steps > 1 or found == [1.0])


@pytest.mark.parametrize("kind", ["step", "exponential"])
def test_the_fall_begins_after_the_warm_up(kind: Any) -> None:
    options = ScheduleOptions(kind=kind, warmup=4, every=3, drop=0.5)
    shape = [factor(options, step, 20) for step in range(20)]
    assert shape[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert shape[7] == 0.5 and shape[10] == 0.25
    assert shape[5] == (1.0 if kind == "step" else pytest.approx(0.5 ** (1 / 3)))


@pytest.mark.parametrize("kind", ["step", "exponential"])
def test_a_drop_takes_a_third_of_the_run_unless_said(kind: Any) -> None:
    unsaid, said = ScheduleOptions(kind=kind), ScheduleOptions(kind=kind, every=10)
    assert [factor(unsaid, step, 31) for step in range(31)] == [factor(said, step, 31) for step in range(31)]
    assert factor(unsaid, 20, 31) == pytest.approx(0.01)


@pytest.mark.parametrize(
    "fields", [{"drop": 1.0}, {"drop": 0.0}, {"every": 0}, {"peak": 0.0}, {"peak": 1.0}, {"start": 0.0}]
)
def test_what_is_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScheduleOptions(kind="step", **fields)
