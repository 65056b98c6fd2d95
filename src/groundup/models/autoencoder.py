"""The autoencoder family: an image is squeezed through a few numbers and drawn again from them (Hinton &
Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks"), by dense layers or by convolutions
that halve the sides. What the output is compared with, and noise on the input, are an objective's business.

Shapes: B rows, C channels, H height, W width, Z latent.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.errors import GroundupError

Kind = Literal["dense", "convolutional"]
Widths = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class AutoencoderOptions(BaseModel):
    """The sizes of an autoencoder; the decoder mirrors the encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["autoencoder"] = "autoencoder"
    kind: Kind = Field(default="convolutional", description="dense layers, or convolutions that halve both sides")
    widths: Widths | None = Field(
        default=None,
        description="width of each hidden layer (dense), or channels after each halving (convolutional), from the "
        "image on. None: [512, 128] dense, [32, 64] convolutional",
    )
    latent: int = Field(default=32, ge=1, description="numbers that an image is squeezed into")

    def layer_widths(self) -> list[int]:
        """`widths`, or what they are where none are said."""
        return self.widths or {"dense": [512, 128], "convolutional": [32, 64]}[self.kind]


def image_sides(shape: tuple[int, ...], family: str) -> tuple[int, int, int]:
    """Channels, height and width.

    Raises:
        GroundupError: E-MODEL-140 the input is no image.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise GroundupError(
            "E-MODEL-140",
            f"the family {family} draws images, and one input of the data has shape {list(shape)}",
            where=f"model.family: {family}",
            why="an image has three sizes: channels, height and width",
            fix="choose a data kind that gives images, or a family for tables or sequences such as mlp",
            exit_code=2,
        )
    channels, height, width = shape
    return channels, height, width


def smallest_sides(height: int, width: int, halvings: int, family: str) -> tuple[int, int]:
    """Height and width after so many halvings, at least 2 each.

    Raises:
        GroundupError: E-MODEL-141 a side cannot be halved that often.
    """
    possible = max(n for n in range(32) if n == 0 or all(s % 2**n == 0 and s >> n >= 2 for s in (height, width)))
    if halvings > possible:
        fix = "model.kind: dense, or images whose sides are multiples of a power of two such as 28 or 32"
        if possible:
            fix = f"at most {possible} numbers in model.widths, or model.kind: dense"
        raise GroundupError(
            "E-MODEL-141",
            f"images of {height} × {width} can be halved {possible} times, and the {family} does it {halvings} times",
            where=f"model.widths: {halvings} numbers",
            why="each halving needs even sides, and 2 × 2 pixels must be left, or the image drawn has another size",
            fix=fix,
            exit_code=2,
        )
    return height >> halvings, width >> halvings


def halving(channels: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution that halves both sides exactly."""
    return nn.Conv2d(channels, outputs, kernel_size=4, stride=2, padding=1, bias=bias)


def doubling(channels: int, outputs: int, *, bias: bool = True) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles both sides exactly. Its kernel is a multiple of its stride, so that every
    pixel is reached by equally many weights (else checkerboards show: Odena et al. 2016, distill.pub)."""
    return nn.ConvTranspose2d(channels, outputs, kernel_size=4, stride=2, padding=1, bias=bias)


def dense_stack(widths: list[int]) -> list[nn.Module]:
    """Linear layers between neighbouring widths, each followed by a rectifier."""
    return [module for pair in pairwise(widths) for module in (nn.Linear(*pair), nn.ReLU())]


@torch.no_grad()
def draw_weights(module: nn.Module, gain: float, generator: torch.Generator) -> None:
    """Draw a linear or convolutional layer anew: weights normal with deviation sqrt(gain / inputs of an output), bias
    zero. Gain 2 keeps the size of what goes through rectifiers (He et al. 2015, arXiv:1502.01852, equation 10), 1 of
    what goes through none."""
    assert isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    inputs = module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):  # its weights are (inputs, outputs, …), and strided taps never meet
        inputs = module.weight[:, 0].numel() // math.prod(module.stride)
    module.weight.normal_(0.0, math.sqrt(gain / inputs), generator=generator)
    if module.bias is not None:
        module.bias.zero_()


class Autoencoder(nn.Module):
    """Encoder, bottleneck and decoder.

    Args:
        options: the sizes.
        shape: (C, H, W) of an image.
        outputs: takes no part: an autoencoder needs no label.

    Raises:
        GroundupError: E-MODEL-140 no images; E-MODEL-141 sides that cannot be halved as often as there are widths.
    """

    def __init__(self, options: AutoencoderOptions, shape: tuple[int, ...], outputs: int = 0) -> None:
        super().__init__()
        self.options, self.latent = options, options.latent
        self.shape = channels, height, width = image_sides(shape, options.family)
        widths = options.layer_widths()
        if options.kind == "dense":
            self.encoder = nn.Sequential(nn.Flatten(), *dense_stack([math.prod(self.shape), *widths]))
            self.bottleneck = nn.Linear(widths[-1], options.latent)
            self.decoder = nn.Sequential(*dense_stack([options.latent, *reversed(widths)]))
            self.head: nn.Module = nn.Linear(widths[0], math.prod(self.shape))
            return
        base = (widths[-1], *smallest_sides(height, width, len(widths), options.family))
        down = [module for pair in zip([channels, *widths], widths) for module in (halving(*pair), nn.ReLU())]
        self.encoder = nn.Sequential(*down, nn.Flatten())
        self.bottleneck = nn.Linear(math.prod(base), options.latent)
        back = widths[::-1]
        up = [module for pair in pairwise(back) for module in (doubling(*pair), nn.ReLU())]
        self.decoder = nn.Sequential(*dense_stack([options.latent, math.prod(base)]), nn.Unflatten(1, base), *up)
        self.head = doubling(widths[0], channels)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, in the order of their names.

        | parameter                        | distribution                                    |
        |----------------------------------|-------------------------------------------------|
        | matrices and kernels             | normal, deviation sqrt(2 / inputs of an output) |
        | those of the bottleneck and head | normal, deviation sqrt(1 / inputs of an output) |
        | biases                           | zero                                            |
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                draw_weights(module, 1.0 if name in ("bottleneck", "head") else 2.0, generator)

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """The latent numbers (B, Z) of images."""
        return self.bottleneck(self.encoder(image_BCHW))

    def decode(self, latent_BZ: Tensor) -> Tensor:
        """The logits (B, C, H, W) of the pixels; their sigmoid is the image."""
        return self.head(self.decoder(latent_BZ)).view(-1, *self.shape)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """The reconstruction (B, C, H, W), in 0 to 1, of images (B, C, H, W) float32 in 0 to 1."""
        return self.decode(self.encode(image_BCHW)).sigmoid()
