"""Lowering the learning rate when a metric no longer improves, which no function of the step alone can know.

The metric comes in as a number; how it was measured, and whose rate it lowers, may not enter here.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class PlateauOptions(BaseModel):
    """Multiply the scheduled rate by `drop` whenever a metric has not improved for more than `patience` evaluations."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    metric: str = Field(default="loss", min_length=1, description="a metric of the evaluations while training")
    drop: float = Field(default=0.1, gt=0.0, lt=1.0, description="what the rate is multiplied by")
    patience: int = Field(default=10, ge=0, description="evaluations without improvement that are borne")
    threshold: float = Field(
        default=1e-4, ge=0.0, lt=1.0, description="what counts as improvement, as a share of the best"
    )
    minimum: float = Field(default=0.0, ge=0.0, lt=1.0, description="lowest rate, as a share of the scheduled one")


class Plateau:
    """What the scheduled learning rate is multiplied by, as torch's ReduceLROnPlateau lowers it.

    One difference: the improvement that is needed is a share of the best value's size, so that a metric below zero,
    such as a return, must improve too (torch takes a slightly worse one for better there).

    Args:
        options: when, and how far.
        higher_is_better: whether the metric should rise.

    Attributes:
        factor: at first 1, never below `options.minimum`.
    """

    def __init__(self, options: PlateauOptions, *, higher_is_better: bool = False) -> None:
        self.options, self.higher_is_better = options, higher_is_better
        self.factor = 1.0
        self.best: float | None = None
        self.waited = 0

    def see(self, metric: float) -> bool:
        """Take note of a measured value, and say whether the factor fell. NaN is no improvement."""
        if self._improves(metric):
            self.best, self.waited = metric, 0
        else:
            self.waited += 1
        if self.waited <= self.options.patience:
            return False
        before, self.waited = self.factor, 0
        self.factor = max(self.factor * self.options.drop, self.options.minimum)
        return self.factor < before

    def _improves(self, metric: float) -> bool:
        if self.best is None:
            return math.isfinite(metric)
        needed = self.options.threshold * abs(self.best)
        return metric > self.best + needed if self.higher_is_better else metric < self.best - needed

    def state_dict(self) -> dict[str, Any]:
        """The factor, the best value and how many evaluations ago it was."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on waiting."""
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]
