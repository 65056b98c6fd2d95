"""The plateau rule beside torch's ReduceLROnPlateau, and its state."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from groundup.engine.plateau import Plateau, PlateauOptions

CASES: dict[str, dict[str, Any]] = {
    "usual": {"patience": 2},
    "no patience": {"patience": 0, "drop": 0.5},
    "bounded": {"patience": 1, "drop": 0.3, "minimum": 0.02},
    "coarse": {"patience": 1, "drop": 0.7, "threshold": 0.1},
    "any improvement": {"patience": 3, "threshold": 0.0},
}


def series(rising: bool) -> list[float]:
    """A noisy curve that flattens, with a value that is not a number in it."""
    step = np.arange(60)
    noise = 0.05 * np.random.default_rng(5).normal(size=60)
    curve = 0.5 + 2.0 * np.exp(-step / 8) + noise
    curve[20] = math.nan
    return [float(x) for x in (3.0 - curve if rising else curve)]


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_factor_is_torchs(case: str, rising: bool) -> None:
    options = PlateauOptions(**CASES[case])
    plateau = Plateau(options, higher_is_better=rising)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = ReduceLROnPlateau(
        optimizer,
        mode="max" if rising else "min",
        factor=options.drop,
        patience=options.patience,
        threshold=options.threshold,
        min_lr=options.minimum,
        eps=0.0,
    )
    fell = 0
    for metric in series(rising):
        before = plateau.factor
        lower = plateau.see(metric)
        reference.step(metric)
        assert plateau.factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        assert lower == (plateau.factor < before)
        fell += lower
    assert fell >= 2 and plateau.factor >= options.minimum


def test_a_metric_below_zero_must_improve_too() -> None:
    plateau = Plateau(PlateauOptions(patience=1, threshold=0.1), higher_is_better=True)
    assert [plateau.see(value) for value in (-100.0, -101.0, -95.0)] == [False, False, True]
    assert plateau.best == -100.0
    assert not plateau.see(-89.0) and plateau.best == -89.0


def test_it_waits_from_the_first_evaluation_that_is_a_number() -> None:
    plateau = Plateau(PlateauOptions(patience=1))
    assert [plateau.see(value) for value in (math.nan, math.inf, 2.0, 3.0, 3.0)] == [False, True, False, False, True]
    assert plateau.factor == pytest.approx(0.01)


@pytest.mark.parametrize("stop", [0, 1, 13, 40])
def test_a_resume_goes_on_waiting(stop: int) -> None:
    options, values = PlateauOptions(patience=2), series(False)
    straight, first, second = (Plateau(options) for _ in range(3))
    expected = [(straight.see(value), straight.factor) for value in values]
    for value in values[:stop]:
        first.see(value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [(second.see(value), second.factor) for value in values[stop:]] == expected[stop:]
