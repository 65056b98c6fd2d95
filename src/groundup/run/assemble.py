"""A resolved recipe and its data → everything that the loop needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup import checkpoint
from groundup.adapters import evaluate_frozen, unfreeze_at, unfreezing_steps
from groundup.engine.events import Evaluate, EventLog, Listener, LogSteps, Sample, Save
from groundup.engine.guard import Guard
from groundup.engine.loop import Run
from groundup.engine.precision import autocast
from groundup.engine.state import Average, State
from groundup.engine.stop import Stop
from groundup.machine.ceiling import matrix_ceiling
from groundup.machine.memory import current_memory_bytes
from groundup.parallel.blocks import compile_blocks, recompute_blocks
from groundup.recipe import to_yaml
from groundup.recipe.tree import Recipe
from groundup.run import models
from groundup.run.measuring import (
    answers_of,
    evaluate_answers,
    evaluate_labels,
    evaluate_texts,
    rises,
    sample_prompts,
)
from groundup.run.parts import Parts, flops_per_token, objective_of, optimizers_of

RECIPE_FILE, SOURCE_FILE = "recipe.yaml", "recipe.source.yaml"


def new_state(parts: Parts) -> State:
    """The state before the first step."""
    recipe = parts.recipe
    model = parts.network()
    torch.manual_seed(recipe.seed)
    optimizers = optimizers_of(parts, model, steps=recipe.budget.steps or 1)
    saved = frozenset(parts.kept_tensors(model)) if parts.on_base else None
    average = Average(model, recipe.events.average) if recipe.events.average is not None else None
    return State(
        module=model,
        optimizers=dict(optimizers),
        source=parts.source(),
        objective=objective_of(parts, model),
        average=average,
        saved=saved,
    )


class Unfreeze:
    """Makes parameters trainable at the steps that the recipe names; called after every step, and by `restore`."""

    def __init__(self, log: EventLog, parts: Parts, model: nn.Module) -> None:
        self.log, self.model, self.options = log, model, parts.freezing
        self.steps = {step for options in self.options for step in unfreezing_steps(options)}
        self.put(0)

    def put(self, step: int) -> None:
        """What is trainable in 0-based step `step`, as a pure function of it."""
        for options in self.options:
            unfreeze_at(self.model, options, step)
        evaluate_frozen(self.model)

    def __call__(self, state: State) -> None:
        if state.step in self.steps:
            self.put(state.step)
            trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            self.log.write("unfreeze", state.step, trainable=trained)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the step says it all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""


def assemble(parts: Parts, folder: Path, *, listeners: tuple[Listener, ...], stop: Stop) -> tuple[Run, EventLog, Saver]:
    """The run, its event log, and what saves a checkpoint now."""
    recipe, device = parts.recipe, parts.device
    state = new_state(parts)
    blocks = models.body_of(state.module).layers
    if recipe.hardware.recompute:
        recompute_blocks(blocks)
    if recipe.hardware.compile == "on":
        compile_blocks(blocks)
    log = EventLog(folder / "events.jsonl", listeners)

    def report(kind: str, step: int, detail: dict[str, Any]) -> None:
        log.write("guard", step, kind=kind, detail=detail)

    run = Run(
        state=state,
        steps=recipe.budget.steps or 1,
        accumulate=accumulate(recipe),
        clip={name: options.clip for name, options in recipe.optim.items()},
        events=[],
        guard=Guard(recipe.guard, report=report, folder=folder / "faults"),
        stop=stop,
        device=device,
        autocast=autocast(parts.precision, device),
    )
    save = Saver(run, parts, folder, log)
    run.events = _events(run, parts, log, save)
    return run, log, save


def _events(run: Run, parts: Parts, log: EventLog, save: Saver) -> list[Any]:
    """The fixed list, in the order in which they are called."""
    recipe, state = parts.recipe, run.state
    events, model = recipe.events, state.module
    dtype = torch.bfloat16 if parts.precision == "bfloat16" else None

    def averaged(work: Callable[[], Any]) -> Callable[[], Any]:
        def inside() -> Any:
            if state.average is None:
                return work()
            with state.average.applied():
                return work()

        return inside

    def evaluate() -> dict[str, Any]:
        limit = events.evaluate_tokens
        if parts.chats is not None:
            return evaluate_answers(model, parts, limit=limit, autocast=dtype)
        if parts.labels is not None:
            return evaluate_labels(model, parts, limit=limit, autocast=dtype)
        return evaluate_texts(model, parts, limit=limit, autocast=dtype)

    def sample() -> list[dict[str, str]]:
        return answers_of(model, parts, sample_prompts(parts), max_tokens=events.sample_tokens)

    stream = state.source
    return [
        Unfreeze(log, parts, model),
        LogSteps(
            log,
            every=events.log_every or 1,
            steps=run.steps,
            ledger=lambda: stream.ledger,  # type: ignore[attr-defined]
            bytes_per_target=parts.bytes_per_target,
            flops_per_token=flops_per_token(model, recipe.data.context or 0),
            ceiling=matrix_ceiling(parts.device, torch.bfloat16 if dtype is not None else torch.float32, seconds=0.2),
            memory=current_memory_bytes,
        ),
        Evaluate(
            log,
            every=events.evaluate_every or 0,
            evaluate=averaged(evaluate),
            stopping=events.early_stopping,
            stop=run.stop,
            higher_is_better=events.early_stopping is not None and rises(events.early_stopping.metric),
        ),
        Sample(log, every=events.sample_every or 0, sample=averaged(sample)),
        Save(every=events.save_every or 0, save=save),
    ]


class Saver:
    """Writes a checkpoint of the present moment and the `save` line after it.

    A checkpoint that a stop asked for is not planned: an uninterrupted run would not have made it, so its
    line vanishes with the resume.
    """

    def __init__(self, run: Run, parts: Parts, folder: Path, log: EventLog) -> None:
        self.run, self.folder, self.log, self.events = run, folder, log, parts.recipe.events
        self.files = {**parts.small_files(), RECIPE_FILE: to_yaml(parts.recipe).encode()}
        self.saved = -1  # the step of the newest planned checkpoint

    def __call__(self, *, planned: bool = True) -> None:
        """Save, unless this step has its planned checkpoint already."""
        run = self.run
        if self.saved == run.state.step:
            return
        numbers = {**run.state.numbers(), "guard": run.guard.state_dict(), "planned": planned}
        numbers["events"] = [event.state_dict() for event in run.events]
        numbers["log_offset"] = self.log.offset
        path = checkpoint.save(
            self.folder / "checkpoints",
            step=run.state.step,
            tensors=run.state.tensors(),
            state=numbers,
            files=self.files,
            keep=self.events.keep,
            keep_every=self.events.keep_every,
        )
        self.saved = run.state.step if planned else -1
        self._note(path)

    def resumed(self, saved: checkpoint.Checkpoint, path: Path) -> None:
        """Put the log back to the moment of a checkpoint, with its line if it was planned."""
        self.log.cut(saved.state["log_offset"])
        if saved.state["planned"]:
            self.saved = saved.step
            self._note(path)

    def _note(self, path: Path) -> None:
        self.log.write("save", self.run.state.step, path=os.fspath(path.relative_to(self.folder)))


def restore(run: Run, saved: checkpoint.Checkpoint) -> None:
    """Put a run back to the moment of a checkpoint."""
    run.state.load_tensors(saved.tensors)
    run.state.load_numbers(saved.state)
    run.guard.load_state_dict(saved.state["guard"])
    for event, state in zip(run.events, saved.state["events"], strict=True):
        event.load_state_dict(state)
        if isinstance(event, Unfreeze):
            event.put(run.state.step)


def accumulate(recipe: Recipe) -> int:
    """Micro-batches of one step."""
    rows = (recipe.budget.tokens_per_step or 1) // (recipe.data.context or 1)
    return rows // (recipe.budget.micro_batch or 1)
