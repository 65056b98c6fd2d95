"""Pure tensor functions that several parts need. Imports torch alone; no state, no modules, no files.

Where a run says so, norm, SwiGLU, cross-entropy and attention of float32 on a CPU are those of `groundup.compiled`;
what stands here is their plain form.

Shapes: N targets, B rows, T positions, D width, V vocabulary, H heads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from groundup.compiled import training as compiled
from groundup.contract import IGNORE

CHUNK_ELEMENTS = 1 << 22
"""Logits held at once by `chunked_cross_entropy`, in elements (16 MiB in float32)."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies over hidden states and an output matrix, a few rows of logits at a time.

    The gradient of a *sum* is known up to the scalar that arrives in backward, so both gradients are made
    in the forward pass, while a chunk of logits is there anyway: logits are never kept nor computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, compute: torch.dtype, bias_V: Tensor | None
    ) -> Tensor:
        wants_hidden, wants_weight, *_, wants_bias = ctx.needs_input_grad
        weight = weight_VD.to(compute)
        rows = max(1, CHUNK_ELEMENTS // weight.shape[0])
        loss_N = torch.empty(hidden_ND.shape[0], dtype=torch.float32, device=hidden_ND.device)
        grad_hidden = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight = torch.zeros_like(weight_VD) if wants_weight else None
        grad_bias = torch.zeros_like(bias_V) if bias_V is not None and wants_bias else None
        for start in range(0, hidden_ND.shape[0], rows):
            part = slice(start, start + rows)
            hidden, target = hidden_ND[part].to(compute), target_N[part]
            logits = (hidden @ weight.T).float()
            if bias_V is not None:
                logits += bias_V
            loss_N[part] = _cross_entropy_(logits, target, gradient=wants_hidden or wants_weight or wants_bias)
            if grad_bias is not None:
                grad_bias += logits.sum(dim=0)
            if grad_hidden is None and grad_weight is None:
                continue
            grad = logits.to(compute)
            if grad_hidden is not None:
                grad_hidden[part] = grad @ weight
            if grad_weight is not None:
                grad_weight.addmm_(grad.T.to(grad_weight.dtype), hidden.to(grad_weight.dtype))
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return loss_N.sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, Tensor | None]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        scale = grad_outputs[0]
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * scale.to(grad_weight.dtype),
            None,
            None,
            None if grad_bias is None else grad_bias * scale.to(grad_bias.dtype),
        )


def _cross_entropy_(logits_NV: Tensor, target_N: Tensor, *, gradient: bool) -> Tensor:
    """Cross-entropies (N) of logits, which are used up: with `gradient` they become the loss's gradient."""
    if compiled.in_use(logits_NV):
        return compiled.cross_entropy_(logits_NV, target_N, gradient=gradient)
    logits_NV -= logits_NV.amax(dim=-1, keepdim=True)
    picked = logits_NV.gather(1, target_N[:, None]).squeeze(1)
    logits_NV.exp_()
    total = logits_NV.sum(dim=-1)
    if gradient:
        logits_NV /= total[:, None]  # now the probabilities: their gradient is p - onehot(target)
        logits_NV.scatter_add_(1, target_N[:, None], torch.full_like(picked, -1.0)[:, None])
    return total.log() - picked


def chunked_cross_entropy(
    hidden_BTD: Tensor, weight_VD: Tensor, target_BT: Tensor, bias_V: Tensor | None = None
) -> Tensor:
    """Sum of cross-entropies in nats over the targets that are not IGNORE, a float32 scalar.

    Equal to `cross_entropy(hidden @ weight.T + bias, target, reduction="sum", ignore_index=IGNORE)` in value and
    gradients, without ever holding more than `CHUNK_ELEMENTS` logits. Under autocast the matrix products
    run in its dtype, everything else in float32.

    Args:
        hidden_BTD: final hidden states, any floating dtype.
        weight_VD: the output matrix.
        target_BT: int64 class ids or IGNORE.
        bias_V: added to the logits; None: nothing is.
    """
    device = hidden_BTD.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_BTD.dtype
    target_N = target_BT.reshape(-1)
    valid = target_N != IGNORE
    hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
    if not bool(valid.all()):
        hidden_ND, target_N = hidden_ND[valid], target_N[valid]
    return _ChunkedCrossEntropy.apply(hidden_ND, weight_VD, target_N, compute, bias_V)


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) · weight in as few passes over memory as its gradient allows: on a CPU the composite form
    spends more time reading and writing than the matrix products beside it (five times slower, measured)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight_D, inverse)
        return torch.mul(x, inverse).mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight_D, inverse = ctx.saved_tensors
        (grad,) = grad_outputs
        size = x.shape[-1]
        product_ND = (grad * x).reshape(-1, size)
        inner = (product_ND @ weight_D).view(inverse.shape)
        grad_weight = inverse.reshape(-1) @ product_ND
        grad_x = (grad * weight_D).mul_(inverse)
        grad_x.addcmul_(x, inner.mul_(inverse).mul_(inverse).mul_(inverse), value=-1.0 / size)
        return grad_x, grad_weight, None


def rms_norm(x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """x / rms(x) · weight over the last dimension, in float32 (Zhang & Sennrich 2019, arXiv:1910.07467).

    Returns:
        A tensor like `x`, in its dtype.
    """
    if compiled.in_use(x, weight_D):
        return compiled.norm(x, weight_D, epsilon)
    if x.device.type == "cpu":
        return _RMSNorm.apply(x.float(), weight_D, epsilon).to(x.dtype)
    return torch.nn.functional.rms_norm(x.float(), weight_D.shape, weight_D, epsilon).to(x.dtype)


MERGED_ROWS = 512
"""Rows from which one product of several matrices is worth putting them together."""


def linears(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """Several linear layers of one input; with the compiled functions as one product, where they are plain layers and
    the rows are many. Its gradient for the input is then one product too, and needs no sum."""
    plain = [layer for layer in layers if isinstance(layer, nn.Linear) and _is_bare(layer)]
    if len(plain) < len(layers) or not compiled.in_use(x) or x.numel() < MERGED_ROWS * x.shape[-1]:
        return tuple(layer(x) for layer in layers)
    together = torch.nn.functional.linear(x, torch.cat([layer.weight for layer in plain]))
    return together.split([layer.out_features for layer in plain], dim=-1)


def _is_bare(layer: nn.Linear) -> bool:
    """Nothing but a product: no adapter in its class, no bias, nobody who watches it."""
    return type(layer) is nn.Linear and layer.bias is None and not layer._forward_hooks


def swiglu(x: Tensor, gate: nn.Module, up: nn.Module) -> Tensor:
    """silu(gate(x)) · up(x) (Shazeer 2020, arXiv:2002.05202)."""
    first, second = gate(x), up(x)
    if compiled.in_use(first, second):
        return compiled.swiglu(first, second)
    return torch.nn.functional.silu(first) * second


class _Rotate(torch.autograd.Function):
    """A rotation of pairs; its gradient is the rotation back, so nothing but the angles is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad_outputs[0], cos, sin, -1.0), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    result = torch.empty_like(x)
    first, second = x.chunk(2, dim=-1)
    first_result, second_result = result.chunk(2, dim=-1)
    torch.mul(first, cos, out=first_result).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=second_result).addcmul_(first, sin, value=sign)
    return result


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (k, k + K/2) of the last dimension by its angle (Su et al. 2021, arXiv:2104.09864).

    Args:
        x: (…, K).
        cos, sin: of the angles, (…, K/2), broadcast against the halves of `x`; they get no gradient.
    """
    return _Rotate.apply(x, cos.to(x.dtype), sin.to(x.dtype))


def attention_mask(document_BT: Tensor, window: int | None = None, *, causal: bool = True) -> Tensor:
    """Which key each query may see, a bool tensor (B, 1, T, T): the same document, not later where `causal`, and
    not farther away than `window` positions (sliding window; the query itself counts). A padding position
    (document -1) sees itself alone, so that no row of a softmax is empty."""
    length = document_BT.shape[1]
    position = torch.arange(length, device=document_BT.device)
    distance = position[:, None] - position[None, :]
    visible = document_BT[:, :, None] == document_BT[:, None, :]
    if causal:
        visible &= distance >= 0
    if window is not None:
        visible &= distance.abs() < window
    visible &= (document_BT >= 0)[:, :, None]
    return (visible | (distance == 0))[:, None]


def causal_mask(new: int, seen: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which of `seen + new` positions each of the new ones may see, bool (1, 1, new, seen + new); None where that is
    all of them, or those up to its own with none seen before."""
    if (window is None or window >= seen + new) and (new == 1 or not seen):
        return None
    document = torch.zeros(1, seen + new, dtype=torch.int64, device=device)
    return attention_mask(document, window)[:, :, seen:]


def attention(query_BHTK: Tensor, key_BGSK: Tensor, value_BGSK: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1), (B, H, T, K).

    Args:
        query_BHTK: H heads; G divides it, and H/G queries share a key (Ainslie et al. 2023, arXiv:2305.13245).
        key_BGSK, value_BGSK: of all positions.
        mask: which positions a query sees, bool (B or 1, 1, T, S); None: all for a single query, else those up to
            its own.
    """
    return torch.nn.functional.scaled_dot_product_attention(
        query_BHTK,
        key_BGSK,
        value_BGSK,
        attn_mask=mask,
        is_causal=mask is None and query_BHTK.shape[2] > 1,
        enable_gqa=query_BHTK.shape[1] != key_BGSK.shape[1],
    )


def rotary_attention(
    query_BTHK: Tensor,
    key_BTGK: Tensor,
    value_BTGK: Tensor,
    cos_BTR: Tensor,
    sin_BTR: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """Rotate queries and keys (`rotate_pairs`) and let each position look back, (B, T, H, K).

    Args:
        mask: as in `attention`; or, int32 (B, T), the first position that each one sees (`first_seen`).
    """
    if mask is not None and mask.dtype == torch.int32:
        return compiled.attention(query_BTHK, key_BTGK, value_BTGK, cos_BTR, sin_BTR, mask)
    query_BHTK = rotate_pairs(query_BTHK.transpose(1, 2), cos_BTR[:, None], sin_BTR[:, None])
    key_BGTK = rotate_pairs(key_BTGK.transpose(1, 2), cos_BTR[:, None], sin_BTR[:, None])
    return attention(query_BHTK, key_BGTK, value_BTGK.transpose(1, 2), mask).transpose(1, 2)


def first_seen(document_BT: Tensor, window: int | None = None) -> Tensor | None:
    """The first position that each one sees in causal attention among documents, int32 (B, T); padding (document -1)
    sees itself. None where a document stands in several pieces, which no such number describes."""
    length = document_BT.shape[1]
    position_T = torch.arange(length, device=document_BT.device)
    begins_BT = torch.ones_like(document_BT, dtype=torch.bool)
    begins_BT[:, 1:] = (document_BT[:, 1:] != document_BT[:, :-1]) | (document_BT[:, 1:] < 0)
    ordered_BT = document_BT.sort(dim=1).values
    again_BT = torch.zeros_like(begins_BT)
    again_BT[:, 1:] = ordered_BT[:, 1:] == ordered_BT[:, :-1]
    if int((begins_BT & (document_BT >= 0)).sum()) != int((~again_BT & (ordered_BT >= 0)).sum()):
        return None  # more pieces than documents
    start_BT = torch.where(begins_BT, position_T, 0).cummax(dim=1).values
    if window is not None:
        start_BT = start_BT.maximum(position_T - window + 1)
    return start_BT.to(torch.int32)


def global_norm(tensors: list[Tensor]) -> Tensor:
    """The 2-norm of all tensors taken as one vector, a float32 scalar."""
    if not tensors:
        return torch.zeros(())
    norms = torch._foreach_norm([t.detach() for t in tensors], 2)
    return torch.linalg.vector_norm(torch.stack([n.float() for n in norms]))


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """The model in evaluation mode (no dropout); exactly the modules that were training train again after."""
    training = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def spare_the_compiler(function: Callable[..., object]) -> None:
    """Let torch call one of its own functions without loading its compiler, which takes two to three seconds, only to
    be told to keep out of it. The mark is the one that torch leaves itself afterwards (torch/_compile.py); a torch
    without such marks loads it as before."""
    inside = inspect.unwrap(function)
    vars(inside).setdefault("__dynamo_disable", inside)
