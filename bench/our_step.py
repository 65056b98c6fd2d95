"""A step of groundup on one batch: the loop itself, as `groundup train` runs it, without what comes between steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Same:
    """A source that gives the same batch each time."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def next(self, turn: str) -> dict[str, Any]:
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


def stepper(
    model: Any, ids: Any, target: Any, precision: str, *, rate: float, compiled: bool = True
) -> Callable[[], float]:
    """What makes one step and gives its loss.

    Args:
        model: a language model; what of it is trainable is trained, by AdamW.
        ids, target: (rows, positions), each row one document.
        precision: float32 or bfloat16.
        compiled: with the compiled functions, in float32.
    """
    import torch

    from groundup.compiled import training
    from groundup.engine.guard import Guard
    from groundup.engine.loop import Run, train
    from groundup.engine.options import GuardOptions
    from groundup.engine.precision import autocast
    from groundup.engine.state import State
    from groundup.engine.stop import Stop
    from groundup.objectives.next_token import NextToken, NextTokenOptions
    from groundup.optim.optimizer import Optimizer
    from groundup.optim.options import AdamWOptions

    position = torch.arange(ids.shape[1])[None].expand(len(ids), -1)
    batch = {
        "tokens_BT": ids,
        "target_BT": target,
        "position_BT": position,
        "document_BT": torch.zeros_like(position),
    }
    optimizer = Optimizer(model, AdamWOptions(kind="adamw", learning_rate=rate), steps=1_000_000)
    device, folder = torch.device("cpu"), Path(tempfile.mkdtemp(prefix="groundup-bench-"))
    state = State(model, {"model": optimizer}, Same(batch), NextToken(NextTokenOptions(), model))
    run = Run(
        state=state,
        steps=0,
        accumulate=1,
        clip={"model": 1.0},
        events=[],
        guard=Guard(GuardOptions(), report=lambda kind, step, detail: None, folder=folder),
        stop=Stop(),
        device=device,
        autocast=autocast(precision, device),
    )

    def step() -> float:
        run.steps = state.step + 1
        with training.use(compiled and precision == "float32" and training.why_not() is None):
            train(run)
        assert state.last is not None
        return state.last.loss

    return step
