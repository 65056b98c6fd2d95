"""Learn a number for each text.

Shapes: B rows.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from groundup.contract import Batch, Loss
from groundup.objectives.task import Stateless, TaskModel, require_head


class RegressOptions(BaseModel):
    """Squared error of the value of each row, or Huber's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["regress"] = "regress"
    huber_delta: float | None = Field(
        default=None,
        gt=0.0,
        description="errors beyond this, in units of the value, count linearly (Huber). None: all are squared",
    )


class Regress(Stateless):
    """Sum over rows of (value - `value_B`)^2, or of Huber's loss, which is half of that up to `huber_delta` and a line
    beyond (Huber 1964, "Robust Estimation of a Location Parameter"); implements contract.Objective.

    Raises:
        GroundupError: E-RECIPE-050 another head.
    """

    def __init__(self, options: RegressOptions, model: TaskModel) -> None:
        require_head(model, "regress", options.kind)
        self.options, self.model = options, model

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of rows."""
        return torch.tensor(len(batch["value_B"]))

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward, and the summed error; metrics: sums of `squared_error` and `absolute_error` over `rows`."""
        value_B, target_B = self.model(batch).float(), batch["value_B"]
        error_B = (value_B - target_B).detach()
        if self.options.huber_delta is None:
            total = F.mse_loss(value_B, target_B, reduction="sum")
        else:
            total = F.huber_loss(value_B, target_B, reduction="sum", delta=self.options.huber_delta)
        metrics = {
            "squared_error": error_B.square().sum(),
            "absolute_error": error_B.abs().sum(),
            "rows": torch.tensor(len(error_B)),
        }
        return Loss(total, metrics)
