"""The key maps: both directions undo each other, and every difference is told at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.errors import GroundupError
from groundup.formats.keys import KEY_MAPS, module_to_hugging_face, module_to_ours, to_hugging_face, to_ours
from groundup.formats.shapes import expected_shapes
from groundup.models import FAMILIES

DECODER = {
    "vocabulary": 20,
    "context": 8,
    "width": 8,
    "layers": 2,
    "heads": 4,
    "key_value_heads": 2,
    "head_size": 4,
    "hidden": 12,
    "tied": False,
}
PLAIN = {"vocabulary": 20, "context": 8, "width": 8, "layers": 2, "heads": 4, "hidden": 12}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", DECODER),
    ("llama", {**DECODER, "tied": True, "attention_bias": True}),
    ("llama", {**DECODER, "attention_bias": "all", "query_key_norm": True}),
    ("moe", {**DECODER, "experts": 3, "experts_per_token": 2}),
    ("gpt2", {**PLAIN, "tied": True}),
    ("gpt2", {**PLAIN, "tied": False}),
    ("bert", {**PLAIN, "segments": 2}),
]


def drawn(family: str, options: dict[str, Any]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = expected_shapes(family, options)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize(("family", "options"), CASES)
def test_the_shapes_are_those_of_the_network(family: str, options: dict[str, Any]) -> None:
    kind, network = FAMILIES[family]
    with torch.device("meta"):
        model = network(kind.model_validate(options))
    parameters = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert expected_shapes(family, options) == parameters


@pytest.mark.parametrize(("family", "options"), CASES)
@pytest.mark.parametrize("bare", [False, True])
def test_there_and_back_changes_nothing(family: str, options: dict[str, Any], bare: bool) -> None:
    tensors = drawn(family, options)
    theirs = to_hugging_face(family, tensors, bare=bare)
    back, notes = to_ours(family, theirs, options, "x")
    assert notes == () and back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_names_and_layouts_of_hugging_face() -> None:
    moe = {**DECODER, "experts": 3, "experts_per_token": 2}
    experts = to_hugging_face("moe", drawn("moe", moe))
    assert experts["model.layers.1.mlp.experts.2.down_proj.weight"].shape == (8, 12)
    assert experts["model.layers.1.mlp.gate.weight"].shape == (3, 8) and "lm_head.weight" in experts
    gpt2 = to_hugging_face("gpt2", drawn("gpt2", {**PLAIN, "tied": True}))
    assert gpt2["transformer.h.0.attn.c_attn.weight"].shape == (8, 24)  # (inputs, outputs)
    assert gpt2["transformer.wpe.weight"].shape == (8, 8)
    assert "bert.encoder.layer.0.attention.output.LayerNorm.bias" in to_hugging_face(
        "bert", drawn("bert", {**PLAIN, "segments": 2})
    )


def test_modules_for_adapters() -> None:
    ours, theirs = "layers.10.attention.q_proj", "model.layers.10.self_attn.q_proj"
    assert module_to_hugging_face("llama", ours) == theirs and module_to_ours("llama", theirs) == ours
    assert module_to_hugging_face("gpt2", "layers.0.attention.qkv_proj") == "transformer.h.0.attn.c_attn"
    assert module_to_hugging_face("bert", "layers.0.attention.q_proj", bare=True) == (
        "encoder.layer.0.attention.self.query"
    )
    assert module_to_hugging_face("llama", "head") == "lm_head" and module_to_ours("llama", "lm_head") == "head"
    for family, keys in KEY_MAPS.items():
        for rule in keys.rules:
            ours = rule.ours.replace("N", "3")
            if "X" not in rule.theirs:
                assert module_to_ours(family, module_to_hugging_face(family, ours)) == ours
    for wrong in ("layers.0.attention.k", "layers.00.attention.q_proj", "layers.attention.q_proj", "", "layers.0"):
        with pytest.raises(KeyError):
            module_to_hugging_face("llama", wrong)
    with pytest.raises(KeyError):
        module_to_hugging_face("moe", "layers.0.feed_forward.experts.up_proj")


def test_every_difference_is_told_at_once() -> None:
    theirs = to_hugging_face("llama", drawn("llama", DECODER))
    del theirs["model.norm.weight"]
    theirs["model.nrom.weight"] = torch.ones(8)
    theirs["lm_head.weight"] = torch.ones(20, 9)
    theirs["model.embed_tokens.weight"] = torch.ones(20, 8, dtype=torch.int8)
    with pytest.raises(GroundupError) as caught:
        to_ours("llama", theirs, DECODER, "folder\x1b[0m")
    text = str(caught.value)
    assert caught.value.code == "E-FORMAT-001"
    assert "1 missing, 1 unexpected, 1 with another shape, 1 not usable" in text
    assert "nearest unexpected: nrom.weight" in text and "expected [20, 8], found [20, 9]" in text
    assert "int8" in text and "\x1b" not in text


def test_long_lists_are_cut_but_counted() -> None:
    with pytest.raises(GroundupError) as caught:
        to_ours("llama", {f"x{number}": torch.ones(1) for number in range(100)}, DECODER, "x")
    assert "unexpected (100):" in str(caught.value) and "… and 80 more" in str(caught.value)


def test_an_expert_that_is_missing_is_named() -> None:
    options = {**DECODER, "experts": 3, "experts_per_token": 2}
    theirs = to_hugging_face("moe", drawn("moe", options))
    del theirs["model.layers.1.mlp.experts.2.up_proj.weight"]
    with pytest.raises(GroundupError, match="1 missing, 0 unexpected") as caught:
        to_ours("moe", theirs, options, "x")
    assert "layers.1.mlp.experts.2.up_proj.weight" in str(caught.value)
