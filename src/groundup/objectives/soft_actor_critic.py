"""Learn continuous actions from experience of any age: soft actor–critic (Haarnoja et al. 2018, arXiv:1812.05905).
Three players move in turns: two judges of actions, the policy that they judge, and the weight of its entropy.

Shapes: B rows, O the shape of an observation, A numbers of an action.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.contract import Batch, Loss


class SACOptions(BaseModel):
    """Soft actor–critic with two judges and a temperature that finds itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["sac"] = "sac"
    discount: float = Field(
        default=0.99, ge=0.0, le=1.0, description="what a reward one step later is worth, 0 to 1 (gamma)"
    )
    target_rate: float = Field(
        default=0.005,
        gt=0.0,
        le=1.0,
        description="share of the way that the slow judges move towards the quick ones in each step (tau)",
    )
    target_entropy: float | None = Field(
        default=None,
        description="entropy in nats that the temperature holds the policy at, with actions counted from -1 to 1. "
        "None: minus the numbers of an action",
    )


class Actor(Protocol):
    """What is asked of the policy."""

    def sample(self, observation_BO: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions (B, A), through which gradients flow, and their log-probabilities (B,) in nats."""
        ...

    def log_scale(self) -> Tensor:
        """How much more entropy an action has in the environment's units than from -1 to 1, a scalar in nats."""
        ...


class ActorCriticModel(Protocol):
    """What is asked of the network: three players under one root. `critic(observation_BO, action_BA)` gives the values
    of both judges, (2, B); `temperature()` the weight of the entropy, a scalar."""

    @property
    def actor(self) -> Actor: ...
    @property
    def critic(self) -> nn.Module: ...
    @property
    def temperature(self) -> nn.Module: ...


class SAC:
    """Sums over rows; implements contract.Objective.

    | turn        | loss of a row                                                   | equation |
    |-------------|-----------------------------------------------------------------|----------|
    | critic      | w Σ of both judges (Q(s, a) - y)²                               | 5        |
    | actor       | α log π(a') - min Q(s, a'), where a' is drawn anew              | 9        |
    | temperature | -α (log π(a') + target entropy)                                 | 18       |

    where y = r + c (min Q_slow(s', a'') - α log π(a'')), with w and c of the batch: the weight of the row (1 unless
    rows are drawn by priority), and the discount for as many steps as r has rewards, 0 where the episode terminated.
    Each loss moves its own player alone.

    Args:
        options: of the method.
        model: the network.
        numbers: A, of an action.
        seed: of the actions drawn while learning.
        report_priorities: told `index_B` and the mean errors of both judges, (B,), of each batch that they learn from.
    """

    turns: tuple[str, ...] = ("critic", "actor", "temperature")

    def __init__(
        self,
        options: SACOptions,
        model: ActorCriticModel,
        *,
        numbers: int,
        seed: int,
        report_priorities: Callable[[Tensor, Tensor], None] | None = None,
    ) -> None:
        self.options, self.model, self._report = options, model, report_priorities
        self.target = copy.deepcopy(model.critic).requires_grad_(False)
        self._generator = torch.Generator().manual_seed(seed)
        self._target_entropy = -float(numbers) if options.target_entropy is None else options.target_entropy

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of rows."""
        return torch.tensor(len(batch["reward_B"]))

    def loss(self, turn: str, batch: Batch) -> Loss:
        """The summed loss of one player. Metrics, sums over `rows`: of the critic `value` (of the judge that is first)
        and `target`; of the actor `entropy`, in nats, with actions from -1 to 1; of the temperature `temperature`."""
        rows = torch.tensor(len(batch["reward_B"]))
        if turn == "critic":
            target_B = self.targets(batch)
            value_2B = self.model.critic(batch["observation_BO"], batch["action_BA"])
            error_2B = target_B - value_2B
            if self._report is not None:
                self._report(batch["index_B"], error_2B.detach().abs().mean(dim=0))
            total = (batch["weight_B"] * error_2B.square()).sum()
            return Loss(total, {"value": value_2B[0].detach().sum(), "target": target_B.sum(), "rows": rows})
        if turn == "actor":
            action_BA, log_p_B = self.model.actor.sample(batch["observation_BO"], self._generator)
            # Gradients go through the judges to the action, but must not stay with the judges.
            still = {name: tensor.detach() for name, tensor in self.model.critic.named_parameters()}
            value_2B = torch.func.functional_call(self.model.critic, still, (batch["observation_BO"], action_BA))
            total = (self.model.temperature().detach() * log_p_B - value_2B.amin(dim=0)).sum()
            return Loss(total, {"entropy": self._surplus(log_p_B), "rows": rows})
        with torch.no_grad():
            _, log_p_B = self.model.actor.sample(batch["observation_BO"], self._generator)
            surplus = self._surplus(log_p_B) - len(log_p_B) * self._target_entropy
        temperature = self.model.temperature()
        return Loss(temperature * surplus, {"temperature": temperature.detach() * rows, "rows": rows})

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """y of each row, (B,)."""
        action_BA, log_p_B = self.model.actor.sample(batch["next_observation_BO"], self._generator)
        value_B = self.target(batch["next_observation_BO"], action_BA).amin(dim=0)
        soft_B = value_B - self.model.temperature() * log_p_B
        return batch["reward_B"] + batch["continue_B"] * soft_B

    def _surplus(self, log_p_B: Tensor) -> Tensor:
        """Summed entropy with actions counted from -1 to 1."""
        return (-log_p_B - self.model.actor.log_scale()).detach().sum()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the slow judges."""
        for slow, quick in zip(self.target.parameters(), self.model.critic.parameters()):
            slow.lerp_(quick, self.options.target_rate)

    def state_dict(self) -> dict[str, Any]:
        """The slow judges, and the generator."""
        target = {name: tensor.clone() for name, tensor in self.target.state_dict().items()}
        return {"target": target, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put both back."""
        self.target.load_state_dict(state["target"])
        self._generator.set_state(state["generator"])
