"""`policy_value`: a small residual network that looks at a board and gives a policy and a value, as AlphaZero's does
(Silver et al. 2018, methods: architecture; Silver et al. 2017, "Mastering the game of Go without human knowledge").
What game it is, and how the outputs are used, is no business of this file.

Shapes: B boards, C planes, H and W rows and columns, M moves.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import GroundupError
from groundup.models.layers import BatchNorm2d, initialise_layers, initialise_linear

POLICY_CHANNELS, VALUE_CHANNELS = 4, 4
"""Channels that the last layers of the policy and of the value see of each square. The paper has 2 and 1 on boards of
up to 361 squares; a small board needs more to say as much."""


class PolicyValueOptions(BaseModel):
    """The sizes of the network. Inputs and outputs follow from the game."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["policy_value"] = "policy_value"
    width: int = Field(default=32, ge=1, description="channels of every convolution, and width of the value's layer")
    blocks: int = Field(default=2, ge=0, description="residual blocks of two convolutions each")


def conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps the size of the board, and batch normalisation, which brings the bias."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions and the way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv(width, width, 3)
        self.second = conv(width, width, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x_BCHW))) + x_BCHW)


class PolicyValue(nn.Module):
    """The network.

    Args:
        shape: (C, H, W) of the planes of a board.
        outputs: moves, legal or not.

    Raises:
        GroundupError: E-MODEL-150 the input is no planes of a board.
    """

    def __init__(self, options: PolicyValueOptions, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        if len(shape) != 3:
            raise GroundupError(
                "E-MODEL-150",
                f"a policy_value network reads planes of shape (planes, rows, columns), and an input has {list(shape)}",
                where="model.family: policy_value",
                why="its convolutions go over the squares of a board",
                fix="data.kind: game, or another family",
                exit_code=2,
            )
        self.options = options
        squares, width = shape[1] * shape[2], options.width
        self.stem = conv(shape[0], width, 3)
        self.blocks = nn.ModuleList(Block(width) for _ in range(options.blocks))
        self.policy = conv(width, POLICY_CHANNELS, 1)
        self.head = nn.Linear(POLICY_CHANNELS * squares, outputs)
        self.value = conv(width, VALUE_CHANNELS, 1)
        self.value_hidden = nn.Linear(VALUE_CHANNELS * squares, width)
        self.value_head = nn.Linear(width, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew, in the order of the names.

        | parameter or buffer          | distribution                                                          |
        |------------------------------|-----------------------------------------------------------------------|
        | convolutions, value_hidden   | normal, deviation sqrt(2 / inputs) (He et al. 2015, arXiv:1502.01852) |
        | head, value_head             | normal, deviation 1 / sqrt(inputs)                                    |
        | weights, biases of norms     | one, zero                                                             |
        | other biases                 | zero                                                                  |
        | running mean, variance       | zero, one                                                             |
        """
        initialise_layers(self, "he_normal", "relu", generator)
        initialise_linear(self.value_head, "he_normal", "identity", generator)

    def forward(self, planes_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the moves (B, M), and what the board is worth to the player to move (B,), in -1 … 1."""
        x_BCHW = F.relu(self.stem(planes_BCHW))
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        logit_BM = self.head(F.relu(self.policy(x_BCHW)).flatten(1))
        hidden_BD = F.relu(self.value_hidden(F.relu(self.value(x_BCHW)).flatten(1)))
        return logit_BM, torch.tanh(self.value_head(hidden_BD)).squeeze(1)
