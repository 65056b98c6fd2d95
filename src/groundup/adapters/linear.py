"""Products with a matrix that stands still, plain or quantized, and the low-rank term beside them.

Plain autograd would keep a copy of the frozen matrix for backward wherever its data type is not that of the
computation (bfloat16 autocast, quantized codes), and would pass over the output once more for each added term.
Here the matrix is made again in backward, and the term is added in place. Modules may not enter here.

Shapes: N positions (any leading dimensions), I inputs, O outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Dense = Callable[[torch.dtype], Tensor]
"""Makes the matrix (O, I) in that data type."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """The data type of a product with `x`: autocast's where it is on, else that of `x`."""
    device = x.device.type
    device = "cpu" if device == "meta" else device  # which has no autocast of its own
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _FrozenProduct(torch.autograd.Function):
    """x Wᵀ + b; nothing but the recipe of W is kept."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, bias_O: Tensor | None, dense: Dense, dtype: torch.dtype) -> Tensor:
        ctx.dense, ctx.input_dtype = dense, x_NI.dtype
        y_NO = F.linear(x_NI.to(dtype), dense(dtype))
        # added afterwards: with a bias torch hands out a view, which must not be changed in place
        return y_NO if bias_O is None else y_NO.add_(bias_O.to(dtype))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad_NO,) = grad_outputs
        grad_x = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_NO @ ctx.dense(grad_NO.dtype)).to(ctx.input_dtype)
        if ctx.needs_input_grad[1]:
            grad_bias = grad_NO.float().reshape(-1, grad_NO.shape[-1]).sum(0)
        return grad_x, grad_bias, None, None


def frozen_product(x_NI: Tensor, dense: Dense, bias_O: Tensor | None = None) -> Tensor:
    """x Wᵀ + b (N, O) with a matrix that gets no gradient; in the data type of the computation."""
    return _FrozenProduct.apply(x_NI, bias_O, dense, compute_dtype(x_NI))


class _AddLowRank(torch.autograd.Function):
    """y += (x Aᵀ) Bᵀ in place. `x` is kept as it came: layers that share an input share what is kept."""

    @staticmethod
    def forward(ctx: Any, y_NO: Tensor, x_NI: Tensor, a_RI: Tensor, b_OR: Tensor) -> Tensor:
        dtype = y_NO.dtype
        down_NR = x_NI.reshape(-1, x_NI.shape[-1]).to(dtype) @ a_RI.to(dtype).T
        y_NO.view(-1, y_NO.shape[-1]).addmm_(down_NR, b_OR.to(dtype).T)
        ctx.mark_dirty(y_NO)
        ctx.save_for_backward(x_NI, a_RI, b_OR, down_NR)
        return y_NO

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        x_NI, a_RI, b_OR, down_NR = ctx.saved_tensors
        grad_NO = grad_outputs[0].reshape(-1, b_OR.shape[0])
        grad_b = (grad_NO.T @ down_NR).to(b_OR.dtype)
        grad_down_NR = grad_NO @ b_OR.to(grad_NO.dtype)
        grad_a = (grad_down_NR.T @ x_NI.reshape(-1, x_NI.shape[-1]).to(grad_NO.dtype)).to(a_RI.dtype)
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = (grad_down_NR @ a_RI.to(grad_NO.dtype)).view(x_NI.shape).to(x_NI.dtype)
        return grad_outputs[0], grad_x, grad_a, grad_b


def add_low_rank(y_NO: Tensor, x_NI: Tensor, a_RI: Tensor, b_OR: Tensor) -> Tensor:
    """y + (x Aᵀ) Bᵀ, computed in the data type of `y`, which is changed in place and must not be needed else."""
    return _AddLowRank.apply(y_NO, x_NI, a_RI, b_OR)
