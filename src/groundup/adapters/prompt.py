"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691): trained states in front of the text, all else frozen.

The virtual tokens are ids above the vocabulary, V … V + P - 1. So positions, packing, masks, caches and batches
need to know nothing of them: whoever lays out a text puts `prompt_ids` in front of it. The head gives them no
logits, so they are never generated and never targets.

Shapes: N ids (any dimensions), P virtual tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.adapters.paths import Adapted, freeze_base, replace, targets, token_embedding


class PromptOptions(BaseModel):
    """Learn virtual tokens that stand in front of every text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["prompt"]
    tokens: int = Field(default=20, ge=1, le=4096, description="number of virtual tokens; they use up context")
    train: list[str] = Field(default=[], description="patterns of base parameters trained in full besides")


class PromptEmbedding(Adapted):
    """An embedding with trained rows `prompt` (P, D) for the ids after its own."""

    def __init__(self, base: nn.Embedding, prompt_PD: Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = base.num_embeddings, base.embedding_dim
        self.padding_idx = base.padding_idx
        self.weight = base.weight
        self.prompt = nn.Parameter(prompt_PD)
        self.mixing = {"prompt": 1.0}

    def adapters(self) -> list[str]:
        return ["prompt"]

    def forward(self, ids_N: Tensor) -> Tensor:
        own = ids_N < self.num_embeddings
        text_ND = nn.functional.embedding(torch.where(own, ids_N, 0), self.weight)
        prompt_ND = nn.functional.embedding(torch.where(own, 0, ids_N - self.num_embeddings), self.prompt)
        return torch.where(own[..., None], text_ND, prompt_ND)


def prompt(model: nn.Module, options: PromptOptions, *, seed: int) -> None:
    """Add the virtual tokens in place. They start as the states of tokens drawn from the vocabulary, which the
    paper found better than noise. The weights must be there already.

    Raises:
        GroundupError: E-ADAPT-002, the token embedding is adapted already.
    """
    name = token_embedding(model)
    module = targets(model, [name], (nn.Embedding,), field="prompt")[name]
    assert isinstance(module, nn.Embedding)
    generator = torch.Generator().manual_seed(seed)
    ids_P = torch.randint(module.num_embeddings, (options.tokens,), generator=generator)
    replace(model, name, PromptEmbedding(module, module.weight.detach()[ids_P.to(module.weight.device)].clone()))
    freeze_base(model, options.train, field="prompt.train")


def prompt_ids(model: nn.Module) -> list[int]:
    """The ids of the virtual tokens, to be put in front of each text; empty for a model without them."""
    for module in model.modules():
        if isinstance(module, PromptEmbedding):
            return list(range(module.num_embeddings, module.num_embeddings + module.prompt.shape[0]))
    return []
