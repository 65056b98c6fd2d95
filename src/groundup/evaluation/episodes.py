"""How well a policy plays: whole episodes from seeds, what they brought, and one of them in frames. The policy and
the environments are handed in; how either is built does not enter here.

Shapes: E copies of an environment, O the shape of an observation, N episodes, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.errors import GroundupError

Policy = Callable[[Tensor, torch.Generator], Tensor]
"""(observation_EO, generator) → an action of each row, int64 (E,) or float32 (E, A)."""


class Ended(Protocol):
    """An episode that ended: the sum of its rewards, its length in steps, the copy that played it, its seed."""

    @property
    def total_reward(self) -> float: ...
    @property
    def length(self) -> int: ...
    @property
    def copy(self) -> int: ...
    @property
    def seed(self) -> int: ...


class Playground(Protocol):
    """Copies of one environment, side by side. A copy whose episode ends begins the next one at once."""

    observation_EO: Tensor

    @property
    def actions(self) -> int | None: ...
    @property
    def action_low(self) -> Tensor | None: ...
    @property
    def action_high(self) -> Tensor | None: ...
    @property
    def finished(self) -> Sequence[Ended]: ...
    def step(self, action: Tensor) -> Any: ...
    def close(self) -> None: ...


Place = TypeVar("Place", bound=Playground)


class Played(NamedTuple):
    """What N episodes brought, in an order that does not depend on how they went.

    Attributes:
        returns_N: undiscounted sums of rewards, float64.
        lengths_N: steps, int64.
        seeds_N: that the episodes were reset with, int64: two policies that played the same seeds can be compared
            episode by episode.
        successes_N: bool, returns of the threshold or more; None without a threshold.
    """

    returns_N: NDArray[np.float64]
    lengths_N: NDArray[np.int64]
    seeds_N: NDArray[np.int64]
    successes_N: NDArray[np.bool_] | None


def play(
    policy: Policy,
    make: Callable[[int], Playground],
    episodes: int,
    *,
    seed: int,
    threshold: float | None = None,
) -> Played:
    """Play whole episodes from the first states on.

    How many episodes each copy plays is settled before: taking those that end first would favour short ones.

    Args:
        policy: chooses the actions.
        make: fresh environments of a seed. They must not be those that are trained in, and the seed not theirs.
        episodes: N, 1 or more.
        seed: of the environments and of the policy's draws.
        threshold: the return from which on an episode is a success.

    Raises:
        GroundupError: E-ENV-040 fewer than 1 episode.
    """
    if episodes < 1:
        raise GroundupError(
            "E-ENV-040",
            f"a policy is to be measured over {episodes} episodes",
            where=f"episodes: {episodes}",
            why="a mean needs one episode at least, and an interval two",
            fix="episodes: 100",
            exit_code=2,
        )
    environments, generator = make(seed), torch.Generator().manual_seed(seed)
    count = len(environments.observation_EO)
    wanted = [episodes // count + (copy < episodes % count) for copy in range(count)]
    ended: list[list[Ended]] = [[] for _ in range(count)]
    try:
        while any(len(own) < most for own, most in zip(ended, wanted)):
            environments.step(policy(environments.observation_EO, generator))
            for episode in environments.finished:
                if len(ended[episode.copy]) < wanted[episode.copy]:
                    ended[episode.copy].append(episode)
    finally:
        environments.close()
    flat = [episode for own in ended for episode in own]
    returns_N = np.array([episode.total_reward for episode in flat], dtype=np.float64)
    return Played(
        returns_N,
        np.array([episode.length for episode in flat], dtype=np.int64),
        np.array([episode.seed for episode in flat], dtype=np.int64),
        None if threshold is None else returns_N >= threshold,
    )


def random_policy(environments: Playground) -> Policy:
    """The policy to beat: every action equally likely; a number without finite bounds is drawn from -1 to 1."""
    actions, low_A, high_A = environments.actions, environments.action_low, environments.action_high
    if actions is None and low_A is not None and high_A is not None:
        finite = low_A.isfinite() & high_A.isfinite()
        bottom_A, top_A = low_A.where(finite, -1.0), high_A.where(finite, 1.0)

        def draw(observation_EO: Tensor, generator: torch.Generator) -> Tensor:
            share = torch.rand((len(observation_EO), len(bottom_A)), generator=generator)
            return bottom_A + (top_A - bottom_A) * share

        return draw
    return lambda observation_EO, generator: torch.randint(actions or 1, (len(observation_EO),), generator=generator)


class Frame(NamedTuple):
    """One choice of an episode.

    Attributes:
        step: which choice it is, from 1.
        shown: what was seen before it, as `look` gave it.
        action: the number of the action, or its numbers.
        reward: what it brought.
        total_reward: the sum of the rewards up to it and with it.
    """

    step: int
    shown: Any
    action: int | list[float]
    reward: float
    total_reward: float


def film(
    policy: Policy, make: Callable[[int], Place], look: Callable[[Place], Any], *, seed: int, most: int = 12
) -> list[Frame]:
    """The first episode of a seed in frames that are evenly spread from its first choice to its last.

    It is played twice: by the policy, and once more with the same actions, since where the frames are to be is known
    only when it has ended.

    Args:
        policy: chooses the actions.
        make: a fresh environment of a seed, one copy.
        look: what is to be seen of its present state.
        seed: of the environment and of the policy's draws.
        most: frames, 1 or more.
    """
    actions = _played_actions(policy, make(seed), seed)
    wanted = set(np.linspace(0, len(actions) - 1, min(most, len(actions))).round().astype(int).tolist())
    environment, frames, total = make(seed), list[Frame](), 0.0
    try:
        for step, action in enumerate(actions):
            shown = look(environment) if step in wanted else None
            reward = float(environment.step(action).reward_E[0])
            total += reward
            if step in wanted:
                frames.append(Frame(step + 1, shown, action[0].tolist(), reward, total))
            if environment.finished:  # sooner than before where an environment draws chance beside its seed
                break
    finally:
        environment.close()
    return frames


def _played_actions(policy: Policy, environment: Playground, seed: int) -> list[Tensor]:
    """What a policy chooses in the first episode of one copy."""
    generator, actions = torch.Generator().manual_seed(seed), list[Tensor]()
    try:
        while not (actions and environment.finished):
            actions.append(policy(environment.observation_EO, generator))
            environment.step(actions[-1])
    finally:
        environment.close()
    return actions
