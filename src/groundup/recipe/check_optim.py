"""The rules between the fields of an optimizer and of its schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from groundup.errors import GroundupError
from groundup.optim.options import SGDOptions
from groundup.optim.schedules import FALLING

if TYPE_CHECKING:
    from groundup.recipe.check import Check

READ_BY: dict[str, tuple[str, ...]] = {
    "warmup": ("constant", "linear", "cosine", "warmup_stable_decay", *FALLING),
    "final": ("linear", "cosine", "warmup_stable_decay", "one_cycle"),
    "decay": ("warmup_stable_decay",),
    "drop": FALLING,
    "every": FALLING,
    "peak": ("one_cycle",),
    "start": ("one_cycle",),
}
"""The kinds of schedule that read a field."""


def check_optim(check: Check) -> Iterator[GroundupError]:
    """Schedules that fit the run, and fields that their kind does not read."""
    for player, options in check.recipe.optim.items():
        schedule, steps = options.schedule, check.recipe.budget.steps
        path = f"optim.{player}.schedule"
        for name, kinds in READ_BY.items():
            if check.given(schedule, name) and schedule.kind not in kinds:
                yield check.unused(
                    f"{path}.{name}", f"the {schedule.kind} schedule does not read it",
                    f"remove it, or set kind: {kinds[0]}",
                )  # fmt: skip
        if schedule.warmup and steps and schedule.warmup > steps:
            yield check.fault(
                "E-RECIPE-039", f"{path}.warmup",
                f"a warm-up of {schedule.warmup} steps is longer than the run of {steps}",
                "the peak learning rate would never be reached", f"set {path}.warmup={max(1, steps // 50)}",
            )  # fmt: skip
        if schedule.kind == "step" and schedule.every and steps and schedule.every >= steps - (schedule.warmup or 0):
            yield check.unused(
                f"{path}.every", f"the rate would first fall after the end of the run at {steps}", "lower it"
            )
        if isinstance(options, SGDOptions) and options.nesterov and not options.momentum:
            yield check.unused(
                f"optim.{player}.nesterov", "it looks ahead along the momentum, which is 0",
                f"set optim.{player}.momentum=0.9, or remove nesterov",
            )  # fmt: skip
