"""torch's own optimizers: made from the options, and called without what torch lays around them, which loads its
compiler even where nothing is compiled."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from groundup.functional import spare_the_compiler
from groundup.optim.options import (
    AdagradOptions,
    AdamOptions,
    AdamWOptions,
    MuonOptions,
    OptimizerOptions,
    RMSpropOptions,
    SGDOptions,
)


@torch.no_grad()
def update(optimizer: torch.optim.Optimizer) -> None:
    """One step, without the hooks and graph breaks around it."""
    inspect.unwrap(type(optimizer).step)(optimizer)


def built(options: OptimizerOptions, groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    """The optimizer of torch that does what the options say; of Muon the part that is AdamW's."""
    spare_the_compiler(torch.optim.Optimizer.add_param_group)
    match options:
        case SGDOptions():
            return torch.optim.SGD(groups, lr=rate, momentum=options.momentum, nesterov=options.nesterov)
        case RMSpropOptions():
            return torch.optim.RMSprop(
                groups,
                lr=rate,
                alpha=options.alpha,
                eps=options.epsilon,
                momentum=options.momentum,
                centered=options.centered,
            )
        case AdagradOptions():
            return torch.optim.Adagrad(groups, lr=rate, eps=options.epsilon)
        case AdamOptions():
            betas = (options.beta1, options.beta2)
            return torch.optim.Adam(groups, lr=rate, betas=betas, eps=options.epsilon, fused=True)
        case AdamWOptions() | MuonOptions():
            epsilon = options.epsilon if isinstance(options, AdamWOptions) else 1e-8
            betas = (options.beta1, options.beta2)
            return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon, fused=True)
