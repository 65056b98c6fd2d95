"""The convolutional network in the manner of LeNet: convolution, activation and pooling a few times, then dense layers
(LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", section II). Networks with shortcuts or
parallel branches have files of their own.

Shapes: B rows, C channels, H and W height and width, F features.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.models.layers import (
    ACTIVATIONS,
    Activation,
    Fault,
    Norm,
    Scheme,
    initialise_layers,
    norm_1d,
    norm_2d,
    not_an_image,
    refuse,
)


class ConvnetOptions(BaseModel):
    """The sizes of a convolutional network. Inputs and outputs follow from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["convnet"] = "convnet"
    channels: list[Annotated[int, Field(ge=1)]] = Field(
        default=[32, 64], min_length=1, description="channels of each convolution; each is pooled to half the size"
    )
    kernel: int = Field(default=5, ge=1, description="side of the square kernel, in pixels")
    padding: Literal["same", "none"] = Field(
        default="same", description="same: zeros around the image, so that a convolution keeps its size; LeNet has none"
    )
    pooling: Literal["max", "average"] = Field(default="max", description="what 2×2 pixels become; LeNet has average")
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default=[128], description="width of each dense layer between the convolutions and the head"
    )
    activation: Activation = Field(default="relu", description="after each convolution and dense layer")
    initialisation: Scheme = Field(default="he_normal", description="how weights are drawn; its gain fits activation")
    norm: Norm = Field(default="batch", description="between each convolution or dense layer and its activation")
    dropout: float = Field(
        default=0.25, ge=0.0, lt=1.0, description="probability, in training, of dropping an input of a dense layer"
    )


class Stage(nn.Module):
    """Convolution, norm, activation, pooling."""

    def __init__(self, options: ConvnetOptions, inputs: int, outputs: int) -> None:
        super().__init__()
        # a norm has a bias of its own, which makes one before it useless
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            options.kernel,
            padding="same" if options.padding == "same" else 0,
            bias=options.norm in ("none", "rms"),
        )
        self.norm = norm_2d(options.norm, outputs)
        self.activation = ACTIVATIONS[options.activation]
        self.pool = nn.MaxPool2d(2) if options.pooling == "max" else nn.AvgPool2d(2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.pool(self.activation(self.norm(self.conv(x_BCHW))))


class Dense(nn.Module):
    """Dropout, linear, norm, activation."""

    def __init__(self, options: ConvnetOptions, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(options.dropout)
        self.linear = nn.Linear(inputs, outputs, bias=options.norm in ("none", "rms"))
        self.norm = norm_1d(options.norm, outputs)
        self.activation = ACTIVATIONS[options.activation]

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.activation(self.norm(self.linear(self.dropout(x_BF))))


class Convnet(nn.Module):
    """The network.

    Args:
        shape: (C, H, W) of one image.
        outputs: logits or values of an image.

    Raises:
        GroundupError: E-MODEL-100 the input is no image, the kernel is larger than what it looks at, or nothing is
            left to pool.
    """

    def __init__(self, options: ConvnetOptions, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        refuse("convnet", not_an_image("convnet", shape))
        refuse("convnet", _too_small(options, shape))
        self.options = options
        side_H, side_W = _sides(options, shape)[-1]
        channels = [shape[0], *options.channels]
        widths = [channels[-1] * side_H * side_W, *options.hidden]
        self.layers = nn.ModuleList(Stage(options, *pair) for pair in zip(channels, options.channels))
        self.dense = nn.ModuleList(Dense(options, *pair) for pair in zip(widths, options.hidden))
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(widths[-1], outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew, in the order of the names.

        | parameter or buffer                    | distribution                                            |
        |----------------------------------------|---------------------------------------------------------|
        | weights of convolutions, dense layers  | `options.initialisation`, with the activation's gain    |
        | weight of head                         | the same with gain 1                                    |
        | biases                                 | zero (with initialisation torch: uniform as the weight) |
        | weights, biases of norms               | one, zero                                               |
        | running mean, variance, count          | zero, one, zero                                         |
        """
        initialise_layers(self, self.options.initialisation, self.options.activation, generator)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits or values (B, outputs) of images (B, C, H, W)."""
        x_BCHW = image_BCHW
        for stage in self.layers:
            x_BCHW = stage(x_BCHW)
        x_BF = x_BCHW.flatten(1)
        for layer in self.dense:
            x_BF = layer(x_BF)
        return self.head(self.dropout(x_BF))


def _sides(options: ConvnetOptions, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Height and width before the first stage and after each; none is positive once nothing is left."""
    lost = 0 if options.padding == "same" else options.kernel - 1
    sides = [(shape[1], shape[2])]
    for _ in options.channels:
        height, width = sides[-1]
        sides.append(((height - lost) // 2, (width - lost) // 2))
    return sides


def _too_small(options: ConvnetOptions, shape: tuple[int, ...]) -> list[Fault]:
    """The first stage in which the image is smaller than the kernel, or than the 2×2 pixels to pool, if there is."""
    for stage, sides in enumerate(_sides(options, shape)[:-1]):
        side = min(sides)
        size = f"at convolution {stage + 1} of {len(options.channels)} the image is {sides[0]}×{sides[1]} pixels"
        if side < 2:
            fault = Fault("channels", f"{size}, too few to halve", f"at most {stage} entries")
            return [fault if stage else Fault("family", fault.what, "mlp, or larger images")]
        # unpadded, two pixels must be left to pool; a wider padded kernel would have weights that never meet a pixel
        largest = 2 * side - 1 if options.padding == "same" else side - 1
        if options.kernel > largest:
            fix = f"at most {largest}" + (f", or at most {stage} entries in channels" if stage else "")
            return [Fault("kernel", f"{size}, too few for a kernel of {options.kernel}×{options.kernel}", fix)]
    return []
