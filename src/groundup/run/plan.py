"""What a run will need, before it is run: parameters, memory, tokens, time, disk and cost."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundup.machine.ceiling import choose_precision, resolve_device
from groundup.machine.memory import release_memory
from groundup.models import READERS
from groundup.models.heads import HeadOptions
from groundup.recipe.resolve import architecture, resolve, resolve_steps, rows_of_a_pass
from groundup.recipe.tree import LabelledData, Recipe
from groundup.run.assemble import accumulate
from groundup.run.foresight import foresee
from groundup.run.gather import gather
from groundup.run.growing import grown
from groundup.run.hardware import computing, settle
from groundup.run.labels import head_options
from groundup.run.masked import hides_tokens
from groundup.run.models import load_described, network
from groundup.run.rehearse import available_memory, rehearse
from groundup.run.texts import DEFAULT_VOCABULARY
from groundup.run.work import Say, Work, by_part_and_layer


def plan_of(work: Work, seconds_per_step: float, process: int, peak: int = 0) -> dict[str, Any]:
    """The plan of a recipe whose steps are settled.

    Args:
        work: with the number of steps filled in.
        seconds_per_step: as it was rehearsed.
        process: bytes that the process holds without the run.
        peak: most bytes that the rehearsal held.

    Returns:
        parameters, parts, steps, tokens (or what `unit` says), seconds, memory_bytes (with its parts under `memory`),
        disk_bytes, and cost where a price is known.
    """
    recipe = work.recipe
    memory = work.memory(process)
    memory = replace(memory, holes=max(0, peak - memory.total))
    steps, parts, rows = recipe.budget.steps or 1, work.parameter_parts(), work.rows_per_epoch
    seconds = steps * seconds_per_step
    plan: dict[str, Any] = {
        "parameters": sum(part["parameters"] for part in parts),
        "parts": parts,
        "steps": steps,
        "tokens": round(steps * recipe.rows_per_step * work.units_per_row),
        "seconds": seconds,
        "seconds_per_step": seconds_per_step,
        "memory_bytes": memory.total,
        "memory": asdict(memory),
        # on a base a checkpoint holds what is trained, and as many bytes as its gradients
        "disk_bytes": disk_bytes(recipe, memory.gradients if work.on_base else memory.weights, memory.optimizer),
        "epochs": steps * recipe.rows_per_step / rows_of_a_pass(recipe, rows) if rows else None,
        "micro_batch": recipe.budget.micro_batch,
        "tokens_per_step": round(recipe.rows_per_step * work.units_per_row),
        "unit": work.unit,
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


@dataclass
class Plan:
    """What a recipe needs, and what this machine has."""

    numbers: dict[str, Any]
    memory_there: int
    disk_there: int

    @property
    def fits(self) -> bool:
        """Whether memory and disk are enough."""
        return self.lacking == ""

    @property
    def lacking(self) -> str:
        """What is not enough, in words; empty if all is."""
        needed = self.numbers["memory_bytes"] - self.numbers["memory"]["process"]
        if needed > self.memory_there:
            return f"{needed / 1e9:.1f} GB of memory are needed, {self.memory_there / 1e9:.1f} GB are free"
        disk = self.numbers.get("disk_bytes", 0)
        if disk > self.disk_there:
            return f"{disk / 1e9:.1f} GB of disk are needed, {self.disk_there / 1e9:.1f} GB are free"
        return ""


def foresee_plan(recipe: Recipe) -> Plan:
    """Parameters and memory from the recipe alone: no data is read and nothing is measured."""
    device = resolve_device(recipe.hardware.device)
    base = grown(load_described(Path(recipe.init_from))[0], recipe.adapters)[0] if recipe.init_from else None
    resolved = resolve(recipe, device=device.type, base=base.options if base else None)
    options = base.options if base else architecture(resolved.language, expected_vocabulary(recipe))
    family = base.family if base else recipe.language.family
    precision = choose_precision(recipe.hardware.precision, device).name
    head = None
    if isinstance(recipe.data, LabelledData):  # how many labels there are only the data says; it hardly matters
        head = head_options(resolved, ["one", "another"]).on(causal=family not in READERS)
    elif hides_tokens(recipe):
        head = HeadOptions(kind="masked")
    needed = foresee(resolved, family, options, precision, release_memory(), head)
    with torch.device("meta"):
        parts = by_part_and_layer(network(family, options))
    numbers: dict[str, Any] = {
        "parameters": sum(part["parameters"] for part in parts),
        "parts": parts,
        "memory_bytes": needed.total,
        "memory": asdict(needed),
        "micro_batch": resolved.budget.micro_batch,
        "tokens_per_step": resolved.budget.tokens_per_step,
    }
    return Plan(numbers, available_memory(device), shutil.disk_usage(".").free)


def expected_vocabulary(recipe: Recipe) -> int:
    """The vocabulary before the tokenizer is trained: what is asked for, or a usual size."""
    if recipe.tokenizer is None:
        return DEFAULT_VOCABULARY
    return recipe.tokenizer.vocabulary or {"byte": 262, "char": 512}.get(recipe.tokenizer.kind, DEFAULT_VOCABULARY)


def plan_recipe(recipe: Recipe, *, say: Say) -> Plan:
    """The whole plan: the data is prepared in a temporary folder and a few steps are timed. A recipe that
    does not fit is planned from its sizes alone."""
    device = resolve_device(recipe.hardware.device)
    memory_there, disk_there = available_memory(device), shutil.disk_usage(".").free
    if not recipe.counts_rows and not (foreseen := foresee_plan(recipe)).fits:
        return foreseen
    with tempfile.TemporaryDirectory(prefix="groundup-plan-") as folder:
        work = gather(recipe, Path(folder), say=say)
        work.recipe = settle(work)
        with computing(work):
            rehearsal = rehearse(work)
            seconds = rehearsal.step(accumulate(work.recipe))
            process = release_memory()  # now with the libraries that a step loads
            work.recipe = resolve_steps(work.recipe, rows_per_epoch=work.rows_per_epoch, seconds_per_step=seconds)
            return Plan(plan_of(work, seconds, process, rehearsal.peak), memory_there, disk_there)


def fix(recipe: Recipe) -> tuple[Recipe, dict[str, Any]] | None:
    """The recipe with the smallest change that makes it fit, and the fields that changed; None if there is no
    such change. Smaller micro-batches come first, since they leave the result as it is; then recomputation."""
    if recipe.counts_rows:
        return None  # other rows would meet in a step, and how many only its user can say
    device = resolve_device(recipe.hardware.device)
    base = load_described(Path(recipe.init_from))[0].options if recipe.init_from else None
    rows = resolve(recipe, device=device.type, base=base).budget.micro_batch or 1
    for recompute in (recipe.hardware.recompute, True):
        for micro in (part for part in range(rows, 0, -1) if rows % part == 0):  # steps stay whole
            changed: dict[str, Any] = {"budget.micro_batch": micro}
            candidate = recipe.model_copy(update={"budget": recipe.budget.model_copy(update={"micro_batch": micro})})
            if recompute != recipe.hardware.recompute:
                hardware = recipe.hardware.model_copy(update={"recompute": True})
                candidate = candidate.model_copy(update={"hardware": hardware})
                changed["hardware.recompute"] = True
            if foresee_plan(candidate).fits:
                return candidate, changed
    return None
