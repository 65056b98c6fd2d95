"""The one loop. Every way of learning runs through it: the loop owns *when*, an objective owns *what*."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from groundup.contract import Batch
from groundup.engine.events import Event
from groundup.engine.guard import Guard
from groundup.engine.state import State, StepResult
from groundup.engine.stop import Stop
from groundup.functional import global_norm


@dataclass
class Run:
    """A run, put together: what the loop needs and nothing else."""

    state: State
    steps: int
    accumulate: int
    clip: dict[str, float | None]
    events: list[Event]
    guard: Guard
    stop: Stop
    device: torch.device
    autocast: Callable[[], AbstractContextManager[None]]


def train(run: Run) -> str:
    """Train until the budget, a stop or the guard ends it; returns "finished", "rewind" or the stop's reason."""
    state = run.state
    while state.step < run.steps and not run.stop.reason:
        began = time.perf_counter()
        for turn in state.objective.turns:
            update(run, turn)
        if run.guard.rewind_wanted:
            return "rewind"
        state.step += 1
        state.objective.after_step(state.step)
        if state.average is not None:
            state.average.update()
        state.seconds += time.perf_counter() - began
        for event in run.events:
            event(state)
    return run.stop.reason or "finished"


def update(run: Run, turn: str) -> None:
    """One optimizer's move: gradients of the summed loss over all micro-batches, divided by their weight."""
    state, optimizer, watch = run.state, run.state.optimizers[turn], run.state.watch
    watch.start()
    micros: list[Batch] = [state.source.next(turn) for _ in range(run.accumulate)]
    weight = float(sum(state.objective.weight(turn, micro) for micro in micros))
    state.last = None
    if weight == 0:
        run.guard.no_target(state.step)
        return
    watch.mark("data")
    totals = []
    for micro in micros:
        placed = {name: tensor.to(run.device, non_blocking=True) for name, tensor in micro.items()}
        with run.autocast():
            loss = state.objective.loss(turn, placed)
        watch.mark("forward")
        (loss.total / weight).backward()
        watch.mark("backward")
        totals.append(loss.total.detach())
    gradients = [p.grad for p in optimizer.parameters if p.grad is not None]
    norm = float(global_norm(gradients))
    losses = torch.stack(totals).tolist()
    accepted = run.guard.accepts(state.step, losses, weight, norm, micros)
    if accepted:
        limit = run.clip[turn]
        if limit is not None and norm > limit:
            torch._foreach_mul_(gradients, limit / norm)
        optimizer.step(state.step)
    optimizer.zero_grad()
    rate = optimizer.learning_rate(state.step)
    watch.mark("optimizer")
    state.last = StepResult(sum(losses) / weight, weight, norm, rate, accepted)
