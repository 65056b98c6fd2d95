"""A resolved recipe and its data → everything that the loop needs."""

from __future__ import annotations

import os
import time
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
from groundup.engine.plateau import Plateau
from groundup.engine.precision import autocast
from groundup.engine.state import Average, State
from groundup.engine.stop import Stop
from groundup.machine.ceiling import matrix_ceiling
from groundup.machine.memory import current_memory_bytes
from groundup.parallel.blocks import compile_blocks, recompute_blocks
from groundup.recipe import to_yaml
from groundup.recipe.tree import Recipe
from groundup.run.work import Work

RECIPE_FILE, SOURCE_FILE = "recipe.yaml", "recipe.source.yaml"


def new_state(work: Work) -> State:
    """The state before the first step."""
    recipe = work.recipe
    model = work.network()
    torch.manual_seed(recipe.seed)
    optimizers = work.optimizers(model, steps=recipe.budget.steps or 1)
    saved = frozenset(work.kept_tensors(model)) if work.on_base else None
    average = Average(model, recipe.events.average) if recipe.events.average is not None else None
    objective, source = work.learning(model)
    return State(
        module=model,
        optimizers=dict(optimizers),
        source=source,
        objective=objective,
        average=average,
        saved=saved,
    )


class Unfreeze:
    """Makes parameters trainable at the steps that the recipe names; called after every step, and by `restore`."""

    def __init__(self, log: EventLog, work: Work, model: nn.Module) -> None:
        self.log, self.model, self.options = log, model, work.freezing
        self.steps = {step for options in self.options for step in unfreezing_steps(options)}
        self.put(0)

    def put(self, step: int) -> None:
        """What is trainable in 0-based step `step`, as a pure function of it."""
        for options in self.options:
            unfreeze_at(self.model, options, step)
        self.model.train()  # what was frozen until now stood in evaluation mode
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


def assemble(work: Work, folder: Path, *, listeners: tuple[Listener, ...], stop: Stop) -> tuple[Run, EventLog, Saver]:
    """The run, its event log, and what saves a checkpoint now."""
    recipe, device = work.recipe, work.device
    state = new_state(work)
    blocks = work.blocks(state.module)
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
        autocast=autocast(work.precision, device),
    )
    save = Saver(run, work, folder, log)
    run.events = _events(run, work, log, save)
    return run, log, save


def _events(run: Run, work: Work, log: EventLog, save: Saver) -> list[Any]:
    """The fixed list, in the order in which they are called."""
    state, events = run.state, work.recipe.events
    model = state.module

    def averaged(work: Callable[[], Any]) -> Callable[[], Any]:
        def inside() -> Any:
            if state.average is None:
                return work()
            with state.average.applied():
                return work()

        return inside

    stream, plateau = state.source, None
    if events.plateau is not None:
        plateau = Plateau(events.plateau, higher_is_better=work.rises(events.plateau.metric))

    def lower(factor: float) -> None:
        for optimizer in state.optimizers.values():
            optimizer.factor = factor

    return [
        Unfreeze(log, work, model),
        LogSteps(
            log,
            every=events.log_every or 1,
            steps=run.steps,
            ledger=lambda: stream.ledger,  # type: ignore[attr-defined]
            bytes_per_target=work.bytes_per_target,
            flops_per_token=work.flops_per_unit(model),
            ceiling=matrix_ceiling(work.device, work.dtype or torch.float32, seconds=0.2),
            memory=current_memory_bytes,
        ),
        Evaluate(
            log,
            every=events.evaluate_every or 0,
            evaluate=averaged(lambda: work.evaluate(model)),
            stopping=events.early_stopping,
            stop=run.stop,
            higher_is_better=events.early_stopping is not None and work.rises(events.early_stopping.metric),
            plateau=plateau,
            lower=lower,
        ),
        Sample(log, every=events.sample_every or 0, sample=averaged(lambda: work.samples(model))),
        Save(every=events.save_every or 0, save=save),
    ]


class Saver:
    """Writes a checkpoint of the present moment and the `save` line after it.

    A checkpoint that a stop asked for is not planned: an uninterrupted run would not have made it, so its
    line vanishes with the resume.
    """

    def __init__(self, run: Run, work: Work, folder: Path, log: EventLog) -> None:
        self.run, self.folder, self.log, self.events = run, folder, log, work.recipe.events
        self.work, self.recipe = work, to_yaml(work.recipe).encode()
        self.saved = -1  # the step of the newest planned checkpoint

    def __call__(self, *, planned: bool = True) -> None:
        """Save, unless this step has its planned checkpoint already."""
        run, began = self.run, time.perf_counter()
        if self.saved == run.state.step:
            return
        numbers, tensors = run.state.snapshot()
        numbers |= {"guard": run.guard.state_dict(), "planned": planned}
        numbers["events"] = [event.state_dict() for event in run.events]
        numbers["log_offset"] = self.log.offset
        path = checkpoint.save(
            self.folder / "checkpoints",
            step=run.state.step,
            tensors=tensors,
            state=numbers,
            files=self.files(),
            keep=self.events.keep,
            keep_every=self.events.keep_every,
        )
        self.saved = run.state.step if planned else -1
        self._note(path, round(time.perf_counter() - began, 3))

    def files(self) -> dict[str, bytes]:
        """The small files of a checkpoint made now."""
        return {**self.work.small_files(), RECIPE_FILE: self.recipe}

    def resumed(self, saved: checkpoint.Checkpoint, path: Path) -> None:
        """Put the log back to the moment of a checkpoint, with its line if it was planned."""
        self.log.cut(saved.state["log_offset"])
        if saved.state["planned"]:
            self.saved = saved.step
            self._note(path, 0.0)

    def _note(self, path: Path, seconds: float) -> None:
        where = os.fspath(path.relative_to(self.folder))
        self.log.write("save", self.run.state.step, path=where, clock={"seconds": seconds})


def restore(run: Run, saved: checkpoint.Checkpoint) -> None:
    """Put a run back to the moment of a checkpoint."""
    run.state.load_tensors(saved.tensors)
    run.state.load_numbers(saved.state, saved.tensors)
    run.guard.load_state_dict(saved.state["guard"])
    for event, state in zip(run.events, saved.state["events"], strict=True):
        event.load_state_dict(state)
        if isinstance(event, Unfreeze):
            event.put(run.state.step)


def accumulate(recipe: Recipe) -> int:
    """Micro-batches of one step."""
    return recipe.rows_per_step // (recipe.budget.micro_batch or 1)
