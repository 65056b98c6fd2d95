"""The name and shape of every tensor of each family, worked out from its options without building a network: what a
file claims is compared with this before anything of its size exists.

Shapes are written (rows, columns) as torch stores them; a bias is as long as the rows of its weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Shape = tuple[int, ...]


def expected_shapes(family: str, options: Mapping[str, Any]) -> dict[str, Shape]:
    """The name and shape of every tensor that a network of these options has, tied head left out.

    Args:
        family: llama, moe, gpt2 or bert.
        options: all fields of the family's options.
    """
    make = {"llama": _decoder_shapes, "moe": _decoder_shapes, "gpt2": _gpt2_shapes, "bert": _bert_shapes}[family]
    return make(options)


def _decoder_shapes(options: Mapping[str, Any]) -> dict[str, Shape]:
    """Llama, and with `experts` the mixture of experts."""
    width, hidden, size = options["width"], options["hidden"], options["head_size"]
    queries, keys = options["heads"] * size, options["key_value_heads"] * size
    shapes: dict[str, Shape] = {"embedding.weight": (options["vocabulary"], width)}
    for layer in range(options["layers"]):
        block: dict[str, Shape] = {
            "input_norm.weight": (width,),
            "attention.q_proj.weight": (queries, width),
            "attention.k_proj.weight": (keys, width),
            "attention.v_proj.weight": (keys, width),
            "attention.o_proj.weight": (width, queries),
            "post_norm.weight": (width,),
        }
        if options.get("attention_bias"):
            block |= {f"attention.{name}.bias": (keys,) for name in ("k_proj", "v_proj")}
            block |= {"attention.q_proj.bias": (queries,)}
        if options.get("attention_bias") == "all":
            block |= {"attention.o_proj.bias": (width,)}
        if options.get("query_key_norm", "experts" in options):
            block |= {"attention.q_norm.weight": (size,), "attention.k_norm.weight": (size,)}
        if "experts" in options:
            experts = options["experts"]
            block |= {
                "feed_forward.router.weight": (experts, width),
                "feed_forward.experts.gate_proj.weight": (experts, hidden, width),
                "feed_forward.experts.up_proj.weight": (experts, hidden, width),
                "feed_forward.experts.down_proj.weight": (experts, width, hidden),
            }
        else:
            block |= {
                "feed_forward.gate_proj.weight": (hidden, width),
                "feed_forward.up_proj.weight": (hidden, width),
                "feed_forward.down_proj.weight": (width, hidden),
            }
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in block.items()}
    shapes["norm.weight"] = (width,)
    if not options["tied"]:
        shapes["head.weight"] = (options["vocabulary"], width)
    return shapes


def _with_bias(modules: Mapping[str, Shape]) -> dict[str, Shape]:
    """Weight and bias of each module; a bias is as long as the first dimension of its weight."""
    weights = {f"{name}.weight": shape for name, shape in modules.items()}
    return {**weights, **{f"{name}.bias": shape[:1] for name, shape in modules.items()}}


def _gpt2_shapes(options: Mapping[str, Any]) -> dict[str, Shape]:
    width, hidden = options["width"], options["hidden"]
    modules: dict[str, Shape] = {"norm": (width,)}
    for layer in range(options["layers"]):
        block = {
            "attention_norm": (width,),
            "attention.qkv_proj": (3 * width, width),
            "attention.o_proj": (width, width),
            "feed_forward_norm": (width,),
            "feed_forward.up_proj": (hidden, width),
            "feed_forward.down_proj": (width, hidden),
        }
        modules |= {f"layers.{layer}.{name}": shape for name, shape in block.items()}
    tables = {"embedding.weight": options["vocabulary"], "position_embedding.weight": options["context"]}
    if not options["tied"]:
        tables["head.weight"] = options["vocabulary"]
    return {**{name: (rows, width) for name, rows in tables.items()}, **_with_bias(modules)}


def _bert_shapes(options: Mapping[str, Any]) -> dict[str, Shape]:
    width, hidden = options["width"], options["hidden"]
    modules: dict[str, Shape] = {"embedding_norm": (width,)}
    for layer in range(options["layers"]):
        block: dict[str, Shape] = {f"attention.{name}_proj": (width, width) for name in "qkvo"}
        block |= {"attention_norm": (width,), "feed_forward_norm": (width,)}
        block |= {"feed_forward.up_proj": (hidden, width), "feed_forward.down_proj": (width, hidden)}
        modules |= {f"layers.{layer}.{name}": shape for name, shape in block.items()}
    tables = {
        "embedding.weight": options["vocabulary"],
        "position_embedding.weight": options["context"],
        "segment_embedding.weight": options["segments"],
    }
    return {**{name: (rows, width) for name, rows in tables.items()}, **_with_bias(modules)}
