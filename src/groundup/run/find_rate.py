"""The learning-rate range test (Smith 2017, arXiv:1506.01186): one short run whose rate grows from step to
step, on the recipe's own model and data. Nothing of it is kept."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from groundup.adapters import unfreeze_at
from groundup.engine.guard import Guard
from groundup.engine.loop import Run, train
from groundup.engine.precision import autocast
from groundup.engine.state import State
from groundup.engine.stop import Stop
from groundup.errors import GroundupError
from groundup.optim.optimizer import Optimizer
from groundup.run.assemble import accumulate, new_state
from groundup.run.entry import read_recipe
from groundup.run.gather import gather
from groundup.run.hardware import computing, settle
from groundup.run.work import Work

LOWEST, HIGHEST = 1e-3, 30.0
"""Rates tried, as multiples of the rate that the recipe would use."""

SMOOTHING = 0.85
DIVERGED = 1.5
"""A smoothed loss this many times the best one, in excess of half a nat, ends the test."""

ROOM = 3.0
"""The suggestion is the rate of the lowest loss divided by this: the minimum lies at the edge of divergence."""


def find_rate(
    recipe: str | Path | dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    steps: int = 60,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Try `steps` rates.

    Returns:
        points: [{rate, loss, smooth}]; suggested; nearest (the tried rate next to it); at_lowest; diverged
        (the rate at which the loss ran away, or None).

    Raises:
        GroundupError: E-RUN-040 if the loss fell at no rate.
    """
    checked = read_recipe(recipe, overrides)
    with tempfile.TemporaryDirectory(prefix="groundup-find-lr-") as folder:
        work = gather(checked, Path(folder), say=say)
        work.recipe = settle(work)
        with computing(work):
            points = _points(work, steps, Path(folder) / "faults")
    best = min(points, key=lambda point: point["smooth"], default=None)
    if best is None:
        raise GroundupError(
            "E-RUN-040",
            "the loss is not a finite number before the first update",
            where=f"recipe {checked.name}",
            why="no learning rate can mend a model or data that give no number to begin with",
            fix="groundup data show RECIPE   (are the targets what you mean?), or check model.init_from",
        )
    if best is points[0]:
        raise GroundupError(
            "E-RUN-040",
            f"the loss fell at none of the {len(points)} rates that were tried",
            where=f"from {points[0]['rate']:.1e} to {points[-1]['rate']:.1e}",
            why="where even a tiny rate does not help, the rate is not what is wrong",
            fix="groundup data show RECIPE   (are the targets what you mean?), or give more --steps",
        )
    suggested = best["rate"] / ROOM
    nearest = min(points, key=lambda point: abs(math.log(point["rate"] / suggested)))
    return {
        "points": points,
        "suggested": float(f"{suggested:.2g}"),
        "nearest": nearest["rate"],
        "at_lowest": best["rate"],
        "diverged": points[-1]["rate"] if len(points) < steps else None,
    }


class _Rising(Optimizer):
    """An optimizer whose rate grows from step to step, whatever its schedule says."""

    def learning_rate(self, step: int) -> float:
        return self.rate * LOWEST * (HIGHEST / LOWEST) ** (step / (self.steps - 1))


class _Note:
    """An event that notes the loss of each rate, and stops the run when the loss runs away."""

    def __init__(self, stop: Stop) -> None:
        self.stop, self.points, self.average = stop, list[dict[str, float]](), 0.0

    def __call__(self, state: State) -> None:
        last = state.last
        if last is None or not math.isfinite(last.loss):
            self.stop.request("diverged")
            return
        self.average = SMOOTHING * self.average + (1 - SMOOTHING) * last.loss
        smooth = self.average / (1 - SMOOTHING ** (len(self.points) + 1))
        self.points.append({"rate": last.learning_rate, "loss": last.loss, "smooth": smooth})
        lowest = min(point["smooth"] for point in self.points)
        if smooth > DIVERGED * lowest and smooth > lowest + 0.5:
            self.stop.request("diverged")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""


def _points(work: Work, steps: int, folder: Path) -> list[dict[str, float]]:
    state, stop, recipe = new_state(work), Stop(), work.recipe
    for options in work.freezing:
        unfreeze_at(state.module, options, 0)
    optimizers = {
        name: _Rising(work.player(state.module, name), options, steps=steps, player=name)
        for name, options in recipe.optim.items()
    }
    state.optimizers = dict(optimizers)
    note = _Note(stop)
    train(
        Run(
            state=state,
            steps=steps,
            accumulate=accumulate(recipe),
            clip={name: options.clip for name, options in recipe.optim.items()},
            events=[note],
            guard=Guard(recipe.guard, report=lambda kind, step, detail: None, folder=folder),
            stop=stop,
            device=work.device,
            autocast=autocast(work.precision, work.device),
        )
    )
    return note.points
