"""Learn embeddings from pairs of texts that belong together: of all the texts in the batch, each shall be nearest to
its own other half.

Shapes: B rows (pairs), T positions, D size of an embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from groundup.contract import Batch, Loss
from groundup.objectives.task import Stateless, TaskModel, require_head


class ContrastOptions(BaseModel):
    """Symmetric InfoNCE with in-batch negatives."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["contrast"] = "contrast"
    temperature: float = Field(default=0.05, gt=0.0, description="what similarities are divided by; small is sharp")


class Contrast(Stateless):
    """Sum over pairs of the cross-entropy in nats of finding the second text by the first and the first by the second,
    half each (van den Oord et al. 2018, arXiv:1807.03748, equation 4; both ways: Radford et al. 2021,
    arXiv:2103.00020, section 2.3); implements contract.Objective.

    The wrong answers are the other pairs of the same micro-batch. So this loss, unlike all others here, depends on how
    a step is cut up: a step of four micro-batches of 16 pairs has 15 negatives for each text, one of 64 pairs has 63,
    and is harder and usually better. Accumulation adds pairs, not negatives. The same text in two pairs of a
    micro-batch counts as a wrong answer to itself.

    Raises:
        GroundupError: E-RECIPE-050 another head.
    """

    def __init__(self, options: ContrastOptions, model: TaskModel) -> None:
        require_head(model, "embed", options.kind)
        self.options, self.model = options, model

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of pairs."""
        return torch.tensor(len(batch["tokens_BT"]))

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward of both halves, and the summed cross-entropy; metrics: `correct` (second texts found by their first)
        of `rows`."""
        first_BD = self.model(batch).float()
        other = {name.removeprefix("other_"): part for name, part in batch.items() if name.startswith("other_")}
        second_BD = self.model(other).float()
        # Not under autocast: a temperature of 0.05 makes twenty times more of what bfloat16 rounds away.
        with torch.autocast(first_BD.device.type, enabled=False):
            similarity_BB = first_BD @ second_BD.T / self.options.temperature
        target_B = torch.arange(len(first_BD), device=first_BD.device)
        there = F.cross_entropy(similarity_BB, target_B, reduction="sum")
        back = F.cross_entropy(similarity_BB.T, target_B, reduction="sum")
        correct = (similarity_BB.argmax(dim=1) == target_B).sum()
        return Loss((there + back) / 2, {"correct": correct, "rows": torch.tensor(len(target_B))})
