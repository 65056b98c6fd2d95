"""The learning-rate range test (Smith 2017, arXiv:1506.01186): one short run whose rate grows from step to
step, on the recipe's own model and data. Nothing of it is kept."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from groundup.engine.precision import autocast
from groundup.errors import GroundupError
from groundup.functional import global_norm
from groundup.run.assemble import accumulate
from groundup.run.entry import read_recipe
from groundup.run.parts import Parts, gather, objective_of, optimizers_of

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
        parts = gather(checked, Path(folder), say=say)
        points = _points(parts, steps)
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


def _points(parts: Parts, steps: int) -> list[dict[str, float]]:
    model = parts.network()
    objective = objective_of(parts, model)
    source, context = parts.source(), autocast(parts.precision, parts.device)
    [(turn, optimizer)] = optimizers_of(parts, model, steps=1).items()
    usual, clip = optimizer.rate, parts.recipe.optim[turn].clip
    points: list[dict[str, float]] = []
    average = 0.0
    model.train()
    torch.manual_seed(parts.recipe.seed)  # of dropout
    for number in range(steps):
        rate = usual * LOWEST * (HIGHEST / LOWEST) ** (number / (steps - 1))
        micros = [source.next(turn) for _ in range(accumulate(parts.recipe))]
        weight = max(1.0, float(sum(objective.weight(turn, micro) for micro in micros)))
        loss = 0.0
        for micro in micros:
            placed = {name: tensor.to(parts.device) for name, tensor in micro.items()}
            with context():
                total = objective.loss(turn, placed).total
            (total / weight).backward()
            loss += float(total.detach()) / weight
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smooth = average / (1 - SMOOTHING ** (number + 1))
        if not math.isfinite(loss):
            break
        points.append({"rate": rate, "loss": loss, "smooth": smooth})
        lowest = min(point["smooth"] for point in points)
        if smooth > DIVERGED * lowest and smooth > lowest + 0.5:
            break
        gradients = [p.grad for p in optimizer.parameters if p.grad is not None]
        norm = float(global_norm(gradients))
        if clip is not None and norm > clip:
            torch._foreach_mul_(gradients, clip / norm)
        optimizer.move(rate)
        optimizer.zero_grad()
    return points
