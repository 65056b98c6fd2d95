"""The counting environment: ten counters, each pays once. Small enough to know the best return exactly, so that a
method that should reach it can be held to it.

gymnasium is optional, so that it is imported here only when an environment is asked for, and its class is made then.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import gymnasium

COUNTERS = 10
HIGHEST = 9
NAME = "groundup/Counters-v0"
TIME_LIMIT = 100


def register() -> None:
    """Make it known to gymnasium.make as `groundup/Counters-v0`; a second call changes nothing."""
    import gymnasium

    if NAME not in gymnasium.registry:
        gymnasium.register(NAME, entry_point="groundup.data.counters:build", max_episode_steps=TIME_LIMIT)


def build() -> gymnasium.Env[NDArray[np.int64], np.int64]:
    """The environment without its limit of steps; gymnasium.make adds it."""
    made: gymnasium.Env[NDArray[np.int64], np.int64] = counters()()
    return made


@cache
def counters() -> type[Any]:
    """The class of the environment."""
    import gymnasium

    class Counters(gymnasium.Env[NDArray[np.int64], np.int64]):
        """Ten counters, each drawn evenly from 0 to 9. Choosing one that is not zero pays +1, another -1, and it is
        zero afterwards. The episode ends when all are zero; where all are so from the start, with the first step.

        The best return is the number of counters that are not zero at the start, 9 on average; choosing evenly at
        random returns about -10.2.
        """

        def __init__(self) -> None:
            self.observation_space = gymnasium.spaces.MultiDiscrete([HIGHEST + 1] * COUNTERS)
            self.action_space = gymnasium.spaces.Discrete(COUNTERS)
            self._counters = np.zeros(COUNTERS, dtype=np.int64)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[NDArray[np.int64], dict[str, Any]]:
            """Draw the counters."""
            super().reset(seed=seed)
            self._counters = self.np_random.integers(0, HIGHEST, size=COUNTERS, endpoint=True)
            return self._counters.copy(), {}

        def step(self, action: np.int64) -> tuple[NDArray[np.int64], float, bool, bool, dict[str, Any]]:
            """Empty one counter."""
            reward = 1.0 if self._counters[action] else -1.0
            self._counters[action] = 0
            return self._counters.copy(), reward, not self._counters.any(), False, {}

    return Counters
