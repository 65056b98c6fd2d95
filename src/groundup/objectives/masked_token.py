"""Predict the tokens that are hidden: how BERT is pretrained (Devlin et al. 2018, arXiv:1810.04805, section 3.1),
without its second task of telling whether two sentences follow each other (RoBERTa, Liu et al. 2019,
arXiv:1907.11692, section 4.2). Which tokens are hidden is decided where rows are made, so that this file draws nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from groundup.contract import IGNORE, Batch, Loss, MaskedModel
from groundup.functional import chunked_cross_entropy
from groundup.objectives.task import Stateless


class MaskedTokenOptions(BaseModel):
    """Cross-entropy of the chosen tokens given all others of their document."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["masked_token"]
    share: float = Field(
        default=0.15,
        gt=0.0,
        le=0.9,
        description="tokens of a row that are to be predicted; of these 80 % are hidden, 10 % replaced and 10 % left",
    )


class MaskedToken(Stateless):
    """Sum of cross-entropies in nats over the chosen tokens; implements contract.Objective."""

    def __init__(self, options: MaskedTokenOptions, model: MaskedModel) -> None:
        self.model = model

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of chosen tokens."""
        return (batch["target_BT"] != IGNORE).sum()

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward, and the summed cross-entropy. Logits are made of the chosen positions alone."""
        chosen_BT = batch["target_BT"] != IGNORE
        states_ND = self.model.states_at(batch, chosen_BT)
        weight_VD, bias_V = self.model.output()
        return Loss(chunked_cross_entropy(states_ND, weight_VD, batch["target_BT"][chosen_BT], bias_V), {})
