"""Learn to draw an image again from a few numbers: plainly (`reconstruct`), or as a bound on its probability (`elbo`).

Both add noise in training, from torch's global generator; a model that does not train gets no noise on its input, and
latents that are the same in every call, so that measuring moves nothing.

Shapes: B rows, C channels, H height, W width, Z latent.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from groundup.contract import Batch, Loss
from groundup.errors import GroundupError
from groundup.objectives.task import Stateless

Binarise = Literal["dynamic", "threshold", "none"]


class ReconstructOptions(BaseModel):
    """The difference between an image and what an autoencoder makes of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["reconstruct"] = "reconstruct"
    loss: Literal["squared", "binary_cross_entropy"] = Field(
        default="squared", description="squared error of each pixel, or its cross-entropy in nats"
    )
    noise: float = Field(
        default=0.0,
        ge=0.0,
        le=10.0,
        description="deviation of the Gaussian noise on each pixel of the input (pixels are 0 to 1); 0 is off",
    )


class VaeOptions(BaseModel):
    """The evidence lower bound of a variational autoencoder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["elbo"] = "elbo"
    beta: float = Field(default=1.0, ge=0.0, le=1000.0, description="weight of the divergence; 1 is the true bound")
    binarise: Binarise = Field(
        default="dynamic",
        description="pixels become 0 or 1: drawn anew each time with their value as probability (dynamic), by whether "
        "they are above 0.5 (threshold), or not at all (none)",
    )


class Reconstructor(Protocol):
    """An autoencoder; `decode` gives logits, whose sigmoid is the image."""

    training: bool

    def encode(self, image_BCHW: Tensor) -> Tensor: ...
    def decode(self, latent_BZ: Tensor) -> Tensor: ...


class Variational(Protocol):
    """A variational autoencoder; `encode` gives mean and log-variance, `decode` logits."""

    training: bool

    def encode(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]: ...
    def decode(self, latent_BZ: Tensor) -> Tensor: ...


class Reconstruct(Stateless):
    """Sum over rows and pixels of the error; implements contract.Objective. With noise, the clean image is what the
    noisy one is compared with (denoising: Vincent et al. 2010, "Stacked Denoising Autoencoders", section 3).

    The cross-entropy of a grey pixel is least where the two are equal, but not 0 there.
    """

    def __init__(self, options: ReconstructOptions, model: Reconstructor) -> None:
        self.options, self.model = options, model

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of rows."""
        return torch.tensor(len(batch["image_BCHW"]))

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward, and the summed error; metrics: sums of `squared_error` over the `pixels` of all `rows`.

        Raises:
            GroundupError: E-RUN-060 pixels outside 0 to 1.
        """
        image_BCHW = require_unit(batch["image_BCHW"])
        seen_BCHW = image_BCHW
        if self.options.noise and self.model.training:
            seen_BCHW = image_BCHW + self.options.noise * torch.randn_like(image_BCHW)
        logits_BCHW = self.model.decode(self.model.encode(seen_BCHW)).float()
        squared = (logits_BCHW.sigmoid() - image_BCHW).square().sum()
        total = squared
        if self.options.loss == "binary_cross_entropy":
            total = F.binary_cross_entropy_with_logits(logits_BCHW, image_BCHW, reduction="sum")
        metrics = {
            "squared_error": squared.detach(),
            "pixels": torch.tensor(image_BCHW.numel()),
            "rows": torch.tensor(len(image_BCHW)),
        }
        return Loss(total, metrics)


class Elbo(Stateless):
    """Sum over rows of -log p(x|z) + beta · KL(q(z|x) ‖ p(z)) in nats, with one z drawn for each row; with beta 1 it
    is the negative evidence lower bound (Kingma & Welling 2014, arXiv:1312.6114, equation 10; beta: Higgins et al.
    2017, "beta-VAE", equation 4); implements contract.Objective.

    Without binarisation a grey pixel has the cross-entropy of a Bernoulli, which is no probability of a grey value:
    such losses compare with each other only.
    """

    def __init__(self, options: VaeOptions, model: Variational) -> None:
        self.options, self.model = options, model

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of rows."""
        return torch.tensor(len(batch["image_BCHW"]))

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward, and the summed bound; metrics: sums of `reconstruction` and `divergence` in nats over `rows`.

        Raises:
            GroundupError: E-RUN-060 pixels outside 0 to 1.
        """
        image_BCHW = require_unit(batch["image_BCHW"])
        generator = None if self.model.training else torch.Generator(image_BCHW.device).manual_seed(0)
        image_BCHW = binarised(image_BCHW, self.options.binarise, generator)
        mean_BZ, log_variance_BZ = (part.float() for part in self.model.encode(image_BCHW))
        noise_BZ = torch.randn(mean_BZ.shape, generator=generator, device=mean_BZ.device)
        logits_BCHW = self.model.decode(mean_BZ + (0.5 * log_variance_BZ).exp() * noise_BZ).float()
        reconstruction = F.binary_cross_entropy_with_logits(logits_BCHW, image_BCHW, reduction="sum")
        divergence = gaussian_divergence(mean_BZ, log_variance_BZ).sum()
        metrics = {
            "reconstruction": reconstruction.detach(),
            "divergence": divergence.detach(),
            "rows": torch.tensor(len(image_BCHW)),
        }
        return Loss(reconstruction + self.options.beta * divergence, metrics)


def gaussian_divergence(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)) of each row in nats, (B,) (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean_BZ.square() + log_variance_BZ.exp() - 1.0 - log_variance_BZ).sum(dim=-1)


def binarised(image_BCHW: Tensor, how: Binarise, generator: torch.Generator | None = None) -> Tensor:
    """Images of zeros and ones, as `VaeOptions.binarise` says.

    Args:
        image_BCHW: float32 in 0 to 1. A value that is not a number stays one, so that the guard of the run sees it.
        how: see `VaeOptions`.
        generator: of the images' device, for dynamic; None is torch's global one.
    """
    if how == "none":
        return image_BCHW
    level: Tensor | float = 0.5
    if how == "dynamic":
        level = torch.rand(image_BCHW.shape, generator=generator, device=image_BCHW.device)
    return torch.where(image_BCHW.isnan(), image_BCHW, (image_BCHW > level).to(image_BCHW.dtype))


def require_unit(image_BCHW: Tensor) -> Tensor:
    """The images, if all their pixels are within 0 to 1 (or no numbers, which the guard of the run handles).

    Raises:
        GroundupError: E-RUN-060, with the range found.
    """
    low, high = (float(bound) for bound in image_BCHW.aminmax())
    if low < 0.0 or high > 1.0:
        raise GroundupError(
            "E-RUN-060",
            f"pixels reach from {low:.4g} to {high:.4g}, and the objective needs them within 0 to 1",
            where=f"a batch of {len(image_BCHW)} images, image_BCHW",
            why="the sigmoid that draws an image never leaves 0 to 1, so that the loss could not fall",
            fix="data.normalise: unit",
            exit_code=2,
        )
    return image_BCHW
