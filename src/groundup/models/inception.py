"""A small network of parallel branches in the manner of GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842), with the
batch norm of its second version (Ioffe & Szegedy 2015, arXiv:1502.03167) and without the auxiliary classifiers, which
a network of this depth does not need.

Shapes: B rows, C channels, H and W height and width.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models.layers import BatchNorm2d, Fault, initialise_layers, not_an_image, refuse


class InceptionOptions(BaseModel):
    """The sizes of an inception network. Inputs and outputs follow from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["inception"] = "inception"
    stem: int = Field(default=32, ge=1, description="channels of the 3×3 convolution before the first module")
    channels: list[Annotated[int, Field(ge=1)]] = Field(
        default=[64, 128, 192],
        min_length=1,
        description="output channels of the modules of each stage, multiples of 16; each stage halves the size of "
        "the one before",
    )
    modules: int = Field(default=2, ge=1, description="inception modules in each stage")
    dropout: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="probability, in training, of dropping an input of the head"
    )


class Conv(nn.Module):
    """Convolution that keeps the size, batch norm (which brings the bias), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = BatchNorm2d(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x_BCHW)))


class Module(nn.Module):
    """Four branches side by side (figure 2b); their channels are joined in this order:

    | branch                              | share of the outputs | in between |
    |-------------------------------------|----------------------|------------|
    | 1×1 convolution                     | 1/4                  |            |
    | 1×1, then 3×3 convolution           | 1/2                  | 3/8        |
    | 1×1, then 5×5 convolution           | 1/8                  | 1/16       |
    | 3×3 max pooling, then 1×1           | 1/8                  |            |

    The shares are those of GoogLeNet's first module, 3a (table 1).
    """

    def __init__(self, inputs: int, outputs: int, *, halve: bool) -> None:
        super().__init__()
        part = outputs // 16
        self.halve = nn.MaxPool2d(2) if halve else nn.Identity()
        self.one = Conv(inputs, 4 * part, 1)
        self.three = nn.Sequential(Conv(inputs, 6 * part, 1), Conv(6 * part, 8 * part, 3))
        self.five = nn.Sequential(Conv(inputs, part, 1), Conv(part, 2 * part, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Conv(inputs, 2 * part, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.halve(x_BCHW)
        return torch.cat([branch(x_BCHW) for branch in (self.one, self.three, self.five, self.pool)], dim=1)


class Inception(nn.Module):
    """The network: a stem, the modules, the mean over all pixels, the head.

    Args:
        shape: (C, H, W) of one image.
        outputs: logits or values of an image.

    Raises:
        GroundupError: E-MODEL-100 the input is no image, too small to be halved that often, or channels that do not
            part into sixteen.
    """

    def __init__(self, options: InceptionOptions, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        refuse("inception", _faults(options, shape))
        self.options = options
        self.stem = Conv(shape[0], options.stem, 3)
        modules: list[Module] = []
        inputs = options.stem
        for stage, channels in enumerate(options.channels):
            for module in range(options.modules):
                modules.append(Module(inputs, channels, halve=stage > 0 and module == 0))
                inputs = channels
        self.layers = nn.ModuleList(modules)
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(inputs, outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew, in the order of the names.

        | parameter or buffer            | distribution                                                    |
        |--------------------------------|-----------------------------------------------------------------|
        | convolutions                   | normal, deviation sqrt(2 / inputs) (He et al. 2015, 1502.01852) |
        | head                           | normal, deviation 1 / sqrt(inputs); its bias zero               |
        | weights, biases of norms       | one, zero                                                       |
        | running mean, variance, count  | zero, one, zero                                                 |
        """
        initialise_layers(self, "he_normal", "relu", generator)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits or values (B, outputs) of images (B, C, H, W)."""
        x_BCHW = self.stem(image_BCHW)
        for module in self.layers:
            x_BCHW = module(x_BCHW)
        return self.head(self.dropout(x_BCHW.mean(dim=(2, 3))))


def _faults(options: InceptionOptions, shape: tuple[int, ...]) -> list[Fault]:
    faults = not_an_image("inception", shape)
    uneven = [channels for channels in options.channels if channels % 16]
    if uneven:
        text = f"the channels {', '.join(map(str, uneven))} do not part into sixteenths"
        faults.append(Fault("channels", text, "multiples of 16"))
    if not faults:
        side = min(shape[1:])
        # a 5×5 kernel on fewer than 3 pixels has weights that meet nothing but padding
        most = next(n for n in range(len(options.channels) + 1) if n == len(options.channels) or side >> n < 3)
        size = f"an image of {shape[1]}×{shape[2]} pixels"
        if most == 0:
            faults.append(Fault("family", f"{size} is too small for a 5×5 kernel", "mlp, or images of 3×3 or more"))
        elif most < len(options.channels):
            text = f"{size} has fewer than 3×3 after {most} halvings, too few for a 5×5 kernel"
            faults.append(Fault("channels", text, f"at most {most} entries"))
    return faults
