"""Toy models for the tests of adapters, and the same adapters in peft beside them."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from groundup.formats.keys import module_to_hugging_face, to_hugging_face
from groundup.models.llama import Llama, LlamaOptions

OPTIONS = LlamaOptions(
    vocabulary=97, context=32, width=32, layers=2, heads=4, key_value_heads=2, head_size=8, hidden=48, tied=True
)


def llama(*, tied: bool = True, seed: int = 0) -> Llama:
    model = Llama(OPTIONS.model_copy(update={"tied": tied}))
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def tokens(rows: int = 3, length: int = 11, seed: int = 1) -> Tensor:
    return torch.randint(0, OPTIONS.vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


def their_llama(ours: Llama) -> Any:
    """transformers' model with the weights of ours."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=48, rms_norm_eps=1e-5, max_position_embeddings=32, rope_theta=10000.0,
        tie_word_embeddings=ours.options.tied, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).float()
    weights = to_hugging_face("llama", ours.state_dict())
    theirs.load_state_dict({name: tensor.clone() for name, tensor in weights.items()})
    return theirs


def perturb(model: nn.Module, seed: int = 5) -> None:
    """Give every adapter parameter a value that matters: B, the magnitudes and the scales start at nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(r"lora_|\.scale$", name):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def peft_names(name: str) -> tuple[str, ...]:
    """The parameters of peft that one of our adapter parameters may be called."""
    module, part, adapter = re.fullmatch(r"(.*)\.(lora_\w+)\.(\w+)", name).groups()  # type: ignore[union-attr]
    theirs = f"base_model.model.{module_to_hugging_face('llama', module)}"
    kind = {"lora_a": "A", "lora_b": "B"}.get(part)
    if kind is None:
        return (f"{theirs}.lora_magnitude_vector.{adapter}.weight",)
    return (f"{theirs}.lora_{kind}.{adapter}.weight", f"{theirs}.lora_embedding_{kind}.{adapter}")


def copy_to_peft(ours: nn.Module, theirs: nn.Module) -> dict[str, nn.Parameter]:
    """Copy our adapters into peft's; gives peft's parameter for each of ours by our name."""
    target = dict(theirs.named_parameters())
    found = {}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "lora_" in name:
                (key,) = [key for key in peft_names(name) if key in target]
                target[key].copy_(parameter)
                found[name] = target[key]
    assert len(found) == sum("lora_" in key for key in target)
    return found
