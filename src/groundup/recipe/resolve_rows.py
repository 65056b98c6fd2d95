"""Derived settings of recipes whose steps are counted in rows: tables, images, translations and environments. What
is set explicitly always wins, as in resolve.py.
"""

from __future__ import annotations

from typing import Any

from groundup.data.replay import ReplayOptions
from groundup.data.rollout import RolloutOptions
from groundup.objectives import OBJECTIVES
from groundup.optim.options import AdamWOptions, OptimizerOptions
from groundup.recipe.tree import EnvironmentData, ImageData, PairData, Recipe, TableData

ROWS = 64
"""Rows in a step where the recipe says nothing."""

RATES = {"adamw": 1e-3, "adam": 1e-3, "sgd": 0.05, "rmsprop": 1e-3, "adagrad": 1e-2, "muon": 2e-3}
"""Peak learning rates where the recipe says nothing."""

FINE_TUNING = 0.3
"""The share of these rates for a model that has learned already."""

OBJECTIVE_OF_FAMILY = {
    "autoencoder": "reconstruct",
    "vae": "elbo",
    "gan": "adversarial",
    "q_network": "dqn",
    "actor_critic": "ppo",
    "soft_actor_critic": "sac",
}
"""The objective of a network that has one of its own."""

PLAYERS = {"adversarial": ("critic", "generator"), "sac": ("critic", "actor", "temperature")}
"""The players of the objectives that have more than `model`."""

ON_POLICY = ("reinforce", "a2c", "ppo")


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
    rows = budget.rows_per_step or ROWS
    if isinstance(data, EnvironmentData):
        collect = data.collect or (RolloutOptions() if objective.kind in ON_POLICY else ReplayOptions())
        data = data.model_copy(update={"collect": collect})
        if isinstance(collect, RolloutOptions):
            rows = collect.horizon * data.environment.count // collect.minibatches
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


def usual_optimizers(objective: str) -> dict[str, OptimizerOptions]:
    """AdamW for every player."""
    return {name: AdamWOptions(kind="adamw", weight_decay=0.01, beta2=0.999) for name in players_of(objective)}


def players_of(objective: str) -> tuple[str, ...]:
    """The names that `optim` has for an objective."""
    return PLAYERS.get(objective, ("model",))


def _with_rate(options: Any, fine_tuning: bool) -> Any:
    if options.learning_rate is not None:
        return options
    return options.model_copy(update={"learning_rate": RATES[options.kind] * (FINE_TUNING if fine_tuning else 1.0)})
