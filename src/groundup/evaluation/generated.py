"""How good a network that draws images is: a bound on how probable it finds images that it has not seen, and whether
it draws every class.

Encoder, decoder and classifier come in as callables; no model, objective or file may enter here.

Shapes: N images, C channels, H height, W width, Z latent, L classes, K samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import GroundupError
from groundup.evaluation.statistics import Array

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images (N, C, H, W) to mean and log-variance of q(z|x), (N, Z) each."""
Decode = Callable[[Tensor], Tensor]
"""Latents (N, Z) to logits of the pixels being 1, (N, C, H, W)."""
Classify = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to logits of their classes, (N, L)."""

ROWS = 4096
"""Images that are decoded or classified at once."""


class Bounds(NamedTuple):
    """Upper bounds on -log p(x) of each image, in nats, float64 (N,).

    negative_elbo_N: -ELBO, its divergence in closed form, its reconstruction a mean over samples.
    importance_N: the importance-weighted bound, tighter the more samples.
    """

    negative_elbo_N: Array
    importance_N: Array


@torch.no_grad()
def likelihood_bounds(
    encode: Encode, decode: Decode, image_NCHW: Tensor, *, samples: int, generator: torch.Generator
) -> Bounds:
    """-ELBO (Kingma & Welling 2014, arXiv:1312.6114, equation 10) and the importance-weighted bound (Burda et al.
    2016, arXiv:1509.00519, equation 8) of each image under a Gaussian encoder and a Bernoulli decoder.

    Args:
        encode, decode: the network, in evaluation mode.
        image_NCHW: of zeros and ones, float32; grey pixels would give no probabilities.
        samples: latents drawn for each image, K.
        generator: of the CPU; the draws of an image depend on how many are before it.

    Raises:
        GroundupError: E-EVAL-045 bounds that are not finite.
        ValueError: fewer than one sample, or no images.
    """
    if samples < 1 or not len(image_NCHW):
        raise ValueError(f"{samples} samples for {len(image_NCHW)} images")
    found = []
    for images in image_NCHW.split(max(1, ROWS // samples)):
        mean_NZ, log_variance_NZ = (part.float() for part in encode(images))
        noise = torch.randn(samples, *mean_NZ.shape, generator=generator).to(mean_NZ.device)
        latent = mean_NZ + (0.5 * log_variance_NZ).exp() * noise
        logits = decode(latent.flatten(0, 1)).float().view(samples, *images.shape)
        target = images.expand(logits.shape)
        error_KN = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(2).double().sum(dim=2)
        divergence_N = 0.5 * (mean_NZ.square() + log_variance_NZ.exp() - 1.0 - log_variance_NZ).double().sum(dim=1)
        # log p(z) - log q(z|x), in which the normal's constants cancel
        prior_KN = 0.5 * (noise.square() + log_variance_NZ - latent.square()).double().sum(dim=2)
        importance_N = math.log(samples) - (prior_KN - error_KN).logsumexp(dim=0)
        found.append(torch.stack([error_KN.mean(dim=0) + divergence_N, importance_N]).cpu().numpy())
    bounds = Bounds(*np.concatenate(found, axis=1))
    wrong = np.flatnonzero(~(np.isfinite(bounds.negative_elbo_N) & np.isfinite(bounds.importance_N)))
    if wrong.size:
        raise GroundupError(
            "E-EVAL-045",
            f"the bound of {wrong.size} of {len(image_NCHW)} images is not finite",
            where=f"the first is image {wrong[0]}",
            why="a network that finds an image impossible, or has weights that are not numbers, cannot be compared",
            fix="evaluate an earlier checkpoint, or train again with a lower learning rate",
        )
    return bounds


class ClassCoverage(NamedTuple):
    """What a classifier sees in generated images.

    covered: how many of the classes have enough confident images.
    count_L: confident images of each class.
    confidence: mean probability of the most probable class, over all images.
    confident: the share of images that are confident.
    evenness: entropy of all images' most probable classes over the greatest there can be; 1 is even.
    """

    covered: int
    count_L: list[int]
    confidence: float
    confident: float
    evenness: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict()


@torch.no_grad()
def class_coverage(
    classify: Classify, image_NCHW: Tensor, *, confident: float = 0.9, least_share: float = 0.1
) -> ClassCoverage:
    """How many classes generated images cover.

    Args:
        classify: a classifier that was trained on real images, in evaluation mode.
        image_NCHW: generated, as the classifier knows images.
        confident: probability of its class from which an image counts for it; a blur between classes shall not.
        least_share: a class is covered by this share of what would be its part if all classes were even.

    Raises:
        GroundupError: E-EVAL-046 pixels that are not finite.
        ValueError: no images.
    """
    require_finite(image_NCHW)
    logits_NL = torch.cat([classify(images).double() for images in image_NCHW.split(ROWS)])
    confidence_N, class_N = logits_NL.softmax(dim=1).max(dim=1)
    classes = logits_NL.shape[1]
    count_L = torch.bincount(class_N[confidence_N >= confident], minlength=classes)
    share_L = torch.bincount(class_N, minlength=classes).double() / len(class_N)
    return ClassCoverage(
        covered=int((count_L >= max(1.0, least_share * len(class_N) / classes)).sum()),
        count_L=count_L.tolist(),
        confidence=float(confidence_N.mean()),
        confident=float((confidence_N >= confident).double().mean()),
        evenness=float(-torch.xlogy(share_L, share_L).sum()) / math.log(classes) if classes > 1 else 1.0,
    )


def require_finite(image_NCHW: Tensor) -> None:
    """Refuse images that cannot be judged.

    Raises:
        GroundupError: E-EVAL-046.
        ValueError: no images.
    """
    if not len(image_NCHW):
        raise ValueError("no images")
    wrong = (~image_NCHW.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if wrong:
        raise GroundupError(
            "E-EVAL-046",
            f"{len(wrong)} of {len(image_NCHW)} images hold pixels that are not finite",
            where=f"the first is image {wrong[0]}",
            why="a network that draws such images has weights that are not numbers, or too large ones",
            fix="evaluate an earlier checkpoint, or train again with a lower learning rate",
        )
