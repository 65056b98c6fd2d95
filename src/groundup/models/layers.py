"""The small things that the classic networks share: activations, norms, initialisation, and how options that cannot
work are refused. No network stands here, and nothing that a single family needs.

Shapes: B rows, F features, C channels, H and W height and width of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import GroundupError

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu", "silu", "elu", "softplus", "identity"]
Scheme = Literal["xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "orthogonal", "torch"]
Norm = Literal["batch", "layer", "group", "rms", "none"]

LEAK = 0.01
"""Slope of leaky_relu below zero (Maas et al. 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic
Models")."""


def identity(x: Tensor) -> Tensor:
    """Nothing: the activation of a linear layer."""
    return x


def leaky_relu(x: Tensor) -> Tensor:
    """x above zero, LEAK · x below."""
    return F.leaky_relu(x, LEAK)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,  # 1 / (1 + e^-x)
    "tanh": torch.tanh,
    "relu": F.relu,  # max(0, x), with slope 0 at 0
    "leaky_relu": leaky_relu,
    "gelu": F.gelu,  # x · Φ(x), exact (Hendrycks & Gimpel 2016, arXiv:1606.08415)
    "silu": F.silu,  # x · sigmoid(x), the same paper
    "elu": F.elu,  # x above zero, e^x - 1 below (Clevert et al. 2015, arXiv:1511.07289)
    "softplus": F.softplus,  # log(1 + e^x)
    "identity": identity,
}
"""The functions that a recipe may name, each stable far from zero."""

GAINS: dict[Activation, float] = {
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "leaky_relu": math.sqrt(2.0 / (1.0 + LEAK**2)),
    "gelu": 1.5335,
    "silu": 1.6765,
    "elu": 1.2452,
    "softplus": 1.0419,
    "identity": 1.0,
}
"""What the deviation of weights is multiplied by, so that an activation leaves the mean square of what passes through
as it was: 1 / sqrt(E f(z)²) for z of the unit normal distribution. For sigmoid and tanh, which flatten what they get,
the customary smaller or larger numbers of torch.nn.init.calculate_gain."""


class Fault(NamedTuple):
    """An option that cannot work: its name below `model.`, what is wrong with it, and the values that would do."""

    field: str
    what: str
    fix: str


def refuse(family: str, faults: list[Fault]) -> None:
    """Raise one error that lists all the faults, if there are any.

    Raises:
        GroundupError: E-MODEL-100.
    """
    if not faults:
        return
    count = "an option" if len(faults) == 1 else f"{len(faults)} options"
    raise GroundupError(
        "E-MODEL-100",
        f"{count} of the {family} network cannot work: " + "; ".join(fault.what for fault in faults),
        where="\n".join(f"model.{fault.field}" for fault in faults),
        why="the sizes of a network must fit one another, and those of the data",
        fix="\n".join(f"model.{fault.field}: {fault.fix}" for fault in faults),
        exit_code=2,
    )


def not_an_image(family: str, shape: tuple[int, ...]) -> list[Fault]:
    """The fault of an input that is no image (C, H, W), if it is none."""
    if len(shape) == 3:
        return []
    text = f"{family} reads images of shape (channels, height, width), and an input has the shape {shape}"
    return [Fault("family", text, "mlp, or another family that reads such data")]


class BatchNorm1d(nn.BatchNorm1d):
    """torch's (Ioffe & Szegedy 2015, arXiv:1502.03167), with an error that a user can act on."""

    def forward(self, input: Tensor) -> Tensor:
        _require_several(self, input)
        return super().forward(input)


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, with an error that a user can act on."""

    def forward(self, input: Tensor) -> Tensor:
        _require_several(self, input)
        return super().forward(input)


def _require_several(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> None:
    if norm.training and x.numel() == x.shape[1]:
        raise GroundupError(
            "E-MODEL-101",
            f"batch normalisation in training was given a batch of 1 row, of shape {tuple(x.shape)}",
            where="a norm over the batch",
            why="it divides by the deviation of a channel within the batch, and one value has none",
            fix="a micro-batch of at least 2 rows, one that leaves no single row at the end of an epoch, or another "
            "model.norm where the network has one",
            exit_code=2,
        )


class RMSNorm2d(nn.Module):
    """x / rms(x) · weight over all channels and pixels of an image, a weight for each channel (Zhang & Sennrich
    2019, arXiv:1910.07467)."""

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        mean_square = x_BCHW.float().square().mean(dim=(1, 2, 3), keepdim=True)
        return (x_BCHW * (mean_square + self.epsilon).rsqrt()).to(x_BCHW.dtype) * self.weight[:, None, None]


def groups_of(features: int) -> int:
    """Groups of a group norm: the most of at most 32 that divide the features and leave each at least 4, else 1
    (32 is the number of Wu & He 2018, arXiv:1803.08494; a group of one feature would always be zero)."""
    return max((n for n in range(1, 33) if features % n == 0 and features // n >= 4), default=1)


def norm_1d(kind: Norm, features: int) -> nn.Module:
    """A norm of (B, F). Layer and rms go over the features of a row, group over a part of them."""
    match kind:
        case "batch":
            return BatchNorm1d(features)
        case "layer":
            return nn.LayerNorm(features)
        case "group":
            return nn.GroupNorm(groups_of(features), features)
        case "rms":
            return nn.RMSNorm(features, eps=1e-5)
        case "none":
            return nn.Identity()


def norm_2d(kind: Norm, channels: int) -> nn.Module:
    """A norm of (B, C, H, W) with parameters for each channel. Layer and rms go over the channels and pixels of an
    image (Ba et al. 2016, arXiv:1607.06450, is a group norm of one group), group over some channels and all pixels."""
    match kind:
        case "batch":
            return BatchNorm2d(channels)
        case "layer":
            return nn.GroupNorm(1, channels)
        case "group":
            return nn.GroupNorm(groups_of(channels), channels)
        case "rms":
            return RMSNorm2d(channels)
        case "none":
            return nn.Identity()


def initialise_linear(
    module: nn.Linear | nn.Conv2d, scheme: Scheme, activation: Activation, generator: torch.Generator
) -> None:
    """Draw the weight and the bias of a layer anew.

    | scheme         | weight                                                         | bias                  |
    |----------------|----------------------------------------------------------------|-----------------------|
    | xavier_uniform | uniform of the deviation gain · sqrt(2 / (inputs + outputs))   | zero                  |
    | xavier_normal  | normal of that deviation                                       | zero                  |
    | he_uniform     | uniform of the deviation gain / sqrt(inputs)                   | zero                  |
    | he_normal      | normal of that deviation                                       | zero                  |
    | orthogonal     | gain · a matrix of orthonormal rows or columns                 | zero                  |
    | torch          | uniform in ±1 / sqrt(inputs), whatever the activation          | uniform, the same     |

    Inputs and outputs are those of one output or input value: channels times the area of the kernel. Xavier: Glorot &
    Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks"; He et al. 2015,
    arXiv:1502.01852; orthogonal: Saxe et al. 2013, arXiv:1312.6120; torch: what nn.Linear and nn.Conv2d draw.

    Args:
        activation: what the outputs go through, which sets the gain; identity before a loss.
    """
    weight, gain = module.weight, GAINS[activation]
    inputs = weight[0].numel()
    outputs = weight.shape[0] * weight[0, 0].numel()
    bound = inputs**-0.5
    with torch.no_grad():
        if scheme == "orthogonal":
            nn.init.orthogonal_(weight, gain, generator=generator)
        elif scheme == "torch":
            weight.uniform_(-bound, bound, generator=generator)
        else:
            deviation = gain * ((2.0 / (inputs + outputs)) ** 0.5 if scheme.startswith("xavier") else bound)
            if scheme.endswith("normal"):
                weight.normal_(0.0, deviation, generator=generator)
            else:
                weight.uniform_(-(3.0**0.5) * deviation, 3.0**0.5 * deviation, generator=generator)
        if module.bias is not None:
            if scheme == "torch":
                module.bias.uniform_(-bound, bound, generator=generator)
            else:
                module.bias.zero_()


def initialise_layers(network: nn.Module, scheme: Scheme, activation: Activation, generator: torch.Generator) -> None:
    """Draw every linear layer, convolution and norm of a network anew, in the order of their names.

    A layer called `head` has no activation after it, so that its gain is 1. Norms: weights one, biases zero, running
    mean zero, running variance one, no batch counted.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            initialise_linear(module, scheme, "identity" if name == "head" else activation, generator)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            module.reset_parameters()
        elif isinstance(module, nn.RMSNorm | RMSNorm2d):
            nn.init.ones_(module.weight)
