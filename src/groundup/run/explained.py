"""What one answer of a network rests on: what each column, region or word of an input that is ready adds to the score
of a label.

The methods are in evaluation/attribution.py, how an input is made ready in explaining_inputs.py. Which input is
explained, and what is shown of it, is decided elsewhere.

Shapes: H height, W width, C channels, N points, L labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.evaluation.attribution import (
    POINTS_AT_ONCE,
    STEPS,
    TOLERANCE,
    Attribution,
    Score,
    integrated_gradients,
    occlusion,
    saliency,
    windows,
)
from groundup.functional import evaluating
from groundup.models.heads import Headed
from groundup.models.predictor import Predictor
from groundup.run.explaining_inputs import Input
from groundup.run.predicting import answer_of


class Part(NamedTuple):
    """A column, region or word: its name, the cell of a column, and what it adds to the score."""

    name: str
    cell: str | None
    amount: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a model's answer to one input rests on.

    Attributes:
        kind: "table", "image" or "text".
        model, place: the model, and where the input stands.
        method, steps: of attribution; steps of integrated gradients alone.
        answer: what the model says, as `predict` gives it.
        label: that is explained; None for a number.
        baseline: what stands for nothing there, in words.
        parts: in the order of the input.
        found: the attribution of every number that went in.
        image_CHW: uint8, as the model sees it, before scaling.
        heat_HW: of an image, what each pixel adds.
        cut: tokens of a text that did not fit into the context.
    """

    kind: str
    model: str
    place: str
    method: str
    steps: int | None
    answer: dict[str, Any]
    label: str | None
    baseline: str
    parts: list[Part]
    found: Attribution
    image_CHW: NDArray[np.uint8] | None = None
    heat_HW: NDArray[np.float64] | None = None
    cut: int = 0

    @property
    def rough(self) -> bool:
        """Whether the attributions miss the difference of the scores by more than the tolerance."""
        gap = self.found.relative_gap
        return gap is not None and gap > TOLERANCE

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `sum`, `gap` and `relative_gap` are for integrated gradients, else None. So is a share of no
        difference at all, for which JSON has no number."""
        found = self.found
        share = found.relative_gap
        said: dict[str, Any] = {
            "model": self.model, "kind": self.kind, "place": self.place, "method": self.method, "steps": self.steps,
            "answer": self.answer, "label": self.label, "score": found.score, "baseline": self.baseline,
            "baseline_score": found.baseline_score, "sum": None if found.gap is None else float(found.values.sum()),
            "gap": found.gap, "relative_gap": share if share is not None and math.isfinite(share) else None,
            "rough": self.rough, "cut_tokens": self.cut,
            "parts": [part._asdict() for part in self.parts],
        }  # fmt: skip
        return said if self.heat_HW is None else said | {"heat": self.heat_HW.tolist()}


def explained(
    model: Headed | Predictor,
    given: Input,
    *,
    name: str,
    label: str | None = None,
    method: str = "integrated_gradients",
    steps: int = STEPS,
    rows: int = POINTS_AT_ONCE,
    unit: float = 1.0,
    zero: float = 0.0,
) -> Explanation:
    """What a network's answer to an input rests on. The network is left as it was found.

    The score of a label is its log-odds, log p/(1 - p). One logit of several means nothing by itself, since a number
    that is added to all of them changes no answer; log-odds are free of that, and unlike a probability they go on
    rising where the model is sure. The score of a number is that number, in the unit of the data.

    Args:
        model: of a kind in explaining.EXPLAINED.
        given: the input.
        name: of the model.
        label: to explain, one of the model's; None takes the likeliest.
        method: one of attribution.METHODS.
        steps: of integrated gradients.
        rows: points that are computed at once.
        unit, zero: scale and zero of a predicted number in the unit of the data.

    Raises:
        GroundupError: E-EVAL-071 a score that is not finite.
    """
    with evaluating(model):
        with torch.no_grad():
            said = given.answers(given.input_X[None])[0].float().cpu()
        number = chosen_label(model, said, label)

        def score(points: Tensor) -> Tensor:
            answers = given.answers(points)
            return answers * unit + zero if number is None else log_odds(answers, number, model.kind)

        found = _attribute(score, given, method, steps, rows)
    return Explanation(
        kind=given.kind,
        model=name,
        place=given.place,
        method=method,
        steps=steps if method == "integrated_gradients" else None,
        answer=answer_of(model, said * unit + zero if number is None else said),
        label=None if number is None else model.labels[number],
        baseline=given.baseline,
        parts=_parts(given, found.values.cpu(), mean=method == "occlusion"),
        found=found,
        image_CHW=given.image_CHW,
        heat_HW=None if given.image_CHW is None else found.values.cpu().sum(dim=0).numpy(),
        cut=given.cut,
    )


def chosen_label(model: Headed | Predictor, logits_L: Tensor, label: str | None) -> int | None:
    """The number of the label to explain; None where the model predicts a number."""
    if label is not None:
        return model.labels.index(label)
    return None if model.kind == "regress" else int(logits_L.argmax())


def log_odds(logits_NL: Tensor, number: int, kind: str) -> Tensor:
    """log p/(1 - p) of one label, (N,): where labels exclude each other, and where each is a question of its own."""
    logit_N = logits_NL[:, number]
    if kind == "multilabel":
        return logit_N
    others = [other for other in range(logits_NL.shape[1]) if other != number]
    return logit_N - logits_NL[:, others].logsumexp(dim=1)


def _attribute(score: Score, given: Input, method: str, steps: int, rows: int) -> Attribution:
    if method == "integrated_gradients":
        return integrated_gradients(score, given.input_X, given.baseline_X, steps=steps, rows=rows)
    if method == "saliency":
        return saliency(score, given.input_X, given.baseline_X)
    device = given.input_X.device
    if given.kind == "image":  # squares that overlap by half show edges that no grid happens to lie on
        _, height, width = given.input_X.shape
        masks = windows(height, width, given.side, max(1, given.side // 2))
        return occlusion(score, given.input_X, given.baseline_X, (mask.to(device) for mask in masks), rows=rows)
    each = ((given.group_X == number).to(device) for number in range(len(given.names)))
    return occlusion(score, given.input_X, given.baseline_X, each, rows=rows)


def _parts(given: Input, values_X: Tensor, *, mean: bool) -> list[Part]:
    """What each part adds: the sum of its numbers, or, where each of them stands for the whole part, their mean."""
    group_X = given.group_X.expand_as(values_X)
    parts = []
    for number, (name, cell) in enumerate(given.names):
        own = values_X[group_X == number]
        parts.append(Part(name, cell, float(own.mean() if mean else own.sum())))
    return parts
