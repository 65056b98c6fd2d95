"""The dense network: layers σ(W x + b), one after the other (Rumelhart, Hinton & Williams 1986, "Learning
representations by back-propagating errors"). Images and sequences are flattened; what knows about their order stands
in other files.

Shapes: B rows, F features.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.models.layers import ACTIVATIONS, Activation, Norm, Scheme, initialise_layers, norm_1d


class MlpOptions(BaseModel):
    """The sizes of a dense network. Inputs and outputs follow from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["mlp"] = "mlp"
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default=[128, 128], description="width of each hidden layer, first to last; [] is a linear network"
    )
    activation: Activation = Field(default="relu", description="after each hidden layer")
    initialisation: Scheme = Field(default="he_normal", description="how weights are drawn; its gain fits activation")
    norm: Norm = Field(default="none", description="between each hidden layer and its activation")
    dropout: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="probability, in training, of dropping a hidden value"
    )
    bias: bool = Field(default=True, description="layers, the head included, add a constant to each output")


class Layer(nn.Module):
    """Linear, norm, activation, dropout."""

    def __init__(self, options: MlpOptions, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=options.bias)
        self.norm = norm_1d(options.norm, outputs)
        self.activation = ACTIVATIONS[options.activation]
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.dropout(self.activation(self.norm(self.linear(x_BF))))


class Mlp(nn.Module):
    """The network.

    Args:
        shape: of one input, without the batch: any.
        outputs: logits or values of a row.
    """

    def __init__(self, options: MlpOptions, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.options = options
        widths = [math.prod(shape), *options.hidden]
        self.layers = nn.ModuleList(Layer(options, *pair) for pair in zip(widths, options.hidden))
        self.head = nn.Linear(widths[-1], outputs, bias=options.bias)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew, in the order of the names.

        | parameter or buffer            | distribution                                            |
        |--------------------------------|---------------------------------------------------------|
        | weights of layers              | `options.initialisation`, with the activation's gain    |
        | weight of head                 | the same with gain 1                                    |
        | biases                         | zero (with initialisation torch: uniform as the weight) |
        | weights, biases of norms       | one, zero                                               |
        | running mean, variance, count  | zero, one, zero                                         |
        """
        initialise_layers(self, self.options.initialisation, self.options.activation, generator)

    def forward(self, x_BF: Tensor) -> Tensor:
        """Logits or values (B, outputs) of rows (B, F), or of anything that is flattened to it."""
        x_BF = x_BF.flatten(1)
        for layer in self.layers:
            x_BF = layer(x_BF)
        return self.head(x_BF)
