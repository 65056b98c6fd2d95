"""What is done block by block to a stack of layers: compiling it, and recomputing it in backward."""

from __future__ import annotations

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint


def compile_blocks(blocks: nn.ModuleList) -> None:
    """torch.compile of each block in place.

    The blocks share their code, so one compilation serves them all: a deep model compiles as fast as a
    shallow one. Parameter names do not change.
    """
    for block in blocks:
        block.compile(dynamic=False)


def recompute_blocks(blocks: nn.ModuleList) -> None:
    """Keep only the inputs of each block for backward and compute the rest again there (Chen et al. 2016,
    arXiv:1604.06174). Values and gradients are unchanged."""
    for block in blocks:
        inner = block.forward
        block.forward = functools.partial(checkpoint, inner, use_reentrant=False)
