"""What the kinds of data that are no language share as work for a run: a network that is built from the data's shapes,
whose steps are counted in rows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from groundup.adapters import apply
from groundup.contract import Objective
from groundup.errors import GroundupError
from groundup.models import NetworkOptions
from groundup.objectives import OBJECTIVES
from groundup.objectives.adversarial import AdversarialOptions
from groundup.recipe.check import Check
from groundup.recipe.check_rows import fits_network
from groundup.recipe.faults import Places, raise_all
from groundup.recipe.resolve_rows import players_of
from groundup.recipe.tree import ModelOptions, Recipe
from groundup.run.networks import (
    LoadedNetwork,
    NetworkSaid,
    flops_of,
    go_on,
    initialised,
    network,
    network_files,
    require_same_inputs,
)
from groundup.run.work import Memory, Work

ACTIVATIONS = 8
"""How many times the bytes of its own inputs a row is taken to keep, before a rehearsal has measured it."""


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

    def parameter_parts(self) -> list[dict[str, Any]]:
        """Parameters by the first part of their names under the body."""
        counts: dict[str, int] = {}
        for name, parameter in network(self.said).named_parameters():
            part = name.removeprefix("body.").split(".")[0]
            counts[part] = counts.get(part, 0) + parameter.numel()
        return [{"name": name, "parameters": number} for name, number in counts.items()]

    def memory(self, process: int) -> Memory:
        """Peak memory, roughly: what the rehearsal measures counts where it is more."""
        model = network(self.said)
        weights = sum(p.nbytes for p in model.parameters())
        row = 4 * int(torch.tensor(self.said.shape).prod()) if self.said.shape else 4
        rows = self.recipe.budget.micro_batch or 1
        return Memory(weights, weights, 2 * weights, ACTIVATIONS * row * rows, 0, process)

    def flops_per_unit(self, model: nn.Module) -> float:
        """Of one row."""
        return flops_of(model, (self.example(),))

    @property
    def units_per_row(self) -> float:
        """Each player draws rows of its own."""
        assert self.recipe.objective is not None
        if isinstance(self.recipe.objective, AdversarialOptions):
            return self.recipe.objective.critic_steps + 1.0
        return float(len(players_of(self.recipe.objective.kind)))

    @abstractmethod
    def example(self) -> Any:
        """What the network is called with for one row."""

    def data_ledger(self) -> dict[str, Any]:
        """What became of every row of the data."""
        return self.ledger


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
    """Refuse a batch of one row where a network normalises over the batch: one value has no deviation, and the run
    would end in the middle of an epoch.

    Raises:
        GroundupError: E-MODEL-009.
    """
    rows, there = work.recipe.budget.micro_batch or 1, work.rows_per_epoch
    last = there % rows or rows
    normed = [m for m in network(work.said).modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if last > 1 or not normed:
        return
    raise GroundupError(
        "E-MODEL-009",
        "batch normalisation would be given a batch of one row",
        where=f"{there:,} training rows in batches of {rows:,}: the last batch of an epoch has {last}",
        why="it divides by the deviation of a channel within the batch, and one value has none",
        fix=f"set budget.rows_per_step={rows + 1}, or another norm in the model section",
        exit_code=2,
    )
