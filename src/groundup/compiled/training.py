"""The C functions of a training step as torch functions with gradients: norm, SwiGLU, cross-entropy and attention.

They work on float32 tensors of the CPU. A run decides whether they are used (`use`), and its recipe says so: a resume
with other functions would round differently. `groundup.functional` asks `in_use()` and holds the plain forms.

Shapes: N rows, B rows, T positions, D width, F hidden width, V classes, H query heads, G key-value heads, K head size,
P = T rounded up to whole tiles, R = K/2.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.compiled.compiler import library, refusal

SOURCES = [Path(__file__).with_name(name) for name in ("passes.c", "attention.c")]
TILE, LANES, LARGEST_HEAD = 64, 16, 256
_use = False


@cache
def functions() -> ctypes.CDLL:
    """The compiled functions.

    Raises:
        Unavailable, OSError: see compiler.library.
    """
    loaded = library("training", SOURCES)
    loaded.attend_forward.restype = loaded.attend_backward.restype = ctypes.c_int64
    return loaded


def why_not() -> str | None:
    """Why there are no compiled functions; None if there are."""
    return refusal(functions)


@contextmanager
def use(compiled: bool) -> Iterator[None]:
    """Within the block the functions of `groundup.functional` take these, or the plain forms.

    Raises:
        Unavailable, OSError: they are asked for and there are none.
    """
    global _use
    if compiled:
        functions()
    before, _use = _use, compiled
    try:
        yield
    finally:
        _use = before


def in_use(*tensors: Tensor) -> bool:
    """Whether the compiled functions are to be used, and can work on such tensors."""
    if not _use or torch.is_autocast_enabled("cpu"):
        return False
    return all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _whole(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        x, size = x.contiguous(), x.shape[-1]
        rows = x.numel() // size
        out, inverse_N = torch.empty_like(x), torch.empty(rows)
        sizes = (_whole(rows), _whole(size), ctypes.c_float(epsilon))
        functions().norm_forward(_at(x), _at(weight_D), *sizes, _at(out), _at(inverse_N))
        ctx.save_for_backward(x, weight_D, inverse_N)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight_D, inverse_N = ctx.saved_tensors
        grad, size = grad_outputs[0].contiguous(), x.shape[-1]
        threads = torch.get_num_threads()
        grad_x, grad_weight, parts = torch.empty_like(x), torch.empty_like(weight_D), torch.empty(threads, size)
        given = (_at(x), _at(weight_D), _at(inverse_N), _at(grad), _whole(inverse_N.numel()), _whole(size))
        functions().norm_backward(*given, _at(grad_x), _at(grad_weight), _at(parts), _whole(threads))
        return grad_x, grad_weight, None


def norm(x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """See functional.rms_norm."""
    result: Tensor = _Norm.apply(x, weight_D.contiguous(), epsilon)
    return result


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        functions().swiglu_forward(_at(gate), _at(up), _whole(gate.numel()), _at(out))
        ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad, grad_gate, grad_up = grad_outputs[0].contiguous(), torch.empty_like(gate), torch.empty_like(up)
        given = (_at(gate), _at(up), _at(grad), _whole(gate.numel()))
        functions().swiglu_backward(*given, _at(grad_gate), _at(grad_up))
        return grad_gate, grad_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up; see functional.swiglu."""
    result: Tensor = _SwiGLU.apply(gate, up)
    return result


def cross_entropy_(logits_NV: Tensor, target_N: Tensor, *, gradient: bool) -> Tensor:
    """Cross-entropies (N) of contiguous logits, which are used up: with `gradient` they become the loss's gradient."""
    loss_N = torch.empty(logits_NV.shape[0])
    target_N = target_N.contiguous()
    rows, classes = map(_whole, logits_NV.shape)
    functions().cross_entropy(_at(logits_NV), _at(target_N), rows, classes, _at(loss_N), ctypes.c_int(gradient))
    return loss_N


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("rows", "length", "padded", "heads", "key_heads", "size"))


def _sizes(rows: int, length: int, heads: int, key_heads: int, size: int) -> _Sizes:
    return _Sizes(rows, length, -(-length // TILE) * TILE, heads, key_heads, size)


def _packed(sizes: _Sizes, x_BTHK: Tensor, cos_BTR: Tensor | None, sin_BTR: Tensor | None) -> Tensor:
    """(B, H, P, K), rotated where there are angles."""
    if x_BTHK.stride(-1) != 1:
        x_BTHK = x_BTHK.contiguous()
    heads = x_BTHK.shape[2]
    out = torch.empty(sizes.rows, heads, sizes.padded, sizes.size)
    strides = [_whole(stride) for stride in x_BTHK.stride()[:3]]
    angles = _whole(0 if cos_BTR is None else cos_BTR.stride(0))
    functions().pack(
        ctypes.byref(sizes), _at(x_BTHK), _whole(heads), *strides, _at(cos_BTR), _at(sin_BTR), angles, _at(out)
    )
    return out


def _unpacked(sizes: _Sizes, x_BHPK: Tensor, cos_BTR: Tensor | None, sin_BTR: Tensor | None) -> Tensor:
    """The reverse of `_packed` for a gradient, (B, T, H, K)."""
    heads = x_BHPK.shape[1]
    out = torch.empty(sizes.rows, sizes.length, heads, sizes.size)
    angles = _whole(0 if cos_BTR is None else cos_BTR.stride(0))
    given = (ctypes.byref(sizes), _at(x_BHPK), _whole(heads), _at(cos_BTR), _at(sin_BTR), angles)
    functions().unpack(*given, _at(out))
    return out


def _require_memory(failed: int) -> None:
    if failed:
        raise MemoryError("the scratch memory of attention")


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, start_BT: Tensor
    ) -> Tensor:
        rows, length, heads, size = query.shape
        sizes, scale = _sizes(rows, length, heads, key.shape[2], size), size**-0.5
        packed = _packed(sizes, query, cos, sin), _packed(sizes, key, cos, sin), _packed(sizes, value, None, None)
        out = torch.empty(rows, length, heads, size)
        logsum = torch.empty(rows, heads, sizes.padded)
        given = (ctypes.byref(sizes), *map(_at, packed), _at(start_BT), ctypes.c_float(scale))
        _require_memory(functions().attend_forward(*given, _at(out), _at(logsum)))
        ctx.save_for_backward(*packed, cos, sin, start_BT, out, logsum)
        ctx.sizes, ctx.scale = sizes, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, cos, sin, start_BT, out, logsum = ctx.saved_tensors
        sizes, grad = ctx.sizes, grad_outputs[0].contiguous()
        grads = [torch.zeros_like(part) for part in (query, key, value)]
        given = (ctypes.byref(sizes), _at(query), _at(key), _at(value), _at(start_BT), ctypes.c_float(ctx.scale))
        _require_memory(
            functions().attend_backward(*given, _at(out), _at(logsum), _at(grad), *[_at(part) for part in grads])
        )
        turned = [_unpacked(sizes, part, cos, sin) for part in grads[:2]]
        return *turned, _unpacked(sizes, grads[2], None, None), None, None, None


def fits_attention(head_size: int) -> bool:
    """Whether the compiled attention knows heads of that size."""
    return head_size % LANES == 0 and head_size <= LARGEST_HEAD


def attention(
    query_BTHK: Tensor, key_BTGK: Tensor, value_BTGK: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, start_BT: Tensor
) -> Tensor:
    """Rotary causal attention (B, T, H, K); see functional.rotary_attention. `start_BT` is int32."""
    cos_BTR, sin_BTR = cos_BTR.contiguous(), sin_BTR.contiguous()
    result: Tensor = _Attention.apply(query_BTHK, key_BTGK, value_BTGK, cos_BTR, sin_BTR, start_BT.contiguous())
    return result
