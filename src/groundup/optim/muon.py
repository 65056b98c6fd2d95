"""Muon: momentum whose update is orthogonalised by a Newton–Schulz iteration (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/), with the step scaled to the update size of AdamW
(Liu et al. 2025, arXiv:2502.16982, section 2.2).

Matrices of one shape are stacked and iterated together: on small models the cost is in the number of
matrix products, not in their size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from groundup.functional import spare_the_compiler

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that pulls singular values towards one (Jordan et al.)."""


def orthogonalise(matrix_NRC: Tensor, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values land in about 0.7 to 1.2.

    Args:
        matrix_NRC: a stack of N matrices, float.
        iterations: quintic Newton–Schulz steps.
    """
    a, b, c = COEFFICIENTS
    wide = matrix_NRC.shape[-2] <= matrix_NRC.shape[-1]
    x = matrix_NRC if wide else matrix_NRC.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Muon for the two-dimensional parameters of a network's hidden layers.

    One step: m ← μ·m + g; the Nesterov look-ahead g + μ·m is orthogonalised, scaled by
    0.2·sqrt(max(rows, columns)) so that its root mean square equals AdamW's typical 0.2, and subtracted
    with the learning rate after decoupled weight decay.
    """

    def __init__(
        self, params: Any, *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0, iterations: int = 5
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations}
        spare_the_compiler(torch.optim.Optimizer.add_param_group)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, parameters in by_shape.items():
                buffers = [self._momentum(parameter) for parameter in parameters]
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                torch._foreach_mul_(buffers, group["momentum"])
                torch._foreach_add_(buffers, gradients)
                ahead = torch._foreach_add(gradients, buffers, alpha=group["momentum"])
                update = orthogonalise(torch.stack(ahead).float(), group["iterations"])
                scale = 0.2 * max(shape) ** 0.5 * group["lr"]
                if group["weight_decay"]:
                    torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(update.to(parameters[0].dtype).unbind()), alpha=-scale)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]
