"""Learn one label of several: of a text (`classify`), of each token (`tag`), or which of a row's candidates is right
(`choice`). All three are cross-entropy.

Shapes: B rows, T positions, L labels, C candidates, N targets (B, or B·T).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from groundup.contract import IGNORE, Batch, Loss
from groundup.errors import GroundupError, printable
from groundup.objectives.task import Stateless, TaskModel, by_label, require_head


class _LabelOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="share of the target that is spread evenly over all labels"
    )
    focal_gamma: float = Field(
        default=0.0, ge=0.0, description="how much less an easy target counts: its loss times (1 - p)^gamma; 0 is off"
    )
    class_weights: dict[str, Annotated[float, Field(gt=0.0)]] | Literal["balanced"] | None = Field(
        default=None,
        description='weight of each label by name, 1 where not named; "balanced": the rarer, the heavier',
    )


class ClassifyOptions(_LabelOptions):
    """Cross-entropy of the label of each row."""

    kind: Literal["classify"] = "classify"


class TagOptions(_LabelOptions):
    """Cross-entropy of the label of each token."""

    kind: Literal["tag"] = "tag"


class ChoiceOptions(BaseModel):
    """Cross-entropy of the right one among the candidates of a row."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["choice"] = "choice"


class Classify(Stateless):
    """Sum of cross-entropies in nats over `label_B` (or `label_BT`) where it is not IGNORE; implements
    contract.Objective. With class weights the unit is a weight, so that the mean is torch's weighted mean.

    Args:
        options: of the loss; their kind says whether rows or tokens have labels.
        model: with a head of that kind.
        counts: how many training targets each label has, by name; for balanced weights.

    Raises:
        GroundupError: E-RECIPE-050 another head; E-RECIPE-051 weights of unknown labels; E-RECIPE-052 balanced
            weights, and labels without a target.
    """

    def __init__(
        self, options: ClassifyOptions | TagOptions, model: TaskModel, counts: Mapping[str, int] | None = None
    ) -> None:
        require_head(model, options.kind, options.kind)
        self.options, self.model = options, model
        self.target = "label_BT" if options.kind == "tag" else "label_B"
        weights = options.class_weights or {}
        if weights == "balanced":
            weights = balanced(counts or {}, model.labels)
        self.weight_L = by_label(weights, model.labels, "class_weights")

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of targets, each as heavy as its label, or as the two labels that were mixed."""
        target_N = batch[self.target]
        weight_L = self.weight_L.to(target_N.device)
        if "share_B" in batch:
            return torch.lerp(weight_L[batch["other_label_B"]], weight_L[target_N], batch["share_B"]).sum()
        return weight_L[target_N[target_N != IGNORE]].sum()

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward, and the summed cross-entropy; metrics: `correct` of `targets`."""
        logits_NL, target_N = self.model(batch).float().flatten(0, -2), batch[self.target].flatten()
        valid = target_N != IGNORE
        logits_NL, target_N = logits_NL[valid], target_N[valid]
        weight_L = self.weight_L.to(logits_NL.device)
        q_NL = targets(target_N, logits_NL, self.options.label_smoothing)
        if "share_B" in batch:  # images that were mixed are partly of another label
            other_NL = targets(batch["other_label_B"], logits_NL, self.options.label_smoothing)
            q_NL = torch.lerp(other_NL, q_NL, batch["share_B"][:, None])
        total = focal_cross_entropy(logits_NL, q_NL, weight_L, self.options.focal_gamma)
        correct = (logits_NL.argmax(dim=-1) == target_N).sum()
        return Loss(total, {"correct": correct, "targets": valid.sum()})


class Choice(Stateless):
    """Sum of cross-entropies in nats over the rows whose `label_B` is not IGNORE; implements contract.Objective."""

    def __init__(self, options: ChoiceOptions, model: TaskModel) -> None:
        require_head(model, "choice", options.kind)
        self.model = model

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of rows."""
        return (batch["label_B"] != IGNORE).sum()

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward, and the summed cross-entropy; metrics: `correct` of `targets`."""
        logits_BC, target_B = self.model(batch).float(), batch["label_B"]
        valid = target_B != IGNORE
        total = F.cross_entropy(logits_BC[valid], target_B[valid], reduction="sum")
        correct = (logits_BC.argmax(dim=-1) == target_B).sum()
        return Loss(total, {"correct": correct, "targets": valid.sum()})


def targets(target_N: Tensor, logits_NL: Tensor, label_smoothing: float) -> Tensor:
    """The distribution to learn for each row, (N, L) in the dtype of the logits: its label, less what smoothing spreads
    evenly over all (Szegedy et al. 2015, arXiv:1512.00567, section 7)."""
    spread = label_smoothing / logits_NL.shape[1]
    even_NL = torch.full_like(logits_NL, spread)
    return even_NL.scatter_(1, target_N[:, None], 1.0 - label_smoothing + spread)


def focal_cross_entropy(logits_NL: Tensor, q_NL: Tensor, weight_L: Tensor, gamma: float) -> Tensor:
    """-Σ_n Σ_l q_nl · w_l · (1 - p_nl)^gamma · log p_nl, a scalar.

    With gamma 0 it is `cross_entropy(…, weight, reduction="sum")`, for targets of one label the focal loss (Lin et al.
    2017, arXiv:1708.02002, equation 5).

    Args:
        logits_NL: float32.
        q_NL: what is right, see `targets`.
    """
    log_p_NL = logits_NL.log_softmax(dim=-1)
    # A certain label has 1 - p = 0, where the slope of a power below 1 is infinite.
    rest_NL = (-torch.expm1(log_p_NL)).clamp_min(torch.finfo(log_p_NL.dtype).tiny)
    return -(q_NL * weight_L * rest_NL**gamma * log_p_NL).sum()


def balanced(counts: Mapping[str, int], labels: list[str]) -> dict[str, float]:
    """Weights under which all labels weigh the same in training: targets / (labels · targets of the label)
    (King & Zeng 2001, "Logistic Regression in Rare Events Data", section 4.2).

    Raises:
        GroundupError: E-RECIPE-052, all labels without a target.
    """
    without = [label for label in labels if not counts.get(label)]
    if without:
        raise GroundupError(
            "E-RECIPE-052",
            f"{len(without)} of {len(labels)} labels have no target to learn from: {printable(', '.join(without))}",
            where="objective.class_weights: balanced",
            why="the weight of a label is one over its share of the training data, which is none",
            fix="add rows of these labels, take the labels out of the head, or give class_weights by name",
            exit_code=2,
        )
    total = sum(counts[label] for label in labels)
    return {label: total / (len(labels) * counts[label]) for label in labels}
