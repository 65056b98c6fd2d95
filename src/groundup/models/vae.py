"""The variational autoencoder family: an encoder that gives a Gaussian over a few latent numbers, and a decoder that
gives each pixel a Bernoulli (Kingma & Welling 2014, "Auto-Encoding Variational Bayes", arXiv:1312.6114, appendix C).
The bound that it learns from is an objective's business.

Shapes: B rows, C channels, H height, W width, Z latent, N samples.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.functional import evaluating
from groundup.models.autoencoder import Widths, dense_stack, draw_weights, image_sides


class VaeOptions(BaseModel):
    """The sizes of a variational autoencoder of dense layers; the decoder mirrors the encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["vae"] = "vae"
    hidden: Widths = Field(default=[400], description="width of each hidden layer, from the image to the latent")
    latent: int = Field(default=16, ge=1, description="numbers that an image is described by")
    dropout: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="probability of dropping a pixel on its way into the encoder"
    )


class Vae(nn.Module):
    """The encoder q(z|x) and the decoder p(x|z); the prior over z is a standard normal.

    Args:
        options: the sizes.
        shape: (C, H, W) of an image.
        outputs: takes no part: labels are not looked at.

    Raises:
        GroundupError: E-MODEL-140 no images.
    """

    def __init__(self, options: VaeOptions, shape: tuple[int, ...], outputs: int = 0) -> None:
        super().__init__()
        self.options, self.latent = options, options.latent
        self.shape = image_sides(shape, options.family)
        pixels, hidden = math.prod(self.shape), options.hidden
        self.dropout = nn.Dropout(options.dropout)
        self.encoder = nn.Sequential(nn.Flatten(), *dense_stack([pixels, *hidden]))
        self.posterior = nn.Linear(hidden[-1], 2 * options.latent)
        self.decoder = nn.Sequential(*dense_stack([options.latent, *reversed(hidden)]))
        self.head = nn.Linear(hidden[0], pixels)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, in the order of their names.

        | parameter                      | distribution                                    |
        |--------------------------------|-------------------------------------------------|
        | matrices of encoder, decoder   | normal, deviation sqrt(2 / inputs of an output) |
        | matrices of posterior and head | normal, deviation sqrt(1 / inputs of an output) |
        | biases                         | zero                                            |
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                draw_weights(module, 1.0 if name in ("posterior", "head") else 2.0, generator)

    def encode(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the logarithm of the variance of q(z|x), each (B, Z), of images in 0 to 1."""
        mean_BZ, log_variance_BZ = self.posterior(self.encoder(self.dropout(image_BCHW))).chunk(2, dim=-1)
        return mean_BZ, log_variance_BZ

    def decode(self, latent_BZ: Tensor) -> Tensor:
        """The logits (B, C, H, W) of the pixels being 1."""
        return self.head(self.decoder(latent_BZ)).view(-1, *self.shape)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """The probability (B, C, H, W) of each pixel being 1, drawn again from the mean of the latent."""
        return self.decode(self.encode(image_BCHW)[0]).sigmoid()

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """New images (N, C, H, W): the probability of each pixel being 1, for latents drawn from the prior.

        Args:
            n: how many.
            generator: of the CPU, so that every device draws alike.
        """
        noise_NZ = torch.randn(n, self.latent, generator=generator)
        with evaluating(self):
            return self.decode(noise_NZ.to(self.head.weight)).sigmoid()
