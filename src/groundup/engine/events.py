"""What happens after a step: log, evaluate, sample, save. A fixed list, one call each, in this order; an event
never sees another. What an event does beyond bookkeeping (score a text, write a checkpoint) is a function
that was handed to it.

Everything that depends on time or machine stands under `clock` in a line of events.jsonl and nowhere else, so
the rest of the file is equal for equal runs, interrupted or not.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from groundup.contract import Resumable
from groundup.engine.options import EarlyStoppingOptions
from groundup.engine.plateau import Plateau
from groundup.engine.state import State
from groundup.engine.stop import Stop
from groundup.errors import GroundupError

SURVIVABLE = (GroundupError, ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What an evaluation or a sampling may raise without ending the run."""

Listener = Callable[[dict[str, Any]], None]


class Event(Resumable, Protocol):
    """Called after each step."""

    def __call__(self, state: State) -> None: ...


class EventLog:
    """events.jsonl: one JSON object a line, flushed line by line; listeners see each line as it is written."""

    def __init__(self, path: Path, listeners: tuple[Listener, ...] = ()) -> None:
        self.path, self.listeners = path, listeners
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("ab")

    def write(self, event: str, step: int, *, clock: dict[str, Any] | None = None, **fields: Any) -> None:
        """Append one line. Non-finite numbers are written as null: JSON has no word for them."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"event": event, "step": step, **fields, "clock": {"time": now, **(clock or {})}}
        self.file.write(json.dumps(finite(line), ensure_ascii=False).encode() + b"\n")
        self.file.flush()
        for listener in self.listeners:
            listener(line)

    @property
    def offset(self) -> int:
        """Bytes written so far: where a checkpoint made now would cut the file on a resume."""
        return self.file.tell()

    def cut(self, offset: int) -> None:
        """Forget what was written after a checkpoint; called on a resume."""
        self.file.truncate(min(offset, self.offset))  # never longer: that would fill it with zeros
        self.file.seek(0, os.SEEK_END)

    def replay_start(self) -> None:
        """Show the listeners the run's first line; called on a resume, which writes no second one."""
        with self.path.open("rb") as file:
            first = json.loads(file.readline() or b"{}")
        if first.get("event") == "start":
            for listener in self.listeners:
                listener(first)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def finite(value: Any) -> Any:
    """`value` with NaN and infinities replaced by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


class _Stateless:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


class LogSteps:
    """A `step` line every `every` steps: the mean loss per target since the last one, and the clock.

    Args:
        log: where to write.
        every: interval in steps.
        steps: length of the run; its last step gets a line in any case.
        ledger: gives the stream's token counts so far.
        bytes_per_target: of the training text, for bits per byte; None where bytes mean nothing.
        flops_per_token: of forward and backward, for the share of the ceiling.
        ceiling: the hardware's measured matrix throughput, FLOP/s.
        memory: gives the memory in use, in bytes.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        every: int,
        steps: int,
        ledger: Callable[[], dict[str, int]],
        bytes_per_target: float | None,
        flops_per_token: float,
        ceiling: float,
        memory: Callable[[], int],
    ) -> None:
        self.log, self.every, self.steps, self.ledger, self.memory = log, every, steps, ledger, memory
        self.bytes_per_target, self.flops_per_token, self.ceiling = bytes_per_target, flops_per_token, ceiling
        self.total, self.weight, self.norm = 0.0, 0.0, 0.0
        self.since = (0.0, 0)  # seconds and tokens at the last line; only the clock depends on it

    def __call__(self, state: State) -> None:
        last = state.last
        if last is not None and math.isfinite(last.loss):
            self.total += last.loss * last.weight
            self.weight += last.weight
            self.norm = last.norm
        if (state.step % self.every and state.step < self.steps) or not self.weight:
            return
        counts = self.ledger()
        loss = self.total / self.weight
        bits = loss / math.log(2) / self.bytes_per_target if self.bytes_per_target else None
        seconds, seen = state.seconds - self.since[0], counts["seen"] - self.since[1]
        speed = seen / seconds if seconds > 0 else 0.0
        self.log.write(
            "step",
            state.step,
            tokens=counts["trained"],
            seen=counts["seen"],
            loss=loss,
            bits_per_byte=bits,
            learning_rate=last.learning_rate if last else None,
            gradient_norm=self.norm,
            clock={
                "seconds": round(state.seconds, 3),
                "tokens_per_second": round(speed, 1),
                "ceiling_share": round(speed * self.flops_per_token / self.ceiling, 4),
                "memory_bytes": self.memory(),
                **{f"{part}_seconds": round(spent, 4) for part, spent in state.watch.take().items()},
            },
        )
        self.total, self.weight, self.since = 0.0, 0.0, (state.seconds, counts["seen"])

    def state_dict(self) -> dict[str, Any]:
        """The sums of the line that is being gathered."""
        return {"total": self.total, "weight": self.weight, "norm": self.norm, "since": list(self.since)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on gathering."""
        self.total, self.weight, self.norm = state["total"], state["weight"], state["norm"]
        self.since = (state["since"][0], state["since"][1])


Evaluation = dict[str, Any]
"""{"metrics": {name: value}, "intervals": {name: [low, high]}}."""


class Evaluate:
    """An `evaluate` line for each named part of the data every `every` steps; early stopping on one of its metrics, and
    a `plateau` line where another no longer improves and the learning rates are lowered.

    A fault in the evaluation is written down and the run goes on (R13).
    """

    def __init__(
        self,
        log: EventLog,
        *,
        every: int,
        evaluate: Callable[[], dict[str, Evaluation]],
        stopping: EarlyStoppingOptions | None,
        stop: Stop,
        higher_is_better: bool = False,
        plateau: Plateau | None = None,
        lower: Callable[[float], None] = lambda factor: None,
    ) -> None:
        self.plateau, self.lower = plateau, lower
        self.log, self.every, self.evaluate, self.stopping, self.stop = log, every, evaluate, stopping, stop
        self.sign = -1.0 if higher_is_better else 1.0
        self.best: float | None = None
        self.waited = 0

    def __call__(self, state: State) -> None:
        if not self.every or state.step % self.every:
            return
        began = time.perf_counter()
        try:
            results = self.evaluate()
        except SURVIVABLE as fault:
            self.log.write("warning", state.step, message=f"evaluation failed: {fault}")
            return
        clock = {"seconds": round(time.perf_counter() - began, 3)}
        for name, result in results.items():
            self.log.write("evaluate", state.step, data=name, **result, clock=clock)
        if not results:
            return
        metrics = next(iter(results.values()))["metrics"]
        if self.stopping is not None:
            self._judge(state, metrics[self.stopping.metric])
        if self.plateau is not None and self.plateau.see(metrics[self.plateau.options.metric]):
            self.lower(self.plateau.factor)
            self.log.write("plateau", state.step, factor=self.plateau.factor)

    def _judge(self, state: State, value: float) -> None:
        assert self.stopping is not None
        if self.best is None or self.sign * value < self.sign * self.best - self.stopping.minimum_change:
            self.best, self.waited = value, 0
            with state.average.applied() if state.average is not None else nullcontext():  # what was measured
                state.best = {name: tensor.detach().clone() for name, tensor in state.own_tensors().items()}
            return
        self.waited += 1
        if self.waited >= self.stopping.patience:
            self.stop.request("early_stopped")

    def state_dict(self) -> dict[str, Any]:
        """The best value and how long ago it was."""
        state: dict[str, Any] = {"best": self.best, "waited": self.waited}
        return state if self.plateau is None else state | {"plateau": self.plateau.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on waiting, or stop again if that was decided already."""
        self.best, self.waited = state["best"], state["waited"]
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])
            self.lower(self.plateau.factor)
        if self.stopping is not None and self.waited >= self.stopping.patience:
            self.stop.request("early_stopped")


class Sample(_Stateless):
    """A `sample` line every `every` steps: what the model says to the fixed prompts."""

    def __init__(self, log: EventLog, *, every: int, sample: Callable[[], list[dict[str, str]]]) -> None:
        self.log, self.every, self.sample = log, every, sample

    def __call__(self, state: State) -> None:
        if not self.every or state.step % self.every:
            return
        began = time.perf_counter()
        try:
            samples = self.sample()
        except SURVIVABLE as fault:
            self.log.write("warning", state.step, message=f"sampling failed: {fault}")
            return
        clock = {"seconds": round(time.perf_counter() - began, 3)}
        self.log.write("sample", state.step, samples=samples, clock=clock)


class Save(_Stateless):
    """A checkpoint every `every` steps. Last in the list, so that it holds what the others did in this step."""

    def __init__(self, *, every: int, save: Callable[[], None]) -> None:
        self.every, self.save = every, save

    def __call__(self, state: State) -> None:
        if self.every and state.step % self.every == 0:
            self.save()
