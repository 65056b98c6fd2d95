"""Derived numbers: a new frozen recipe in which nothing is left open, made in two steps.

`resolve` fills in what follows from the recipe alone (sizes, batch, rates). `resolve_steps` fills in what
also needs the data and the measured speed (steps, warm-up, intervals). What is set explicitly always wins.
The rules were measured on small models; `notes/log.md` has the figures.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from pydantic import BaseModel

from groundup.data.rollout import RolloutOptions
from groundup.errors import GroundupError
from groundup.models import FAMILIES, FamilyOptions
from groundup.objectives import OBJECTIVES
from groundup.objectives.masked_token import MaskedTokenOptions
from groundup.optim.options import AdamWOptions, OptimizerOptions
from groundup.optim.schedules import FALLING
from groundup.recipe.difference import ABSENT, difference
from groundup.recipe.resolve_rows import draws_of
from groundup.recipe.tree import (
    DEFAULT_CONTEXT,
    LABELLED_CONTEXT,
    EnvironmentData,
    LabelledData,
    ModelOptions,
    Recipe,
)
from groundup.recipe.yaml import dotted

M = TypeVar("M", bound=BaseModel)

LENGTHS = ("tokens", "minutes", "epochs", "environment_steps")
"""The fields that steps are derived from."""

HEAD_SIZE = 64
PEAKS = {
    "own": {"muon": 6e-3, "adamw": 3e-3, "sgd": 0.1},
    "foreign": {"muon": 4e-4, "adamw": 2e-4, "sgd": 0.01},
    "low_rank": {"muon": 1e-3, "adamw": 2e-3, "sgd": 0.1},
}
"""Peak learning rates at width 256, by what is trained; the other optimizers take AdamW's."""

LABELLED_ROWS = 32
"""Rows in a step of labelled data where the recipe says nothing."""

OBJECTIVE_OF_TASK = {"embed": "contrast"}
"""The tasks whose objective has another name."""

TOKENS_AT_ONCE = {"cpu": 4096, "other": 32768}
"""Tokens of one micro-batch: on a CPU what stays in its caches, elsewhere what fills the device."""


def with_fields(options: M, **fields: Any) -> M:
    """A copy with these fields set; the result is validated again."""
    return type(options).model_validate({**options.model_dump(exclude_unset=True), **fields})


def fill(options: M, **derived: Any) -> M:
    """A copy in which fields that are None take the derived value."""
    now = dict(options)
    return options.model_copy(update={name: value for name, value in derived.items() if now[name] is None})


def sizes(model: ModelOptions, context: int) -> ModelOptions:
    """The dial turned into explicit sizes of the family; explicit ones stay."""
    width = model.width or HEAD_SIZE * (model.depth or 1)
    head_size = model.head_size or (width // model.heads if model.heads else min(HEAD_SIZE, width))
    heads = model.heads or max(1, width // head_size)
    swiglu = max(8, round(width * 8 / 3 / 32) * 32)
    derived = {
        "context": context,
        "width": width,
        "layers": model.depth,
        "heads": heads,
        "key_value_heads": heads,
        "head_size": head_size,
        "hidden": {"llama": swiglu, "moe": max(8, swiglu // 2)}.get(model.family, 4 * width),
        "rotary_base": 10000.0,
        "norm_epsilon": 1e-12 if model.family == "bert" else 1e-5,
        "query_key_norm": True,
        "tied": True,
        "experts": 8,
        "experts_per_token": 2,
        "cell": "lstm",
        "bidirectional": True,
        "dropout": 0.0,
    }
    known = FAMILIES[model.family][0].model_fields
    return fill(model, **{name: value for name, value in derived.items() if name in known})


def architecture(model: ModelOptions, vocabulary: int) -> FamilyOptions:
    """The network's options of a resolved model section."""
    kind = FAMILIES[model.family][0]
    fields = {name: value for name, value in dict(model).items() if name in kind.model_fields and value is not None}
    return kind.model_validate({"vocabulary": vocabulary, **fields})


def objective_for(recipe: Recipe) -> Any:
    """The objective that the recipe names, or the one that its data needs."""
    if recipe.objective is not None:
        return recipe.objective
    if not isinstance(recipe.data, LabelledData):
        return OBJECTIVES["next_token"][0]()
    return OBJECTIVES[OBJECTIVE_OF_TASK.get(recipe.data.task, recipe.data.task)][0]()


def writes_text(recipe: Recipe) -> bool:
    """Whether the model can go on from a prompt."""
    return recipe.data.kind in ("text", "chat") and not isinstance(recipe.objective, MaskedTokenOptions)


def resolve(recipe: Recipe, *, device: str, base: FamilyOptions | None = None, foreign: bool = False) -> Recipe:
    """Fill in what follows from the recipe alone.

    Args:
        recipe: checked.
        device: device type that will be used.
        base: the architecture of model.init_from, if there is one.
        foreign: whether that model was trained elsewhere; it is tuned with AdamW, at rates usual for such.

    Raises:
        GroundupError: E-RECIPE-034 rows longer than that model's context, E-RECIPE-037 a step of no whole rows.
    """
    labelled = isinstance(recipe.data, LabelledData)
    own = base.context if base else DEFAULT_CONTEXT
    context = recipe.data.context or recipe.language.context or (min(LABELLED_CONTEXT, own) if labelled else own)
    if context > own and base is not None:
        field = "data.context" if recipe.data.context else "model.context"
        raise GroundupError(
            "E-RECIPE-034",
            f"{field} {context} > {own}, the context of the model that it starts from",
            where=field,
            why="the model has no positions beyond its context",
            fix=f"set {field}={own} or less",
            exit_code=2,
        )
    model = recipe.language if base else sizes(recipe.language, context)
    width = base.width if base else model.width or 0
    unit = max(1, width // HEAD_SIZE)
    budget = recipe.budget
    at_once = TOKENS_AT_ONCE.get(device, TOKENS_AT_ONCE["other"])
    wanted = budget.tokens_per_step or (LABELLED_ROWS * context if labelled else max(2048, 128 * unit**2))
    rows = max(1, round(wanted / context))
    if budget.tokens_per_step is None and budget.micro_batch is not None:
        rows = math.ceil(rows / budget.micro_batch) * budget.micro_batch
    micro = budget.micro_batch or _largest_divisor(rows, max(1, at_once // context))
    if rows % micro or budget.tokens_per_step not in (None, rows * context):
        raise GroundupError(
            "E-RECIPE-037",
            f"budget.tokens_per_step {wanted} is not a multiple of {context * micro} "
            f"(context {context} × micro_batch {micro})",
            where="budget.tokens_per_step",
            why="a step is made of whole micro-batches of whole rows",
            fix=f"set budget.tokens_per_step={max(1, round(rows / micro)) * micro * context}",
            exit_code=2,
        )
    return recipe.model_copy(
        update={
            "model": model,
            "data": recipe.data.model_copy(update={"context": context}),
            "budget": budget.model_copy(update={"tokens_per_step": rows * context, "micro_batch": micro}),
            "objective": objective_for(recipe),
            "optim": {
                name: _rates(options, recipe, width, base is not None, foreign)
                for name, options in optimizers(recipe, foreign).items()
            },
        }
    )


def low_rank(recipe: Recipe) -> bool:
    """Whether only small adapters are trained, which bear and need a larger rate than whole weights."""
    return any(adapter.kind in ("lora", "prompt", "scale") for adapter in recipe.adapters)


def optimizers(recipe: Recipe, foreign: bool) -> dict[str, OptimizerOptions]:
    """The optimizers that the recipe names; where it names none, Muon, or AdamW for adapters and foreign models."""
    if "optim" in recipe.model_fields_set or not (foreign or low_rank(recipe)):
        return recipe.optim
    return {"model": AdamWOptions(kind="adamw")}


def _rates(options: Any, recipe: Recipe, width: int, fine_tuning: bool, foreign: bool) -> Any:
    trained = "low_rank" if low_rank(recipe) else "foreign" if foreign else "own"
    peak = PEAKS[trained].get(options.kind, PEAKS[trained]["adamw"])
    if fine_tuning and trained == "own":
        peak *= 0.25
    rate = peak * math.sqrt(256 / width)
    return fill(options, learning_rate=float(f"{rate:.3g}"))


def resolve_steps(recipe: Recipe, *, rows_per_epoch: int, seconds_per_step: float | None) -> Recipe:
    """Fill in the number of steps and what depends on it.

    Args:
        recipe: after `resolve`.
        rows_per_epoch: packed rows in one pass over the training data.
        seconds_per_step: measured; needed for a budget in minutes alone.
    """
    budget, events = recipe.budget, recipe.events
    tokens_per_step = budget.tokens_per_step or 1
    if budget.steps is not None:
        steps = budget.steps
    elif budget.tokens is not None:
        steps = math.ceil(budget.tokens / tokens_per_step)
    elif budget.epochs is not None:
        steps = math.ceil(budget.epochs * rows_of_a_pass(recipe, rows_per_epoch) / recipe.rows_per_step)
    elif budget.environment_steps is not None:
        steps = math.ceil(budget.environment_steps * updates_per_environment_step(recipe))
    else:
        steps = int((budget.minutes or 0.0) * 60 / (seconds_per_step or 1.0))
    steps = max(1, steps)
    optim = {
        name: options.model_copy(update={"schedule": _schedule(options.schedule, steps)})
        for name, options in recipe.optim.items()
    }
    quarter = math.ceil(steps / 4)
    return recipe.model_copy(
        update={
            "budget": budget.model_copy(update=dict.fromkeys(LENGTHS) | {"steps": steps}),
            "optim": optim,
            "events": fill(
                events,
                log_every=max(1, steps // 100),
                save_every=math.ceil(steps / 5),
                evaluate_every=quarter,
                sample_every=quarter if writes_text(recipe) else 0,
            ),
        }
    )


def rows_of_a_pass(recipe: Recipe, rows_per_epoch: int) -> float:
    """How many rows a step's worth of whole micro-batches counts in one pass over the data, of a resolved recipe: the
    last batch of a pass may be short and counts whole, and each player draws rows of its own."""
    if not recipe.counts_rows:
        return rows_per_epoch
    micro = recipe.budget.micro_batch or 1
    return math.ceil(rows_per_epoch / micro) * micro / draws_of(recipe.objective)


def updates_per_environment_step(recipe: Recipe) -> float:
    """Optimizer steps for one step of an environment, of a resolved recipe."""
    data = recipe.data
    assert isinstance(data, EnvironmentData)
    if isinstance(data.collect, RolloutOptions):
        collect = data.collect
        return collect.epochs * collect.minibatches / (collect.horizon * data.environment.count)
    assert data.collect is not None
    return 1 / (data.collect.steps_per_update * data.environment.count)


def preset_difference(recipe: Recipe, base: FamilyOptions | None) -> list[dict[str, Any]]:
    """Where a resolved recipe departs from what its dial, data and budget alone would have given:
    [{field, preset, value}]."""
    model = recipe.language
    dial = {"init_from": model.init_from} if base else {"depth": model.depth or model.layers}
    data = {"kind": recipe.data.kind, "files": recipe.data.files or ["-"]}
    bare = Recipe.model_validate({"model": dial, "data": data, "budget": {"steps": recipe.budget.steps}})
    preset = resolve_steps(resolve(bare, device="cpu", base=base), rows_per_epoch=1, seconds_per_step=None)
    return [
        {"field": dotted(change.path), "preset": change.before, "value": change.after}
        for change in difference(preset, recipe)
        if dotted(change.path) not in ("name", "data.files", "hardware.compile", "hardware.kernels")
        and ABSENT not in (change.before, change.after)
    ]


def _schedule(schedule: Any, steps: int) -> Any:
    decay = 0.5 if schedule.kind == "warmup_stable_decay" else None
    every = max(1, steps // 3) if schedule.kind in FALLING else None
    warmup = None if schedule.kind == "one_cycle" else min(steps // 2, max(1, round(0.02 * steps)))
    return fill(schedule, warmup=warmup, decay=decay, every=every)


def _largest_divisor(whole: int, limit: int) -> int:
    return max(d for d in range(1, min(whole, limit) + 1) if whole % d == 0)
