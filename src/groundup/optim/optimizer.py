"""One player's optimizer: parameter groups by path, the schedule, and a state that is saved by name.

The arithmetic is torch's, but for Muon (muon.py) and the L1 step. What is added here is what a run needs
around it: names instead of indices in the saved state, decay on matrices alone, the schedule as a pure
function of the step.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.errors import GroundupError
from groundup.optim.groups import is_muons, match_groups, penalised, rates
from groundup.optim.muon import Muon
from groundup.optim.options import MuonOptions, OptimizerOptions
from groundup.optim.schedules import factor
from groundup.optim.torchs import built, update


class Optimizer:
    """The optimizer of one player.

    Args:
        module: the network; parameters with `requires_grad=False` are left out entirely.
        options: kind and rates, with every derived number filled in.
        steps: length of the run, for the schedule.
        player: how the recipe calls it.

    Raises:
        GroundupError: E-RUN-010 nothing is trainable; E-RECIPE-060 nothing that is takes the L1 penalty; E-RECIPE-061
            the layer decay tells no layers apart.
    """

    def __init__(self, module: nn.Module, options: OptimizerOptions, *, steps: int, player: str = "model") -> None:
        self.options, self.steps, self.player = options, steps, player
        self.names: dict[Tensor, str] = {p: name for name, p in module.named_parameters() if p.requires_grad}
        if not self.names:
            raise GroundupError(
                "E-RUN-010",
                "no parameter of the model is trainable",
                where="model",
                why="an optimizer without parameters would run the whole budget and change nothing",
                fix="unfreeze at least one part of the model",
            )
        self.looks_up = any(isinstance(part, nn.Embedding) for part in module.modules())
        self.rate, self.factor = options.learning_rate or 0.0, 1.0
        self.parts = self._build()
        if options.l1 and not any(group["l1"] for part in self.parts for group in part.param_groups):
            raise GroundupError(
                "E-RECIPE-060",
                f"optim.{player}.l1 is {options.l1:g}, but none of the {len(self.names)} trainable parameters takes it",
                where=f"optim.{player}.l1",
                why="the penalty spares norms, biases, embeddings and heads, unless a group names them",
                fix=f"set optim.{player}.groups=[{{pattern: head.*weight, l1: {options.l1:g}}}], or remove l1",
                exit_code=2,
            )

    def _build(self) -> list[torch.optim.Optimizer]:
        options, rate = self.options, self.rate
        chosen = {p for p, name in self.names.items() if isinstance(options, MuonOptions) and is_muons(name, p)}
        muons, rest = [p for p in self.names if p in chosen], [p for p in self.names if p not in chosen]
        parts: list[torch.optim.Optimizer] = []
        if muons and isinstance(options, MuonOptions):
            momentum, turns = options.momentum, options.iterations
            parts.append(Muon(self._groups(muons), lr=rate, momentum=momentum, iterations=turns))
        if rest:
            parts.append(built(options, self._groups(rest), rate))
        return parts

    def _groups(self, parameters: list[Tensor]) -> list[dict[str, Any]]:
        """Parameters of equal rate and penalties together. `scale` is the multiple of the learning rate."""
        options, names = self.options, list(self.names.values())
        multiples = rates(names, options.layer_decay)
        if options.layer_decay is not None and len(names) > 1 and set(multiples.values()) == {1.0}:
            raise GroundupError(
                "E-RECIPE-061",
                f"optim.{self.player}.layer_decay does nothing: no two trainable parameters are in different layers",
                where=f"optim.{self.player}.layer_decay: {options.layer_decay:g}",
                why="layers are told by names such as layers.0., and each learns slower than the one above it",
                fix=f"remove it, or set rates by name: optim.{self.player}.groups=[{{pattern: NAME, rate: 0.1}}]",
                exit_code=2,
            )
        chosen = match_groups(names, options.groups, self.player)
        whole = isinstance(options, MuonOptions)
        groups: dict[tuple[float, float, float], list[Tensor]] = {}
        for parameter in parameters:
            name = self.names[parameter]
            spared = whole and not is_muons(name, parameter) and parameter.dim() < 4
            decays = penalised(name, parameter, looks_up=self.looks_up) and not spared
            decay, l1 = (options.weight_decay, options.l1) if decays else (0.0, 0.0)
            scale = multiples[name]
            if isinstance(options, MuonOptions) and not is_muons(name, parameter):
                scale *= options.adamw_scale
            if name in chosen:
                scale *= chosen[name].rate
                said, said_l1 = chosen[name].weight_decay, chosen[name].l1
                decay, l1 = decay if said is None else said, l1 if said_l1 is None else said_l1
            groups.setdefault((scale, decay, l1), []).append(parameter)
        return [
            {"params": members, "weight_decay": decay, "scale": scale, "l1": l1}
            for (scale, decay, l1), members in groups.items()
        ]

    @property
    def parameters(self) -> list[Tensor]:
        """The trainable parameters, in the order of the module."""
        return list(self.names)

    def learning_rate(self, step: int) -> float:
        """The rate of 0-based step `step`: that of the schedule, times `factor`, which a plateau lowers."""
        return self.rate * self.factor * factor(self.options.schedule, step, self.steps)

    def step(self, step: int) -> None:
        """Update with the gradients that are there, at the rate of 0-based step `step`."""
        rate = self.learning_rate(step)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * group["scale"]
            update(part)
            for group in part.param_groups:
                if group["l1"]:
                    shrink(group["params"], group["l1"] * group["lr"])

    def zero_grad(self) -> None:
        """Forget the gradients and free their memory."""
        for parameter in self.names:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the optimizer carries on, named `PARAMETER/QUANTITY`."""
        return {
            f"{self.names[parameter]}/{key}": value
            for part in self.parts
            for parameter, state in part.state.items()
            for key, value in sorted(state.items())
            if isinstance(value, Tensor)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what `state_dict` gave; the parameters must be the same."""
        by_name = {name: parameter for parameter, name in self.names.items()}
        owner = {p: part for part in self.parts for group in part.param_groups for p in group["params"]}
        unknown = sorted(key for key in state if key.rpartition("/")[0] not in by_name)
        if unknown:
            raise GroundupError(
                "E-RUN-011",
                f"the saved optimizer has {len(unknown)} entries that no trainable parameter owns",
                where=", ".join(unknown[:5]),
                why="a resumed optimizer must belong to the same trainable parameters",
                fix="resume with the recipe of the run, or start a new run with model.init_from",
            )
        for part in self.parts:
            part.state.clear()
        for key, value in state.items():
            name, _, quantity = key.rpartition("/")
            parameter = by_name[name]
            # torch keeps step counters on the CPU, except those of fused optimizers
            stays = quantity == "step" and not owner[parameter].defaults.get("fused")
            owner[parameter].state[parameter][quantity] = value.to("cpu" if stays else parameter.device, copy=True)

    def bytes_of_state(self) -> int:
        """Memory of the optimizer's own tensors, in bytes."""
        tensors = itertools.chain.from_iterable(s.values() for part in self.parts for s in part.state.values())
        return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


@torch.no_grad()
def shrink(parameters: list[Tensor], distance: float) -> None:
    """Move every weight that has a gradient towards 0 by `distance`, and those that would pass 0 to 0 itself: the
    proximal step of an L1 penalty (Parikh & Boyd 2014, Proximal Algorithms, section 6.5.2)."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.copy_(F.softshrink(parameter, distance))
