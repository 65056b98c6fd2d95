"""Where the time of a training step goes: a few steps of a recipe under torch's profiler, put into words."""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.engine.loop import Run, train
from groundup.engine.stop import Stop
from groundup.errors import GroundupError
from groundup.machine.ceiling import matrix_ceiling, synchronize
from groundup.recipe.resolve import resolve_steps
from groundup.recipe.tree import Recipe
from groundup.run.assemble import assemble
from groundup.run.gather import gather
from groundup.run.hardware import computing, settle
from groundup.run.work import Say, Work

WARM_UP = 2
KINDS: dict[str, str] = {
    "matrix products": r"mm$|mm_$|matmul|linear$|convolution|conv\dd|addmv|gemm|thnn_conv",
    "attention": r"attention|^_Attention",
    "the loss": r"CrossEntropy|cross_entropy|nll_loss|log_softmax",
    "the optimizer": r"adam|sgd|Optimizer|rmsprop|adagrad|foreach",
    "norms": r"norm|^_Norm|^_RMSNorm",
    "embeddings": r"embedding|index_select|gather|scatter|index$|index_put",
    "recurrence": r"lstm|gru|rnn",
    "copies": r"copy_|clone|cat$|contiguous|to_copy|fill_|zero_|empty|pack|stack",
}
"""Kinds of operations by a pattern of their names, the first that fits; the rest is "element by element"."""
REST = "element by element"
ADVICE: dict[str, str] = {
    "matrix products": "the step reaches {share} of this machine's ceiling, and these are what counts for it; they "
    "shrink with the model (model.depth), or on hardware that multiplies bfloat16",
    "attention": "it grows with the square of a document's length: a smaller data.context, or model.sliding_window",
    "the loss": "it grows with the vocabulary: a smaller tokenizer.vocabulary",
    "norms": "{kernels}",
    "the optimizer": "it runs once a step: more tokens a step (budget.tokens_per_step) make it rarer",
    "embeddings": "they are read from memory row by row; a smaller vocabulary or width",
    "recurrence": "one position waits for the one before; a Transformer works on all at once",
    "copies": "memory that is only moved: hardware.recompute=false if it is on, or larger micro-batches",
    REST: "each reads and writes memory for a little arithmetic; {kernels}",
}
ADVICE_OF_ROWS: dict[str, str] = {
    "attention": "it grows with the square of the number of positions",
    "the loss": "it grows with the number of classes",
    "norms": "each reads and writes memory for a little arithmetic",
    "the optimizer": "it runs once a step: more rows a step (budget.rows_per_step) make it rarer",
    "embeddings": "they are read from memory row by row",
    "copies": "memory that is only moved",
    REST: "many small operations: more rows a step (budget.rows_per_step) spread the cost of calling them",
}
"""Where the data is counted in rows, and the fields of language models mean nothing."""
KERNELS = {
    True: "what groundup has compiled is compiled already, and the rest is torch's own",
    False: "hardware.kernels=compiled does some of it in one pass, where the model and the machine allow it",
}


@dataclass(frozen=True)
class Cost:
    """A kind of operations: its seconds a step, and the operations behind it as (name, seconds a step, calls)."""

    kind: str
    seconds: float
    operations: list[tuple[str, float, int]]


@dataclass(frozen=True)
class Profile:
    """Where the time of `steps` steps went.

    Attributes:
        name: of the recipe.
        seconds: of a step, without the profiler.
        costs: of the operations, the largest first; their seconds are those of the profiled steps.
        parts: seconds a step for batches, forward, backward and optimizer.
        units_per_second: tokens or rows.
        ceiling_share: of the machine's best matrix product.
        compiled: whether the compiled functions were used.
        rows: whether the data is counted in rows.
    """

    name: str
    steps: int
    seconds: float
    costs: list[Cost]
    parts: dict[str, float]
    unit: str
    units_per_second: float
    ceiling_share: float
    compiled: bool
    rows: bool

    def share(self, cost: Cost) -> float:
        """Of all operations."""
        return cost.seconds / (sum(one.seconds for one in self.costs) or 1.0)

    def words(self, cost: Cost) -> str:
        """What it is and what could be done."""
        share = f"{100 * self.ceiling_share:.0f} %"
        advices = ADVICE | ADVICE_OF_ROWS if self.rows else ADVICE
        advice = advices[cost.kind].format(share=share, kernels=KERNELS[self.compiled])
        return f"{cost.kind}, {100 * self.share(cost):.0f} % of the step: {advice}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        costs = [
            {"kind": cost.kind, "seconds": cost.seconds, "share": self.share(cost), "words": self.words(cost),
             "operations": [{"name": n, "seconds": s, "calls": c} for n, s, c in cost.operations]}
            for cost in self.costs
        ]  # fmt: skip
        return {
            "name": self.name,
            "steps": self.steps,
            "seconds": self.seconds,
            "parts": self.parts,
            "unit": self.unit,
            "units_per_second": self.units_per_second,
            "ceiling_share": self.ceiling_share,
            "compiled": self.compiled,
            "costs": costs,
        }


def profile_recipe(
    recipe: Recipe, *, steps: int = 5, trace: Path | None = None, say: Say = lambda line: None
) -> Profile:
    """Profile a recipe on its own data, in a temporary folder; nothing of it is kept.

    Args:
        recipe: checked.
        steps: how many are profiled, after two that warm up and as many that are timed alone.
        trace: where to write the profiler's own file, which chrome://tracing and Perfetto open.
        say: receives lines of progress.

    Raises:
        GroundupError: any fault of data or machine; E-RUN-041 the run ended before all steps were done.
    """
    with tempfile.TemporaryDirectory(prefix="groundup-profile-") as folder:
        work = gather(recipe, Path(folder), say=say)
        return _profile(work, recipe, steps, trace, Path(folder))


def _profile(work: Work, checked: Recipe, steps: int, trace: Path | None, folder: Path) -> Profile:
    settled = settle(work)
    budget = settled.budget.model_copy(update={"steps": WARM_UP + 2 * steps})  # which counts before other lengths
    settled = settled.model_copy(update={"budget": budget})
    work.recipe = resolve_steps(settled, rows_per_epoch=work.rows_per_epoch, seconds_per_step=None)
    with computing(work):
        run, log, _ = assemble(work, folder, listeners=(), stop=Stop())
        run.events = []
        try:
            _advance(run, WARM_UP)
            run.state.watch.take()
            seconds = _advance(run, steps) / steps
            parts = {name: spent / steps for name, spent in run.state.watch.take().items()}
            with torch.profiler.profile(acc_events=True) as profiler:
                _advance(run, steps)
        finally:
            log.close()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    units = work.recipe.rows_per_step * work.units_per_row
    flops = units * work.flops_per_unit(run.state.module)
    ceiling = matrix_ceiling(work.device, work.dtype or torch.float32, seconds=0.5)
    return Profile(
        name=checked.name, steps=steps, seconds=seconds, costs=costs(profiler, steps, run.device), parts=parts,
        unit=work.unit, units_per_second=units / seconds, ceiling_share=flops / seconds / ceiling,
        compiled=work.recipe.hardware.kernels == "compiled", rows=checked.counts_rows,
    )  # fmt: skip


def _advance(run: Run, steps: int) -> float:
    """Train so many steps on; their seconds."""
    run.steps = run.state.step + steps
    began = time.perf_counter()
    outcome = train(run)
    synchronize(run.device)
    if run.state.step < run.steps:
        raise GroundupError(
            "E-RUN-041",
            f"the run ended ({outcome}) before the steps to be profiled were done",
            where=f"step {run.state.step} of {run.steps}",
            why="a profile of no steps says nothing",
            fix="groundup train RECIPE   (what ends it there will say so)",
        )
    return time.perf_counter() - began


def costs(profiler: Any, steps: int, device: torch.device) -> list[Cost]:
    """The operations of a profile by their kind, the largest first, in seconds a step."""
    found: dict[str, list[tuple[str, float, int]]] = {}
    for event in profiler.key_averages():
        own = event.self_cpu_time_total if device.type == "cpu" else event.self_device_time_total
        seconds = own / 1e6 / steps
        if seconds > 0:
            found.setdefault(kind_of(event.key), []).append((event.key, seconds, event.count // steps))
    grouped = [
        Cost(kind, sum(seconds for _, seconds, _ in operations), sorted(operations, key=lambda one: -one[1])[:6])
        for kind, operations in found.items()
    ]
    return sorted(grouped, key=lambda cost: -cost.seconds)


def kind_of(name: str) -> str:
    """What kind of operation a name of the profiler is."""
    bare = name.removeprefix("aten::")
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, bare)), REST)
