"""Before step 1: a few micro-batches of the longest length through a network that is thrown away, timed."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from groundup.contract import Batch
from groundup.data.rollout import RolloutOptions
from groundup.engine.precision import autocast
from groundup.errors import GroundupError
from groundup.machine.ceiling import synchronize
from groundup.machine.describe import memory
from groundup.machine.memory import PeakMemory, current_memory_bytes
from groundup.parallel.blocks import compile_blocks, recompute_blocks
from groundup.recipe.tree import EnvironmentData, Recipe
from groundup.run.work import Work

ENOUGH_SECONDS = 1.6
"""How long the timing goes on, if a step is short."""


@dataclass(frozen=True)
class Rehearsal:
    """Measured times, in seconds, and the most memory that the process held meanwhile, in bytes."""

    micro_batch: float
    update: float
    peak: int

    def step(self, accumulate: int) -> float:
        """One optimizer step of `accumulate` micro-batches."""
        return self.micro_batch * accumulate + self.update


def rehearse(work: Work, *, seconds: float = ENOUGH_SECONDS) -> Rehearsal:
    """Run micro-batches through a network of the run's sizes, forward, backward and update, and time them.

    Raises:
        GroundupError: E-RUN-030 out of memory, with the fields to lower; E-RUN-031 parameters without a
            gradient, by name.
    """
    recipe, device = work.recipe, work.device
    needed, there = work.memory(current_memory_bytes()), available_memory(device)
    if needed.total - needed.process > there:
        raise out_of_memory(recipe, f"needs {needed.total / 1e9:.1f} GB, {there / 1e9:.1f} GB are free")
    try:
        with PeakMemory(device) as watched:
            longest = work.rehearsal_batch()
            micros, updates = _timed(work, longest, seconds)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(recipe, str(error)) from error
    gc.collect()
    peak = watched.peak if device.type == "cpu" else watched.accelerator_peak
    # where all batches are alike, one that is slow was disturbed; the first round pays for warming up
    typical = statistics.median if longest is not None else statistics.fmean
    return Rehearsal(typical(micros[1:]), typical(updates[1:]), peak)


def _timed(work: Work, longest: Batch | None, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds of the micro-batches and of the updates of a round, in which each player moves once: three rounds, or
    as many as `seconds` allow."""
    device = work.device
    model = work.stand_in()
    if work.recipe.hardware.recompute:
        recompute_blocks(work.blocks(model))
    if work.recipe.hardware.compile == "on":
        compile_blocks(work.blocks(model))
    objective, source = work.learning(model)  # which refuses data without a row
    optimizers = work.optimizers(model, steps=1)
    context = autocast(work.precision, device)
    micros: list[float] = []
    updates: list[float] = []
    began = time.perf_counter()
    while len(micros) < 3 or (time.perf_counter() - began < seconds and len(micros) < 50):
        times = [0.0, 0.0]
        for turn in objective.turns:
            start = time.perf_counter()
            drawn = source.next(turn)  # making a batch takes time as well
            batch = {name: tensor.to(device) for name, tensor in (longest or drawn).items()}
            with context():
                loss = objective.loss(turn, batch)
            (loss.total / float(objective.weight(turn, batch))).backward()
            synchronize(device)
            middle = time.perf_counter()
            if len(micros) == 1:  # in the first step a low-rank factor whose other factor is zero has none
                require_gradients(work.player(model, turn))
            optimizers[turn].step(0)
            optimizers[turn].zero_grad()
            synchronize(device)
            times[0] += middle - start
            times[1] += time.perf_counter() - middle
        micros.append(times[0])
        updates.append(times[1])
    return micros, updates


def available_memory(device: torch.device) -> int:
    """Bytes that are free on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory()["available"]


def require_gradients(model: nn.Module) -> None:
    """Refuse a model in which a trainable parameter gets no gradient (R3)."""
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not bool(parameter.grad.any()))
    ]
    if silent:
        raise GroundupError(
            "E-RUN-031",
            f"{len(silent)} trainable parameters get no gradient",
            where=", ".join(silent[:8]) + (" …" if len(silent) > 8 else ""),
            why="they would stay as they were drawn, and the run would look fine",
            fix="check that the model uses them, or freeze them on purpose",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "memory" in str(error).lower()


def out_of_memory(recipe: Recipe, detail: str = "") -> GroundupError:
    """The error that names the knobs, the cheapest first."""
    rows = recipe.budget.micro_batch or 1
    same = "the result is the same" if recipe.data.kind in ("text", "chat") else "other rows meet in a step"
    knobs = [f"budget.micro_batch={max(1, rows // 2)}   (halves the activations; {same})"]
    if isinstance(recipe.data, EnvironmentData) and isinstance(recipe.data.collect, RolloutOptions):
        knobs = [f"data.collect.minibatches={2 * recipe.data.collect.minibatches}   (fewer rows in a step)"]
    if recipe.counts_rows:
        knobs.append("a smaller network in the model section")
    else:
        if not recipe.hardware.recompute:
            knobs.append("hardware.recompute=true   (less memory, about a third slower)")
        knobs.append(f"data.context={max(2, (recipe.data.context or 2) // 2)} or a smaller model.depth")
    of = "" if recipe.counts_rows else f" × context {recipe.data.context}"
    return GroundupError(
        "E-RUN-030",
        "the longest batch does not fit into memory",
        where=f"micro_batch {rows}{of}" + (f": {detail[:120]}" if detail else ""),
        why="it was tried before step 1, so that the run does not die in the middle",
        fix="\n".join(knobs),
    )
