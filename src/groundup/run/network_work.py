"""What the kinds of data that are no language share as work for a run: a network that is built from the data's shapes,
whose steps are counted in rows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from groundup.adapters import apply
from groundup.contract import Objective, Source
from groundup.errors import GroundupError
from groundup.machine.ceiling import choose_precision, resolve_device
from groundup.models import NetworkOptions
from groundup.models.predictor import Predictor
from groundup.objectives import OBJECTIVES
from groundup.recipe.check import Check
from groundup.recipe.check_rows import fits_network
from groundup.recipe.faults import Places, raise_all
from groundup.recipe.resolve_rows import draws_of, resolve_rows
from groundup.recipe.tree import ModelOptions, Recipe
from groundup.run.networks import (
    LoadedNetwork,
    NetworkSaid,
    flops_of,
    go_on,
    initialised,
    load_network,
    network,
    network_files,
    one_row,
    require_same_inputs,
)
from groundup.run.work import Memory, Work, by_first_part

ACTIVATIONS = 8
"""How many times the bytes of its own inputs a row is taken to keep, before a rehearsal has measured it."""


WHILE_TRAINING, AT_THE_END = 1_000_003, 2_000_003
"""Added to the seed of a run for the episodes and matches that measure it, which are never those it learns from."""


class Beginning(NamedTuple):
    """A recipe of a network, resolved, before its data is looked at.

    Attributes:
        recipe: resolved.
        device: where the network goes.
        loaded: the network to go on with, if there is one.
        family, options: of the network, the recipe's or those of `loaded`.
    """

    recipe: Recipe
    device: torch.device
    loaded: LoadedNetwork | None
    family: str
    options: NetworkOptions

    def settled(self, said: NetworkSaid, ledger: dict[str, Any]) -> dict[str, Any]:
        """The fields that every NetworkWork has, once the data has said what goes in and comes out.

        Raises:
            GroundupError: E-MODEL-008 for sizes that do not fit the data, E-MODEL-007 for a loaded network that cannot
                read it.
        """
        require_network_options(said, self.loaded)
        return {
            "recipe": self.recipe,
            "device": self.device,
            "precision": choose_precision(self.recipe.hardware.precision, self.device).name,
            "init_from": self.loaded.folder if self.loaded else None,
            "said": said,
            "loaded": self.loaded,
            "ledger": ledger,
        }


def begin(recipe: Recipe) -> Beginning:
    """Resolve a checked recipe of a network, and load the network that it goes on with."""
    device = resolve_device(recipe.hardware.device)
    loaded = load_network(Path(recipe.init_from), torch.device("cpu")) if recipe.init_from else None
    family, options = chosen_network(recipe, loaded)
    return Beginning(resolve_rows(recipe, family=family), device, loaded, family, options)


def chosen_network(recipe: Recipe, loaded: LoadedNetwork | None) -> tuple[str, NetworkOptions]:
    """The family and options of the recipe's model section, or those of the model to go on with.

    Raises:
        GroundupError: of check_rows, where the model to go on with does not fit the rest of the recipe.
    """
    if loaded is not None:
        known = recipe.model_copy(update={"model": loaded.said.options})
        raise_all(list(fits_network(Check(known, Places(str(recipe.init_from))))))
        return loaded.said.family, loaded.said.options
    assert not isinstance(recipe.model, ModelOptions)
    return recipe.model.family, recipe.model  # type: ignore[return-value]


@dataclass(kw_only=True)
class NetworkWork(Work):
    """Work whose model is one of models.NETWORKS.

    Attributes:
        said: what the model folder says.
        loaded: the network to go on with, if there is one.
        ledger: what became of every row of the data.
    """

    said: NetworkSaid
    loaded: LoadedNetwork | None = None
    ledger: dict[str, Any] = field(default_factory=dict)

    def network(self) -> nn.Module:
        """The network with its first weights: drawn from the seed, or those of init_from; frozen as asked."""
        seed = self.recipe.seed
        if self.loaded is None:
            model = initialised(self.said, self.device, seed)
        else:
            model = go_on(self.loaded, self.said, seed=seed).to(self.device)
        apply(model, self.recipe.adapters, seed=seed)
        return model

    def stand_in(self) -> nn.Module:
        """A network of the run's sizes, to be thrown away."""
        model = initialised(self.said, self.device, 0)
        apply(model, self.recipe.adapters, seed=0)
        return model

    def objective(self, model: nn.Module) -> Objective:
        """The objective that the recipe names, on a model."""
        assert self.recipe.objective is not None
        return OBJECTIVES[self.recipe.objective.kind][1](self.recipe.objective, model)

    def small_files(self) -> dict[str, bytes]:
        """model.json and preparation.json."""
        return network_files(self.said)

    def meta_network(self) -> nn.Module:
        """The network without memory, to count and to name."""
        with torch.device("meta"):
            return network(self.said)

    def parameter_parts(self) -> list[dict[str, Any]]:
        """Parameters by the first part of their names under the body."""
        return by_first_part(self.meta_network())

    def memory(self, process: int) -> Memory:
        """Peak memory, roughly: what the rehearsal measures counts where it is more."""
        weights = sum(p.nbytes for p in self.meta_network().parameters())
        row = 4 * int(torch.tensor(self.said.shape).prod()) if self.said.shape else 4
        row += sum(4 * width + 8 for _, width in self.said.embeddings)
        rows = self.recipe.budget.micro_batch or 1
        return Memory(weights, weights, 2 * weights, ACTIVATIONS * row * rows, 0, process)

    def flops_per_unit(self, model: nn.Module) -> float:
        """Of one row."""
        return flops_of(model, (self.example(),))

    @property
    def units_per_row(self) -> float:
        """Each player draws rows of its own."""
        assert self.recipe.objective is not None
        return float(draws_of(self.recipe.objective))

    @abstractmethod
    def example(self) -> Any:
        """What the network is called with for one row."""

    def data_ledger(self) -> dict[str, Any]:
        """What became of every row of the data."""
        return self.ledger


@dataclass(kw_only=True)
class ExperienceWork(NetworkWork):
    """Work that makes its rows itself, by acting or playing with the network that learns. Such networks are small, so
    that they compute in float32 unless something else is asked for."""

    def __post_init__(self) -> None:
        if self.recipe.hardware.precision == "auto":
            self.precision = "float32"

    @property
    def rows_per_epoch(self) -> int:
        """None: experience has no end."""
        return 0

    def source(self) -> Source:
        """A stream needs a network to act with, so that it is made by `learning`."""
        return self.learning(self.stand_in())[1]


def require_network_options(said: NetworkSaid, loaded: LoadedNetwork | None) -> None:
    """Build the network once, so that sizes that do not fit the data are refused before anything is timed.

    Raises:
        GroundupError: of the family; E-MODEL-007 if the model to go on with reads other inputs.
    """
    if loaded is not None:
        require_same_inputs(loaded, said)
    try:
        network(said)
    except (ValueError, RuntimeError) as error:
        raise GroundupError(
            "E-MODEL-008",
            f"a network of family {said.family} cannot be built for this data: {error}",
            where=f"model: {said.options.model_dump()}, inputs of shape {list(said.shape)}",
            why="its sizes do not fit what goes in",
            fix="change the sizes in the model section",
            exit_code=2,
        ) from error


def require_whole_batches(work: NetworkWork) -> None:
    """Refuse a last batch of one row that the network cannot be trained on: where it normalises over the batch, the run
    would end in the middle of an epoch.

    Raises:
        GroundupError: E-MODEL-009.
    """
    rows, there = work.recipe.budget.micro_batch or 1, work.rows_per_epoch
    if (there % rows or rows) > 1 or not isinstance(model := work.meta_network(), Predictor):
        return
    with torch.device("meta"):
        one = one_row(work.said)
    try:
        with torch.no_grad():
            model.train()(one)
    except GroundupError as fault:
        good = next((n for n in range(rows + 1, there + 1) if (there % n or n) > 1), there)
        raise GroundupError(
            "E-MODEL-009",
            "batch normalisation would be given a batch of one row",
            where=f"{there:,} training rows in batches of {rows:,}: the last batch of an epoch has one",
            why="it divides by the deviation of a channel within the batch, and one value has none",
            fix=f"set budget.rows_per_step={good} and leave micro_batch out"
            + (", or another model.norm" if "norm" in type(work.said.options).model_fields else ""),
            exit_code=2,
        ) from fault
