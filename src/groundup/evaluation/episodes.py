"""How well a policy plays: whole episodes from seeds, what they brought, and pictures of one of them. The policy and
the environments are handed in; how either is built does not enter here.

Shapes: E copies of an environment, O the shape of an observation, N episodes, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.errors import GroundupError
from groundup.evaluation.statistics import Interval, PerUnit, interval

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

    def mean_return(self, seed: int = 0) -> Interval:
        """The mean of the returns, with its bootstrap interval."""
        return interval(PerUnit.of(self.returns_N), seed=seed)

    def success_rate(self, seed: int = 0) -> Interval | None:
        """The share of successes, 0 to 1, with its bootstrap interval; None without a threshold."""
        return None if self.successes_N is None else interval(PerUnit.of(self.successes_N), seed=seed)


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
    """A picture of an episode: the step before which it was taken, and uint8 (height, width, 3)."""

    step: int
    picture: NDArray[np.uint8]


def film(
    policy: Policy, environments: Playground, render: Callable[[], Any], *, seed: int, most: int = 12
) -> list[Frame]:
    """Pictures of the first episode, evenly spread from its first state to its last choice.

    While the episode runs, every picture of a fixed distance is kept; the distance doubles whenever there are twice as
    many as wanted, so that a long episode needs no more memory than a short one.

    Args:
        policy: chooses the actions.
        environments: fresh, one copy.
        render: gives a picture of the present state, as an environment of render mode rgb_array does.
        seed: of the policy's draws.
        most: pictures, 1 or more.

    Returns:
        At most `most` of them; none where the environment draws nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    kept: list[Frame] = []
    step, apart = 0, 1
    while True:
        if step % apart == 0:
            picture = render()
            if picture is None:
                return []
            kept.append(Frame(step, np.array(picture, dtype=np.uint8)))
            if len(kept) >= 2 * max(most, 1):
                kept, apart = kept[::2], 2 * apart
        environments.step(policy(environments.observation_EO, generator))
        if environments.finished:
            break
        step += 1
    if len(kept) <= most:
        return kept
    return [kept[index] for index in np.linspace(0, len(kept) - 1, most).round().astype(int)]
