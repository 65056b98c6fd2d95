"""Learn from games against oneself: the policy that the search found, and how the game ended (Silver et al. 2018,
equation 1). Where the games come from is the source's business.

Shapes: B positions, C planes, H and W rows and columns, M moves.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import Batch, Loss
from groundup.objectives.task import Stateless


class SelfPlayLossOptions(BaseModel):
    """Cross-entropy to the search's policy and squared error of the value."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["self_play"] = "self_play"
    value_weight: float = Field(
        default=1.0, ge=0.0, allow_inf_nan=False, description="weight of the squared error beside the cross-entropy"
    )


class SelfPlay(Stateless):
    """Sum over positions of value_weight · (z - v)² - Σ_a π(a) log p(a); implements contract.Objective.

    Args:
        options: of the method.
        model: planes (B, C, H, W) to logits (B, M) and values (B,).
    """

    def __init__(self, options: SelfPlayLossOptions, model: nn.Module) -> None:
        self.options, self.model = options, model

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of positions."""
        return torch.tensor(len(batch["outcome_B"]))

    def loss(self, turn: str, batch: Batch) -> Loss:
        """The summed loss of `planes_BCHW`, `policy_BM` and `outcome_B`. Metrics, sums over `rows`: `policy_loss`
        in nats, `policy_divergence`, which is that without the entropy of the search's policy, `value_error`."""
        logit_BM, value_B = self.model(batch["planes_BCHW"])
        policy_BM = batch["policy_BM"]
        policy = F.cross_entropy(logit_BM.float(), policy_BM, reduction="sum")
        error = F.mse_loss(value_B.float(), batch["outcome_B"], reduction="sum")
        entropy = torch.special.entr(policy_BM).sum()
        metrics = {
            "policy_loss": policy.detach(),
            "policy_divergence": policy.detach() - entropy,
            "value_error": error.detach(),
            "rows": torch.tensor(len(value_B)),
        }
        return Loss(policy + self.options.value_weight * error, metrics)
