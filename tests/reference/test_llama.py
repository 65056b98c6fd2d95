"""Our Llama against transformers' at toy size, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from groundup.inference.cache import cache_for
from groundup.models import FAMILIES
from groundup.models.llama import Llama, LlamaOptions, RotaryScaling, rotary_table
from groundup.models.recurrent_text import RecurrentText

NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
PARTS = {
    "input_norm": "input_layernorm",
    "post_norm": "post_attention_layernorm",
    "attention.": "self_attn.",
    "feed_forward.": "mlp.",
}


def their_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    for ours, theirs in PARTS.items():
        name = name.replace(ours, theirs)
    return f"model.{name}"


KINDS = {
    "llama": {},
    "llama, untied": {"tied": False},
    "llama, biases": {"attention_bias": "all"},
    "llama 3": {
        "tied": False,
        "rotary_scaling": RotaryScaling(
            factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context=64
        ),
    },
    "mistral": {"sliding_window": 7},
    "qwen2": {"attention_bias": True},
    "qwen3": {"query_key_norm": True, "tied": False},
}
"""Options by the name of a family that others call their own."""


def network(kind: str) -> Llama:
    options = LlamaOptions(
        vocabulary=97, context=40, width=48, layers=3, heads=6, key_value_heads=2, head_size=8, hidden=80,
        rotary_base=5000.0, **KINDS[kind],
    )  # fmt: skip
    model = Llama(options)
    model.initialise(torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():  # a bias of zero or a norm of one would hide a mistake
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def theirs_like(kind: str, ours: Llama) -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    scaling = ours.options.rotary_scaling
    if scaling is not None:
        rope |= {
            "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_context,
        }  # fmt: skip
    shared = {
        "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 80, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 40, "tie_word_embeddings": ours.options.tied,
        "rope_parameters": rope, "attn_implementation": "eager",
    }  # fmt: skip
    if kind == "qwen3":
        theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**shared, use_sliding_window=False))
    elif kind == "qwen2":
        theirs = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shared, use_sliding_window=False))
    elif kind == "mistral":
        theirs = transformers.MistralForCausalLM(transformers.MistralConfig(**shared, sliding_window=7))
    else:
        bias = ours.options.attention_bias == "all"
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared, attention_bias=bias))
    theirs = theirs.float().train()
    target = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            target.pop(their_name(name)).copy_(parameter)
    assert not target, f"not copied: {list(target)}"
    return theirs


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_equal_transformers(kind: str) -> None:
    ours = network(kind)
    theirs = theirs_like(kind, ours)
    tokens = torch.randint(0, 97, (2, 29), generator=torch.Generator().manual_seed(1))
    our_logits, their_logits = ours(tokens), theirs(tokens).logits
    torch.testing.assert_close(our_logits, their_logits, rtol=1e-5, atol=1e-5)
    for logits in (our_logits, their_logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, their_gradients[their_name(name)], rtol=1e-5, atol=1e-5)


def test_llama3_scaling_divides_slow_frequencies_keeps_fast_ones_and_joins_them() -> None:
    scaling = RotaryScaling(factor=8.0)
    plain, scaled = (rotary_table(2, 128, 500000.0, s) for s in (None, scaling))
    plain_R, scaled_R = (torch.atan2(sin[1].double(), cos[1].double()) for cos, sin in (plain, scaled))
    turns_R = scaling.original_context * plain_R / (2 * math.pi)
    ratio_R = scaled_R / plain_R
    torch.testing.assert_close(ratio_R[turns_R < 1], torch.full_like(ratio_R[turns_R < 1], 1 / 8), rtol=1e-4, atol=0)
    torch.testing.assert_close(ratio_R[turns_R > 4], torch.ones_like(ratio_R[turns_R > 4]), rtol=1e-6, atol=0)
    between_R = ratio_R[(turns_R > 1) & (turns_R < 4)]
    assert len(between_R) > 3 and bool((between_R.diff() < 0).all())
    assert between_R.min() > 1 / 8 and between_R.max() < 1


def test_bias_names() -> None:
    for kind, biased in (("llama", ""), ("qwen2", "qkv"), ("llama, biases", "qkvo")):
        biases = [name for name, _ in network(kind).layers[0].named_parameters() if name.endswith("bias")]
        assert biases == [f"attention.{letter}_proj.bias" for letter in biased]


def test_options_written_before_a_field_was_added_still_load() -> None:
    old = {
        "vocabulary": 97, "context": 40, "width": 48, "layers": 3, "heads": 6, "key_value_heads": 2, "head_size": 8,
        "hidden": 80, "rotary_base": 5000.0, "norm_epsilon": 1e-5, "query_key_norm": False, "sliding_window": None,
        "tied": True,
    }  # fmt: skip
    assert LlamaOptions.model_validate(old) == network("llama").options
    for kind in KINDS:
        options = network(kind).options
        assert LlamaOptions.model_validate(options.model_dump()) == options


def test_K11_impossible_options_are_refused() -> None:
    good = network("llama").options.model_dump()
    for wrong in (
        {"key_value_heads": 4},
        {"attention_bias": "some"},
        {"rotary_scaling": {"factor": 8.0, "low_frequency_factor": 4.0, "high_frequency_factor": 4.0}},
        {"rotary_scaling": {"factor": 0.0}},
    ):
        with pytest.raises(ValidationError):
            LlamaOptions.model_validate(good | wrong)


def test_every_family_has_what_the_house_counts_on() -> None:
    for options, model in FAMILIES.values():
        assert {"vocabulary", "context", "width", "layers"} <= set(options.model_fields)
        assert model is RecurrentText or isinstance(model.causal, bool)  # its direction is an option


def test_canonical_parameter_names() -> None:
    options = LlamaOptions(
        vocabulary=5, context=4, width=4, layers=1, heads=2, key_value_heads=1, head_size=2, hidden=6,
        query_key_norm=True, tied=False,
    )  # fmt: skip
    assert [name for name, _ in Llama(options).named_parameters()] == [
        "embedding.weight",
        "layers.0.input_norm.weight",
        "layers.0.attention.q_proj.weight",
        "layers.0.attention.k_proj.weight",
        "layers.0.attention.v_proj.weight",
        "layers.0.attention.o_proj.weight",
        "layers.0.attention.q_norm.weight",
        "layers.0.attention.k_norm.weight",
        "layers.0.post_norm.weight",
        "layers.0.feed_forward.gate_proj.weight",
        "layers.0.feed_forward.up_proj.weight",
        "layers.0.feed_forward.down_proj.weight",
        "norm.weight",
        "head.weight",
    ]


@pytest.mark.parametrize("kind", ["llama", "mistral", "llama 3", "qwen2"])
def test_packed_logits_equal_unpacked(kind: str) -> None:
    ours = network(kind)
    generator = torch.Generator().manual_seed(2)
    documents = [torch.randint(0, 97, (n,), generator=generator) for n in (9, 1, 14)]
    row = torch.cat(documents)[None]
    position = torch.cat([torch.arange(len(d)) for d in documents])[None]
    document = torch.cat([torch.full((len(d),), i) for i, d in enumerate(documents)])[None]
    packed = ours(row, position, document)[0]
    alone = torch.cat([ours(d[None])[0] for d in documents])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_step_by_step_with_a_cache_equals_the_whole_forward(kind: str) -> None:
    ours = network(kind)
    tokens = torch.randint(0, 97, (2, 17), generator=torch.Generator().manual_seed(5))
    cache = cache_for(ours, 2, 17)
    parts = [ours(part, cache=cache) for part in tokens.split((6, 1, 1, 4, 1, 1, 3), dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), ours(tokens), rtol=1e-5, atol=1e-5)


def test_initialise_is_deterministic_and_draws_what_its_table_says() -> None:
    options = LlamaOptions(
        vocabulary=300, context=8, width=96, layers=2, heads=6, key_value_heads=2, head_size=16, hidden=256,
        attention_bias="all", query_key_norm=True, tied=False,
    )  # fmt: skip
    first, second, other = Llama(options), Llama(options), Llama(options)
    for model, seed in ((first, 7), (second, 7), (other, 8)):
        model.initialise(torch.Generator().manual_seed(seed))
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters()):
        assert torch.equal(a, b), name
        if name.endswith("bias"):
            assert not a.any(), name
        elif name.endswith("norm.weight"):
            assert bool((a == 1).all()), name
        else:
            assert not torch.equal(a, c), name
            deviation = 0.02 if name == "embedding.weight" else a.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                deviation /= 2.0
            assert abs(a.std().item() / deviation - 1) < 0.05, name
            assert abs(a.mean().item()) < 0.1 * deviation, name
