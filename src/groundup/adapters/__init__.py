"""Adapters: model → model, in place, under canonical names. `ADAPTERS` is what a recipe may name.

A model arrives as a finished network with its weights; what is changed is which parameters are trained, how they
are stored, and what is added beside them. No model family, file, optimizer or engine may enter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field
from torch import nn

from groundup.adapters.freeze import (
    FreezeOptions,
    UnfreezeStep,
    evaluate_frozen,
    freeze,
    frozen_at,
    unfreeze_at,
    unfreezing_steps,
)
from groundup.adapters.grow import grow_vocabulary
from groundup.adapters.lora import LoraOptions, lora
from groundup.adapters.merge import adapter_tensors, average, load_adapter_tensors, merge
from groundup.adapters.prompt import PromptOptions, prompt, prompt_ids
from groundup.adapters.quantize import QuantizeOptions, base_bytes, dequantize, quantize
from groundup.adapters.scale import ScaleOptions, scale
from groundup.adapters.switch import adapter_names, set_adapter, without_adapters

ADAPTERS: dict[str, tuple[type[BaseModel], Callable[..., None]]] = {
    "freeze": (FreezeOptions, freeze),
    "lora": (LoraOptions, lora),
    "quantize": (QuantizeOptions, quantize),
    "prompt": (PromptOptions, prompt),
    "scale": (ScaleOptions, scale),
}

AdapterOptions = Annotated[
    FreezeOptions | LoraOptions | QuantizeOptions | PromptOptions | ScaleOptions, Field(discriminator="kind")
]


def apply(model: nn.Module, options_list: Sequence[Any], *, seed: int) -> None:
    """Adapt a model in place, in the order given. Its weights must be there already.

    Args:
        options_list: entries of the types in `ADAPTERS`.
        seed: of all draws; each entry draws from its own generator.

    Raises:
        GroundupError: a pattern does not fit the model, see the adapters.
    """
    for index, options in enumerate(options_list):
        ADAPTERS[options.kind][1](model, options, seed=seed + index)


__all__ = [
    "ADAPTERS",
    "AdapterOptions",
    "FreezeOptions",
    "LoraOptions",
    "PromptOptions",
    "QuantizeOptions",
    "ScaleOptions",
    "UnfreezeStep",
    "adapter_names",
    "adapter_tensors",
    "apply",
    "average",
    "base_bytes",
    "dequantize",
    "evaluate_frozen",
    "freeze",
    "frozen_at",
    "grow_vocabulary",
    "load_adapter_tensors",
    "lora",
    "merge",
    "prompt",
    "prompt_ids",
    "quantize",
    "scale",
    "set_adapter",
    "unfreeze_at",
    "unfreezing_steps",
    "without_adapters",
]
