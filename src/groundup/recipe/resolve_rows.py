"""Derived settings of recipes whose steps are counted in rows: tables, images, translations and environments. What
is set explicitly always wins, as in resolve.py.
"""

from __future__ import annotations

import math
from typing import Any

from groundup.data.boards import game_of
from groundup.data.replay import ReplayOptions
from groundup.data.rollout import RolloutOptions
from groundup.objectives import OBJECTIVES
from groundup.objectives.adversarial import AdversarialOptions
from groundup.optim.options import AdamWOptions, OptimizerOptions
from groundup.recipe.tree import EnvironmentData, GameData, ImageData, PairData, Recipe, TableData

ROWS = 64
"""Rows in a step where the recipe says nothing."""

RATES = {"adamw": 1e-3, "adam": 1e-3, "sgd": 0.05, "rmsprop": 1e-3, "adagrad": 1e-2, "muon": 2e-3}
"""Peak learning rates where the recipe says nothing."""

FINE_TUNING = 0.3
"""The share of these rates for a model that has learned already."""

SMALL_BOARD = 20
"""Squares of a board on which a perfect player is found quickly."""

OBJECTIVE_OF_FAMILY = {
    "autoencoder": "reconstruct",
    "vae": "elbo",
    "gan": "adversarial",
    "q_network": "dqn",
    "actor_critic": "ppo",
    "soft_actor_critic": "sac",
    "policy_value": "self_play",
}
"""The objective of a network that has one of its own."""

PLAYERS = {"adversarial": ("critic", "generator"), "sac": ("critic", "actor", "temperature")}
"""The players of the objectives that have more than `model`."""

USUAL_ROLLOUTS = {
    "reinforce": RolloutOptions(horizon=512, epochs=1, minibatches=1, gae_lambda=1.0),
    "a2c": RolloutOptions(horizon=16, epochs=1, minibatches=1),
    "ppo": RolloutOptions(),
}
"""How experience is collected where the recipe says nothing. Only PPO corrects for learning from it more than once."""

ON_POLICY = tuple(USUAL_ROLLOUTS)


def objective_of_rows(recipe: Recipe, family: str) -> Any:
    """The objective that the recipe names, or the one that its data and network need."""
    if recipe.objective is not None:
        return recipe.objective
    if isinstance(recipe.data, PairData):
        return OBJECTIVES["translate"][0]()
    if family in OBJECTIVE_OF_FAMILY:
        return OBJECTIVES[OBJECTIVE_OF_FAMILY[family]][0]()
    task = recipe.data.task if isinstance(recipe.data, TableData | ImageData) else "classify"
    return OBJECTIVES["reconstruct" if task == "none" else task][0]()


def resolve_rows(recipe: Recipe, *, family: str) -> Recipe:
    """Fill in what follows from the recipe alone.

    Args:
        recipe: checked, of rows.
        family: of the network; that of model.init_from if there is one.
    """
    objective = objective_of_rows(recipe, family)
    data, budget = recipe.data, recipe.budget
    micro = budget.micro_batch or ROWS
    rows = budget.rows_per_step or math.ceil(ROWS / micro) * micro
    if isinstance(data, EnvironmentData):
        collect = data.collect or USUAL_ROLLOUTS.get(objective.kind) or ReplayOptions()
        data = data.model_copy(update={"collect": collect})
        if isinstance(collect, RolloutOptions):
            rows = collect.horizon * data.environment.count // collect.minibatches
    if isinstance(data, GameData) and data.opponents is None:
        data = data.model_copy(update={"opponents": _opponents(data)})
    optim = recipe.optim if "optim" in recipe.model_fields_set else usual_optimizers(objective.kind)
    fine_tuning = recipe.init_from is not None
    return recipe.model_copy(
        update={
            "data": data,
            "budget": budget.model_copy(update={"rows_per_step": rows, "micro_batch": budget.micro_batch or rows}),
            "objective": objective,
            "optim": {name: _with_rate(options, fine_tuning) for name, options in optim.items()},
        }
    )


def _opponents(data: GameData) -> list[str]:
    """The perfect player too, where all positions can be looked at in seconds."""
    game = game_of(data.game)
    return ["random", "perfect"] if game.rows * game.columns <= SMALL_BOARD else ["random"]


def usual_optimizers(objective: str) -> dict[str, OptimizerOptions]:
    """AdamW for every player."""
    return {name: AdamWOptions(kind="adamw", weight_decay=0.01, beta2=0.999) for name in players_of(objective)}


def players_of(objective: str) -> tuple[str, ...]:
    """The names that `optim` has for an objective."""
    return PLAYERS.get(objective, ("model",))


def draws_of(objective: Any) -> int:
    """How often a step draws its rows: once for each turn of a player."""
    turns = objective.critic_steps + 1 if isinstance(objective, AdversarialOptions) else None
    return turns or len(players_of(objective.kind))


def _with_rate(options: Any, fine_tuning: bool) -> Any:
    if options.learning_rate is not None:
        return options
    return options.model_copy(update={"learning_rate": RATES[options.kind] * (FINE_TUNING if fine_tuning else 1.0)})
