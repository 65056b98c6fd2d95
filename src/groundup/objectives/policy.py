"""Learn a policy by its gradient: REINFORCE with a baseline, advantage actor–critic, and proximal policy optimisation.
One rule, whose difference is what keeps a reused rollout honest. How advantages are estimated is the source's business.

Shapes: B rows, O the shape of an observation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from groundup.contract import Batch, Loss


class Policy(Protocol):
    """What is asked of an actor–critic network."""

    def judge(self, observation_BO: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of the actions and entropy of the policy in nats, value of the states; each (B,)."""
        ...


class _PolicyOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    discount: float = Field(
        default=0.99, ge=0.0, le=1.0, description="what a reward one step later is worth, 0 to 1 (gamma)"
    )
    value_weight: float = Field(default=0.5, ge=0.0, description="of the squared error of the values")
    entropy_weight: float = Field(default=0.0, ge=0.0, description="of the policy's entropy in nats, which is rewarded")
    normalise_advantages: bool = Field(
        default=False, description="advantages with mean 0 and deviation 1 over the whole rollout"
    )


class ReinforceOptions(_PolicyOptions):
    """Policy gradient of Monte-Carlo returns, less the value of the state as a baseline. It wants
    data.collect.gae_lambda 1, data.collect.epochs 1, and a horizon that holds whole episodes."""

    kind: Literal["reinforce"] = "reinforce"


class A2COptions(_PolicyOptions):
    """Advantage actor–critic: the same gradient, of advantages that end in a value after a few steps. It wants
    data.collect.epochs 1 and a short horizon."""

    kind: Literal["a2c"] = "a2c"
    entropy_weight: float = Field(
        default=0.01, ge=0.0, description="of the policy's entropy in nats, which is rewarded"
    )


class PPOOptions(_PolicyOptions):
    """Proximal policy optimisation: a rollout is learned from several times, as far as the policy stays near."""

    kind: Literal["ppo"] = "ppo"
    normalise_advantages: bool = Field(
        default=True, description="advantages with mean 0 and deviation 1 over the whole rollout"
    )
    clip: float = Field(
        default=0.2, gt=0.0, description="how far from 1 the ratio of probabilities, new to old, still counts"
    )
    value_clip: float | None = Field(
        default=None, gt=0.0, description="how far values may move from the old ones, in units of return. None: any"
    )
    target_kl: float | None = Field(
        default=None,
        gt=0.0,
        description="nats that the policy may move from the one that collected the rollout; beyond, a new one is "
        "collected. None: no limit",
    )


class PolicyGradient:
    """Sum over rows of policy loss + value_weight · squared value error - entropy_weight · entropy; implements
    contract.Objective.

    | kind           | policy loss of a row                    | source                                            |
    |----------------|-----------------------------------------|---------------------------------------------------|
    | reinforce, a2c | -A · log π(a)                           | Williams 1992; Mnih et al. 2016, arXiv:1602.01783 |
    | ppo            | -min(r A, clip(r, 1 - ε, 1 + ε) A)      | Schulman et al. 2017, arXiv:1707.06347, eq. 7     |

    where r = π(a) / π_old(a). Before the first update on a rollout r is 1 (up to rounding, in the precision in which
    the policy acted), and both have the same gradient (Huang et al. 2022, arXiv:2205.09123). Reinforce and a2c differ
    in the advantages alone.

    Args:
        options: of one of the kinds.
        model: the network.
        stop_reuse: tells the source to learn no more from the present rollout; called after a step whose rows are on
            average more than `target_kl` away.
    """

    turns: tuple[str, ...] = ("model",)

    def __init__(
        self,
        options: PPOOptions | A2COptions | ReinforceOptions,
        model: Policy,
        stop_reuse: Callable[[], None],
    ) -> None:
        self.options, self.model, self._stop_reuse = options, model, stop_reuse
        self._moved: list[tuple[Tensor, int]] = []  # of each micro-batch of this step: summed divergence, and rows

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of rows."""
        return torch.tensor(len(batch["advantage_B"]))

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Judge the actions anew, and the summed loss.

        Metrics, sums over `rows`: `policy_loss`, `value_loss`, `entropy`, `ratio` (1 at the first step of a rollout),
        `divergence` (estimated KL(π_old, π) in nats: r - 1 - log r, Schulman 2020, "Approximating KL Divergence"),
        `clipped` (rows whose ratio has left the clip range; ppo).
        """
        options = self.options
        action = batch["action_B"] if "action_B" in batch else batch["action_BA"]
        log_p_B, entropy_B, value_B = self.model.judge(batch["observation_BO"], action)
        advantage_B = batch["standard_advantage_B" if options.normalise_advantages else "advantage_B"]
        log_ratio_B = log_p_B - batch["log_probability_B"]
        ratio_B = log_ratio_B.exp()
        metrics: dict[str, Tensor] = {}
        if isinstance(options, PPOOptions):
            near_B = ratio_B.clamp(1 - options.clip, 1 + options.clip)
            policy_loss = -torch.minimum(ratio_B * advantage_B, near_B * advantage_B).sum()
            metrics["clipped"] = (ratio_B != near_B).sum()
        else:
            policy_loss = -(log_p_B * advantage_B).sum()
        value_loss = self._value_loss(value_B, batch)
        entropy = entropy_B.sum()
        divergence = (ratio_B - 1 - log_ratio_B).sum().detach()
        if isinstance(options, PPOOptions) and options.target_kl is not None:
            self._moved.append((divergence, len(value_B)))
        metrics |= {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "ratio": ratio_B.sum().detach(),
            "divergence": divergence,
            "rows": torch.tensor(len(value_B)),
        }
        return Loss(policy_loss + options.value_weight * value_loss - options.entropy_weight * entropy, metrics)

    def _value_loss(self, value_B: Tensor, batch: Batch) -> Tensor:
        """Sum of squared errors; with a clip, the worse one of the value and of the value held near the old one."""
        error_B = (value_B - batch["return_B"]).square()
        if isinstance(self.options, PPOOptions) and self.options.value_clip is not None:
            old_B, limit = batch["value_B"], self.options.value_clip
            held_B = old_B + (value_B - old_B).clamp(-limit, limit)
            error_B = torch.maximum(error_B, (held_B - batch["return_B"]).square())
        return error_B.sum()

    def after_step(self, step: int) -> None:
        """Stop the reuse of the rollout if the policy has moved too far."""
        if not self._moved or not isinstance(self.options, PPOOptions) or self.options.target_kl is None:
            return
        divergence, rows = (sum(part) for part in zip(*self._moved))
        self._moved = []
        if float(divergence) > self.options.target_kl * rows:
            self._stop_reuse()

    def state_dict(self) -> dict[str, Any]:
        """Nothing is carried from one step to the next."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back; what a step that did not end has measured is forgotten."""
        self._moved = []
