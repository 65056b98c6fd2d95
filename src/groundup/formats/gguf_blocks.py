"""The block types of GGUF: quantized bytes to float32 and back, each exactly as ggml's reference code does it.

A tensor is a run of blocks along its rows. A block holds a few dozen weights as small whole numbers and one or more
scales in half precision; how its bytes are laid out stands in a numpy dtype per type. Nothing here opens a file.

Shapes: N blocks of a tensor or of a piece of it, E weights of a block (32, or 256 for the types with K in their name).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

PIECE = 1 << 18
"""Weights converted at a time: what a core's own cache holds, so that each is read from memory once."""


class Kind(NamedTuple):
    """A type of tensor: its number in a file, the weights of a block, and the bytes of one."""

    number: int
    elements: int
    size: int


KINDS = {
    "F32": Kind(0, 1, 4),
    "F16": Kind(1, 1, 2),
    "Q4_0": Kind(2, 32, 18),
    "Q4_1": Kind(3, 32, 20),
    "Q5_0": Kind(6, 32, 22),
    "Q5_1": Kind(7, 32, 24),
    "Q8_0": Kind(8, 32, 34),
    "Q4_K": Kind(12, 256, 144),
    "Q5_K": Kind(13, 256, 176),
    "Q6_K": Kind(14, 256, 210),
    "BF16": Kind(30, 1, 2),
}
"""The types that are read."""

OTHER_KINDS = {
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}
"""Types that exist and are not read, so that an error can name them."""

_LAYOUTS = {
    "Q4_0": np.dtype([("scale", "<f2"), ("low", "u1", 16)]),
    "Q4_1": np.dtype([("scale", "<f2"), ("least", "<f2"), ("low", "u1", 16)]),
    "Q5_0": np.dtype([("scale", "<f2"), ("high", "u1", 4), ("low", "u1", 16)]),
    "Q5_1": np.dtype([("scale", "<f2"), ("least", "<f2"), ("high", "u1", 4), ("low", "u1", 16)]),
    "Q8_0": np.dtype([("scale", "<f2"), ("value", "i1", 32)]),
    "Q4_K": np.dtype([("scale", "<f2"), ("least", "<f2"), ("scales", "u1", 12), ("low", "u1", (4, 32))]),
    "Q5_K": np.dtype(
        [("scale", "<f2"), ("least", "<f2"), ("scales", "u1", 12), ("high", "u1", 32), ("low", "u1", (4, 32))]
    ),
    "Q6_K": np.dtype([("low", "u1", (2, 64)), ("high", "u1", (2, 32)), ("scales", "i1", 16), ("scale", "<f2")]),
}


def dequantize(kind: str, data: Bytes, shape: tuple[int, ...]) -> Tensor:
    """The weights of a tensor, float32.

    Args:
        kind: a key of `KINDS`.
        data: its bytes, as many as `shape` takes; they may be read-only and unaligned.
        shape: rows first, as torch counts.
    """
    if kind == "F32":
        return torch.from_numpy(data.view("<f4").astype(np.float32).reshape(shape))
    if kind == "F16":
        return torch.from_numpy(data.view("<f2").astype(np.float32).reshape(shape))
    if kind == "BF16":
        bits = data.view("<u2").astype(np.uint32) << np.uint32(16)
        return torch.from_numpy(bits.view(np.float32).reshape(shape))
    blocks, elements = data.view(_LAYOUTS[kind]), KINDS[kind].elements
    out = np.empty((len(blocks), elements), dtype=np.float32)
    step = PIECE // elements
    # a scale that is not finite gives weights that are not: the caller's matter, and no reason to warn
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(blocks), step):
            _UNPACK[kind](blocks[start : start + step], out[start : start + step])
    return torch.from_numpy(out.reshape(shape))


def quantize(kind: str, tensor: Tensor) -> Bytes:
    """The bytes of a tensor in type F32, F16, BF16, Q8_0 or Q4_0.

    Args:
        tensor: floating-point; for Q8_0 and Q4_0 its rows are a multiple of 32 long.
    """
    flat = tensor.detach().cpu().contiguous().float().reshape(-1)
    if kind == "BF16":
        return flat.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint8)
    weights = flat.numpy()
    if kind == "F32":
        return weights.astype("<f4", copy=False).view(np.uint8)
    if kind == "F16":
        with np.errstate(over="ignore"):  # the caller looks for infinities
            return weights.astype("<f2").view(np.uint8)
    values = weights.reshape(-1, KINDS[kind].elements)
    blocks = np.empty(len(values), dtype=_LAYOUTS[kind])
    step = PIECE // KINDS[kind].elements
    with np.errstate(divide="ignore", over="ignore"):
        for start in range(0, len(values), step):
            _PACK[kind](values[start : start + step], blocks[start : start + step])
    return blocks.view(np.uint8)


def _column(field: NDArray[np.float16]) -> Floats:
    return field.astype(np.float32)[:, None]


def _nibbles(low_N16: Bytes, out_NE: Floats) -> None:
    """The lower halves of 16 bytes, then the upper ones."""
    out_NE[:, :16] = low_N16 & np.uint8(15)
    out_NE[:, 16:] = low_N16 >> np.uint8(4)


def _five_bits(blocks: NDArray[np.void], out_NE: Floats) -> None:
    """Four bits from the nibbles and a fifth from a row of bits."""
    _nibbles(blocks["low"], out_NE)
    fifth = np.unpackbits(np.ascontiguousarray(blocks["high"]), axis=1, bitorder="little")
    out_NE += fifth << np.uint8(4)


def _q4_0(blocks: NDArray[np.void], out_NE: Floats) -> None:
    _nibbles(blocks["low"], out_NE)
    out_NE -= np.float32(8)
    out_NE *= _column(blocks["scale"])


def _q4_1(blocks: NDArray[np.void], out_NE: Floats) -> None:
    _nibbles(blocks["low"], out_NE)
    out_NE *= _column(blocks["scale"])
    out_NE += _column(blocks["least"])


def _q5_0(blocks: NDArray[np.void], out_NE: Floats) -> None:
    _five_bits(blocks, out_NE)
    out_NE -= np.float32(16)
    out_NE *= _column(blocks["scale"])


def _q5_1(blocks: NDArray[np.void], out_NE: Floats) -> None:
    _five_bits(blocks, out_NE)
    out_NE *= _column(blocks["scale"])
    out_NE += _column(blocks["least"])


def _q8_0(blocks: NDArray[np.void], out_NE: Floats) -> None:
    out_NE[:] = blocks["value"]
    out_NE *= _column(blocks["scale"])


def _sub_scales(blocks: NDArray[np.void]) -> tuple[Floats, Floats]:
    """Scale and least value of the eight sub-blocks, (N, 8, 1) each: six bits apiece, packed into twelve bytes
    (`get_scale_min_k4` of ggml-quants.c)."""
    first, second, upper = np.split(blocks["scales"], 3, axis=1)
    scales = np.concatenate([first & 63, (upper & 15) | ((first >> 2) & 48)], axis=1)
    least = np.concatenate([second & 63, (upper >> 4) | ((second >> 2) & 48)], axis=1)
    scale_N8 = _column(blocks["scale"]) * scales.astype(np.float32)
    least_N8 = _column(blocks["least"]) * least.astype(np.float32)
    return scale_N8[:, :, None], least_N8[:, :, None]


def _q4_k(blocks: NDArray[np.void], out_NE: Floats) -> None:
    scale, least = _sub_scales(blocks)
    values = out_NE.reshape(-1, 8, 32)
    values[:, 0::2] = blocks["low"] & np.uint8(15)
    values[:, 1::2] = blocks["low"] >> np.uint8(4)
    values *= scale
    values -= least


def _q5_k(blocks: NDArray[np.void], out_NE: Floats) -> None:
    scale, least = _sub_scales(blocks)
    values = out_NE.reshape(-1, 8, 32)
    values[:, 0::2] = blocks["low"] & np.uint8(15)
    values[:, 1::2] = blocks["low"] >> np.uint8(4)
    fifth = (blocks["high"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    values += fifth << np.uint8(4)
    values *= scale
    values -= least


def _q6_k(blocks: NDArray[np.void], out_NE: Floats) -> None:
    low, high = blocks["low"], blocks["high"]
    values = out_NE.reshape(-1, 2, 4, 32)
    values[:, :, :2] = (low & np.uint8(15)).reshape(-1, 2, 2, 32)
    values[:, :, 2:] = (low >> np.uint8(4)).reshape(-1, 2, 2, 32)
    shift = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    values += ((high[:, :, None, :] >> shift) & np.uint8(3)) << np.uint8(4)
    values -= np.float32(32)
    scale = _column(blocks["scale"]) * blocks["scales"].astype(np.float32)
    sixteens = out_NE.reshape(-1, 16, 16)
    sixteens *= scale[:, :, None]


def _pack_q8_0(values_NE: Floats, blocks: NDArray[np.void]) -> None:
    scale = np.abs(values_NE).max(axis=1, keepdims=True) / 127
    scaled = values_NE * np.where(scale == 0, 0, 1 / scale)
    size = np.abs(scaled)
    whole = np.floor(size)
    whole += np.floor(2 * (size - whole))  # halves away from zero, as C rounds
    blocks["scale"] = scale[:, 0]
    blocks["value"] = (np.sign(scaled) * whole).astype(np.int8)


def _pack_q4_0(values_NE: Floats, blocks: NDArray[np.void]) -> None:
    largest = np.take_along_axis(values_NE, np.abs(values_NE).argmax(axis=1, keepdims=True), axis=1)
    scale = largest / -8
    scaled = values_NE * np.where(scale == 0, 0, 1 / scale)
    codes = np.trunc(scaled + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    blocks["scale"] = scale[:, 0]
    blocks["low"] = codes[:, :16] | (codes[:, 16:] << np.uint8(4))


_UNPACK: dict[str, Callable[[NDArray[np.void], Floats], None]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
_PACK: dict[str, Callable[[Floats, NDArray[np.void]], None]] = {"Q8_0": _pack_q8_0, "Q4_0": _pack_q4_0}
