"""Episodes are counted whole, from the first on, and no episode is favoured for being short."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundup.data.environments import Episode
from groundup.errors import GroundupError
from groundup.evaluation.episodes import film, play, random_policy


class Lengths:
    """Copy c plays episodes of c + 1 steps in turn with episodes of 10; each pays the action in each step."""

    actions: int | None = 5
    action_low: Tensor | None = None
    action_high: Tensor | None = None

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed, self.closed = count, seed, False
        self.time, self.number, self.total = [0] * count, [0] * count, [0.0] * count
        self.finished: list[Episode] = []

    @property
    def observation_EO(self) -> Tensor:
        return torch.tensor(self.time, dtype=torch.float32)[:, None]

    def step(self, action: Tensor) -> SimpleNamespace:
        self.finished = []
        for copy in range(self.count):
            self.time[copy] += 1
            self.total[copy] += float(action[copy])
            if self.time[copy] == (10 if self.number[copy] % 2 else copy + 1):
                seed = 100 * self.seed + 10 * copy + self.number[copy]
                self.finished.append(Episode(self.total[copy], self.time[copy], copy, seed))
                self.time[copy], self.total[copy] = 0, 0.0
                self.number[copy] += 1
        return SimpleNamespace(reward_E=action.float())

    def close(self) -> None:
        self.closed = True


def always(action: int) -> Any:
    return lambda observation, generator: torch.full((len(observation),), action)


def test_each_copy_plays_its_own_episodes_from_the_first_on() -> None:
    made: list[Lengths] = []

    def make(seed: int) -> Lengths:
        made.append(Lengths(3, seed))
        return made[-1]

    played = play(always(2), make, 7, seed=4, threshold=6.0)
    assert played.lengths_N.tolist() == [1, 10, 1, 2, 10, 3, 10]  # 3, 2 and 2 episodes
    assert played.returns_N.tolist() == [2.0, 20, 2, 4, 20, 6, 20]
    assert played.seeds_N.tolist() == [400, 401, 402, 410, 411, 420, 421]
    assert played.successes_N is not None
    assert played.successes_N.tolist() == [False, True, False, False, True, True, True]
    assert made[0].closed
    again = play(always(2), make, 7, seed=4)
    assert np.array_equal(again.returns_N, played.returns_N) and again.successes_N is None


def test_fewer_episodes_than_copies() -> None:
    assert play(always(1), lambda seed: Lengths(4), 2, seed=0).lengths_N.tolist() == [1, 2]
    with pytest.raises(GroundupError) as caught:
        play(always(1), lambda seed: Lengths(4), 0, seed=0)
    assert caught.value.code == "E-ENV-040"


def test_the_random_policy_takes_all_actions_alike() -> None:
    places, random = Lengths(1), torch.Generator().manual_seed(0)
    drawn = random_policy(places)(torch.zeros(5000, 1), random)
    counts = torch.bincount(drawn)
    assert len(counts) == 5 and int((counts - 1000).abs().max()) < 120
    places.actions, places.action_low, places.action_high = (
        None,
        torch.tensor([2.0, 0.0]),
        torch.tensor([6.0, math.inf]),
    )
    drawn = random_policy(places)(torch.zeros(5000, 1), random)
    low, high = drawn.amin(dim=0), drawn.amax(dim=0)
    torch.testing.assert_close(low, torch.tensor([2.0, -1.0]), rtol=0, atol=0.02)
    torch.testing.assert_close(high, torch.tensor([6.0, 1.0]), rtol=0, atol=0.02)


@pytest.mark.parametrize("length, most", [(1, 4), (4, 4), (10, 4), (100, 12), (100, 1)])
def test_a_film_is_spread_evenly_over_the_whole_episode(length: int, most: int) -> None:
    class Long(Lengths):
        def step(self, action: Tensor) -> SimpleNamespace:
            self.time[0] += 1
            self.finished = [Episode(0.0, length, 0, 0)] if self.time[0] == length else []
            return SimpleNamespace(reward_E=action.float())

    made: list[Long] = []

    def make(seed: int) -> Long:
        made.append(Long(1, seed))
        return made[-1]

    def count(observation: Tensor, generator: torch.Generator) -> Tensor:
        return observation[:, 0].long()

    frames = film(count, make, lambda place: place.time[0], seed=3, most=most)
    steps = [frame.step for frame in frames]
    assert len(steps) == min(length, most) and steps[0] == 1 and (most == 1 or steps[-1] == length)
    apart = np.diff(steps)
    assert (apart > 0).all() and len(set(apart.tolist())) <= 2 and (not len(apart) or np.ptp(apart) <= 1)
    for frame in frames:  # in step n the state is n - 1, and so are the action and its reward
        assert (frame.shown, frame.action, frame.reward) == (frame.step - 1, frame.step - 1, frame.step - 1)
        assert frame.total_reward == frame.step * (frame.step - 1) / 2
    assert [place.seed for place in made] == [3, 3] and all(place.closed for place in made)


def test_a_film_of_an_environment_of_chance_ends_with_its_second_episode() -> None:
    made: list[Lengths] = []

    class Unsteady(Lengths):
        def step(self, action: Tensor) -> SimpleNamespace:
            self.time[0] += 1
            self.finished = [Episode(0.0, self.time[0], 0, 0)] if self.time[0] == self.number[0] else []
            return SimpleNamespace(reward_E=action.float())

    def make(seed: int) -> Unsteady:
        made.append(Unsteady(1, seed))
        made[-1].number = [20 if len(made) == 1 else 6]
        return made[-1]

    steps = [frame.step for frame in film(always(0), make, lambda place: None, seed=0, most=10)]
    assert steps == [1, 3, 5]


def test_a_real_environment_plays_the_same_twice() -> None:
    pytest.importorskip("gymnasium")
    from groundup.data.environments import EnvironmentOptions, Environments

    def make(seed: int) -> Environments:
        return Environments(EnvironmentOptions(id="CartPole-v1", count=5), seed)

    first, second = (play(random_policy(make(0)), make, 12, seed=9) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first[:3], second[:3]))
    assert 12 < first.returns_N.mean() < 40 and len(set(first.seeds_N.tolist())) == 12
    assert np.array_equal(first.returns_N, first.lengths_N)
    other = play(random_policy(make(0)), make, 12, seed=10)
    assert not np.array_equal(other.returns_N, first.returns_N)
