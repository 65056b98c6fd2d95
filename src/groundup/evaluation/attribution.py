"""How much each number that goes into a network counts for one number that comes out.

Networks arrive as a function from inputs to the score of one output. What the inputs are (pixels, columns, embeddings)
and what is shown of the result is decided elsewhere; no model, file or label enters.

The methods are those of captum, number for number. They are written here because they are short, and captum would
bring a plotting library with it.

Shapes: N points, X the shape of one input, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from groundup.errors import GroundupError

METHODS = ("integrated_gradients", "saliency", "occlusion")

STEPS, POINTS_AT_ONCE = 50, 16

TOLERANCE = 0.01
"""The share of the difference that attributions may miss before it is to be told."""

Score = Callable[[Tensor], Tensor]
"""Inputs (N, *X) to the score of one output for each, (N,). The score of a row may not depend on other rows."""


class Attribution(NamedTuple):
    """What each number of an input counts for.

    Attributes:
        values: float64, of the shape of the input.
        score: of the input.
        baseline_score: of the baseline.
        gap: integrated gradients only: what the values add up to, less the difference of the two scores. It would be
            zero for an integral without error ("completeness", Sundararajan et al. 2017, proposition 1).
    """

    values: Tensor
    score: float
    baseline_score: float
    gap: float | None = None

    @property
    def relative_gap(self) -> float | None:
        """The gap as a share of the difference of the scores; infinite where there is a gap and no difference."""
        if self.gap is None or self.gap == 0.0:
            return self.gap
        difference = abs(self.score - self.baseline_score)
        return abs(self.gap) / difference if difference else math.inf


def integrated_gradients(
    score: Score, input_X: Tensor, baseline_X: Tensor, *, steps: int = STEPS, rows: int = POINTS_AT_ONCE
) -> Attribution:
    """Gradients along the straight line from the baseline to the input, averaged, times what lies between the two.

    The integral is taken by the midpoint rule, whose error falls with the square of `steps` where the score is smooth
    (Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", arXiv:1703.01365, equation 1).

    Args:
        score: differentiable.
        input_X: floating point.
        baseline_X: an input that stands for "nothing there", of the same shape.
        steps: points on the line, 1 or more.
        rows: points that are computed at once; they change the memory that is needed and nothing else.

    Raises:
        GroundupError: E-EVAL-071 a score or gradient is not finite.
    """
    difference_X = input_X - baseline_X
    total_X = torch.zeros_like(input_X, dtype=torch.float64)
    share_N = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    for part_N in share_N.to(input_X).split(rows):
        points_NX = baseline_X + part_N.view(-1, *[1] * input_X.dim()) * difference_X
        total_X += _gradients(score, points_NX).double().sum(dim=0)
    values_X = difference_X.double() * total_X / steps
    here, nothing = _scores(score, input_X, baseline_X)
    found = Attribution(values_X, here, nothing, float(values_X.sum()) - (here - nothing))
    return _finite(found)


def saliency(score: Score, input_X: Tensor, baseline_X: Tensor) -> Attribution:
    """The size of the gradient: how fast the score moves when a number moves a little, either way (Simonyan, Vedaldi
    and Zisserman 2013, arXiv:1312.6034, section 3). The baseline is for its score alone."""
    values_X = _gradients(score, input_X[None])[0].double().abs()
    return _finite(Attribution(values_X, *_scores(score, input_X, baseline_X)))


def occlusion(
    score: Score, input_X: Tensor, baseline_X: Tensor, masks: Iterable[Tensor], *, rows: int = POINTS_AT_ONCE
) -> Attribution:
    """How far the score falls when a part of the input is replaced by the baseline (Zeiler and Fergus 2013,
    arXiv:1311.2901, section 4.2).

    Args:
        score: need not be differentiable.
        masks: one for each part, bool, true where it is; they broadcast to the shape of the input. A number in several
            parts gets the mean of theirs, one in no part zero.
        rows: parts that are tried at once.

    Raises:
        GroundupError: E-EVAL-071 a score is not finite.
    """
    here, nothing = _scores(score, input_X, baseline_X)
    total_X = torch.zeros_like(input_X, dtype=torch.float64)
    count_X = torch.zeros_like(total_X)
    parts = iter(masks)
    while some := list(islice(parts, rows)):
        mask_NX = torch.stack([mask.expand_as(input_X) for mask in some])
        with torch.no_grad():
            fall_N = here - score(torch.where(mask_NX, baseline_X, input_X)).double()
        total_X += (fall_N.view(-1, *[1] * input_X.dim()) * mask_NX).sum(dim=0)
        count_X += mask_NX.sum(dim=0)
    return _finite(Attribution(total_X / count_X.clamp_min(1.0), here, nothing))


def windows(height: int, width: int, size: int, stride: int) -> Iterator[Tensor]:
    """Masks (1, H, W) of square windows that cover an image from the top left on; the last are cut off by its edges."""
    across, down = (range(0, max(0, side - size) + stride, stride) for side in (width, height))
    for top in down:
        for left in across:
            mask = torch.zeros(1, height, width, dtype=torch.bool)
            mask[:, top : top + size, left : left + size] = True
            yield mask


def _gradients(score: Score, points_NX: Tensor) -> Tensor:
    """The gradient of each point's score with respect to that point, (N, *X)."""
    points_NX = points_NX.detach().requires_grad_()
    with torch.enable_grad():
        (gradient_NX,) = torch.autograd.grad(score(points_NX).sum(), points_NX)
    return gradient_NX


@torch.no_grad()
def _scores(score: Score, input_X: Tensor, baseline_X: Tensor) -> tuple[float, float]:
    here, nothing = score(torch.stack([input_X, baseline_X])).double().tolist()
    return here, nothing


def _finite(found: Attribution) -> Attribution:
    bad = int((~found.values.isfinite()).sum())
    if not bad and math.isfinite(found.score) and math.isfinite(found.baseline_score):
        return found
    raise GroundupError(
        "E-EVAL-071",
        f"the prediction cannot be explained: {bad:,} of {found.values.numel():,} attributions are not finite",
        where=f"score {found.score:g}, of the baseline {found.baseline_score:g}",
        why="the weights are damaged, or the training diverged",
        fix="groundup verify MODEL   (whether the files are whole); train again with a smaller learning rate",
    )
