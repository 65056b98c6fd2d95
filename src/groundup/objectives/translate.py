"""Learn to write a target sequence given a source sequence: translation, and whatever else has that shape.

Shapes: B rows, S source positions, T target positions, N targets, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from groundup.contract import IGNORE, Batch, Loss
from groundup.objectives.task import Stateless


class EncoderDecoder(Protocol):
    """A model that reads a source and writes a target."""

    def hidden(
        self,
        source_BS: Tensor,
        source_document_BS: Tensor | None,
        tokens_BT: Tensor,
        document_BT: Tensor | None = None,
    ) -> Tensor: ...
    def head_weight(self) -> Tensor: ...


class TranslateOptions(BaseModel):
    """Cross-entropy of each target token given the source and the target tokens before it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["translate"] = "translate"
    label_smoothing: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="share of the target (0 to below 1) that is spread evenly over the vocabulary; 0.1 is the "
        "Transformer paper's",
    )


class Translate(Stateless):
    """Sum of cross-entropies in nats over the targets that are not IGNORE, smoothed (Szegedy et al. 2015,
    arXiv:1512.00567, section 7); implements contract.Objective."""

    def __init__(self, options: TranslateOptions, model: EncoderDecoder) -> None:
        self.options, self.model = options, model

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of valid targets."""
        return (batch["target_BT"] != IGNORE).sum()

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward, and the summed cross-entropy; metrics: `correct` of `targets`."""
        hidden_BTD = self.model.hidden(
            batch["source_BS"], batch["source_document_BS"], batch["tokens_BT"], batch["document_BT"]
        )
        valid_BT = batch["target_BT"] != IGNORE
        target_N = batch["target_BT"][valid_BT]
        # Only where there is a target: at padding the logits, the largest tensor of all, are never made.
        logits_NV = F.linear(hidden_BTD[valid_BT], self.model.head_weight()).float()
        smoothing = self.options.label_smoothing
        total = F.cross_entropy(logits_NV, target_N, reduction="sum", label_smoothing=smoothing)
        correct = (logits_NV.argmax(dim=-1) == target_N).sum()
        return Loss(total, {"correct": correct, "targets": valid_BT.sum()})
