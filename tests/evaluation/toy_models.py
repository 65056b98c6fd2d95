"""A toy decoder for the evaluation tests."""

from __future__ import annotations

import torch

from groundup.models.llama import Llama, LlamaOptions


def toy_llama(context: int = 32) -> Llama:
    """Random weights with logits spread enough that losses differ between tokens."""
    options = LlamaOptions(
        vocabulary=61, context=context, width=32, layers=2, heads=4, key_value_heads=2, head_size=8, hidden=64
    )
    model = Llama(options)
    model.initialise(torch.Generator().manual_seed(5))
    with torch.no_grad():
        model.embedding.weight.mul_(20)
    return model
