"""Everything of a run that advances, in one place, and how it becomes tensors and JSON for a checkpoint.

What is not in here cannot influence training after a resume: that is what makes a resume exact.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from groundup.contract import Objective, Source


class PlayerOptimizer(Protocol):
    """What the engine asks of one player's optimizer. `factor` multiplies its scheduled rate."""

    factor: float

    @property
    def parameters(self) -> list[Tensor]: ...
    def learning_rate(self, step: int) -> float: ...
    def step(self, step: int) -> None: ...
    def zero_grad(self) -> None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


PARTS = ("data", "forward", "backward", "optimizer")
"""Of a step, in the order in which it goes through them."""


class Stopwatch:
    """Seconds that the steps spent in each of their `PARTS` since they were last taken.

    On an accelerator, whose work is queued, a part that only queues it looks short, and the waiting is the optimizer's,
    which reads the gradient's norm.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.since = 0.0

    def start(self) -> None:
        """Begin to count."""
        self.since = time.perf_counter()

    def mark(self, part: str) -> None:
        """What has passed since the last mark was spent there."""
        now = time.perf_counter()
        self.seconds[part] += now - self.since
        self.since = now

    def take(self) -> dict[str, float]:
        """The seconds of each part, which are counted from 0 again."""
        taken, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        return taken


@dataclass
class StepResult:
    """What the last update measured. `loss` is nats per target, `norm` the gradient norm before clipping."""

    loss: float
    weight: float
    norm: float
    learning_rate: float
    accepted: bool


class Average:
    """An exponential moving average of the trainable weights (Polyak & Juditsky 1992).

    The decay is warmed up as min(decay, (1 + n) / (10 + n)), so that the random start is soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.shadow = {name: p.detach().clone() for name, p in self.live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights after an update."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.shadow.values()), list(self.live.values()), 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module holds the averaged weights."""
        kept = {name: p.data for name, p in self.live.items()}
        for name, parameter in self.live.items():
            parameter.data = self.shadow[name]
        try:
            yield
        finally:
            for name, parameter in self.live.items():
                parameter.data = kept[name]


@dataclass
class State:
    """A run at one moment.

    Attributes:
        step: updates done.
        module: the network (all players' networks under one root).
        optimizers: by turn.
        seconds: time spent in training steps so far, over all sessions.
        last: what the last update measured.
        watch: where the time of the steps goes; never saved.
        saved: names of the tensors that a checkpoint holds; None for all of them. The rest is a frozen base,
            which the run builds again from where it came from.
    """

    module: nn.Module
    optimizers: dict[str, PlayerOptimizer]
    source: Source
    objective: Objective
    average: Average | None = None
    step: int = 0
    seconds: float = 0.0
    last: StepResult | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    saved: frozenset[str] | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)

    def snapshot(self) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
        """What a checkpoint holds: the JSON of state.json, and what goes into safetensors files, by file name under
        canonical names."""
        groups: dict[str, dict[str, Tensor]] = {"model": self.own_tensors(), "optimizer": {}}
        for turn, optimizer in self.optimizers.items():
            groups["optimizer"].update({f"{turn}/{k}": v for k, v in optimizer.state_dict().items()})
        if self.average is not None:
            groups["average"] = dict(self.average.shadow)
        if self.best:
            groups["best"] = dict(self.best)
        numbers: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "average_updates": self.average.updates if self.average else 0,
            "random": random_state(),
        }
        for name, part in (("source", self.source), ("objective", self.objective)):
            numbers[name], held = split(part.state_dict())
            if held:
                groups[name] = held
        return numbers, groups

    def own_tensors(self) -> dict[str, Tensor]:
        """The tensors of the module that belong to this run."""
        tensors = dict(self.module.state_dict())
        return tensors if self.saved is None else {n: t for n, t in tensors.items() if n in self.saved}

    def put_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `own_tensors` gave; a missing or unexpected name is refused."""
        if self.saved is not None and set(tensors) != self.saved:
            raise KeyError(f"expected {sorted(self.saved)}, got {sorted(tensors)}")
        self.module.load_state_dict(tensors, strict=self.saved is None)

    def load_tensors(self, groups: dict[str, dict[str, Tensor]]) -> None:
        """Put back the tensors of a `snapshot`; a missing or unexpected name is refused by torch's strict loading."""
        self.put_tensors(groups["model"])
        for turn, optimizer in self.optimizers.items():
            prefix = f"{turn}/"
            own = {k[len(prefix) :]: v for k, v in groups["optimizer"].items() if k.startswith(prefix)}
            optimizer.load_state_dict(own)
        if self.average is not None:
            for name, value in groups["average"].items():
                self.average.shadow[name].copy_(value)
        self.best = dict(groups.get("best", {}))

    def load_numbers(self, numbers: dict[str, Any], groups: dict[str, dict[str, Tensor]]) -> None:
        """Put back the numbers of a `snapshot`, with the tensors of stream and objective."""
        self.step, self.seconds = numbers["step"], numbers["seconds"]
        self.source.load_state_dict(joined(numbers["source"], groups.get("source", {})))
        self.objective.load_state_dict(joined(numbers["objective"], groups.get("objective", {})))
        if self.average is not None:
            self.average.updates = numbers["average_updates"]
        set_random_state(numbers["random"])


HELD = "tensor in safetensors"
"""The key under which a JSON value names a tensor that is stored elsewhere."""


def split(value: Any, path: str = "") -> tuple[Any, dict[str, Tensor]]:
    """A nested state as JSON, and its tensors by their path."""
    if isinstance(value, Tensor):
        return {HELD: path}, {path: value}
    if not isinstance(value, dict | list | tuple):
        return value, {}
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    parts = [(key, *split(item, f"{path}.{key}" if path else str(key))) for key, item in pairs]
    held = {name: tensor for _, _, tensors in parts for name, tensor in tensors.items()}
    plain = {key: item for key, item, _ in parts}
    return (plain if isinstance(value, dict) else list(plain.values())), held


def joined(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `split`. A tensor that is missing is a KeyError."""
    if isinstance(value, dict):
        if set(value) == {HELD}:
            return tensors[value[HELD]]
        return {key: joined(item, tensors) for key, item in value.items()}
    return [joined(item, tensors) for item in value] if isinstance(value, list) else value


def random_state() -> dict[str, str]:
    """The state of torch's global generators, as text."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: base64.b64encode(bytes(state.tolist())).decode() for name, state in states.items()}


def set_random_state(states: dict[str, str]) -> None:
    """Put the global generators back."""
    tensors = {name: torch.tensor(list(base64.b64decode(text)), dtype=torch.uint8) for name, text in states.items()}
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
