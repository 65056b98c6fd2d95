"""What one kind of data brings to a run. The engine, the plan, the rehearsal and the results ask these questions and
know no kind of data; each subclass answers them, in a file of its own.

Settled numbers stand in `recipe`, which `train` replaces once the length of the run is known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters import FreezeOptions, unfreezing_steps
from groundup.contract import Batch, Objective, Source
from groundup.machine.describe import describe
from groundup.optim.optimizer import Optimizer
from groundup.recipe.tree import Recipe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Memory:
    """Bytes that a run will hold at its peak, by part. `holes` is what the allocator keeps between its pieces beyond
    all that can be counted: only a rehearsal can tell."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int
    process: int
    holes: int = 0

    @property
    def total(self) -> int:
        """All parts."""
        return sum(asdict(self).values())


@dataclass(kw_only=True)
class Work(ABC):
    """A resolved recipe with its data, ready to be run.

    Attributes:
        recipe: resolved; its number of steps may still be open.
        device: where the network goes.
        precision: of matrix products, float32 or bfloat16.
        init_from: the folder of the model to go on with, if there is one.
    """

    recipe: Recipe
    device: torch.device
    precision: str
    init_from: Path | None = None

    # what is learned from

    @abstractmethod
    def source(self) -> Source:
        """A fresh training stream."""

    @property
    @abstractmethod
    def rows_per_epoch(self) -> int:
        """Rows in one pass over the training data."""

    def rehearsal_batch(self) -> Batch | None:
        """The micro-batch that takes the most memory; None where all take the same."""
        return None

    # what learns

    @abstractmethod
    def network(self) -> nn.Module:
        """The model with its first weights, adapted: drawn from the seed, or those of init_from."""

    @abstractmethod
    def stand_in(self) -> nn.Module:
        """A network of the run's sizes, adapted, with small random values, to be thrown away."""

    @abstractmethod
    def objective(self, model: nn.Module) -> Objective:
        """The objective on a model."""

    def learning(self, model: nn.Module) -> tuple[Objective, Source]:
        """The objective and the stream of a run. They may be made to know each other here."""
        return self.objective(model), self.source()

    def optimizers(self, model: nn.Module, *, steps: int) -> dict[str, Optimizer]:
        """One optimizer for each player, over what is trainable now or later. A player other than `model` is the
        child of that name."""
        return {
            name: Optimizer(self.player(model, name), options, steps=steps, player=name)
            for name, options in self.recipe.optim.items()
        }

    def player(self, model: nn.Module, name: str) -> nn.Module:
        """The part of the network that a player's optimizer moves."""
        return model if name == "model" else model.get_submodule(name)

    def blocks(self, model: nn.Module) -> Any:
        """The repeated parts of the network, which may be compiled or recomputed one by one."""
        return nn.ModuleList()

    @property
    def freezing(self) -> list[FreezeOptions]:
        """The adapters that unfreeze parameters on the way."""
        return [a for a in self.recipe.adapters if isinstance(a, FreezeOptions) and unfreezing_steps(a)]

    # what is kept

    @property
    def on_base(self) -> bool:
        """Whether checkpoints and the model keep only what is trained, and name the base they belong to."""
        return False

    def kept_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The tensors of a finished model."""
        return dict(model.state_dict())

    @abstractmethod
    def small_files(self) -> dict[str, bytes]:
        """The files of the model folder beside its weights."""

    # what it costs

    @property
    def unit(self) -> str:
        """What the ledger counts."""
        return "rows"

    @property
    def units_per_row(self) -> float:
        """How many of these units a row of a step has: its tokens, or one for each player that draws rows."""
        return 1.0

    @abstractmethod
    def parameter_parts(self) -> list[dict[str, Any]]:
        """Parameters by part: [{name, parameters}]."""

    @abstractmethod
    def memory(self, process: int) -> Memory:
        """Peak memory of the run, without allocating it. `process` is what the process holds without the run."""

    @abstractmethod
    def flops_per_unit(self, model: nn.Module) -> float:
        """Floating-point operations of forward and backward for one of the units that the ledger counts."""

    # what is measured

    @property
    def dtype(self) -> torch.dtype | None:
        """What evaluations compute in under autocast; None without."""
        return torch.bfloat16 if self.precision == "bfloat16" else None

    @abstractmethod
    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """The evaluation while training: {name of the data: {metrics, intervals}}."""

    @abstractmethod
    def score(self, model: nn.Module, *, final: bool) -> Any:
        """run.results.Scores of the held-out data: of all of it if `final`, else of a bounded part."""

    @abstractmethod
    def metric_names(self, scores: Any) -> Sequence[str]:
        """The metrics of the closing table that come out of these scores."""

    def rises(self, metric: str) -> bool:
        """Whether more of a metric of the evaluations while training is better."""
        from groundup.evaluation import METRICS

        return metric != "loss" and METRICS[metric].higher_is_better

    @property
    def bytes_per_target(self) -> float | None:
        """Text bytes for each trained target; None where targets are no text."""
        return None

    def samples(self, model: nn.Module) -> list[dict[str, str]]:
        """What the model makes of the fixed prompts: [{prompt, text, finish}]."""
        return []

    def results(self, model: nn.Module) -> dict[str, Any]:
        """What the report shows of a finished model besides the table, for results.json."""
        return {}

    @abstractmethod
    def data_ledger(self) -> dict[str, Any]:
        """What became of every row of the data."""

    @property
    def cut_units(self) -> int:
        """Units of rows that were cut to fit."""
        return 0

    def preset_difference(self) -> list[dict[str, Any]]:
        """Where the recipe departs from what its dial, data and budget alone would give."""
        return []

    def hardware(self, folder: Path) -> dict[str, Any]:
        """What this machine is, for the results."""
        return {**describe(folder), "device": str(self.device), "precision": self.precision}


def by_first_part(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters by the first part of their names, that of a body left out: [{name, parameters}]."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.removeprefix("body.").split(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return [{"name": name, "parameters": number} for name, number in counts.items()]


def by_part_and_layer(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters by part, those of all layers together, tied ones counted once: [{name, parameters}]."""
    counts: dict[str, int] = {}
    layers = 1 + max((int(n.split(".")[1]) for n, _ in model.named_parameters() if n.startswith("layers.")), default=0)
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        if part == "layers":
            part = f"{layers} × {name.split('.')[2]}"
        counts[part] = counts.get(part, 0) + parameter.numel()
    return [{"name": name, "parameters": count} for name, count in counts.items()]
