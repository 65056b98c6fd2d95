"""The pure functions against torch's composite forms, forward and backward."""

from __future__ import annotations

import pytest
import torch

from groundup.functional import rms_norm, rotate_pairs


@pytest.mark.parametrize("shape", [(3, 5, 8), (2, 3, 4, 6)])
def test_rms_norm_equals_the_composite_form(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape[-1], generator=generator, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(shape, generator=generator, dtype=torch.float64)
    (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight).backward(seed)
    expected = x.grad, weight.grad
    ours_x = x.detach().float().requires_grad_()
    ours_weight = weight.detach().float().requires_grad_()
    ours = rms_norm(ours_x, ours_weight, 1e-5)
    ours.backward(seed.float())
    torch.testing.assert_close(ours_x.grad.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours_weight.grad.double(), expected[1], rtol=1e-5, atol=1e-5)


def test_rms_norm_of_a_transposed_view() -> None:
    x = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1)).transpose(0, 1).requires_grad_()
    weight = torch.ones(8, requires_grad=True)
    expected = torch.nn.functional.rms_norm(x, (8,), weight, 1e-5)
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), expected)


def test_rotate_pairs_turns_and_its_gradient_turns_back() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 8, generator=generator, requires_grad=True)
    angle = torch.randn(2, 1, 5, 4, generator=generator)
    cos, sin = angle.cos(), angle.sin()
    first, second = x.chunk(2, dim=-1)
    expected = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    seed = torch.randn(2, 3, 5, 8, generator=generator)
    (gradient,) = torch.autograd.grad(expected, x, seed)
    ours = rotate_pairs(x, cos, sin)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(torch.autograd.grad(ours, x, seed)[0], gradient)
    torch.testing.assert_close(ours.norm(dim=-1), x.norm(dim=-1))
