"""Learn to draw images by a game of two: a critic learns to tell real images from generated ones, a generator to be
taken for real. Each turn moves one player and leaves no gradient on the other.

Shapes: B rows, C channels, H height, W width, Z latent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import Batch, Loss
from groundup.errors import GroundupError
from groundup.objectives.reconstruct import require_unit

Report = Callable[[str, int, dict[str, Any]], None]
"""Writes a warning: (kind, step, detail)."""

TINY = 1e-12
"""Under the root of a squared norm, whose slope at zero would be infinite."""


class AdversarialOptions(BaseModel):
    """The rules of the game."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["adversarial"] = "adversarial"
    loss: Literal["non_saturating", "hinge", "wasserstein_gp"] = Field(
        default="non_saturating", description="Goodfellow's with -log D for the generator, hinge, or Wasserstein's"
    )
    critic_steps: int = Field(default=1, ge=1, le=100, description="turns of the critic in each step")
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=0.5, description="a real image counts as real by 1 minus this (non_saturating only)"
    )
    r1: float = Field(
        default=0.0,
        ge=0.0,
        description="weight of half the squared gradient of the critic at real images; 0 is off (not wasserstein_gp)",
    )
    gradient_penalty: float | None = Field(
        default=None,
        gt=0.0,
        description="weight of (norm of the critic's gradient - 1)^2 between real and generated (wasserstein_gp only). "
        "None: 10",
    )
    collapse_spread: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="generated images that spread less than this share of what real ones do are taken as collapsed; "
        "0 is off",
    )
    collapse_steps: int = Field(default=200, ge=1, description="steps in a row of that before a warning")

    @model_validator(mode="after")
    def _fits_the_loss(self) -> Self:
        if self.label_smoothing and self.loss != "non_saturating":
            raise ValueError(f"label_smoothing is for non_saturating: {self.loss} has no labels to smooth")
        if self.r1 and self.loss == "wasserstein_gp":
            raise ValueError("r1 is not for wasserstein_gp, which has a gradient penalty of its own")
        if self.gradient_penalty is not None and self.loss != "wasserstein_gp":
            raise ValueError(f"gradient_penalty is for wasserstein_gp; the penalty of {self.loss} is r1")
        return self


class Players(Protocol):
    """A network of two: `generator(noise_BZ, label_B)` gives images, `critic(image_BCHW, label_B)` scores (B,)."""

    generator: nn.Module
    critic: nn.Module
    latent: int
    conditional: bool


class Adversarial:
    """The losses of both players, summed over rows; implements contract.Objective with the turns "critic" (several
    times) and "generator".

    With D = sigmoid(score): non_saturating is -log D(real) - log(1 - D(generated)) against -log D(generated)
    (Goodfellow et al. 2014, arXiv:1406.2661, section 3; one-sided smoothing: Salimans et al. 2016, arXiv:1606.03498,
    section 3.4); hinge is max(0, 1 - real) + max(0, 1 + generated) against -generated (Lim & Ye 2017,
    arXiv:1705.02894); wasserstein_gp is generated - real + penalty against -generated (Gulrajani et al. 2017,
    arXiv:1704.00028, algorithm 1). R1: Mescheder et al. 2018, arXiv:1801.04406, equation 9.

    Args:
        options: the rules.
        model: both players.
        warn: is told of a collapse: ("collapse", step, {"spread", "steps"}).

    Raises:
        GroundupError: E-RUN-061 a gradient penalty, and batch normalisation in the critic.
    """

    def __init__(self, options: AdversarialOptions, model: Players, warn: Report) -> None:
        self.options, self.model, self.warn = options, model, warn
        self.turns: tuple[str, ...] = ("critic",) * options.critic_steps + ("generator",)
        self.narrow_steps = 0
        self._spread, self._rows = 0.0, 0  # of the micro-batches since the last step; empty when a checkpoint is made
        penalised = options.loss == "wasserstein_gp" or options.r1 > 0
        if penalised and any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in model.critic.modules()):
            field = "objective.loss: wasserstein_gp" if options.loss == "wasserstein_gp" else "objective.r1"
            raise GroundupError(
                "E-RUN-061",
                "the critic normalises over the batch, and its gradient at each image is to be penalised",
                where=f"{field}, model.critic_norm: batch",
                why="under batch normalisation a score depends on the other rows, so that no row has a gradient of "
                "its own (Gulrajani et al. 2017, section 4)",
                fix="model.critic_norm: none",
                exit_code=2,
            )

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of rows."""
        return torch.tensor(len(batch["image_BCHW"]))

    def loss(self, turn: str, batch: Batch) -> Loss:
        """The loss of one player; metrics, all sums over `rows`: `critic_fake` and, by turn, `critic_real` (scores)
        and `penalty`, or `spread`: how far generated images lie from their mean, as a share of how far real ones do.

        Raises:
            GroundupError: E-RUN-060 pixels outside 0 to 1; E-RUN-062 a conditional network, and rows without label.
        """
        image_BCHW = require_unit(batch["image_BCHW"])
        label_B = require_labels(batch) if self.model.conditional else None
        noise_BZ = torch.randn(len(image_BCHW), self.model.latent, device=image_BCHW.device)
        if turn == "critic":
            return self._critic_loss(image_BCHW, noise_BZ, label_B)
        return self._generator_loss(image_BCHW, noise_BZ, label_B)

    def _critic_loss(self, real_BCHW: Tensor, noise_BZ: Tensor, label_B: Tensor | None) -> Loss:
        options, critic = self.options, self.model.critic
        with torch.no_grad():
            fake_BCHW = self.model.generator(noise_BZ, label_B).float()
        real_BCHW = real_BCHW.detach().requires_grad_(options.r1 > 0)
        real_B, fake_B = critic(real_BCHW, label_B).float(), critic(fake_BCHW, label_B).float()
        penalty = torch.zeros((), device=real_B.device)
        if options.loss == "non_saturating":
            target_B = torch.full_like(real_B, 1.0 - options.label_smoothing)
            total = F.binary_cross_entropy_with_logits(real_B, target_B, reduction="sum") + F.softplus(fake_B).sum()
        elif options.loss == "hinge":
            total = F.relu(1.0 - real_B).sum() + F.relu(1.0 + fake_B).sum()
        else:
            total = fake_B.sum() - real_B.sum()
            share_B = torch.rand(len(real_B), 1, 1, 1, device=real_B.device)
            between_BCHW = torch.lerp(real_BCHW, fake_BCHW, share_B).requires_grad_()
            slope_B = squared_slope(critic(between_BCHW, label_B), between_BCHW)
            penalty = (options.gradient_penalty or 10.0) * ((slope_B + TINY).sqrt() - 1.0).square().sum()
        if options.r1:
            penalty = 0.5 * options.r1 * squared_slope(real_B, real_BCHW).sum()
        metrics = {
            "critic_real": real_B.detach().sum(),
            "critic_fake": fake_B.detach().sum(),
            "penalty": penalty.detach(),
            "rows": torch.tensor(len(real_B)),
        }
        return Loss(total + penalty, metrics)

    def _generator_loss(self, real_BCHW: Tensor, noise_BZ: Tensor, label_B: Tensor | None) -> Loss:
        with untrained(self.model.critic):
            fake_BCHW = self.model.generator(noise_BZ, label_B).float()
            fake_B = self.model.critic(fake_BCHW, label_B).float()
        total = F.softplus(-fake_B).sum() if self.options.loss == "non_saturating" else -fake_B.sum()
        rows = len(fake_B)
        spread = rows * relative_spread(fake_BCHW.detach(), real_BCHW, label_B)
        self._spread, self._rows = self._spread + float(spread), self._rows + rows
        metrics = {"critic_fake": fake_B.detach().sum(), "spread": spread, "rows": torch.tensor(rows)}
        return Loss(total, metrics)

    def after_step(self, step: int) -> None:
        """Count the steps in a row in which generated images hardly differ, and warn once they are many."""
        if self._rows:
            narrow = self._spread / self._rows < self.options.collapse_spread
            self.narrow_steps = self.narrow_steps + 1 if narrow else 0
            if self.narrow_steps == self.options.collapse_steps:
                self.warn("collapse", step, {"spread": self._spread / self._rows, "steps": self.narrow_steps})
        self._spread, self._rows = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """How long generated images have hardly differed, and how often that was warned of."""
        return {"narrow_steps": self.narrow_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.narrow_steps = state["narrow_steps"]
        self._spread, self._rows = 0.0, 0  # a rewind comes in the middle of a step


@contextmanager
def untrained(module: nn.Module) -> Iterator[None]:
    """A forward within the block leaves no gradient on the parameters of `module`, whenever backward comes; what goes
    through it still gets one."""
    training = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in training:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in training:
            parameter.requires_grad_(True)


def squared_slope(score_B: Tensor, image_BCHW: Tensor) -> Tensor:
    """The squared norm of the gradient of each row's score by its own image, (B,), to be learnt from in turn."""
    (slope_BCHW,) = torch.autograd.grad(score_B.sum(), image_BCHW, create_graph=True)
    return slope_BCHW.float().flatten(1).square().sum(dim=1)


def relative_spread(fake_BCHW: Tensor, real_BCHW: Tensor, label_B: Tensor | None) -> Tensor:
    """Deviation of generated images around their mean over that of real ones, a scalar; with labels around the mean
    of each label, so that a generator with a single image for each is seen too. 1 where real ones do not differ."""
    label_B = torch.zeros(len(real_BCHW), dtype=torch.int64, device=real_BCHW.device) if label_B is None else label_B
    same_BB = (label_B[:, None] == label_B[None, :]).to(real_BCHW.dtype)
    mean_BB = same_BB / same_BB.sum(dim=1, keepdim=True)
    fake, real = (x - mean_BB @ x for x in (fake_BCHW.flatten(1), real_BCHW.flatten(1)))
    deviation = torch.linalg.vector_norm(real)
    ratio = torch.linalg.vector_norm(fake) / deviation
    rounding = 1e-5 * torch.linalg.vector_norm(real_BCHW)
    return torch.where(deviation > rounding, ratio, torch.ones_like(ratio))


def require_labels(batch: Batch) -> Tensor:
    """The labels of the rows, (B,) int64, all of them known.

    Raises:
        GroundupError: E-RUN-062.
    """
    label_B = batch.get("label_B", torch.full((len(batch["image_BCHW"]),), -1))
    without = int((label_B < 0).sum())
    if without:
        raise GroundupError(
            "E-RUN-062",
            f"{without} of {len(label_B)} rows have no label, and both players are to be told it",
            where="model.conditional: true, label_B of a batch",
            why="a player that is told a label cannot play a row without one",
            fix="data with a label on every row, or model.conditional: false",
            exit_code=2,
        )
    return label_B
