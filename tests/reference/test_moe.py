"""Our mixture of experts against transformers' Qwen3-MoE at toy size, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from groundup.inference.cache import cache_for
from groundup.models.moe import Moe, MoeOptions, Routes, balance_loss

NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
PARTS = {
    "input_norm": "input_layernorm",
    "post_norm": "post_attention_layernorm",
    "attention.": "self_attn.",
    "feed_forward.router": "mlp.gate",
    "feed_forward.experts.down_proj.weight": "mlp.experts.down_proj",
}
LAYER = [
    "input_norm.weight",
    "attention.q_proj.weight", "attention.k_proj.weight", "attention.v_proj.weight", "attention.o_proj.weight",
    "attention.q_norm.weight", "attention.k_norm.weight",
    "post_norm.weight",
    "feed_forward.router.weight",
    "feed_forward.experts.gate_proj.weight",
    "feed_forward.experts.up_proj.weight",
    "feed_forward.experts.down_proj.weight",
]  # fmt: skip
SIZES = {
    "vocabulary": 97, "context": 40, "width": 48, "layers": 3, "heads": 6, "key_value_heads": 2, "head_size": 8,
    "hidden": 20, "rotary_base": 5000.0, "experts": 5, "experts_per_token": 2, "normalise_routes": True,
    "balance": 0.01, "tied": False,
}  # fmt: skip


def as_theirs(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors under their names; gate and up of an expert are one matrix with them."""
    for name, tensor in tensors.items():
        if name.endswith("experts.gate_proj.weight"):
            up = tensors[name.replace("gate_proj", "up_proj")]
            stem = name.removesuffix("feed_forward.experts.gate_proj.weight")
            yield f"model.{stem}mlp.experts.gate_up_proj", torch.cat([tensor, up], dim=1)
        elif not name.endswith("experts.up_proj.weight"):
            theirs = name
            for ours, part in PARTS.items():
                theirs = theirs.replace(ours, part)
            yield NAMES.get(name, f"model.{theirs}"), tensor


def network(**changed: object) -> Moe:
    model = Moe(MoeOptions.model_validate(SIZES | changed))
    model.initialise(torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # routers that choose clearly, norms that are not one
            if name.endswith(("norm.weight", "router.weight")):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def theirs_like(ours: Moe) -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    options = ours.options
    config = transformers.Qwen3MoeConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=options.layers, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, moe_intermediate_size=20, num_experts=options.experts,
        num_experts_per_tok=options.experts_per_token, norm_topk_prob=options.normalise_routes, rms_norm_eps=1e-5,
        max_position_embeddings=40, tie_word_embeddings=options.tied, attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0}, experts_implementation="eager",
    )  # fmt: skip
    theirs = transformers.Qwen3MoeForCausalLM(config).float().train()
    target = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, tensor in as_theirs(dict(ours.named_parameters())):
            target.pop(name).copy_(tensor)
    assert not target, f"not copied: {list(target)}"
    return theirs


def assert_equal_gradients(ours: Moe, theirs: torch.nn.Module) -> None:
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, gradient in as_theirs({name: p.grad for name, p in ours.named_parameters()}):
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"normalise_routes": False, "tied": True},
        {"experts_per_token": 1},
        {"experts_per_token": 5},
        {"experts": 60},
    ],
    ids=str,
)
def test_logits_and_gradients_equal_transformers(changed: dict[str, object]) -> None:
    ours = network(**changed)
    theirs = theirs_like(ours)
    tokens = torch.randint(0, 97, (2, 29), generator=torch.Generator().manual_seed(1))
    our_logits, their_logits = ours(tokens), theirs(tokens).logits
    torch.testing.assert_close(our_logits, their_logits, rtol=1e-5, atol=1e-5)
    for logits in (our_logits, their_logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert_equal_gradients(ours, theirs)


def test_balance_loss_and_its_gradients_equal_transformers_block_by_block() -> None:
    modeling = pytest.importorskip("transformers.models.qwen3_moe.modeling_qwen3_moe")
    ours = network(balance=0.5)
    theirs = theirs_like(ours)
    tokens = torch.randint(0, 97, (2, 29), generator=torch.Generator().manual_seed(1))
    real = torch.ones(2, 29, dtype=torch.int64)
    real[1, 20:] = 0
    states, balance = ours.hidden_and_balance(tokens, document_BT=real - 1)
    given = theirs(tokens, attention_mask=real, output_router_logits=True)
    losses = [modeling.load_balancing_loss_func((logits,), 5, 2, real) for logits in given.router_logits]
    expected = 0.5 * torch.stack(losses).mean()
    torch.testing.assert_close(balance, expected, rtol=1e-5, atol=1e-6)
    keep = real.bool()
    torch.testing.assert_close(states @ ours.head_weight().T * keep[..., None], given.logits * keep[..., None])
    for loss, model in ((balance, ours), (expected, theirs)):
        named = dict(model.named_parameters())
        for parameter, gradient in zip(
            named.values(), torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        ):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
    assert ours.layers[0].feed_forward.router.weight.grad.abs().max() > 1e-3
    assert_equal_gradients(ours, theirs)


def test_balance_loss_is_least_at_an_even_load() -> None:
    expert_NC = torch.tensor([[0, 1], [2, 3], [1, 0], [3, 2]])
    even = Routes(torch.full((4, 4), 0.25), expert_NC)
    assert balance_loss(even).item() == pytest.approx(2.0)
    uneven = Routes(torch.tensor([[0.5, 0.5, 0.0, 0.0]]).expand(4, 4), torch.tensor([[0, 1]]).expand(4, 2))
    assert balance_loss(uneven).item() == pytest.approx(4.0)
    padded = Routes(torch.cat([even[0], uneven[0]]), torch.cat([even[1], uneven[1]]))
    assert balance_loss(padded, torch.arange(8) < 4).item() == pytest.approx(2.0)
    assert balance_loss(padded, torch.arange(8) < 0).item() == 0.0


def test_hidden_and_balance_gives_the_states_of_hidden() -> None:
    ours = network()
    tokens = torch.randint(0, 97, (2, 29), generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.hidden_and_balance(tokens)[0], ours.hidden(tokens))
    assert network(balance=0.0).hidden_and_balance(tokens)[1].item() == 0.0


def test_canonical_parameter_names_and_shapes() -> None:
    shapes = {name: tuple(p.shape) for name, p in network().named_parameters()}
    layers = [f"layers.{n}.{part}" for n in range(3) for part in LAYER]
    assert list(shapes) == ["embedding.weight", *layers, "norm.weight", "head.weight"]
    assert shapes["layers.0.feed_forward.router.weight"] == (5, 48)
    assert shapes["layers.0.feed_forward.experts.gate_proj.weight"] == (5, 20, 48)
    assert shapes["layers.0.feed_forward.experts.up_proj.weight"] == (5, 20, 48)
    assert shapes["layers.0.feed_forward.experts.down_proj.weight"] == (5, 48, 20)


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


def test_active_parameters_are_those_that_a_token_touches() -> None:
    ours = network(layers=2)
    ours.hidden(torch.zeros(1, 1, dtype=torch.int64)).sum().backward()
    touched = ours.head.weight.numel() + ours.embedding.weight.numel()
    for name, parameter in ours.layers.named_parameters():
        assert parameter.grad is not None, name
        if ".experts." in name:
            touched += int(parameter.grad.flatten(1).any(dim=1).sum()) * parameter[0].numel()
        else:
            touched += parameter.numel()
    assert ours.active_parameters() == touched + ours.norm.weight.numel()
    assert network(experts_per_token=5).active_parameters() == sum(p.numel() for p in network().parameters())


def test_the_router_works_in_float32_under_autocast() -> None:
    ours = network(layers=1).layers[0].feed_forward
    x_BTD = torch.randn(2, 8, 48, generator=torch.Generator().manual_seed(6))
    with torch.autocast("cpu", torch.bfloat16):
        _, rounded = ours(x_BTD)
    _, exact = ours(x_BTD)
    assert torch.equal(rounded.probability_NE, exact.probability_NE)
    assert torch.equal(rounded.expert_NC, exact.expert_NC)


def test_initialise_is_deterministic_and_draws_what_its_table_says() -> None:
    options = MoeOptions.model_validate(SIZES | {"vocabulary": 300, "width": 96, "hidden": 128, "layers": 2})
    first, second, other = Moe(options), Moe(options), Moe(options)
    for model, seed in ((first, 7), (second, 7), (other, 8)):
        model.initialise(torch.Generator().manual_seed(seed))
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters()):
        assert torch.equal(a, b), name
        if name.endswith("norm.weight"):
            assert bool((a == 1).all()), name
            continue
        assert not torch.equal(a, c), name
        deviation = 0.02 if name.startswith("embedding") or "router" in name else a.shape[-1] ** -0.5
        if "o_proj" in name or "down_proj" in name:
            deviation /= 2.0
        assert abs(a.std().item() / deviation - 1) < 0.1, name
        assert abs(a.mean().item()) < 0.2 * deviation, name


def test_K11_impossible_options_are_refused() -> None:
    options = network().options
    assert MoeOptions.model_validate(options.model_dump()) == options
    for wrong in (
        {"experts_per_token": 6},
        {"key_value_heads": 4},
        {"experts": 0},
        {"balance": -1.0},
        {"head_size": 7},
    ):
        with pytest.raises(ValidationError):
            MoeOptions.model_validate(SIZES | wrong)
