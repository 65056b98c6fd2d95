"""Experience of any age: act in environments, remember each step, and learn from remembered ones drawn at random.

How actions are chosen is a callable that is handed in; no network and no loss enter here.

Shapes: B rows of a batch, E copies of the environment, O the shape of an observation, A numbers of an action.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from groundup.contract import Batch
from groundup.data.environments import Environments, Episode, Transition
from groundup.data.sum_tree import SumTree
from groundup.errors import GroundupError

Act = Callable[[Tensor, int, torch.Generator], Tensor]
"""(observation_EO, environment steps so far, generator) → action int64 (E,) or float32 (E, A)."""

SMALLEST = 1e-6
"""Added to each error, so that what was learned by heart is still drawn at times."""

ACT, DRAW = 0, 1
"""What a random number is for; part of its seed."""


class PriorityOptions(BaseModel):
    """Rows with a larger error are drawn more often (Schaul et al. 2015, arXiv:1511.05952)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    alpha: float = Field(
        default=0.6, ge=0.0, le=1.0, description="power of the error that a row is drawn in proportion to; 0 is evenly"
    )
    beta: float = Field(
        default=0.4, ge=0.0, le=1.0, description="how much of that the weight of a row undoes at first; 1 is all"
    )
    beta_steps: int = Field(default=50_000, ge=1, description="environment steps until beta has risen to 1, in a line")


class ReplayOptions(BaseModel):
    """What is remembered, and how much is acted for each update."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["replay"] = "replay"
    capacity: int = Field(default=50_000, ge=1, description="steps that are remembered; the oldest is forgotten first")
    steps_per_update: int = Field(
        default=1, ge=1, description="steps of each copy of the environment before each batch"
    )
    warm_up_steps: int = Field(
        default=1_000, ge=0, description="steps with random actions, over all copies, before the first batch"
    )
    n_steps: int = Field(
        default=1, ge=1, description="rewards that are summed before the value of a later state takes their place"
    )
    priorities: PriorityOptions | None = Field(default=None, description="draw rows by their errors. None: all alike")


class _Taken(NamedTuple):
    observation: Tensor
    action: Tensor
    reward: float


class Replay:
    """Batches of remembered steps, for ever; implements contract.Source.

    Args:
        options: of the memory.
        environments: to act in.
        act: chooses the actions after the warm-up; see `Act`.
        rows: of a batch.
        discount: what a reward one step later is worth, 0 to 1 (gamma).
        seed: of actions and draws.
        acting_turn: the turn whose batches are acted for; other turns only draw. With several micro-batches to an
            update each of them is acted for.

    Attributes:
        epoch: how many times it was acted, a round for each batch of the acting turn.
        batch: 0; a round has one batch.
        steps: taken in all copies together.
        size: rows remembered now.
        finished: the episodes that ended in the last round.
        ledger: rows so far: `seen` = `trained` + `masked` + `padded`, exactly.

    Raises:
        GroundupError: E-ENV-012 a batch or a warm-up larger than the memory.
    """

    batches_per_epoch = 1

    def __init__(
        self,
        options: ReplayOptions,
        environments: Environments,
        *,
        act: Act,
        rows: int,
        discount: float,
        seed: int,
        acting_turn: str = "model",
    ) -> None:
        _check(options, rows)
        self.options, self.environments, self.rows, self.seed = options, environments, rows, seed
        self._act, self._discount, self._acting_turn = act, discount, acting_turn
        shape, capacity = environments.observation_shape, options.capacity
        chosen = environments.actions is not None
        self._columns = {
            "observation_BO": torch.zeros(capacity, *shape),
            "action_B" if chosen else "action_BA": torch.zeros(
                capacity, *environments.action_shape, dtype=torch.int64 if chosen else torch.float32
            ),
            "reward_B": torch.zeros(capacity),
            "next_observation_BO": torch.zeros(capacity, *shape),
            "continue_B": torch.zeros(capacity),
            "terminated_B": torch.zeros(capacity, dtype=torch.bool),
        }
        self._pending: list[deque[_Taken]] = [deque() for _ in range(environments.count)]
        self._tree = SumTree(capacity) if options.priorities else None
        self._largest = 1.0
        self._generator = torch.Generator()
        self.epoch = self.batch = self.steps = self._stored = self._drawn = 0
        self.finished: list[Episode] = []
        self.ledger = {"seen": 0, "trained": 0, "masked": 0, "padded": 0}

    @property
    def size(self) -> int:
        """Rows remembered now."""
        return min(self._stored, self.options.capacity)

    def next(self, turn: str) -> Batch:
        """Act, where it is the acting turn, then draw a batch, with replacement.

        Returns:
            `observation_BO`, `action_B` int64 or `action_BA` float32; `reward_B`, the discounted sum of up to n_steps
            rewards; `next_observation_BO`, the state after them; `continue_B`, what the value of that state counts
            in the target: discount to the power of the number of rewards, 0 where the episode terminated (but not
            where it was truncated); `terminated_B` bool; `weight_B`, 1 without priorities, else at most 1;
            `index_B` int64, the number of the row since the start, for `report_priorities`.
        """
        if turn == self._acting_turn:
            self.finished = []
            while self.steps < self.options.warm_up_steps or self.size < self.rows:
                self._step(self._random_action)
            for _ in range(self.options.steps_per_update):
                self._step(self._act)
            self.epoch += 1
        place_B, weight_B = self._draw()
        self._drawn += 1
        self.ledger["seen"] += self.rows
        self.ledger["trained"] += self.rows
        rows = torch.from_numpy(place_B)
        oldest = self._stored - self.size
        return {
            **{name: column[rows] for name, column in self._columns.items()},
            "weight_B": weight_B,
            # the number of the row since the start, which tells it from the one that will take its place
            "index_B": oldest + (rows - oldest) % self.options.capacity,
        }

    def report_priorities(self, index_B: Tensor, error_B: Tensor) -> None:
        """How wrong the network was about rows of a batch: the larger the error, the sooner they come again.

        Rows that are forgotten by now, and errors that are not finite, change nothing.

        Args:
            index_B: of the batch.
            error_B: differences to the targets, of any sign.
        """
        if self._tree is None or self.options.priorities is None:
            return
        index_N = index_B.cpu().numpy()
        error_N = error_B.detach().cpu().double().abs().numpy() + SMALLEST
        kept_N = np.isfinite(error_N) & (index_N >= self._stored - self.size)
        index_N, error_N = index_N[kept_N], error_N[kept_N]
        self._largest = max(self._largest, *error_N.tolist(), 0.0)
        self._tree.set(index_N % self.options.capacity, error_N**self.options.priorities.alpha)

    def _step(self, act: Act) -> None:
        before = self.environments.observation_EO
        self._generator.manual_seed(_number(self.seed, ACT, self.steps))
        done = self.environments.step(act(before, self.steps, self._generator))
        self.finished += self.environments.finished
        self.steps += self.environments.count
        for copy, pending in enumerate(self._pending):
            pending.append(_Taken(done.observation_EO[copy], done.action[copy], float(done.reward_E[copy])))
            self._remember(pending, done, copy)

    def _remember(self, pending: deque[_Taken], done: Transition, copy: int) -> None:
        """Store each step that has its n rewards; at the end of an episode all that are left, with fewer."""
        over = bool(done.terminated_E[copy] | done.truncated_E[copy])
        while pending and (over or len(pending) == self.options.n_steps):
            terminated = bool(done.terminated_E[copy])
            reward = sum(taken.reward * self._discount**later for later, taken in enumerate(pending))
            goes_on = 0.0 if terminated else self._discount ** len(pending)
            first = pending.popleft()
            place = self._stored % self.options.capacity
            values = (first.observation, first.action, reward, done.next_observation_EO[copy], goes_on, terminated)
            for column, value in zip(self._columns.values(), values):
                column[place] = value
            if self._tree is not None and self.options.priorities is not None:
                priority = np.array([self._largest**self.options.priorities.alpha])
                self._tree.set(np.array([place]), priority)
            self._stored += 1

    def _draw(self) -> tuple[NDArray[np.int64], Tensor]:
        """Places int64 (B,) and their weights float32 (B,)."""
        random = np.random.default_rng([self.seed, DRAW, self._drawn])
        if self._tree is None or self.options.priorities is None:
            return random.integers(0, self.size, self.rows), torch.ones(self.rows)
        # one draw in each of B equal shares of the mass (appendix B.2.1)
        share_B = (np.arange(self.rows) + random.random(self.rows)) / self.rows
        place_B = self._tree.find(share_B * self._tree.total)
        options = self.options.priorities
        beta = options.beta + (1.0 - options.beta) * min(self.steps / options.beta_steps, 1.0)
        least = self._tree.get(np.arange(self.size)).min()  # its weight is the largest of the memory, and becomes 1
        return place_B, torch.from_numpy((self._tree.get(place_B) / least) ** -beta).float()

    def _random_action(self, observation_EO: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """Any action, or any vector within the bounds; standard normal where there are none."""
        environments = self.environments
        if environments.actions is not None:
            return torch.randint(environments.actions, (environments.count,), generator=generator)
        shape = (environments.count, *environments.action_shape)
        low, high = environments.action_low, environments.action_high
        assert low is not None and high is not None
        share, normal = torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)
        return torch.where(low.isfinite() & high.isfinite(), torch.lerp(low, high, share), normal)

    def state_dict(self) -> dict[str, Any]:
        """Where everything stands, and the whole memory."""
        pending = [taken for copy in self._pending for taken in copy]
        return {
            "epoch": self.epoch,
            "steps": self.steps,
            "stored": self._stored,
            "drawn": self._drawn,
            "ledger": dict(self.ledger),
            "finished": [list(episode) for episode in self.finished],
            "environments": self.environments.state_dict(),
            "columns": {name: column[: self.size].clone() for name, column in self._columns.items()},
            "pending": {
                "length": [len(copy) for copy in self._pending],
                "observation": torch.stack([taken.observation for taken in pending]) if pending else torch.zeros(0),
                "action": torch.stack([taken.action for taken in pending]) if pending else torch.zeros(0),
                "reward": [taken.reward for taken in pending],
            },
            "largest": self._largest,
            "priorities": torch.zeros(0)
            if self._tree is None
            else torch.from_numpy(self._tree.get(np.arange(self.size))),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which `state_dict` was taken.

        Raises:
            GroundupError: E-ENV-007 the environment does not come to the same place again.
        """
        self.epoch, self.steps = state["epoch"], state["steps"]
        self._stored, self._drawn = state["stored"], state["drawn"]
        self.ledger = dict(state["ledger"])
        self.finished = [Episode(*episode) for episode in state["finished"]]
        self.environments.load_state_dict(state["environments"])
        for name, column in self._columns.items():
            column[: self.size] = state["columns"][name]
        pending = state["pending"]
        taken = [_Taken(*parts) for parts in zip(pending["observation"], pending["action"], pending["reward"])]
        ends = np.cumsum(pending["length"]).tolist()
        self._pending = [deque(taken[end - length : end]) for end, length in zip(ends, pending["length"])]
        self._largest = state["largest"]
        if self._tree is not None:
            self._tree.set(np.arange(self.size), state["priorities"].numpy())


def _number(seed: int, purpose: int, step: int) -> int:
    """A seed for torch that is a function of these counters."""
    return int(np.random.SeedSequence([seed, purpose, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check(options: ReplayOptions, rows: int) -> None:
    needed = max(rows, options.warm_up_steps)
    if needed > options.capacity:
        raise GroundupError(
            "E-ENV-012",
            f"{needed:,} steps are to be remembered before the first update, and at most {options.capacity:,} can be",
            where=f"data.collect: capacity {options.capacity:,}, warm_up_steps {options.warm_up_steps:,}, "
            f"rows of a batch: {rows:,}",
            why="what the warm-up experienced would be forgotten before it is used",
            fix=f"data.collect.capacity: {needed} or more",
            exit_code=2,
        )
