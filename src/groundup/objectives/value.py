"""Learn the value of each action from remembered steps: deep Q-networks (Mnih et al. 2015, "Human-level control
through deep reinforcement learning"), and the policy that explores while learning. Where the steps come from is the
source's business.

Shapes: B rows, E copies of an environment, O the shape of an observation, N actions to choose from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import Batch, Loss
from groundup.functional import evaluating


class DQNOptions(BaseModel):
    """Values of actions, learned from the values that a slower copy of the network gives to the next states."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["dqn"] = "dqn"
    discount: float = Field(
        default=0.99, ge=0.0, le=1.0, description="what a reward one step later is worth, 0 to 1 (gamma)"
    )
    target_every: int = Field(default=500, ge=1, description="updates between moves of the slow copy")
    target_rate: float = Field(
        default=1.0, gt=0.0, le=1.0, description="share of the way that the slow copy moves; 1 is all of it (tau)"
    )
    double: bool = Field(
        default=True, description="the network itself chooses the next action, and the slow copy values it"
    )
    huber: bool = Field(default=True, description="errors above 1 count linearly, not squared")
    epsilon_from: float = Field(default=1.0, ge=0.0, le=1.0, description="share of random actions at first")
    epsilon_to: float = Field(default=0.05, ge=0.0, le=1.0, description="share of random actions in the end")
    epsilon_steps: int = Field(
        default=10_000, ge=1, description="environment steps from the first share to the last, in a line"
    )


class DQN:
    """Sums over rows; implements contract.Objective.

    A row of weight w loses w · h(y - Q(s, a)), where h(δ) = δ²/2, with `huber` |δ| - 1/2 from |δ| = 1 on, and

        y = r + c max_a' Q_slow(s', a')                       (Mnih et al. 2015, algorithm 1)
        y = r + c Q_slow(s', argmax_a' Q(s', a'))             with `double` (van Hasselt et al. 2015, arXiv:1509.06461,
                                                              equation 4)

    with c of the batch: the discount for as many steps as r has rewards, 0 where the episode terminated.

    Args:
        options: of the method.
        model: observations (B, *O) to values (B, N); as it is now, it is the slow copy too.
        report_priorities: told `index_B` and the errors y - Q(s, a), (B,), of each batch that is learned from.
    """

    turns: tuple[str, ...] = ("model",)

    def __init__(
        self, options: DQNOptions, model: nn.Module, report_priorities: Callable[[Tensor, Tensor], None] | None = None
    ) -> None:
        self.options, self.model, self._report = options, model, report_priorities
        self.target = copy.deepcopy(model).requires_grad_(False).eval()

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of rows."""
        return torch.tensor(len(batch["reward_B"]))

    def loss(self, turn: str, batch: Batch) -> Loss:
        """The summed loss. Metrics, sums over `rows`: `value` Q(s, a), `target` y, `error` |y - Q(s, a)|."""
        target_B = self.targets(batch)
        value_BN = self.model(batch["observation_BO"]).float()
        value_B = value_BN.gather(1, batch["action_B"][:, None]).squeeze(1)
        if self.options.huber:
            loss_B = F.huber_loss(value_B, target_B, reduction="none")
        else:
            loss_B = (target_B - value_B).square() / 2
        error_B = (target_B - value_B).detach()
        if self._report is not None:
            self._report(batch["index_B"], error_B)
        metrics = {"value": value_B.detach().sum(), "target": target_B.sum(), "error": error_B.abs().sum()}
        return Loss((batch["weight_B"] * loss_B).sum(), {**metrics, "rows": torch.tensor(len(value_B))})

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """y of each row, float32 (B,)."""
        next_BO = batch["next_observation_BO"]
        slow_BN = self.target(next_BO).float()
        if self.options.double:
            with evaluating(self.model):
                chosen_B = self.model(next_BO).argmax(dim=1)
            next_B = slow_BN.gather(1, chosen_B[:, None]).squeeze(1)
        else:
            next_B = slow_BN.amax(dim=1)
        return batch["reward_B"] + batch["continue_B"] * next_B

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the slow copy, if it is time."""
        if step % self.options.target_every:
            return
        for slow, quick in zip(self.target.parameters(), self.model.parameters()):
            slow.lerp_(quick, self.options.target_rate)
        for kept, present in zip(self.target.buffers(), self.model.buffers()):
            kept.copy_(present)

    def state_dict(self) -> dict[str, Any]:
        """The weights of the slow copy."""
        return {"target": {name: tensor.clone() for name, tensor in self.target.state_dict().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the slow copy back."""
        self.target.load_state_dict(state["target"])


class EpsilonGreedy:
    """Mostly the action of the largest value, else any: the policy that a replay source acts with.

    Args:
        options: the schedule of the share of random actions.
        model: observations (E, *O) to values (E, N).
    """

    def __init__(self, options: DQNOptions, model: nn.Module) -> None:
        self.options, self.model = options, model

    def epsilon(self, step: int) -> float:
        """The share of random actions after so many environment steps."""
        done = min(step / self.options.epsilon_steps, 1.0)
        return self.options.epsilon_from + done * (self.options.epsilon_to - self.options.epsilon_from)

    def __call__(self, observation_EO: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """Actions int64 (E,), on the CPU."""
        best_E, actions = greedy(self.model, observation_EO)
        random_E = torch.randint(actions, best_E.shape, generator=generator)
        return torch.where(torch.rand(best_E.shape, generator=generator) < self.epsilon(step), random_E, best_E)


@torch.no_grad()
def greedy(model: nn.Module, observation_EO: Tensor) -> tuple[Tensor, int]:
    """The actions of the largest value, int64 (E,) on the CPU, and how many actions there are."""
    device = next(model.parameters()).device
    with evaluating(model):
        value_EN = model(observation_EO.to(device))
    return value_EN.argmax(dim=1).cpu(), value_EN.shape[1]
