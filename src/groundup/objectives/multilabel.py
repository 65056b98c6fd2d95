"""Learn for each label by itself whether a text has it: any number of labels may be right at once.

Shapes: B rows, L labels.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from groundup.contract import Batch, Loss
from groundup.objectives.task import Stateless, TaskModel, by_label, require_head


class MultilabelOptions(BaseModel):
    """Binary cross-entropy of each label of each row."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["multilabel"] = "multilabel"
    positive_weights: dict[str, Annotated[float, Field(gt=0.0)]] = Field(
        default_factory=dict, description="how much more a row that has the label counts than one that has not, by name"
    )


class Multilabel(Stateless):
    """Sum of binary cross-entropies in nats over `label_BL` (1.0 has it, 0.0 has not); implements contract.Objective.

    Raises:
        GroundupError: E-RECIPE-050 another head; E-RECIPE-051 weights of unknown labels.
    """

    def __init__(self, options: MultilabelOptions, model: TaskModel) -> None:
        require_head(model, "multilabel", options.kind)
        self.model = model
        self.positive_L = by_label(options.positive_weights, model.labels, "positive_weights")

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of decisions: rows times labels."""
        return torch.tensor(batch["label_BL"].numel())

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward, and the summed binary cross-entropy; metrics: `correct` of `decisions`, and `exact` of `rows`,
        where a row is exact if all of its labels are right at a threshold of one half."""
        logits_BL, target_BL = self.model(batch).float(), batch["label_BL"]
        total = F.binary_cross_entropy_with_logits(
            logits_BL, target_BL, pos_weight=self.positive_L.to(logits_BL.device), reduction="sum"
        )
        right_BL = (logits_BL > 0) == (target_BL > 0.5)
        metrics = {
            "correct": right_BL.sum(),
            "decisions": torch.tensor(right_BL.numel()),
            "exact": right_BL.all(dim=1).sum(),
            "rows": torch.tensor(len(right_BL)),
        }
        return Loss(total, metrics)
