"""The family of generative adversarial networks: a generator that turns noise into images, and a critic that tells
them from real ones (Goodfellow et al. 2014, arXiv:1406.2661), of convolutions as in DCGAN (Radford et al. 2016,
arXiv:1511.06434) or dense. Who learns what in which turn is an objective's business.

Shapes: B rows, C channels, H height, W width, Z latent, F features, N samples.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from groundup.errors import GroundupError
from groundup.functional import evaluating
from groundup.models.autoencoder import (
    Kind,
    Widths,
    dense_stack,
    doubling,
    draw_weights,
    halving,
    image_sides,
    smallest_sides,
)
from groundup.models.llama import empty_embedding

LEAK = 0.2
"""Slope of the critic's rectifiers below zero, as in DCGAN: a unit that is off must still lead the generator."""


class GanOptions(BaseModel):
    """The sizes of both players; the critic mirrors the generator."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["gan"] = "gan"
    kind: Kind = Field(default="convolutional", description="dense layers, or convolutions that double both sides")
    widths: Widths | None = Field(
        default=None,
        description="the generator's, from the noise on: width of each hidden layer (dense), or channels before each "
        "doubling (convolutional); the critic's are these in reverse. None: [256, 512] dense, [128, 64] convolutional",
    )
    latent: int = Field(default=64, ge=1, description="numbers of noise that an image is made of")
    conditional: bool = Field(default=False, description="both players are told the label of the row")
    critic_norm: Literal["batch", "none"] = Field(
        default="none",
        description="batch normalisation in the critic (convolutional only), as in DCGAN; gradient penalties need none",
    )

    @model_validator(mode="after")
    def _norm_fits(self) -> Self:
        if self.kind == "dense" and self.critic_norm != "none":
            raise ValueError(f"critic_norm {self.critic_norm} is for kind convolutional, not for dense")
        return self

    def layer_widths(self) -> list[int]:
        """`widths`, or what they are where none are said."""
        return self.widths or {"dense": [256, 512], "convolutional": [128, 64]}[self.kind]


class Generator(nn.Module):
    """Noise to image. With labels, a vector for each label is drawn beside the noise (Mirza & Osindero 2014,
    arXiv:1411.1784)."""

    def __init__(self, options: GanOptions, shape: tuple[int, int, int], labels: int) -> None:
        super().__init__()
        self.shape = channels, height, width = shape
        self.embedding = empty_embedding(labels, options.latent) if options.conditional else None
        widths, inputs = options.layer_widths(), options.latent * (2 if options.conditional else 1)
        if options.kind == "dense":
            self.body = nn.Sequential(*dense_stack([inputs, *widths]))
            self.head: nn.Module = nn.Linear(widths[-1], math.prod(shape))
            return
        base = (widths[0], *smallest_sides(height, width, len(widths), options.family))
        layers = [nn.Linear(inputs, math.prod(base), bias=False), nn.Unflatten(1, base)]
        layers += [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [doubling(before, after, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = doubling(widths[-1], channels)

    def forward(self, noise_BZ: Tensor, label_B: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in 0 to 1 of noise (B, Z) and, if the network is conditional, labels (B,) int64."""
        if self.embedding is not None:
            noise_BZ = torch.cat([noise_BZ, self.embedding(label_B)], dim=-1)
        return self.head(self.body(noise_BZ)).view(-1, *self.shape).sigmoid()


class Critic(nn.Module):
    """Image to score, without bound: the logit of being real, or what a loss makes of it. With labels, the score also
    tells how well the features fit the label (Miyato & Koyama 2018, arXiv:1802.05637, equation 3)."""

    def __init__(self, options: GanOptions, shape: tuple[int, int, int], labels: int) -> None:
        super().__init__()
        channels, height, width = shape
        widths = options.layer_widths()[::-1]
        layers: list[nn.Module]
        if options.kind == "dense":
            layers, features = [nn.Flatten()], widths[-1]
            for before, after in zip([math.prod(shape), *widths], widths):
                layers += [nn.Linear(before, after), nn.LeakyReLU(LEAK)]
        else:
            features = widths[-1] * math.prod(smallest_sides(height, width, len(widths), options.family))
            layers = [halving(channels, widths[0]), nn.LeakyReLU(LEAK)]  # DCGAN has no norm next to the image
            for before, after in pairwise(widths):
                normalised = options.critic_norm == "batch"
                layers += [halving(before, after, bias=not normalised)]
                layers += [nn.BatchNorm2d(after)] if normalised else []
                layers += [nn.LeakyReLU(LEAK)]
            layers += [nn.Flatten()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(features, 1)
        self.embedding = empty_embedding(labels, features) if options.conditional else None

    def forward(self, image_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        """Scores (B,) of images in 0 to 1 and, if the network is conditional, labels (B,) int64."""
        feature_BF = self.body(image_BCHW)
        score_B = self.head(feature_BF).squeeze(-1)
        if self.embedding is not None:
            score_B = score_B + (self.embedding(label_B) * feature_BF).sum(dim=-1)
        return score_B


class Gan(nn.Module):
    """Both players under one root, as children `generator` and `critic`.

    Args:
        options: the sizes.
        shape: (C, H, W) of an image.
        outputs: number of labels, if the network is conditional.

    Raises:
        GroundupError: E-MODEL-140 no images; E-MODEL-141 sides that cannot be halved as often as there are widths;
            E-MODEL-142 conditional, and fewer than two labels.
    """

    def __init__(self, options: GanOptions, shape: tuple[int, ...], outputs: int = 0) -> None:
        super().__init__()
        if options.conditional and outputs < 2:
            raise GroundupError(
                "E-MODEL-142",
                f"the network is to be told labels, and the data have {outputs}",
                where="model.conditional: true",
                why="with fewer than two labels there is nothing to choose between",
                fix="model.conditional: false, or data with two labels or more",
                exit_code=2,
            )
        self.options, self.latent, self.labels = options, options.latent, outputs
        self.conditional = options.conditional
        self.shape = image_sides(shape, options.family)
        self.generator = Generator(options, self.shape, outputs)
        self.critic = Critic(options, self.shape, outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, in the order of their names, and put the running statistics back to their start.

        | parameter or buffer             | distribution                                    |
        |---------------------------------|-------------------------------------------------|
        | matrices and kernels            | normal, deviation sqrt(2 / inputs of an output) |
        | those of both heads             | normal, deviation sqrt(1 / inputs of an output) |
        | label vectors of the generator  | normal, deviation 1, as the noise               |
        | label vectors of the critic     | normal, deviation sqrt(1 / F), as its head      |
        | weights of norms                | one                                             |
        | biases                          | zero                                            |
        | running means; variances        | zero; one                                       |

        DCGAN's own deviation of 0.02 is meant for its widths and for batch normalisation after every layer; this one
        also suits a critic without it.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                draw_weights(module, 1.0 if name.endswith("head") else 2.0, generator)
            elif isinstance(module, nn.Embedding):
                deviation = 1.0 if name == "generator.embedding" else module.embedding_dim**-0.5
                with torch.no_grad():
                    module.weight.normal_(0.0, deviation, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()  # ones and zeros: nothing is drawn

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator, label: Tensor | int | None = None) -> Tensor:
        """New images (N, C, H, W) in 0 to 1.

        Args:
            n: how many.
            generator: of the CPU, so that every device draws alike.
            label: of all images, or of each, (N,) int64. None: if the network is conditional, all labels in turn.

        Raises:
            GroundupError: E-MODEL-143 a label that the network does not have.
        """
        noise_NZ = torch.randn(n, self.latent, generator=generator)
        label_N = self._labels(n, label)
        device = next(self.parameters()).device
        with evaluating(self):
            return self.generator(noise_NZ.to(device), None if label_N is None else label_N.to(device))

    def _labels(self, n: int, label: Tensor | int | None) -> Tensor | None:
        if label is None:
            return torch.arange(n) % self.labels if self.conditional else None
        label_N = torch.as_tensor(label).expand(n)
        outside = label_N[(label_N < 0) | (label_N >= self.labels)]
        if not self.conditional or outside.numel():
            known = f"the labels 0 to {self.labels - 1}" if self.conditional else "no labels"
            wrong = int(outside[0]) if outside.numel() else int(label_N[0])
            raise GroundupError(
                "E-MODEL-143",
                f"an image of label {wrong} was asked for, and the generator knows {known}",
                where=f"label: {wrong}",
                why="a generator draws what it was told to tell apart in training",
                fix="ask for one of its labels"
                if self.conditional
                else "leave out the label, or train with model.conditional: true",
                exit_code=2,
            )
        return label_N
