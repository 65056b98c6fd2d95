"""Experience of the present policy: so many steps of every environment, then learned from in minibatches, several times
over, then thrown away. How a policy chooses and what is learned does not enter here: the policy is two callables.

Shapes: T steps of a rollout, E environments, O the shape of an observation, B rows of a minibatch, A numbers of a
continuous action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from groundup.contract import Batch
from groundup.data.environments import Environments, Episode
from groundup.data.moments import Moments
from groundup.errors import GroundupError

Act = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor]]
"""(observation_EO, generator) → action int64 (E,) or float32 (E, A), log_probability_E, value_E."""

LARGEST = 10.0
"""Normalised observations and rewards are cut off here, in deviations."""


COLUMNS = ("observation", "action", "log_probability", "value", "reward", "next_value", "terminated", "cut")
"""What is kept of a step while collecting; `cut` where the episode would have gone on, but is not seen any further."""


class RolloutOptions(BaseModel):
    """How experience is collected, and how often it is used."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["rollout"] = "rollout"
    horizon: int = Field(default=128, ge=1, description="steps of each environment in a rollout")
    epochs: int = Field(
        default=4,
        ge=1,
        description="times that a rollout is learned from; 1 where the objective does not correct for it",
    )
    minibatches: int = Field(default=4, ge=1, description="parts of a rollout, one for each update (or micro-batch)")
    gae_lambda: float = Field(
        default=0.95,
        ge=0.0,
        le=1.0,
        description="how much advantages trust rewards rather than values: 0 looks one step ahead; 1 is Monte Carlo, "
        "the rewards until the episode or the rollout ends",
    )
    normalise_observations: bool = Field(
        default=False, description="subtract the running mean of each number of an observation, divide by its deviation"
    )
    normalise_rewards: bool = Field(
        default=False, description="divide rewards by the running deviation of the discounted return"
    )


def advantages(
    reward_TE: Tensor,
    value_TE: Tensor,
    next_value_TE: Tensor,
    terminated_TE: Tensor,
    truncated_TE: Tensor,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, arXiv:1506.02438, equation 16), (T, E).

    A_t = δ_t + γλ A_{t+1} within an episode, where δ_t = r_t + γ V(s_{t+1}) - V(s_t). After a terminated step nothing
    follows: V(s_{t+1}) counts as 0. After a truncated one something would have followed, so its value counts, but not
    what the next episode brings. The rollout's end is like a truncation. With λ = 1, A_t + V(s_t) is the Monte-Carlo
    return, with λ = 0 the one-step target.

    Args:
        reward_TE, value_TE: r_t and V(s_t), floating point.
        next_value_TE: V of the state that the step led to, before any reset; not read where terminated.
        terminated_TE, truncated_TE: bool, how the step ended its episode, if it did.
        discount: γ.
        gae_lambda: λ.
    """
    delta_TE = reward_TE + discount * next_value_TE.where(~terminated_TE, 0.0) - value_TE
    goes_on_TE = (~(terminated_TE | truncated_TE)).to(reward_TE.dtype)
    result_TE = torch.empty_like(delta_TE)
    later_E = torch.zeros_like(delta_TE[0])
    for t in range(len(delta_TE) - 1, -1, -1):
        later_E = delta_TE[t] + discount * gae_lambda * goes_on_TE[t] * later_E
        result_TE[t] = later_E
    return result_TE


class Rollout:
    """Minibatches of what the present policy experienced, for ever; implements contract.Source.

    Each rollout is collected when its first minibatch is asked for, by the policy as it is then. Each of its epochs
    goes through all of its rows once, in an order of its own.

    Args:
        options: of the rollout.
        environments: to act in.
        act: the policy: draws actions with the generator, and says their log-probabilities and the states' values.
        value: the values of states alone, (B, *O) to (B,): for those that no action is chosen in, since an episode was
            truncated there or the rollout ends.
        discount: what a reward one step later is worth, 0 to 1 (gamma).
        seed: of actions and orders.

    Attributes:
        epoch: the number of the present rollout.
        batch: which of its minibatches comes next, over all epochs of reuse.
        ledger: rows so far: `seen` = `trained` + `masked` + `padded`, exactly.
        steps: taken in all environments together.
        finished: the episodes that ended during the present rollout.

    Raises:
        GroundupError: E-ENV-030 more minibatches than rows.
    """

    def __init__(
        self,
        options: RolloutOptions,
        environments: Environments,
        *,
        act: Act,
        value: Callable[[Tensor], Tensor],
        discount: float,
        seed: int,
    ) -> None:
        self.options, self.environments, self.seed = options, environments, seed
        self._act, self._value, self._discount = act, value, discount
        count = len(environments.observation_EO)
        self.rows = options.horizon * count
        if options.minibatches > self.rows:
            _too_many(options, count)
        self._generator = torch.Generator().manual_seed(seed)
        self._observations = Moments(environments.observation_shape) if options.normalise_observations else None
        self._returns = Moments(()) if options.normalise_rewards else None
        self._return_E = torch.zeros(count, dtype=torch.float64)
        self._columns: Batch = {}
        self.epoch = self.batch = self.steps = 0
        self.finished: list[Episode] = []
        self.ledger = {"seen": 0, "trained": 0, "masked": 0, "padded": 0}

    @property
    def batches_per_epoch(self) -> int:
        """Minibatches of a rollout over all epochs of reuse, unless reuse is stopped."""
        return self.options.epochs * self.options.minibatches

    def next(self, turn: str) -> Batch:
        """The next minibatch.

        Returns:
            `observation_BO` (normalised, if asked for), `action_B` int64 or `action_BA` float32 (as drawn, which may be
            out of bounds), `log_probability_B` of the action in nats and `value_B` of the state, both as they were when
            acting, `advantage_B`, `standard_advantage_B` (mean 0 and deviation 1 over the whole rollout, so that it
            does not depend on how the rollout is cut up), `return_B` (advantage + value), `row_B` int64 (step · E +
            environment).
        """
        if self.batch >= self.batches_per_epoch:
            self.epoch, self.batch, self._columns = self.epoch + 1, 0, {}
        if not self._columns:
            self._collect()
        reuse, part = divmod(self.batch, self.options.minibatches)
        order = np.random.default_rng([self.seed, self.epoch, reuse]).permutation(self.rows)
        row_B = torch.from_numpy(np.array_split(order, self.options.minibatches)[part])
        self.batch += 1
        self.ledger["seen"] += len(row_B)
        self.ledger["trained"] += len(row_B)
        return {**{name: column[row_B] for name, column in self._columns.items()}, "row_B": row_B}

    def stop_reuse(self) -> None:
        """Learn no more from the present rollout: the policy has moved too far from the one that collected it."""
        if self._columns:
            self.batch = self.batches_per_epoch

    def normalise(self, observation_BO: Tensor) -> Tensor:
        """Observations as the policy is shown them."""
        if self._observations is None:
            return observation_BO
        return self._observations.standard(observation_BO, LARGEST)

    def normalisation(self) -> dict[str, Tensor]:
        """What a policy needs to be served: `mean_O` and `deviation_O`, float32, of what it is shown, which is
        (observation - mean) / deviation, cut off at ±10; and the `count` of observations that they were taken from.
        Empty where observations are shown as they are."""
        seen = self._observations
        if seen is None:
            return {}
        count = torch.tensor(seen.count)
        return {"mean_O": seen.mean.float(), "deviation_O": seen.deviation.float(), "count": count}

    def go_on_from(self, normalisation: Mapping[str, Tensor]) -> None:
        """Begin with the scale of an earlier run, see `normalisation`; nothing where observations are shown as they
        are."""
        if self._observations is not None and normalisation:
            count, mean_O, deviation_O = (normalisation[name] for name in ("count", "mean_O", "deviation_O"))
            self._observations.begin_at(int(count), mean_O, deviation_O)

    def _collect(self) -> None:
        """Act for `horizon` steps, and work out the columns of the minibatches."""
        kept: dict[str, list[Tensor]] = {name: [] for name in COLUMNS}
        self.finished = []
        for step in range(self.options.horizon):
            raw_EO = self.environments.observation_EO
            if self._observations is not None:
                self._observations.update(raw_EO)
            observation_EO = self.normalise(raw_EO)
            action, log_probability_E, value_E = (x.cpu() for x in self._act(observation_EO, self._generator))
            done = self.environments.step(action)
            self.finished += self.environments.finished
            cut_E = done.truncated_E & ~done.terminated_E
            if step == self.options.horizon - 1:
                cut_E = ~done.terminated_E
            next_value_E = torch.zeros_like(value_E)  # where the episode goes on, the value of the next step
            if bool(cut_E.any()):
                next_value_E[cut_E] = self._value(self.normalise(done.next_observation_EO[cut_E])).detach().cpu()
            reward_E = self._paid(done.reward_E, done.terminated_E | done.truncated_E)
            row = (observation_EO, action, log_probability_E, value_E, reward_E, next_value_E, done.terminated_E, cut_E)
            for name, value in zip(kept, row):
                kept[name].append(value)
        self.steps += self.rows
        self._columns = self._worked_out({name: torch.stack(column) for name, column in kept.items()})

    def _paid(self, reward_E: Tensor, over_E: Tensor) -> Tensor:
        """The rewards, normalised if asked for; what was discounted so far starts over with each episode."""
        if self._returns is None:
            return reward_E
        self._return_E = self._return_E * self._discount + reward_E
        self._returns.update(self._return_E)
        self._return_E = self._return_E.where(~over_E, 0.0)
        return (reward_E / self._returns.deviation.float()).clamp(-LARGEST, LARGEST)

    def _worked_out(self, kept: dict[str, Tensor]) -> Batch:
        value_TE, next_value_TE, cut_TE = kept["value"], kept["next_value"], kept["cut"]
        next_value_TE[:-1] = next_value_TE[:-1].where(cut_TE[:-1], value_TE[1:])
        advantage_TE = advantages(
            kept["reward"],
            value_TE,
            next_value_TE,
            kept["terminated"],
            cut_TE,
            self._discount,
            self.options.gae_lambda,
        )
        deviation, mean = torch.std_mean(advantage_TE, correction=0)
        columns = {
            "observation_BO": kept["observation"],
            "action_B" if kept["action"].dim() == 2 else "action_BA": kept["action"],
            "log_probability_B": kept["log_probability"],
            "value_B": value_TE,
            "advantage_B": advantage_TE,
            "standard_advantage_B": (advantage_TE - mean) / (deviation + 1e-8),
            "return_B": advantage_TE + value_TE,
        }
        return {name: column.flatten(0, 1) for name, column in columns.items()}

    def state_dict(self) -> dict[str, Any]:
        """Where everything stands, and the present rollout while there is still something to learn from it."""
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "batch": self.batch,
            "steps": self.steps,
            "ledger": dict(self.ledger),
            "finished": [list(episode) for episode in self.finished],
            "environments": self.environments.state_dict(),
            "generator": self._generator.get_state(),
            "columns": dict(self._columns) if self.batch < self.batches_per_epoch else {},
            "return_E": self._return_E,
        }
        for name, moments in (("observations", self._observations), ("returns", self._returns)):
            if moments is not None:
                state[name] = moments.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the minibatch at which `state_dict` was taken."""
        self.epoch, self.batch, self.steps = state["epoch"], state["batch"], state["steps"]
        self.ledger = dict(state["ledger"])
        self.finished = [Episode(*episode) for episode in state["finished"]]
        self.environments.load_state_dict(state["environments"])
        self._generator.set_state(state["generator"])
        self._columns = dict(state["columns"])
        self._return_E = state["return_E"]
        for name, moments in (("observations", self._observations), ("returns", self._returns)):
            if moments is not None:
                moments.load_state_dict(state[name])


def _too_many(options: RolloutOptions, count: int) -> None:
    rows = options.horizon * count
    raise GroundupError(
        "E-ENV-030",
        f"a rollout of {rows:,} rows is to be cut into {options.minibatches:,} minibatches",
        where=f"data.collect.horizon: {options.horizon:,}, data.environment.count: {count:,}, "
        f"data.collect.minibatches: {options.minibatches:,}",
        why="a rollout has horizon times count rows, and no minibatch may be empty",
        fix=f"data.collect.minibatches: {rows} or less, or a longer horizon",
        exit_code=2,
    )
