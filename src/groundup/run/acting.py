"""Environments as work for a run: a network learns to act from what it experiences.

Here the parts of reinforcement learning are made to know each other: the stream acts with the present network, the
objective reports back how wrong it was about each row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from groundup.contract import Objective, Source
from groundup.data.environments import EnvironmentOptions, Environments, require_actions
from groundup.data.replay import Replay, ReplayOptions
from groundup.data.rollout import LARGEST, Rollout, RolloutOptions
from groundup.errors import GroundupError
from groundup.evaluation.episodes import Played, Policy, play
from groundup.evaluation.metrics import EpisodeScores
from groundup.functional import evaluating
from groundup.objectives.policy import PolicyGradient
from groundup.objectives.soft_actor_critic import SAC
from groundup.objectives.value import DQN, EpsilonGreedy
from groundup.objectives.value import greedy as greedy_action
from groundup.recipe.tree import EnvironmentData, Recipe
from groundup.run.filming import filmed
from groundup.run.measuring import evaluation_of
from groundup.run.network_work import AT_THE_END, WHILE_TRAINING, Beginning, ExperienceWork, begin
from groundup.run.networks import NetworkSaid, network_files
from groundup.run.results import Scores
from groundup.run.work import Say

METRICS = ("return",)

ACTIONS: dict[str, Literal["discrete", "continuous"]] = {"dqn": "discrete", "sac": "continuous"}
"""The objectives that learn from remembered experience, and the kind of actions that they can learn."""

@dataclass(kw_only=True)
class ActingWork(ExperienceWork):
    """An environment and a network that acts in it.

    Attributes:
        rollout: the stream of the run where it knows how observations are normalised.
    """

    rollout: Rollout | None = None

    @property
    def data(self) -> EnvironmentData:
        """The section of the recipe."""
        assert isinstance(self.recipe.data, EnvironmentData)
        return self.recipe.data

    def learning(self, model: nn.Module) -> tuple[Objective, Source]:
        """Objective and stream that know each other."""
        options: Any = self.recipe.objective
        environments = Environments(self.data.environment, self.recipe.seed)
        if options.kind in ACTIONS:
            return self._from_replay(options, model, environments)
        return self._from_rollouts(options, model, environments)

    def _from_replay(self, options: Any, model: Any, environments: Environments) -> tuple[Objective, Source]:
        collect, seed = self.data.collect, self.recipe.seed
        assert isinstance(collect, ReplayOptions)

        def draw(observation_EO: Tensor, step: int, generator: torch.Generator) -> Tensor:
            return model.act(observation_EO.to(self.device), generator)[0].cpu()

        replay = Replay(
            collect,
            environments,
            act=EpsilonGreedy(options, model) if options.kind == "dqn" else draw,
            rows=self.recipe.budget.micro_batch or 1,
            discount=options.discount,
            seed=seed,
            acting_turn="model" if options.kind == "dqn" else "critic",
        )
        report = replay.report_priorities if collect.priorities is not None else None
        if options.kind == "dqn":
            return DQN(options, model, report), replay
        return SAC(options, model, numbers=self.said.outputs, seed=seed, report_priorities=report), replay

    def _from_rollouts(self, options: Any, model: Any, environments: Environments) -> tuple[Objective, Source]:
        assert isinstance(self.data.collect, RolloutOptions)

        def act(observation_EO: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
            with evaluating(model):
                action, log_probability_E, value_E = model.act(observation_EO.to(self.device), generator)
            return action.cpu(), log_probability_E.cpu(), value_E.cpu()

        def value(observation_BO: Tensor) -> Tensor:
            with evaluating(model), torch.no_grad():
                return model.value(observation_BO.to(self.device)).cpu()

        rollout = Rollout(
            self.data.collect, environments, act=act, value=value, discount=options.discount, seed=self.recipe.seed
        )
        if self.loaded is not None:
            told = self.loaded.said.preparation.get("normalisation") or {}
            rollout.go_on_from({name: torch.tensor(value) for name, value in told.items()})
        self.rollout = rollout
        return PolicyGradient(options, model, rollout.stop_reuse), rollout

    def example(self) -> Tensor:
        """One observation."""
        return torch.zeros(1, *self.said.shape, device=self.device)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Whole episodes, always the same ones."""
        played = self._play(model, self.data.episodes, WHILE_TRAINING)
        found = evaluation_of(EpisodeScores(played.returns_N, played.lengths_N.astype(float)), METRICS)
        return {self.data.environment.id: found}

    def score(self, model: nn.Module, *, final: bool) -> Scores:
        """Whole episodes that no evaluation has played before."""
        played = self._play(model, self.data.final_episodes, AT_THE_END)
        scores = EpisodeScores(played.returns_N, played.lengths_N.astype(float))
        return Scores({self.data.environment.id: scores}, partial=False)

    def results(self, model: nn.Module) -> dict[str, Any]:
        """`episode`: the first of the closing episodes, in frames."""
        greedy = not self.data.sampled
        policy = policy_of(model, greedy=greedy, normalisation=self._normalisation())
        found = filmed(policy, self.data.environment, seed=self.recipe.seed + AT_THE_END)
        return {"episode": {"environment": self.data.environment.id, "greedy": greedy, "frames": found}}

    def _play(self, model: nn.Module, episodes: int, apart: int) -> Played:
        make = environments_of(self.data.environment, count=min(episodes, 10))
        policy = policy_of(model, greedy=not self.data.sampled, normalisation=self._normalisation())
        return play(policy, make, episodes, seed=self.recipe.seed + apart)

    def _normalisation(self) -> dict[str, Tensor]:
        return {} if self.rollout is None else self.rollout.normalisation()

    def small_files(self) -> dict[str, bytes]:
        """model.json and preparation.json, with the mean and deviation of observations as they are now."""
        moments = {name: tensor.tolist() for name, tensor in self._normalisation().items()}
        return network_files(replace(self.said, preparation=self.said.preparation | {"normalisation": moments}))

    def metric_names(self, scores: Any) -> Sequence[str]:
        """Of whole episodes."""
        return METRICS


def environments_of(options: EnvironmentOptions, *, count: int) -> Callable[[int], Environments]:
    """Makes fresh copies of an environment from a seed."""
    chosen = options.model_copy(update={"count": count})
    return lambda seed: Environments(chosen, seed)


def policy_of(model: Any, *, greedy: bool, normalisation: Mapping[str, Tensor] | None = None) -> Policy:
    """How a trained network acts: with its best action, or as it draws them.

    Args:
        model: the network.
        greedy: its best action.
        normalisation: `mean_O` and `deviation_O` of observations, if it learned from normalised ones.
    """
    device = next(model.parameters()).device

    @torch.no_grad()
    def act(observation_EO: Tensor, generator: torch.Generator) -> Tensor:
        if normalisation:
            mean, deviation = normalisation["mean_O"].float(), normalisation["deviation_O"].float()
            observation_EO = ((observation_EO - mean) / deviation).clamp(-LARGEST, LARGEST)
        with evaluating(model):
            if model.options.family == "q_network":
                return greedy_action(model, observation_EO)[0]
            action: Tensor = model.act(observation_EO.to(device), generator, greedy=greedy)[0]
        return action.cpu()

    return act


def as_it_observed(begun: Beginning) -> Beginning:
    """A policy goes on with observations as it learned from them, normalised or not.

    Raises:
        GroundupError: E-MODEL-007 if the recipe asks for the other.
    """
    data = begun.recipe.data
    assert isinstance(data, EnvironmentData)
    if begun.loaded is None or not isinstance(data.collect, RolloutOptions):
        return begun
    normalised = bool(begun.loaded.said.preparation.get("normalisation"))
    if data.collect.normalise_observations == normalised:
        return begun
    if "normalise_observations" in data.collect.model_fields_set:
        raise GroundupError(
            "E-MODEL-007",
            f"the policy learned from observations that were {'' if normalised else 'not '}normalised",
            where="data.collect.normalise_observations",
            why="its weights mean nothing on observations of another scale",
            fix=f"set data.collect.normalise_observations={str(normalised).lower()}, or leave it out",
            exit_code=2,
        )
    collect = data.collect.model_copy(update={"normalise_observations": normalised})
    data = data.model_copy(update={"collect": collect})
    return begun._replace(recipe=begun.recipe.model_copy(update={"data": data}))


def acting_work(recipe: Recipe, folder: Path, *, say: Say) -> ActingWork:
    """Look at the environment, and fill in every number that does not need a measurement of speed."""
    begun = as_it_observed(begin(recipe))
    recipe = begun.recipe
    assert isinstance(recipe.data, EnvironmentData) and recipe.objective is not None
    probe = Environments(recipe.data.environment.model_copy(update={"count": 1}), recipe.seed)
    if recipe.objective.kind in ACTIONS:
        require_actions(probe, ACTIONS[recipe.objective.kind], recipe.objective.kind)
    low, high = probe.action_low, probe.action_high
    said = NetworkSaid(
        family=begun.family,
        options=begun.options,
        shape=probe.observation_shape,
        outputs=probe.actions or int(probe.action_shape[0]),
        kind="actions",
        reads="observation_BO",
        low=None if low is None else low.tolist(),
        high=None if high is None else high.tolist(),
        preparation={"kind": "environment", **recipe.data.environment.model_dump()},
    )
    probe.close()
    return ActingWork(**begun.settled(said, {"environment": recipe.data.environment.model_dump()}))
