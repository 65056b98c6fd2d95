"""The mean and deviation of a stream of numbers, as it goes by. What the numbers mean does not enter here.

Shapes: B rows; S the shape of one of the things that are measured, which may be ().
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Moments:
    """Running mean and deviation of every element, in float64, exact up to rounding (Chan, Golub & LeVeque 1979,
    "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", equation 2.1).

    Before the first row the mean is 0 and the deviation 1.

    Attributes:
        count: rows seen.
        mean: float64, shape S.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self._squares = torch.zeros(shape, dtype=torch.float64)  # summed squared differences from the mean

    @property
    def deviation(self) -> Tensor:
        """The square root of the variance + 1e-8, float64, shape S: an element that never changes does not divide by
        zero."""
        if not self.count:
            return torch.ones_like(self.mean)
        return (self._squares / self.count + 1e-8).sqrt()

    def update(self, value_BS: Tensor) -> None:
        """Take in B rows at once."""
        value_BS = value_BS.double()
        rows, mean = len(value_BS), value_BS.mean(dim=0)
        total, apart = self.count + rows, mean - self.mean
        self._squares = (
            self._squares + (value_BS - mean).square().sum(dim=0) + apart.square() * (self.count * rows / total)
        )
        self.mean = self.mean + apart * (rows / total)
        self.count = total

    def standard(self, value_BS: Tensor, largest: float) -> Tensor:
        """(value - mean) / deviation, cut off at ±`largest`, in the dtype of the value."""
        return ((value_BS - self.mean) / self.deviation).clamp(-largest, largest).to(value_BS.dtype)

    def begin_at(self, count: int, mean: Tensor, deviation: Tensor) -> None:
        """Go on from what was seen elsewhere: so many rows with this mean and deviation."""
        self.count, self.mean = count, mean.double()
        self._squares = (deviation.double().square() - 1e-8).clamp_min(0.0) * count

    def state_dict(self) -> dict[str, Any]:
        """What was seen."""
        return {"count": self.count, "mean": self.mean, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.count, self.mean, self._squares = state["count"], state["mean"], state["squares"]
