"""Weights laid out for decoder.c: panels of 16 outputs, in 32, 16, 8 or 4 bits.

Eight and four bits keep a scale (float16) for each 32 inputs of an output, as Q8_0 and Q4_0 do: the largest weight
of the group is the largest whole number. Nothing that computes with weights enters here.

Shapes: O outputs, I inputs, P panels, C = I/32 groups.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16", "int8", "int4"]
KINDS: dict[Precision, int] = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}
LARGEST = {"int8": 127, "int4": 7}
LANES, GROUP = 16, 32


@dataclass(frozen=True)
class Packed:
    """A matrix: `values` in panels, (P, I, 16) of float32, bfloat16 or int8, or (P, I/2, 16) uint8 of two weights
    each; `scales_PC16` float16 or None; `bias_O` float32 or None."""

    precision: Precision
    outputs: int
    inputs: int
    values: Tensor
    scales_PC16: Tensor | None
    bias_O: Tensor | None

    @property
    def bytes(self) -> int:
        return sum(one.nbytes for one in (self.values, self.scales_PC16, self.bias_O) if one is not None)

    def unpacked(self) -> Tensor:
        """The weights as they are computed with, float32 (O, I)."""
        if self.scales_PC16 is None:
            panels = self.values.float()
        else:
            whole = self.values
            if self.precision == "int4":
                whole = torch.stack([whole & 15, whole >> 4], dim=2).flatten(1, 2).to(torch.int8) - 8
            panels = whole.float() * self.scales_PC16.float().repeat_interleave(GROUP, dim=1)
        return panels.transpose(1, 2).reshape(-1, self.inputs)[: self.outputs]


def pack(
    weight_OI: Tensor, precision: Precision, bias_O: Tensor | None = None, functions: ctypes.CDLL | None = None
) -> Packed:
    """Lay a matrix out.

    Args:
        weight_OI: any floating dtype; for 8 and 4 bits I must be a multiple of 32.
        precision: of what is kept.
        bias_O: kept in float32.
        functions: of pack.c, which make the same bits many times faster; None: torch's.

    Raises:
        ValueError: I does not divide into groups.
    """
    outputs, inputs = weight_OI.shape
    if precision in LARGEST and inputs % GROUP:
        raise ValueError(f"{inputs} inputs do not divide into groups of {GROUP}")
    panels = -(-outputs // LANES)
    bias = None if bias_O is None else bias_O.detach().float().cpu().contiguous()
    if functions is not None and precision != "bfloat16":
        values, scales = _packed_by(functions, weight_OI.detach().float().cpu().contiguous(), precision)
        return Packed(precision, outputs, inputs, values, scales, bias)
    weight = torch.zeros(panels * LANES, inputs)
    weight[:outputs] = weight_OI.detach().float().cpu()
    scales = None
    if precision in LARGEST:
        grouped = weight.view(panels * LANES, inputs // GROUP, GROUP)
        scale = (grouped.abs().amax(dim=2) / LARGEST[precision]).half()
        # the weights are rounded by the scale as it is kept; one too small for float16 makes its group zero
        steps = torch.where(scale > 0, scale.float(), torch.inf)[..., None]
        whole = (grouped / steps).round_().clamp_(-LARGEST[precision], LARGEST[precision])
        weight = whole.to(torch.int8).view(-1, inputs)
        scales = scale.view(panels, LANES, -1).transpose(1, 2).contiguous()
    values = weight.view(panels, LANES, inputs).transpose(1, 2)
    if precision == "int4":
        low, high = ((values[:, start::2] + 8).to(torch.uint8) for start in (0, 1))
        values = low + 16 * high
    elif precision == "bfloat16":
        values = values.to(torch.bfloat16)
    return Packed(precision, outputs, inputs, values.contiguous(), scales, bias)


def _packed_by(functions: ctypes.CDLL, weight_OI: Tensor, precision: Precision) -> tuple[Tensor, Tensor | None]:
    """The values, and the scales where there are any, by the functions of pack.c."""
    outputs, inputs = weight_OI.shape
    panels = -(-outputs // LANES)
    sizes = (ctypes.c_int64(outputs), ctypes.c_int64(inputs))
    given = (ctypes.c_void_p(weight_OI.data_ptr()), *sizes)
    if precision == "float32":
        values = torch.empty(panels, inputs, LANES)
        functions.pack_float32(*given, ctypes.c_void_p(values.data_ptr()))
        return values, None
    four = precision == "int4"
    values = torch.empty(panels, inputs // (2 if four else 1), LANES, dtype=torch.uint8 if four else torch.int8)
    scales = torch.empty(panels, inputs // GROUP, LANES, dtype=torch.float16)
    how = (ctypes.c_float(LARGEST[precision]), ctypes.c_int(four))
    functions.pack_groups(*given, *how, ctypes.c_void_p(values.data_ptr()), ctypes.c_void_p(scales.data_ptr()))
    return values, scales
