"""Learning-rate schedules: pure functions of the step, so that there is no state to lose.

Each gives the factor by which the peak learning rate is multiplied in step `step` (0-based) of `steps`.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ScheduleOptions(BaseModel):
    """How the learning rate moves over the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["constant", "linear", "cosine", "warmup_stable_decay"] = Field(
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


def factor(options: ScheduleOptions, step: int, steps: int) -> float:
    """The share of the peak learning rate in step `step` of `steps`.

    The warm-up is linear and reaches the peak with its last step. After it:

    - constant: 1;
    - linear: from 1 to `final`;
    - cosine: half a cosine from 1 to `final` (Loshchilov & Hutter 2017, arXiv:1608.03983);
    - warmup_stable_decay: 1, then over the last `decay` share of the steps linearly to `final`
      (Hu et al. 2024, arXiv:2404.06395).
    """
    warmup = options.warmup or 0
    if step < warmup:
        return (step + 1) / warmup
    if options.kind == "constant":
        return 1.0
    start = warmup
    if options.kind == "warmup_stable_decay":
        start = max(warmup, steps - math.ceil((options.decay or 1.0) * steps))
    progress = min(1.0, max(0.0, (step - start) / max(1, steps - start)))
    if options.kind == "cosine":
        return options.final + (1.0 - options.final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - (1.0 - options.final) * progress
