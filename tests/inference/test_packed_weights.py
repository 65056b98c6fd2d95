"""Packing by the compiled functions gives the same bits as packing by torch."""

from __future__ import annotations

import pytest
import torch

from groundup.inference import kernels
from groundup.inference.packed import Precision, pack

pytestmark = pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 32), (37, 96), (1, 32), (64, 128)])
def test_the_same_bits(precision: Precision, outputs: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(outputs)
    weight = torch.randn(outputs, inputs, generator=generator) * 10 ** torch.randn(outputs, 1, generator=generator)
    weight[0] = 0.0
    weight[-1, :4] = torch.tensor([1e-9, 1e30, -1e30, 65504.0])  # scales that float16 rounds to 0 and to infinity
    weight[outputs // 2, 5:8] = torch.tensor([0.5, 1.5, 2.5])
    one, two = pack(weight, precision), pack(weight, precision, functions=kernels.functions())
    assert torch.equal(one.values, two.values) and one.values.dtype == two.values.dtype
    assert (one.scales_PC16 is None) == (two.scales_PC16 is None)
    if one.scales_PC16 is not None and two.scales_PC16 is not None:
        assert torch.equal(one.scales_PC16, two.scales_PC16)


def test_every_scale_of_float16_is_rounded_alike() -> None:
    """Group by group over the whole range of a scale, halves between two neighbours included."""
    scales = torch.arange(0, 0x7C00, 7, dtype=torch.int16).view(torch.float16).float()
    between = (scales[:-1] + scales[1:]) / 2
    largest = torch.cat([scales, between])[:, None] * 127
    weight = torch.zeros(len(largest), 32)
    weight[:, :1] = largest
    one, two = pack(weight, "int8"), pack(weight, "int8", functions=kernels.functions())
    assert one.scales_PC16 is not None and two.scales_PC16 is not None
    assert torch.equal(one.scales_PC16, two.scales_PC16) and torch.equal(one.values, two.values)
