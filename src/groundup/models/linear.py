"""The linear family: one layer from the inputs to the outputs. With a squared error it is linear regression, with a
cross-entropy logistic regression. Penalties on the weights are the optimizer's and the objective's, not this file's.

Shapes: B rows, F features of a row, all dimensions of an input taken together.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class LinearOptions(BaseModel):
    """A linear network has nearly nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["linear"] = "linear"
    bias: bool = Field(default=True, description="a constant is added to each output (the intercept)")


class Linear(nn.Module):
    """W x + b.

    Args:
        shape: of one input, without the batch: any.
        outputs: logits or values of a row.
    """

    def __init__(self, options: LinearOptions, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.options = options
        self.head = nn.Linear(math.prod(shape), outputs, bias=options.bias)

    def initialise(self, generator: torch.Generator) -> None:
        """Everything zero: the loss is convex, so that the start does not matter, and at zero every class is equally
        likely. The generator is not used."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BF: Tensor) -> Tensor:
        """Logits or values (B, outputs) of rows (B, F), or of anything that is flattened to it."""
        return self.head(x_BF.flatten(1))
