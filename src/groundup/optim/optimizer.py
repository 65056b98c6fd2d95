"""One player's optimizer: parameter groups by path, the schedule, and a state that is saved by name.

The arithmetic of AdamW and SGD is torch's; Muon is ours (muon.py). What is added here is what a run needs
around it: names instead of indices in the saved state, decay on matrices alone, the schedule as a pure
function of the step.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from groundup.errors import GroundupError
from groundup.optim.groups import is_hidden_matrix, is_muons, match_groups, rates
from groundup.optim.muon import Muon
from groundup.optim.options import AdamWOptions, MuonOptions, SGDOptions
from groundup.optim.schedules import factor


class Optimizer:
    """The optimizer of one player.

    Args:
        module: the network; parameters with `requires_grad=False` are left out entirely.
        options: kind and rates, with every derived number filled in.
        steps: length of the run, for the schedule.
        player: how the recipe calls it.

    Raises:
        GroundupError: nothing is trainable.
    """

    def __init__(
        self,
        module: nn.Module,
        options: AdamWOptions | SGDOptions | MuonOptions,
        *,
        steps: int,
        player: str = "model",
    ) -> None:
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
        self.rate = options.learning_rate or 0.0
        self.parts = self._build()

    def _build(self) -> list[torch.optim.Optimizer]:
        options, rate = self.options, self.rate
        chosen = {p for p, name in self.names.items() if isinstance(options, MuonOptions) and is_muons(name, p)}
        muons, rest = [p for p in self.names if p in chosen], [p for p in self.names if p not in chosen]
        parts: list[torch.optim.Optimizer] = []
        if isinstance(options, SGDOptions):
            momentum, nesterov = options.momentum, options.nesterov
            parts.append(torch.optim.SGD(self._groups(rest), lr=rate, momentum=momentum, nesterov=nesterov))
        elif rest:
            betas = (options.beta1, options.beta2)
            epsilon = options.epsilon if isinstance(options, AdamWOptions) else 1e-8
            parts.append(torch.optim.AdamW(self._groups(rest), lr=rate, betas=betas, eps=epsilon, fused=True))
        if muons and isinstance(options, MuonOptions):
            momentum, turns = options.momentum, options.iterations
            parts.insert(0, Muon(self._groups(muons), lr=rate, momentum=momentum, iterations=turns))
        return parts

    def _groups(self, parameters: list[Tensor]) -> list[dict[str, Any]]:
        """Parameters of equal rate and decay together. `scale` is the multiple of the learning rate."""
        options, names = self.options, list(self.names.values())
        multiples = rates(names, options.layer_decay)
        chosen = match_groups(names, options.groups, self.player)
        whole = isinstance(options, MuonOptions)
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for parameter in parameters:
            name = self.names[parameter]
            decays = is_hidden_matrix(name, parameter) and (not whole or is_muons(name, parameter))
            decay = options.weight_decay if decays else 0.0
            scale = multiples[name]
            if isinstance(options, MuonOptions) and not is_muons(name, parameter):
                scale *= options.adamw_scale
            if name in chosen:
                scale *= chosen[name].rate
                said = chosen[name].weight_decay
                decay = decay if said is None else said
            groups.setdefault((scale, decay), []).append(parameter)
        return [
            {"params": members, "weight_decay": decay, "scale": scale} for (scale, decay), members in groups.items()
        ]

    @property
    def parameters(self) -> list[Tensor]:
        """The trainable parameters, in the order of the module."""
        return list(self.names)

    def learning_rate(self, step: int) -> float:
        """The rate of 0-based step `step`."""
        return self.rate * factor(self.options.schedule, step, self.steps)

    def step(self, step: int) -> None:
        """Update with the gradients that are there, at the rate of 0-based step `step`."""
        rate = self.learning_rate(step)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * group["scale"]
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients and free their memory."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

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
            # torch keeps AdamW's step counter on the CPU unless it is fused on an accelerator
            target = value if value.dim() == 0 and parameter.device.type == "cpu" else value.to(parameter.device)
            owner[parameter].state[parameter][quantity] = target.clone()

    def bytes_of_state(self) -> int:
        """Memory of the optimizer's own tensors, in bytes."""
        tensors = itertools.chain.from_iterable(s.values() for part in self.parts for s in part.state.values())
        return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
