"""The values of all actions in a state: `q_network`, dense layers, below them convolutions where a state is an image.
Which action is chosen and what is learned is no business of this file.

Shapes: B rows, O the shape of one observation, C channels, H and W height and width, F features, N actions.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.models.layers import ACTIVATIONS, Activation, Fault, initialise_linear, refuse

CHANNELS = [32, 64, 64]


class QNetworkOptions(BaseModel):
    """The sizes of the network. Inputs and outputs follow from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["q_network"] = "q_network"
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default=[128, 128], description="width of each hidden layer, first to last; [] is a linear network"
    )
    activation: Activation = Field(default="relu", description="after each hidden layer and convolution")
    dueling: bool = Field(
        default=False, description="the value of the state and the advantage of each action have a layer each"
    )
    channels: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None,
        min_length=1,
        description=f"images only: channels of each convolution, which halves height and width. None: {CHANNELS}",
    )


class QNetwork(nn.Module):
    """The network.

    Args:
        shape: of one observation; (C, H, W) is an image, anything else is flattened.
        outputs: actions to choose from.

    Raises:
        GroundupError: E-MODEL-100 channels for what is no image.
    """

    def __init__(self, options: QNetworkOptions, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.options, image = options, len(shape) == 3
        if options.channels is not None and not image:
            what = f"channels are for images (channels, height, width), and an observation has the shape {shape}"
            refuse("q_network", [Fault("channels", what, "null, or leave it out")])
        self.activation = ACTIVATIONS[options.activation]
        channels = (options.channels or CHANNELS) if image else []
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*pair, kernel_size=3, stride=2, padding=1) for pair in zip([shape[0], *channels], channels)
        )
        inputs = math.prod(shape)
        if image:
            height, width = (math.ceil(size / 2 ** len(channels)) for size in shape[1:])
            inputs = channels[-1] * height * width
        widths = [inputs, *options.hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, options.hidden))
        self.head = nn.Linear(widths[-1], outputs)
        self.state_head = nn.Linear(widths[-1], 1) if options.dueling else None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, in the order of their names: weights and biases of every layer uniform in
        ±1 / sqrt(inputs), as torch does; values are small at first, whatever the activation."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                initialise_linear(module, "torch", self.options.activation, generator)

    def forward(self, x_BO: Tensor) -> Tensor:
        """Values (B, N) of the actions in states (B, *O).

        With `dueling`: Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a') (Wang et al. 2016, arXiv:1511.06581, equation 9).
        """
        for convolution in self.convolutions:
            x_BO = self.activation(convolution(x_BO))
        x_BF = x_BO.flatten(1)
        for layer in self.layers:
            x_BF = self.activation(layer(x_BF))
        value_BN = self.head(x_BF)
        if self.state_head is None:
            return value_BN
        return self.state_head(x_BF) + value_BN - value_BN.mean(dim=1, keepdim=True)
