"""How GGUF and groundup say the same thing about a network: names of tensors, keys of metadata, the order of rows.

Used by reading and writing alike, so that the two cannot come apart. No file is opened here.

Shapes: D width, H heads, K head size, R = K/2 rotary pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Architecture(NamedTuple):
    """A value of `general.architecture`.

    Attributes:
        family: groundup's family.
        interleaved: llama.cpp rotates neighbouring rows of this architecture's queries and keys, so that the file has
            them in another order than Hugging Face and groundup, which rotate rows half a head apart.
    """

    family: str
    interleaved: bool = False


ARCHITECTURES = {
    "llama": Architecture("llama", interleaved=True),
    "qwen2": Architecture("llama"),
    "qwen3": Architecture("llama"),
    "qwen3moe": Architecture("moe"),
    "gpt2": Architecture("gpt2"),
}

_MODULES = {
    "embedding": "token_embd",
    "position_embedding": "position_embd",
    "norm": "output_norm",
    "head": "output",
    "input_norm": "attn_norm",
    "attention_norm": "attn_norm",
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.qkv_proj": "attn_qkv",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "attention.o_proj": "attn_output",
    "post_norm": "ffn_norm",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate_proj": "ffn_gate",
    "feed_forward.up_proj": "ffn_up",
    "feed_forward.down_proj": "ffn_down",
    "feed_forward.router": "ffn_gate_inp",
    "feed_forward.experts.gate_proj": "ffn_gate_exps",
    "feed_forward.experts.up_proj": "ffn_up_exps",
    "feed_forward.experts.down_proj": "ffn_down_exps",
}
"""Modules of all families; no two of one family share a name on either side."""

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor of what each rotary frequency is divided by; Llama 3.1 and later have it."""


def gguf_name(ours: str) -> str:
    """GGUF's name of one of our tensors: `layers.3.attention.q_proj.weight` -> `blk.3.attn_q.weight`.

    Raises:
        KeyError: GGUF has no name for it.
    """
    module, _, parameter = ours.rpartition(".")
    if module.startswith("layers."):
        _, layer, module = module.split(".", 2)
        return f"blk.{layer}.{_MODULES[module]}.{parameter}"
    return f"{_MODULES[module]}.{parameter}"


def rotated_heads(ours: str, options: Mapping[str, Any]) -> int | None:
    """The number of heads of a tensor whose rows belong to rotary pairs, or None for all others."""
    module = ours.rpartition(".")[0]
    if module.endswith("attention.q_proj"):
        return int(options["heads"])
    if module.endswith("attention.k_proj"):
        return int(options["key_value_heads"])
    return None


def to_interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Rows (H·K, …) from halves to neighbours: row k and row k + R of a head come to stand side by side."""
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(tensor.shape)


def from_interleaved(tensor: Tensor, heads: int) -> Tensor:
    """The inverse of `to_interleaved`."""
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(tensor.shape)


def rope_factors(head_size: int, base: float, scaling: Mapping[str, Any]) -> Tensor:
    """What Llama 3.1 divides each rotary frequency by, float32 (R,). See `RotaryScaling` of the llama family; the rule
    is `apply_scaling` of Meta's reference code (Grattafiori et al. 2024, arXiv:2407.21783)."""
    frequency_R = base ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    turns_R = scaling["original_context"] * frequency_R / (2 * math.pi)
    low, high = scaling["low_frequency_factor"], scaling["high_frequency_factor"]
    kept_R = ((turns_R - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 / (kept_R + (1.0 - kept_R) / scaling["factor"])).float()


def scaling_from_factors(factors_R: Tensor, head_size: int, base: float) -> dict[str, Any] | None:
    """The scaling that gives these factors, or None if Llama 3's rule does not.

    A file holds the factors alone, and they leave the thresholds open up to a common multiple of them and of the
    original context; every published model has 1, 4 and 8192.
    """
    scaling = {
        "factor": float(factors_R.max()),
        "low_frequency_factor": 1.0,
        "high_frequency_factor": 4.0,
        "original_context": 8192,
    }
    if not math.isfinite(scaling["factor"]) or scaling["factor"] < 1.0 or factors_R.numel() != head_size // 2:
        return None
    wanted_R = rope_factors(head_size, base, scaling)
    return scaling if torch.allclose(wanted_R, factors_R.float(), rtol=1e-4, atol=0.0) else None
