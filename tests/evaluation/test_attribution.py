"""Attributions against captum and closed forms, and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients, Occlusion, Saliency
from torch import Tensor, nn

from groundup.errors import GroundupError
from groundup.evaluation.attribution import (
    TOLERANCE,
    Attribution,
    integrated_gradients,
    occlusion,
    saliency,
    windows,
)


def network(*layers: nn.Module) -> nn.Module:
    """Layers in float64 with weights of a fixed seed."""
    model = nn.Sequential(*layers).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
    return model


def score_of(model: nn.Module, output: int = 1) -> Callable[[Tensor], Tensor]:
    return lambda points: model(points)[:, output]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Captum makes its masks in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


SMOOTH = network(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
KINKED = network(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
IMAGES = network(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 5, 3))


@pytest.mark.parametrize("model", [SMOOTH, KINKED, IMAGES], ids=["smooth", "kinked", "images"])
@pytest.mark.parametrize("steps", [2, 50])
def test_integrated_gradients_equal_captum(model: nn.Module, steps: int) -> None:
    shape = (2, 9, 7) if model is IMAGES else (6,)
    x, baseline = drawn(*shape), drawn(*shape, seed=1)
    own = integrated_gradients(score_of(model), x, baseline, steps=steps, rows=7)
    theirs, delta = IntegratedGradients(model).attribute(
        x[None], baseline[None], target=1, n_steps=steps, method="riemann_middle", return_convergence_delta=True
    )
    # captum rounds the weights of its steps to float32, whatever the model computes in
    assert torch.allclose(own.values, theirs[0], rtol=1e-7, atol=1e-7)
    assert own.gap == pytest.approx(float(delta), abs=1e-6)


def test_integrated_gradients_equal_captum_in_float32() -> None:
    model = network(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).float()
    x = drawn(6).float()
    own = integrated_gradients(score_of(model), x, torch.zeros(6))
    theirs = IntegratedGradients(model).attribute(x[None], target=1, n_steps=50, method="riemann_middle")
    assert torch.allclose(own.values, theirs[0].double(), rtol=0, atol=1e-6)


def test_saliency_equals_captum() -> None:
    x = drawn(2, 9, 7).requires_grad_()
    own = saliency(score_of(IMAGES), x.detach(), torch.zeros_like(x))
    assert torch.allclose(own.values, Saliency(IMAGES).attribute(x[None], target=1)[0], rtol=0, atol=1e-12)
    assert own.gap is None and own.relative_gap is None


@pytest.mark.parametrize("size, stride", [(3, 2), (2, 2), (4, 1), (5, 4), (20, 3)])
def test_occlusion_of_windows_equals_captum(size: int, stride: int, in_float64: None) -> None:
    x, baseline = drawn(2, 9, 7), torch.full((2, 9, 7), 0.25, dtype=torch.float64)
    own = occlusion(score_of(IMAGES), x, baseline, windows(9, 7, size, stride), rows=5)
    window = (2, min(size, 9), min(size, 7))
    strides = (2, min(stride, 9), min(stride, 7))
    theirs = Occlusion(IMAGES).attribute(x[None], window, strides=strides, baselines=0.25, target=1)
    assert float((own.values - theirs[0]).abs().max()) < 1e-6  # captum adds up in float32


def test_windows_cover_every_pixel() -> None:
    for height, width, size, stride in ((9, 7, 3, 2), (8, 8, 4, 2), (5, 11, 2, 2), (3, 3, 5, 2), (10, 10, 3, 3)):
        seen = torch.stack([mask.expand(1, height, width) for mask in windows(height, width, size, stride)])
        assert bool(seen.any(dim=0).all()), (height, width, size, stride)
        assert bool(seen.flatten(1).any(dim=1).all()), "a window that holds nothing"


def test_occlusion_of_groups_equals_captum() -> None:
    x, groups = drawn(6), torch.tensor([0, 0, 1, 2, 2, 2])
    own = occlusion(score_of(KINKED), x, torch.zeros_like(x), [groups == number for number in range(3)])
    theirs = FeatureAblation(KINKED).attribute(x[None], target=1, feature_mask=groups[None])
    assert torch.allclose(own.values, theirs[0], rtol=0, atol=1e-12)


def test_what_is_in_no_part_counts_nothing() -> None:
    own = occlusion(score_of(KINKED), drawn(6), torch.zeros(6, dtype=torch.float64), [torch.arange(6) < 2])
    assert own.values[2:].tolist() == [0.0] * 4 and own.values[0] == own.values[1] != 0


def test_attributions_of_a_linear_score_are_its_terms() -> None:
    weight, x, baseline = drawn(6, seed=2), drawn(6), drawn(6, seed=1)
    own = integrated_gradients(lambda points: points @ weight + 7.0, x, baseline, steps=1)
    assert torch.allclose(own.values, weight * (x - baseline), rtol=1e-14, atol=0)
    assert own.score == pytest.approx(float(x @ weight) + 7.0)


def test_attributions_are_complete_at_fifty_midpoints() -> None:
    """The sum is f(x) - f(baseline) to 1e-7 of it where the gradient bends gently, exactly where it is straight."""
    weight, x, baseline = drawn(6, seed=2), drawn(6), torch.zeros(6, dtype=torch.float64)

    def gentle(points: Tensor) -> Tensor:
        return torch.sigmoid(points @ weight / 20)

    def straight(points: Tensor) -> Tensor:
        return (points @ weight) ** 2 + points[:, 0] * points[:, 1]

    bent = integrated_gradients(gentle, x, baseline, steps=50)
    assert bent.relative_gap is not None and 0 < bent.relative_gap <= 1e-7
    exact = integrated_gradients(straight, x, baseline, steps=50)
    assert exact.relative_gap is not None and exact.relative_gap < 1e-13


def test_the_gap_falls_with_the_square_of_the_steps() -> None:
    x, baseline = drawn(6), torch.zeros(6, dtype=torch.float64)
    gaps = [integrated_gradients(score_of(SMOOTH), x, baseline, steps=n).relative_gap for n in (50, 100, 200)]
    assert all(gap is not None and 0 < gap < TOLERANCE for gap in gaps)
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.05) and gaps[1] / gaps[2] == pytest.approx(4.0, rel=0.05)


def test_an_input_that_is_its_baseline_has_no_gap() -> None:
    x = drawn(6)
    own = integrated_gradients(score_of(SMOOTH), x, x.clone())
    assert own.values.abs().max() == 0 and own.relative_gap == 0.0
    assert Attribution(x, 1.0, 1.0, 0.5).relative_gap == math.inf


def test_points_at_once_change_nothing() -> None:
    x, baseline = drawn(6), torch.zeros(6, dtype=torch.float64)
    whole, single = (integrated_gradients(score_of(KINKED), x, baseline, rows=rows) for rows in (64, 1))
    assert torch.allclose(whole.values, single.values, rtol=1e-13, atol=1e-15)


def test_gradients_are_taken_where_they_are_switched_off() -> None:
    x = drawn(6)
    with torch.no_grad():
        own = saliency(score_of(SMOOTH), x, torch.zeros_like(x))
    assert own.values.abs().max() > 0 and not own.values.requires_grad


def test_what_is_not_finite_is_refused() -> None:
    x = drawn(6)
    with pytest.raises(GroundupError) as found:
        integrated_gradients(lambda points: (points.sum(dim=1) - 1e9).sqrt(), x, torch.zeros_like(x))
    assert found.value.code == "E-EVAL-071" and "6 of 6" in found.value.what
