"""The rules between fields of recipes whose steps are counted in rows: tables, images, translations, environments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from groundup.data.rollout import RolloutOptions
from groundup.errors import GroundupError
from groundup.models import PREDICTING
from groundup.objectives.policy import PPOOptions
from groundup.recipe.resolve_rows import ON_POLICY, players_of
from groundup.recipe.tree import EnvironmentData, GameData, ImageData, ModelOptions, TableData

if TYPE_CHECKING:
    from groundup.recipe.check import Check

GENERATIVE = {"autoencoder": ("reconstruct",), "vae": ("elbo",), "gan": ("adversarial",)}
ACTING = {
    "q_network": ("dqn",),
    "actor_critic": ON_POLICY,
    "soft_actor_critic": ("sac",),
}
"""The objectives of the networks that act, by family; the first is the usual one."""


WITHOUT_MATRICES = ("linear", "resnet", "inception")
"""Networks of nothing but kernels of convolutions and a head, which Muon leaves to AdamW."""

PLAYING = {"policy_value": ("self_play",)}


def check_rows(check: Check) -> Iterator[GroundupError]:
    """Every fault that only recipes of rows can have."""
    recipe = check.recipe
    data, budget = recipe.data, recipe.budget
    for name in ("tokenizer", "adapters", "head"):
        if name == "tokenizer" and data.kind == "pairs" and recipe.init_from is None:
            continue
        if name == "adapters" and all(adapter.kind == "freeze" for adapter in recipe.adapters):
            continue
        if check.given(recipe, name):
            why = f"{data.kind} data has no such part"
            if name == "tokenizer" and data.kind == "pairs":
                why = "model.init_from brings its tokenizer, which its weights belong to"
            yield check.unused(name, why, f"remove the {name} section")
    if recipe.adapters and recipe.init_from is None:
        yield check.fault(
            "E-RECIPE-045", "adapters", "adapters change a model that exists, and this recipe starts from nothing",
            "frozen weights of a network that knows nothing would learn nothing",
            "set model.init_from=MODEL, or remove the adapters section",
        )  # fmt: skip
    yield from check.unfreezing()
    yield from _family(check)
    yield from _objective(check)
    for player, options in recipe.optim.items():
        if options.kind == "muon" and recipe.model.family in WITHOUT_MATRICES:
            yield check.unused(
                f"optim.{player}.kind", f"a {recipe.model.family} network has no hidden matrix for Muon to move",
                f"set optim.{player}.kind=adamw",
            )  # fmt: skip
    if recipe.hardware.compile == "on":
        yield check.unused("hardware.compile", "networks for such data are not compiled", "remove hardware.compile")
    if recipe.hardware.kernels == "compiled":
        yield check.unused("hardware.kernels", "the compiled functions are those of language models", "remove it")
    if recipe.hardware.recompute:
        yield check.unused("hardware.recompute", "this network has no blocks to recompute", "remove it")
    for name in ("tokens", "tokens_per_step"):
        if check.given(budget, name):
            yield check.unused(f"budget.{name}", f"{data.kind} data is counted in rows", "use epochs and rows_per_step")
    if budget.rows_per_step and budget.micro_batch and budget.rows_per_step % budget.micro_batch:
        yield check.fault(
            "E-RECIPE-037", "budget.rows_per_step",
            f"budget.rows_per_step {budget.rows_per_step} is not a multiple of micro_batch {budget.micro_batch}",
            "a step is made of whole micro-batches",
            f"set budget.rows_per_step={-(-budget.rows_per_step // budget.micro_batch) * budget.micro_batch}",
        )  # fmt: skip
    if isinstance(data, EnvironmentData):
        yield from _environment(check)
    elif isinstance(data, GameData) and budget.epochs is not None:
        yield check.unused("budget.epochs", "self-play has no end of its data", "use budget.steps")
    elif budget.environment_steps is not None:
        yield check.unused("budget.environment_steps", f"{data.kind} data has no environment", "use budget.epochs")
    events = recipe.events
    writes = data.kind == "pairs" or not events.sample_every
    for name in ("prompts", "sample_tokens", "evaluate_tokens") + (() if writes else ("sample_every",)):
        if check.given(events, name):
            yield check.unused(f"events.{name}", "this model writes no text", f"remove events.{name}")


def _family(check: Check) -> Iterator[GroundupError]:
    """The network must be one for this data."""
    recipe = check.recipe
    if isinstance(recipe.model, ModelOptions):
        for name in type(recipe.model).model_fields if recipe.model.init_from else ():
            if name not in ("init_from", "family") and check.given(recipe.model, name):
                yield check.unused(
                    f"model.{name}", "model.init_from brings the sizes of its model", f"remove model.{name}"
                )
        if recipe.model.init_from is None:
            yield check.fault(
                "E-RECIPE-065", "model.family", f"a {recipe.model.family} model does not read {recipe.data.kind} data",
                "it reads tokens", f"set model.family to one of {', '.join(families_for(recipe.data))}",
            )  # fmt: skip
        return
    legal = families_for(recipe.data)
    if recipe.model.family not in legal:
        yield check.fault(
            "E-RECIPE-065", "model.family",
            f"a network of family {recipe.model.family} does not read {recipe.data.kind} data",
            f"networks for it: {', '.join(legal)}", f"set model.family={legal[0]}",
        )  # fmt: skip


def families_for(data: object) -> list[str]:
    """The families of networks that read this kind of data."""
    if isinstance(data, EnvironmentData):
        return list(ACTING)
    if isinstance(data, GameData):
        return list(PLAYING)
    if isinstance(data, TableData):
        return ["mlp", "linear"]
    if isinstance(data, ImageData):
        return [*GENERATIVE] if data.task == "none" else [*PREDICTING, "gan"]
    return ["transformer"]


def _objective(check: Check) -> Iterator[GroundupError]:
    recipe = check.recipe
    family = recipe.model.family
    if isinstance(recipe.model, ModelOptions) or family not in families_for(recipe.data):
        return
    if family in GENERATIVE | ACTING | PLAYING:
        legal: tuple[str, ...] = (GENERATIVE | ACTING | PLAYING)[family]
    elif isinstance(recipe.data, TableData | ImageData):
        legal = (recipe.data.task,)
    else:
        legal = ("translate",)
    chosen = recipe.objective.kind if recipe.objective is not None else legal[0]
    if chosen not in legal:
        yield check.fault(
            "E-RECIPE-047", "objective.kind", f"objective {chosen} does not fit",
            f"a {family} on {recipe.data.kind} data learns by {' or '.join(legal)}",
            f"set objective.kind={legal[0]}, or leave objective out",
        )  # fmt: skip
        return
    players = players_of(chosen)
    if "optim" in recipe.model_fields_set and set(recipe.optim) != set(players):
        yield check.fault(
            "E-RECIPE-038", "optim", f"optim names the players {sorted(recipe.optim)}",
            f"{chosen} has the players {', '.join(players)}", f"give optim one entry for each: {', '.join(players)}",
        )  # fmt: skip


def fits_network(check: Check) -> Iterator[GroundupError]:
    """Where the model section holds the options of the network of model.init_from, which no rule could know before:
    whether data, objective, players and experience fit it."""
    yield from _family(check)
    yield from _objective(check)
    yield from check.stopping()
    if isinstance(check.recipe.data, EnvironmentData):
        yield from _environment(check)


def _environment(check: Check) -> Iterator[GroundupError]:
    recipe = check.recipe
    data = recipe.data
    assert isinstance(data, EnvironmentData)
    on_policy = recipe.objective is not None and recipe.objective.kind in ON_POLICY
    if recipe.objective is None:
        on_policy = recipe.model.family == "actor_critic"
    wanted = "rollout" if on_policy else "replay"
    if data.collect is not None and data.collect.kind != wanted and not isinstance(recipe.model, ModelOptions):
        yield check.fault(
            "E-RECIPE-066", "data.collect.kind", f"data.collect is {data.collect.kind}",
            "what was collected by an older policy misleads a policy gradient"
            if on_policy else "values are learned from remembered steps",
            f"set data.collect.kind={wanted}, or leave data.collect out",
        )  # fmt: skip
    if isinstance(data.collect, RolloutOptions):
        steps = data.collect.horizon * data.environment.count
        if steps % data.collect.minibatches:
            yield check.fault(
                "E-RECIPE-067", "data.collect.minibatches",
                f"a rollout of {steps} steps is not divided evenly by {data.collect.minibatches} minibatches",
                "each update takes an equal part of the rollout", "choose a divisor of horizon times count",
            )  # fmt: skip
    collect = data.collect if isinstance(data.collect, RolloutOptions) else RolloutOptions()
    rows = collect.horizon * data.environment.count // collect.minibatches
    for name in ("rows_per_step", "micro_batch") if on_policy else ():
        if dict(recipe.budget)[name] not in (None, rows):
            yield check.unused(
                f"budget.{name}", "a step takes one minibatch of the rollout", "set data.collect.minibatches"
            )
    once = recipe.objective is not None and recipe.objective.kind in ("reinforce", "a2c")
    if once and data.collect is not None and collect.epochs > 1:
        yield check.fault(
            "E-RECIPE-066", "data.collect.epochs", f"data.collect.epochs is {collect.epochs}",
            "reinforce and a2c do not correct for the policy having moved since it collected the rollout",
            "set data.collect.epochs=1, or objective.kind=ppo",
        )  # fmt: skip
    if recipe.budget.epochs is not None:
        yield check.unused("budget.epochs", "an environment has no end of its data", "use environment_steps")
    if data.sampled and recipe.model.family == "q_network":
        yield check.unused("data.sampled", "a network that values actions draws none", "remove it")
    stops = isinstance(recipe.objective, PPOOptions) and recipe.objective.target_kl is not None
    if stops and recipe.budget.environment_steps is not None:
        yield check.fault(
            "E-RECIPE-068", "budget.environment_steps",
            "objective.target_kl ends the use of a rollout early, so that the steps of the environment are not known",
            "a budget that would be overrun is none", "set budget.steps, or remove objective.target_kl",
        )  # fmt: skip
    if on_policy and collect.normalise_observations and recipe.events.early_stopping is not None:
        yield check.fault(
            "E-RECIPE-068", "events.early_stopping",
            "early stopping hands out earlier weights, and the scale of observations is the last one",
            "a policy means nothing on observations of another scale",
            "remove events.early_stopping, or data.collect.normalise_observations",
        )  # fmt: skip
