"""Environments that misbehave on purpose, registered for the tests that hand them in."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

FAULTS = ("none", "nan", "infinite", "reward", "reward list", "shape", "outside", "same", "chance")


class Chain(gymnasium.Env[Any, Any]):
    """Counts its steps; the observation is (steps, last action) and the reward the number of the step. Terminates
    after `length` steps. `fault` says what goes wrong in the second step."""

    def __init__(
        self, fault: str = "none", length: int = 1_000, discrete: bool = False, continuous: bool = False
    ) -> None:
        self.fault, self.length, self.discrete = fault, length, discrete
        self.observation_space = (
            gymnasium.spaces.Discrete(4, start=1)
            if discrete
            else gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        )
        self.action_space = (
            gymnasium.spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 2.0]), dtype=np.float64)
            if continuous
            else gymnasium.spaces.Discrete(3, start=-1)
        )
        self.actions: list[Any] = []
        self._array = np.zeros(2)
        self._chance = np.random.default_rng()  # not of the seed: only `chance` draws from it

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.actions = 0, []
        self.offset = float(self.np_random.random())
        return (1 if self.discrete else np.array([self.offset, 0.0])), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.actions.append(action)
        observation: Any = np.array([self.steps + self.offset, float(np.sum(action))])
        reward: Any = float(self.steps)
        if self.discrete:
            observation = 1 + self.steps % 4
        if self.fault == "same":
            self._array[:] = observation
            observation = self._array
        if self.fault == "chance":
            observation = observation + self._chance.random()
        if self.steps == 2:
            observation, reward = self._wrong(observation, reward)
        return observation, reward, self.steps >= self.length, False, {}

    def _wrong(self, observation: Any, reward: Any) -> tuple[Any, Any]:
        match self.fault:
            case "nan":
                observation[1] = np.nan
            case "infinite":
                observation[0] = 1e39  # finite, but not as float32
            case "reward":
                reward = float("nan")
            case "reward list":
                reward = [1.0, 2.0]
            case "shape":
                observation = np.zeros(3)
            case "outside":
                observation = 5
        return observation, reward


def register() -> None:
    if "tests/Chain-v0" not in gymnasium.registry:
        gymnasium.register("tests/Chain-v0", entry_point=Chain, max_episode_steps=5)
