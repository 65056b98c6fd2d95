"""What a run will need, before it is run: parameters, memory, tokens, time, disk and cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from groundup.recipe.tree import Recipe
from groundup.run.assemble import Parts
from groundup.run.models import parameter_parts
from groundup.run.rehearse import foresee_memory


def plan_of(parts: Parts, seconds_per_step: float) -> dict[str, Any]:
    """The plan of a recipe whose steps are settled.

    Returns:
        parameters, parts, steps, tokens, seconds, memory_bytes (with its parts under `memory`), disk_bytes,
        and cost where a price is known.
    """
    recipe = parts.recipe
    memory = foresee_memory(parts)
    steps = recipe.budget.steps or 1
    seconds = steps * seconds_per_step
    plan: dict[str, Any] = {
        "parameters": sum(part["parameters"] for part in parameter_parts(parts.meta_model())),
        "parts": parameter_parts(parts.meta_model()),
        "steps": steps,
        "tokens": steps * (recipe.budget.tokens_per_step or 0),
        "seconds": seconds,
        "seconds_per_step": seconds_per_step,
        "memory_bytes": memory.total,
        "memory": asdict(memory),
        "disk_bytes": disk_bytes(recipe, memory.weights, memory.optimizer),
        "epochs": steps * (recipe.budget.tokens_per_step or 0) / max(1, parts.rows_per_epoch * (recipe.data.context or 1)),
    }
    if recipe.hardware.price_per_hour is not None:
        plan["cost"] = seconds / 3600 * recipe.hardware.price_per_hour
    return plan


def disk_bytes(recipe: Recipe, weights: int, optimizer: int) -> int:
    """Most bytes of checkpoints at one time: those kept, one being written, and the final model."""
    steps, every = recipe.budget.steps or 1, recipe.events.save_every or 0
    copies = 1 + (recipe.events.average is not None) + (recipe.events.early_stopping is not None)
    one = weights * copies + optimizer
    kept = recipe.events.keep + (steps // recipe.events.keep_every if recipe.events.keep_every else 0)
    saved = min(kept, steps // every + 1) if every else 1
    return (saved + 1) * one + weights
