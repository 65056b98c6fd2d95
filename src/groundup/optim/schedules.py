"""Learning-rate schedules: pure functions of the step, so that there is no state to lose.

Each gives the factor by which the peak learning rate is multiplied in step `step` (0-based) of `steps`.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FALLING = ("step", "exponential")
"""The kinds that fall by a factor every so many steps."""


class ScheduleOptions(BaseModel):
    """How the learning rate moves over the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["constant", "linear", "cosine", "warmup_stable_decay", "step", "exponential", "one_cycle"] = Field(
        default="warmup_stable_decay", description="shape after the warm-up"
    )
    warmup: int | None = Field(
        default=None, ge=0, description="steps of linear warm-up from zero; derived: 2 % of the steps"
    )
    final: float = Field(default=0.0, ge=0.0, le=1.0, description="last rate, as a share of the peak")
    decay: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="share of the steps over which warmup_stable_decay falls; derived: 0.5",
    )
    drop: float = Field(
        default=0.1, gt=0.0, lt=1.0, description="step, exponential: what the rate is multiplied by every `every` steps"
    )
    every: int | None = Field(
        default=None, ge=1, description="step, exponential: steps of one drop; derived: a third of the run"
    )
    peak: float = Field(
        default=0.3, gt=0.0, lt=1.0, description="one_cycle: share of the steps after which the rate is highest"
    )
    start: float = Field(default=0.04, gt=0.0, le=1.0, description="one_cycle: first rate, as a share of the peak")


def factor(options: ScheduleOptions, step: int, steps: int) -> float:
    """The share of the peak learning rate in step `step` of `steps`.

    The warm-up is linear and reaches the peak with its last step; one_cycle has none, for its rise is one. After it:

    - constant: 1;
    - linear: from 1 to `final`;
    - cosine: half a cosine from 1 to `final` (Loshchilov & Hutter 2017, arXiv:1608.03983);
    - warmup_stable_decay: 1, then over the last `decay` share of the steps linearly to `final`
      (Hu et al. 2024, arXiv:2404.06395);
    - step: multiplied by `drop` after every `every` steps;
    - exponential: the same fall, spread evenly over the steps;
    - one_cycle: half a cosine from `start` to 1, another from 1 to `final` (Smith & Topin 2019, arXiv:1708.07120,
      with cosines for lines as in torch's OneCycleLR; momentum stays as it is).
    """
    if options.kind == "one_cycle":
        return _one_cycle(options, step, steps)
    warmup = options.warmup or 0
    if step < warmup:
        return (step + 1) / warmup
    if options.kind == "constant":
        return 1.0
    if options.kind in FALLING:
        every = options.every or max(1, steps // 3)
        drops = (step - warmup) // every if options.kind == "step" else (step - warmup) / every
        return options.drop**drops
    start = warmup
    if options.kind == "warmup_stable_decay":
        start = max(warmup, steps - math.ceil((options.decay or 1.0) * steps))
    progress = min(1.0, max(0.0, (step - start) / max(1, steps - start)))
    if options.kind == "cosine":
        return _cosine(1.0, options.final, progress)
    return 1.0 - (1.0 - options.final) * progress


def _one_cycle(options: ScheduleOptions, step: int, steps: int) -> float:
    top = max(0.0, options.peak * steps - 1)
    if step < top:
        return _cosine(options.start, 1.0, step / top)
    fall = steps - 1 - top
    return _cosine(1.0, options.final, min(1.0, (step - top) / fall)) if fall > 0 else 1.0


def _cosine(first: float, last: float, progress: float) -> float:
    """Half a cosine from one value to another; `progress` is from 0 to 1."""
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * progress))
