"""IA3, prompt tuning, vocabulary growth, merging and averaging."""

from __future__ import annotations

import pytest
import torch
from tests.adapters import toy

from groundup.adapters import (
    GrowOptions,
    Growth,
    LoraOptions,
    PromptOptions,
    QuantizeOptions,
    ScaleOptions,
    adapter_tensors,
    apply,
    average,
    grow,
    load_adapter_tensors,
    merge,
    prompt_ids,
    without_adapters,
)
from groundup.errors import GroundupError


def test_scale_equals_peft_and_merges() -> None:
    peft = pytest.importorskip("peft")
    ours, tokens = toy.llama(), toy.tokens()
    base = ours(tokens)
    config = peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])
    theirs = peft.get_peft_model(toy.their_llama(ours), config)
    apply(ours, [ScaleOptions(kind="scale")], seed=0)
    toy.perturb(ours)
    target, pairs = dict(theirs.named_parameters()), {}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.endswith(".scale"):
                (key,) = [key for key in target if "ia3_l" in key and all(
                    part in key for part in (f"layers.{name.split('.')[1]}.", name.split(".")[-2])
                )]  # fmt: skip
                target[key].copy_(parameter.view(target[key].shape))
                pairs[name] = target[key]
    logits, expected = ours(tokens), theirs(tokens).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    logits.square().sum().backward()
    expected.square().sum().backward()
    mine = dict(ours.named_parameters())
    assert {name for name, p in mine.items() if p.grad is not None} == set(pairs) and len(pairs) == 6
    for name, parameter in pairs.items():
        torch.testing.assert_close(mine[name].grad, parameter.grad.view(-1), atol=1e-4, rtol=1e-4)
    with without_adapters(ours):
        torch.testing.assert_close(ours(tokens), base, atol=1e-6, rtol=1e-6)
    merge(ours)
    assert set(ours.state_dict()) == set(toy.llama().state_dict())
    torch.testing.assert_close(ours(tokens), logits, atol=1e-5, rtol=1e-5)


def test_prompt_is_text_in_front() -> None:
    model, tokens = toy.llama(), toy.tokens()
    base = model(tokens)
    apply(model, [PromptOptions(kind="prompt", tokens=3)], seed=0)
    ids = prompt_ids(model)
    assert ids == [97, 98, 99] and torch.equal(model(tokens), base)
    in_front = torch.cat([torch.tensor(ids).expand(3, -1), tokens], dim=1)
    logits = model(in_front)
    # the prompt starts as real tokens, so it must act as those do
    real = [int((model.embedding.weight == row).all(dim=1).nonzero()) for row in model.embedding.prompt]
    torch.testing.assert_close(logits, model(torch.cat([torch.tensor(real).expand(3, -1), tokens], dim=1)))
    logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["embedding.prompt"]
    saved = {name: value.clone() for name, value in adapter_tensors(model, "prompt").items()}
    assert set(saved) == {"embedding.prompt"}
    load_adapter_tensors(model, "prompt", {"embedding.prompt": torch.zeros(3, 32)})
    assert not torch.equal(model(in_front), logits)
    with pytest.raises(GroundupError) as caught:
        merge(model)
    assert caught.value.code == "E-ADAPT-007"


def words(number: int) -> GrowOptions:
    return GrowOptions(kind="grow", words=[f"word {n}" for n in range(number)])


@pytest.mark.parametrize("tied", [True, False])
def test_vocabulary_growth(tied: bool) -> None:
    model, tokens = toy.llama(tied=tied), toy.tokens()
    before = model(tokens)
    mean = model.embedding.weight.mean(dim=0)
    grow(model, words(3), seed=0)
    assert model.options.vocabulary == model.vocabulary == 100 and model.options.tied == tied
    assert (model.head.weight is model.embedding.weight) == tied and model.head.out_features == 100
    after = model(tokens)
    assert after.shape[-1] == 100 and torch.equal(after[..., :97], before)
    torch.testing.assert_close(model.embedding.weight[98], mean)
    assert type(model)(model.options).load_state_dict(model.state_dict()) is not None
    grow(model, words(2), seed=0, growth=Growth(100, ((3, 5), (7,))))
    torch.testing.assert_close(model.embedding.weight[100], model.embedding.weight[[3, 5]].mean(dim=0))
    assert torch.equal(model.head.weight[101], model.head.weight[7])
    assert all(p.requires_grad for p in model.parameters())


def test_a_quantized_vocabulary_cannot_grow() -> None:
    model = toy.llama()
    apply(model, [QuantizeOptions(kind="quantize")], seed=0)
    with pytest.raises(GroundupError, match="QuantizedEmbedding") as caught:
        grow(model, words(3), seed=0)
    assert caught.value.code == "E-ADAPT-006"


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("targets", [["*_proj"], ["*_proj", "embedding"], ["embedding", "head"]], ids=str)
def test_merged_equals_run_time(variant: str, targets: list[str]) -> None:
    model, tokens = toy.llama(), toy.tokens()
    model.eval()
    apply(model, [LoraOptions(kind="lora", rank=4, targets=targets, variant=variant)], seed=0)
    toy.perturb(model)
    logits = model(tokens)
    merge(model)
    torch.testing.assert_close(model(tokens), logits, atol=1e-5, rtol=1e-5)
    assert model.options.tied == ("embedding" not in targets)
    fresh = type(model)(model.options)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(tokens), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bits", ["int8", "nf4"])
@pytest.mark.parametrize("stored", [["*_proj"], ["head"]], ids=str)
def test_merged_equals_run_time_on_a_quantized_base(bits: str, stored: list[str]) -> None:
    """The head is tied to the codes of the table, and no longer once its adapter is folded in."""
    model, tokens = toy.llama().eval(), toy.tokens()
    base = QuantizeOptions(kind="quantize", bits=bits, targets=stored)
    apply(model, [base, LoraOptions(kind="lora", rank=4, targets=["head"])], seed=0)
    toy.perturb(model)
    logits = model(tokens)
    merge(model)
    assert not model.options.tied
    fresh = type(model)(model.options)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(tokens), logits, atol=1e-5, rtol=1e-5)


def test_average() -> None:
    states = [toy.llama(seed=seed).state_dict() for seed in (1, 2, 3)]
    mean, weighted = average(states), average(states, [1.0, 0.0, 3.0])
    name = "layers.0.attention.q_proj.weight"
    torch.testing.assert_close(mean[name], torch.stack([state[name] for state in states]).mean(dim=0))
    torch.testing.assert_close(weighted[name], 0.25 * states[0][name] + 0.75 * states[2][name])
    assert torch.equal(average([states[0]])[name], states[0][name])
    for wrong, weights in (([], None), (states, [1.0]), ([states[0], {}], None),
                           ([{"a": torch.tensor([1])}, {"a": torch.tensor([2])}], None)):  # fmt: skip
        with pytest.raises(GroundupError) as caught:
            average(wrong, weights)
        assert caught.value.code == "E-ADAPT-009"
