"""Predict the next token: pretraining, and fine-tuning with a loss mask (targets of IGNORE)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from groundup.contract import IGNORE, Batch, LanguageModel, Loss, RoutedModel
from groundup.functional import chunked_cross_entropy


class NextTokenOptions(BaseModel):
    """Cross-entropy of each target given what stands before it in the same document."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["next_token"] = "next_token"


class NextToken:
    """Sum of cross-entropies in nats over the valid targets; implements contract.Objective."""

    turns: tuple[str, ...] = ("model",)

    def __init__(self, options: NextTokenOptions, model: LanguageModel) -> None:
        self.model = model

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """The number of valid targets."""
        return (batch["target_BT"] != IGNORE).sum()

    def loss(self, turn: str, batch: Batch) -> Loss:
        """Forward, and the summed cross-entropy."""
        document_BT = batch["document_BT"]
        # One document in every row needs no mask: plain causal attention is exact, and faster.
        alone = bool((document_BT == document_BT[:, :1]).all())
        given = (batch["tokens_BT"], batch["position_BT"], None if alone else document_BT)
        if isinstance(self.model, RoutedModel):
            hidden_BTD, balance = self.model.hidden_and_balance(*given)
            extra = balance * self.weight(turn, batch)  # of a token; all losses here are sums
        else:
            hidden_BTD, extra = self.model.hidden(*given), None
        total = chunked_cross_entropy(hidden_BTD, self.model.head_weight(), batch["target_BT"])
        return Loss(total, {}) if extra is None else Loss(total + extra, {"balance": extra.detach()})

    def after_step(self, step: int) -> None:
        """Nothing moves besides the model."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to carry on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""
