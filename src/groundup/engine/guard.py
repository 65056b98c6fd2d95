"""In front of every update: no step is ever made from a non-finite loss or gradient, and a spike is noticed.

The window of recent losses holds finite values only, so one NaN cannot poison what counts as normal, and it
is part of the checkpoint, so a resumed run judges as the uninterrupted one would.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.contract import Batch
from groundup.engine.options import GuardOptions
from groundup.errors import GroundupError

MINIMUM_WINDOW = 8
"""Losses that must be known before any can be called a spike."""

Report = Callable[[str, int, dict[str, Any]], None]
"""Writes a guard event: (kind, step, detail)."""


class Guard:
    """Judges each step's loss and gradient norm before the optimizer moves.

    Args:
        options: thresholds.
        report: writes a guard event.
        folder: where the rows of a non-finite step are written.
    """

    def __init__(self, options: GuardOptions, *, report: Report, folder: Path) -> None:
        self.options, self.report, self.folder = options, report, folder
        self.window: list[float] = []
        self.refused = 0
        self.rewind_wanted = False

    def accepts(self, step: int, losses: list[float], weight: float, norm: float, micros: list[Batch]) -> bool:
        """Whether this step's gradient may be used.

        Args:
            step: 0-based.
            losses: the summed loss of each micro-batch.
            weight: what they are divided by.
            norm: the gradient norm.
            micros: the batches, written down if they are at fault.

        Raises:
            GroundupError: `stop_after` steps in a row were not finite.
        """
        loss = sum(losses) / weight
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse(step, losses, norm, micros)
            return False
        self.refused = 0
        if self._is_spike(loss):
            self.report("spike", step, {"loss": loss, "recent": statistics.fmean(self.window)})
            if self.options.rewind:
                self.rewind_wanted = True
                return False
        self.window = [*self.window, loss][-self.options.window :]
        return True

    def no_target(self, step: int) -> None:
        """A whole step without a trainable target: counted and logged, and an error when it goes on."""
        self.report("no_target", step, {})
        self.refused += 1
        if self.refused >= self.options.stop_after:
            raise GroundupError(
                "E-RUN-021",
                f"{self.refused} steps in a row had no trainable target",
                where=f"step {step}",
                why="every target is masked, so the loss would look fine and nothing would be learnt",
                fix="groundup data show RECIPE   (shows the mask; check data.train_on and the chat template)",
            )

    def _is_spike(self, loss: float) -> bool:
        if len(self.window) < MINIMUM_WINDOW:
            return False
        mean, deviation = statistics.fmean(self.window), statistics.pstdev(self.window)
        return loss > mean + self.options.spike * max(deviation, 0.01 * abs(mean))

    def _refuse(self, step: int, losses: list[float], norm: float, micros: list[Batch]) -> None:
        at_fault = [i for i, loss in enumerate(losses) if not math.isfinite(loss)] or list(range(len(micros)))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:06d}.json"
        rows = {str(i): {name: t.tolist() for name, t in micros[i].items()} for i in at_fault}
        path.write_text(json.dumps({"step": step, "losses": [repr(x) for x in losses], "rows": rows}))
        detail = {"loss": repr(sum(losses)), "norm": repr(norm), "micro_batches": at_fault, "rows": path.name}
        self.report("nonfinite", step, detail)
        self.refused += 1
        if self.refused >= self.options.stop_after:
            raise GroundupError(
                "E-RUN-020",
                f"the loss or its gradient was not finite in {self.refused} steps in a row",
                where=f"step {step}; the rows are in {path}",
                why="no update is made from such a gradient, so going on would change nothing",
                fix="lower optim.model.learning_rate, lengthen schedule.warmup, or set hardware.precision=float32",
            )

    def state_dict(self) -> dict[str, Any]:
        """The window of finite losses and the count of refusals."""
        return {"window": list(self.window), "refused": self.refused}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Judge on as before."""
        self.window, self.refused = list(state["window"]), state["refused"]
