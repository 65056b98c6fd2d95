"""One player's optimizer: parameter groups by path, the schedule, and a state that is saved by name.

The arithmetic of AdamW and SGD is torch's; Muon is ours (muon.py). What is added here is what a run needs
around it: names instead of indices in the saved state, decay on matrices alone, the schedule as a pure
function of the step.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from groundup.errors import GroundupError
from groundup.optim.muon import Muon
from groundup.optim.options import AdamWOptions, MuonOptions, SGDOptions
from groundup.optim.schedules import factor

EMBEDDING_PARTS = ("embedding.", "head.")
"""Parameters whose rows are looked up or compete in a softmax: no decay, and not a map between spaces."""


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter maps hidden states to hidden states: what Muon updates and what decays."""
    return parameter.dim() >= 2 and not any(part in name for part in EMBEDDING_PARTS)


class Optimizer:
    """The optimizer of one player.

    Args:
        module: the network; parameters with `requires_grad=False` are left out entirely.
        options: kind and rates, with every derived number filled in.
        steps: length of the run, for the schedule.

    Raises:
        GroundupError: nothing is trainable.
    """

    def __init__(
        self, module: nn.Module, options: AdamWOptions | SGDOptions | MuonOptions, *, steps: int
    ) -> None:
        self.options, self.steps = options, steps
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
        hidden = [p for p, name in self.names.items() if is_hidden_matrix(name, p)]
        rest = [p for p, name in self.names.items() if not is_hidden_matrix(name, p)]
        groups = [
            {"params": hidden, "weight_decay": options.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if isinstance(options, SGDOptions):
            sgd = torch.optim.SGD(groups, lr=rate, momentum=options.momentum, nesterov=options.nesterov)
            return [sgd]
        betas = (options.beta1, options.beta2)
        if isinstance(options, AdamWOptions):
            return [torch.optim.AdamW(groups, lr=rate, betas=betas, eps=options.epsilon, fused=True)]
        parts: list[torch.optim.Optimizer] = []
        if hidden:
            decay, turns = options.weight_decay, options.iterations
            parts.append(
                Muon(hidden, lr=rate, momentum=options.momentum, weight_decay=decay, iterations=turns)
            )
        if rest:
            scaled = rate * options.adamw_scale
            parts.append(torch.optim.AdamW(rest, lr=scaled, betas=betas, weight_decay=0.0, fused=True))
        for part in parts:
            for group in part.param_groups:
                group["scale"] = group["lr"] / rate
        return parts

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
                group["lr"] = rate * group.get("scale", 1.0)
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
