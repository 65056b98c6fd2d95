"""A network that acts in an environment, loaded and ready to play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from groundup.data.environments import EnvironmentOptions, Environments
from groundup.errors import GroundupError, printable
from groundup.evaluation import METRICS, compare, measure
from groundup.evaluation.episodes import Played, Policy, play, random_policy
from groundup.evaluation.metrics import EpisodeScores
from groundup.evaluation.statistics import PerUnit, interval
from groundup.run.acting import AT_THE_END, environments_of, policy_of
from groundup.run.loaded_network import EPISODES, LoadedNetworkModel, malformed_preparation
from groundup.run.measuring_rows import another_question
from groundup.run.networks import LoadedNetwork

SIDE_BY_SIDE = 10
"""Copies of an environment that are played at once."""


class LoadedPolicy(LoadedNetworkModel):
    """A network that acts in an environment.

    Attributes:
        environment: the one that it was trained in.
        normalisation: mean and deviation of observations, if it learned from normalised ones.
    """

    does = "acts in an environment"
    use = f"groundup evaluate {{}} --episodes {EPISODES}"

    def __init__(self, loaded: LoadedNetwork, *, device: torch.device, name: str) -> None:
        super().__init__(loaded.model, device=device, name=name)
        self.said = loaded.said
        try:
            told: Mapping[str, Any] = loaded.said.preparation
            self.environment = EnvironmentOptions.model_validate(
                {field: told[field] for field in EnvironmentOptions.model_fields}
            )
            moments = told.get("normalisation") or {}
            self.normalisation = {part: torch.tensor(moments[part]) for part in ("mean_O", "deviation_O") if moments}
        except (KeyError, TypeError, ValueError) as error:
            raise malformed_preparation(loaded, error) from error

    def play(
        self,
        episodes: int = EPISODES,
        seed: int = 0,
        greedy: bool = True,
        *,
        environment: str | None = None,
        against: LoadedNetworkModel | None = None,
    ) -> dict[str, Any]:
        """Play whole episodes, and the same ones with random actions or with another policy.

        Args:
            episodes: how many, 1 or more.
            seed: of the episodes and of what is drawn. They are none of those that a run learns from.
            greedy: take the best action each time; False draws as the policy says. One that values each action is
                always greedy.
            environment: the id of another one, with observations and actions of the same shape.
            against: another policy; None compares with random actions.

        Returns:
            `metrics` {return, length: {value, low, high, unit}}, `comparison` with `against` episode by episode, the
            `returns` and `lengths`, and what was played.

        Raises:
            GroundupError: E-ENV-040 fewer than one episode, E-EVAL-023 `against` does not act, E-EVAL-063 the
                environment does not fit; E-ENV errors for one that cannot be made.
        """
        options = self.environment
        if environment is not None and environment != options.id:
            options = EnvironmentOptions(id=environment)
        if against is not None and not isinstance(against, LoadedPolicy):
            raise another_question(self.name, "acts", against.name)
        own = self._played(options, episodes, seed, greedy)
        if against is None:
            probe = Environments(options.model_copy(update={"count": 1}), seed)
            other = self._rounds(random_policy(probe), options, episodes, seed)
            probe.close()
        else:
            other = against._played(options, episodes, seed, greedy)
        scores, beside = (EpisodeScores(one.returns_N, one.lengths_N.astype(np.float64)) for one in (own, other))
        lengths = interval(PerUnit.of(scores.lengths), seed=seed).as_dict() | {"unit": "steps"}
        returns = measure("return", scores, seed=seed).as_dict() | {"unit": METRICS["return"].unit}
        return {
            "model": self.name,
            "against": "random actions" if against is None else against.name,
            "environment": options.model_dump(),
            "episodes": len(own.returns_N),
            "greedy": greedy or self.said.family == "q_network",
            "seed": seed,
            "metrics": {"return": returns, "length": lengths},
            "comparison": [line.as_dict() for line in compare(beside, scores, ["return"], seed=seed)],
            "returns": own.returns_N.tolist(),
            "lengths": own.lengths_N.tolist(),
        }

    def _played(self, options: EnvironmentOptions, episodes: int, seed: int, greedy: bool) -> Played:
        self._require_fit(options)
        policy = policy_of(self.model, greedy=greedy, normalisation=self.normalisation)
        return self._rounds(policy, options, episodes, seed)

    @staticmethod
    def _rounds(policy: Policy, options: EnvironmentOptions, episodes: int, seed: int) -> Played:
        make = environments_of(options, count=max(1, min(episodes, SIDE_BY_SIDE)))
        return play(policy, make, episodes, seed=seed + AT_THE_END)

    def _require_fit(self, options: EnvironmentOptions) -> None:
        probe = Environments(options.model_copy(update={"count": 1}), 0)
        outputs = probe.actions or int(probe.action_shape[0])
        found = (probe.observation_shape, outputs, probe.actions is None)
        probe.close()
        wanted = (self.said.shape, self.said.outputs, self.said.low is not None)
        if found != wanted:
            kinds = [
                f"observations of shape {list(o)}, {n} {'numbers' if c else 'actions'}" for o, n, c in (found, wanted)
            ]
            raise GroundupError(
                "E-EVAL-063",
                f"the policy does not fit {printable(options.id)}",
                where=f"{printable(options.id)}: {kinds[0]}\n{printable(self.name)}: {kinds[1]}",
                why="its first layer has a weight for each number that it sees, its last one for each that it chooses",
                fix=f"leave --environment out   (it was trained in {printable(self.environment.id)})",
                exit_code=2,
            )
