"""How a run computes on its hardware: `auto` settled for torch.compile and for the compiled functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from groundup.compiled import training
from groundup.errors import GroundupError
from groundup.recipe.tree import Recipe
from groundup.run.work import Work

COMPILE_PAYS_FROM_SECONDS = 1800.0
"""A CPU needs one to two minutes to compile a block and gains about a tenth: see notes/log.md."""


def settle(work: Work) -> Recipe:
    """The recipe with `hardware.compile` and `hardware.kernels` decided, so that a resume computes as the run began."""
    recipe = work.recipe
    compile_, kernels = recipe.hardware.compile, recipe.hardware.kernels
    fit = kernels != "plain" and _fit(work)
    if compile_ == "auto":
        minutes = recipe.budget.minutes
        long = minutes is not None and minutes * 60 >= COMPILE_PAYS_FROM_SECONDS
        repeated = not recipe.counts_rows  # only language models are made of blocks that are worth it
        worth = repeated and (work.device.type == "cuda" or (long and work.device.type == "cpu" and not fit))
        compile_ = "on" if worth else "off"
    if kernels == "auto":
        kernels = "compiled" if compile_ == "off" and fit and training.why_not() is None else "plain"
    hardware = recipe.hardware.model_copy(update={"compile": compile_, "kernels": kernels})
    return recipe.model_copy(update={"hardware": hardware})


def _fit(work: Work) -> bool:
    """Whether the compiled functions are made for what this run computes."""
    return not work.recipe.counts_rows and work.device.type == "cpu" and work.precision == "float32"


@contextmanager
def computing(work: Work) -> Iterator[None]:
    """Within the block models compute with the functions that the settled recipe names.

    Raises:
        GroundupError: E-RUN-032 it names compiled ones, and there are none for this run.
    """
    wanted = work.recipe.hardware.kernels == "compiled"
    reason = None
    if wanted and not _fit(work):
        reason = f"this run computes in {work.precision} on {work.device.type}"
    elif wanted and work.recipe.hardware.compile == "on":
        reason = "torch.compile takes the plain functions apart, and can do nothing with these"
    elif wanted:
        reason = training.why_not()
    if reason is not None:
        raise GroundupError(
            "E-RUN-032",
            f"there are no compiled functions for this run: {reason}",
            where="hardware.kernels: compiled",
            why="they are made by this machine's C compiler, for float32 on a CPU; the plain ones round differently",
            fix="set hardware.kernels=plain (a resume asks for --accept-changes too), or install gcc or clang",
            exit_code=2,
        )
    with training.use(wanted):
        yield
