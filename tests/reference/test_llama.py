"""Our Llama against transformers' at toy size, forward and backward."""

from __future__ import annotations

import pytest
import torch

from groundup.models.llama import Llama, LlamaOptions

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


def pair(*, tied: bool, query_key_norm: bool, window: int | None) -> tuple[Llama, torch.nn.Module]:
    transformers = pytest.importorskip("transformers")
    options = LlamaOptions(
        vocabulary=97, context=40, width=48, layers=3, heads=6, key_value_heads=2, head_size=8, hidden=80,
        rotary_base=5000.0, query_key_norm=query_key_norm, sliding_window=window, tied=tied,
    )  # fmt: skip
    ours = Llama(options)
    ours.initialise(torch.Generator().manual_seed(3))
    shared = {
        "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 80, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 40, "tie_word_embeddings": tied, "rope_theta": 5000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}, "attn_implementation": "eager",
    }  # fmt: skip
    if query_key_norm:
        config = transformers.Qwen3Config(**shared, use_sliding_window=False)
        theirs = transformers.Qwen3ForCausalLM(config)
    elif window is not None:
        theirs = transformers.MistralForCausalLM(transformers.MistralConfig(**shared, sliding_window=window))
    else:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared))
    theirs = theirs.float().train()
    target = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            target.pop(their_name(name)).copy_(parameter)
    assert not target, f"not copied: {list(target)}"
    return ours, theirs


@pytest.mark.parametrize(
    ("tied", "query_key_norm", "window"),
    [(True, False, None), (False, False, None), (False, True, None), (True, False, 7)],
)
def test_logits_and_gradients_equal_transformers(tied: bool, query_key_norm: bool, window: int | None) -> None:
    ours, theirs = pair(tied=tied, query_key_norm=query_key_norm, window=window)
    tokens = torch.randint(0, 97, (2, 29), generator=torch.Generator().manual_seed(1))
    our_logits, their_logits = ours(tokens), theirs(tokens).logits
    torch.testing.assert_close(our_logits, their_logits, rtol=1e-5, atol=1e-5)
    for logits in (our_logits, their_logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, their_gradients[their_name(name)], rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("window", [None, 5])
def test_packed_logits_equal_unpacked(window: int | None) -> None:
    ours, _ = pair(tied=True, query_key_norm=False, window=window)
    generator = torch.Generator().manual_seed(2)
    documents = [torch.randint(0, 97, (n,), generator=generator) for n in (9, 1, 14)]
    row = torch.cat(documents)[None]
    position = torch.cat([torch.arange(len(d)) for d in documents])[None]
    document = torch.cat([torch.full((len(d),), i) for i, d in enumerate(documents)])[None]
    packed = ours(row, position, document)[0]
    alone = torch.cat([ours(d[None])[0] for d in documents])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
