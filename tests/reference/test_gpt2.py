"""Our GPT-2 against transformers' at toy size, forward and backward."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from groundup.inference.cache import cache_for
from groundup.models.gpt2 import GPT2, GPT2Options

NAMES = {
    "embedding.weight": "transformer.wte.weight",
    "position_embedding.weight": "transformer.wpe.weight",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "head.weight": "lm_head.weight",
}
PARTS = {
    "layers.": "h.",
    "attention_norm": "ln_1",
    "feed_forward_norm": "ln_2",
    "attention.qkv_proj": "attn.c_attn",
    "attention.o_proj": "attn.c_proj",
    "feed_forward.up_proj": "mlp.c_fc",
    "feed_forward.down_proj": "mlp.c_proj",
}
LAYER = [
    "attention_norm.weight", "attention_norm.bias",
    "attention.qkv_proj.weight", "attention.qkv_proj.bias", "attention.o_proj.weight", "attention.o_proj.bias",
    "feed_forward_norm.weight", "feed_forward_norm.bias",
    "feed_forward.up_proj.weight", "feed_forward.up_proj.bias",
    "feed_forward.down_proj.weight", "feed_forward.down_proj.bias",
]  # fmt: skip


def their_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    for ours, theirs in PARTS.items():
        name = name.replace(ours, theirs)
    return f"transformer.{name}"


def as_theirs(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Their projections are written (inputs, outputs)."""
    return tensor.T if name.endswith("proj.weight") else tensor


def network(tied: bool = True) -> GPT2:
    options = GPT2Options(vocabulary=97, context=40, width=48, layers=3, heads=6, hidden=80, tied=tied)
    model = GPT2(options)
    model.initialise(torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():  # far from a symmetric start, so that no mistake hides
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_logits_and_gradients_equal_transformers(tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    ours = network(tied)
    config = transformers.GPT2Config(
        vocab_size=97, n_positions=40, n_embd=48, n_layer=3, n_head=6, n_inner=80, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=tied, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).float().train()
    target = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            target.pop(their_name(name)).copy_(as_theirs(name, parameter))
    assert not target, f"not copied: {list(target)}"
    tokens = torch.randint(0, 97, (2, 29), generator=torch.Generator().manual_seed(1))
    our_logits, their_logits = ours(tokens), theirs(tokens).logits
    torch.testing.assert_close(our_logits, their_logits, rtol=1e-5, atol=1e-5)
    for logits in (our_logits, their_logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
        torch.testing.assert_close(as_theirs(name, parameter.grad), gradients[their_name(name)], rtol=1e-5, atol=1e-5)


def test_canonical_parameter_names() -> None:
    names = [name for name, _ in network(tied=False).named_parameters()]
    layers = [f"layers.{n}.{part}" for n in range(3) for part in LAYER]
    assert names == [
        "embedding.weight", "position_embedding.weight", *layers, "norm.weight", "norm.bias", "head.weight",
    ]  # fmt: skip


def test_packed_logits_equal_unpacked() -> None:
    ours = network()
    generator = torch.Generator().manual_seed(2)
    documents = [torch.randint(0, 97, (n,), generator=generator) for n in (9, 1, 14)]
    padding = torch.zeros(3, dtype=torch.int64)
    row = torch.cat([*documents, padding])[None]
    position = torch.cat([*(torch.arange(len(d)) for d in documents), padding])[None]
    document = torch.cat([*(torch.full((len(d),), i) for i, d in enumerate(documents)), padding - 1])[None]
    packed = ours(row, position, document)[0]
    alone = torch.cat([ours(d[None])[0] for d in documents])
    torch.testing.assert_close(packed[:-3], alone, rtol=1e-5, atol=1e-5)
    assert bool(packed.isfinite().all())


@torch.no_grad()
def test_step_by_step_with_a_cache_equals_the_whole_forward() -> None:
    ours = network()
    tokens = torch.randint(0, 97, (2, 17), generator=torch.Generator().manual_seed(5))
    cache = cache_for(ours, 2, 17)
    parts = [ours(part, cache=cache) for part in tokens.split((6, 1, 1, 4, 1, 1, 3), dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), ours(tokens), rtol=1e-5, atol=1e-5)


def test_initialise_is_deterministic_and_draws_what_its_table_says() -> None:
    options = GPT2Options(vocabulary=300, context=64, width=96, layers=2, heads=6, hidden=256, tied=False)
    first, second, other = GPT2(options), GPT2(options), GPT2(options)
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
            halved = name.endswith(("o_proj.weight", "down_proj.weight", "position_embedding.weight"))
            deviation = 0.01 if halved else 0.02
            assert abs(a.std().item() / deviation - 1) < 0.05, name
            assert abs(a.mean().item()) < 0.1 * deviation, name


def test_K11_impossible_options_are_refused() -> None:
    good = network().options.model_dump()
    assert GPT2Options.model_validate(good) == network().options
    for wrong in ({"heads": 5}, {"layers": 0}, {"context": "40"}, {"key_value_heads": 2}):
        with pytest.raises(ValidationError):
            GPT2Options.model_validate(good | wrong)
