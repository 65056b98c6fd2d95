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
from groundup.adapters.grow import GrowOptions, Growth, grow, require_trained
from groundup.adapters.lora import LoraOptions, lora
from groundup.adapters.merge import adapter_tensors, average, load_adapter_tensors, merge
from groundup.adapters.prompt import PromptOptions, prompt, prompt_ids
from groundup.adapters.quantize import QuantizeOptions, base_bytes, dequantize, quantize
from groundup.adapters.scale import ScaleOptions, scale
from groundup.adapters.switch import adapter_names, is_adapted, set_adapter, without_adapters

ADAPTERS: dict[str, tuple[type[BaseModel], Callable[..., None]]] = {
    "grow": (GrowOptions, grow),
    "freeze": (FreezeOptions, freeze),
    "lora": (LoraOptions, lora),
    "quantize": (QuantizeOptions, quantize),
    "prompt": (PromptOptions, prompt),
    "scale": (ScaleOptions, scale),
}

AdapterOptions = Annotated[
    GrowOptions | FreezeOptions | LoraOptions | QuantizeOptions | PromptOptions | ScaleOptions,
    Field(discriminator="kind"),
]


WHOLE = ("grow", "freeze")
"""Kinds that leave weights which stand alone; behind any other, a model is what was trained beside its base."""


def apply(model: nn.Module, options_list: Sequence[Any], *, seed: int, growth: Growth | None = None) -> None:
    """Adapt a model in place, in the order given. Its weights must be there already.

    Args:
        options_list: entries of the types in `ADAPTERS`.
        seed: of all draws; each entry draws from its own generator.
        growth: where the tokens of a grow entry stand; see `grow`.

    Raises:
        GroundupError: a pattern does not fit the model, see the adapters.
    """
    for index, options in enumerate(options_list):
        if isinstance(options, GrowOptions):
            apart = any(later.kind not in WHOLE for later in options_list[index + 1 :])
            grow(model, options, seed=seed + index, growth=growth, apart=apart)
        else:
            ADAPTERS[options.kind][1](model, options, seed=seed + index)
    if any(isinstance(options, GrowOptions) for options in options_list):
        require_trained(model)


__all__ = [
    "ADAPTERS",
    "WHOLE",
    "AdapterOptions",
    "FreezeOptions",
    "GrowOptions",
    "Growth",
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
    "grow",
    "is_adapted",
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
