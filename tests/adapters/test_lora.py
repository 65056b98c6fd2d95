"""LoRA, rsLoRA and DoRA against peft, their switching, and what stays as it was."""

from __future__ import annotations

import pytest
import torch
from tests.adapters import toy
from torch import nn

from groundup.adapters import LoraOptions, QuantizeOptions, apply, lora, set_adapter, without_adapters
from groundup.adapters.merge import adapter_tensors, load_adapter_tensors, merge
from groundup.errors import GroundupError
from groundup.functional import chunked_cross_entropy

PROJECTIONS = ["*.q_proj", "*.v_proj", "*.down_proj"]
CASES = {
    "lora": {"targets": PROJECTIONS},
    "lora with embedding": {"targets": [*PROJECTIONS, "embedding"]},
    "rslora": {"targets": PROJECTIONS, "variant": "rslora"},
    "dora": {"targets": PROJECTIONS, "variant": "dora"},
    "dora with embedding": {"targets": [*PROJECTIONS, "embedding"], "variant": "dora"},
    "ranks by pattern": {
        "targets": PROJECTIONS, "rank_by": {"layers.1.*.q_proj": 7}, "alpha_by": {"*.down_proj": 3.0},
    },
}  # fmt: skip


def options(**fields: object) -> LoraOptions:
    return LoraOptions(**{"kind": "lora", "rank": 4, "alpha": 8.0, **fields})


def peft_config(case: dict[str, object]) -> object:
    peft = pytest.importorskip("peft")
    suffixes = ["q_proj", "v_proj", "down_proj", *(["embed_tokens"] if "embedding" in case["targets"] else [])]
    return peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=suffixes, use_rslora=case.get("variant") == "rslora",
        use_dora=case.get("variant") == "dora",
        rank_pattern={"layers.1.self_attn.q_proj": 7} if "rank_by" in case else {},
        alpha_pattern={"down_proj": 3.0} if "alpha_by" in case else {},
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_forward_and_gradients_equal_peft(case: dict[str, object]) -> None:
    peft = pytest.importorskip("peft")
    # peft warns about tied heads; what it computes is an adapted embedding beside the base's head, as here
    ours = toy.llama()
    theirs = peft.get_peft_model(toy.their_llama(ours), peft_config(case))
    lora(ours, options(**case), seed=3)
    toy.perturb(ours)
    pairs = toy.copy_to_peft(ours, theirs)
    tokens = toy.tokens()
    logits, expected = ours(tokens), theirs(tokens).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    probe = torch.randn(logits.shape, generator=torch.Generator().manual_seed(9))
    (logits * probe).sum().backward()
    (expected * probe).sum().backward()
    mine = dict(ours.named_parameters())
    for name, parameter in pairs.items():
        assert mine[name].grad is not None and parameter.grad is not None, name
        torch.testing.assert_close(
            mine[name].grad, parameter.grad, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert all(p.grad is None for name, p in mine.items() if name not in pairs)


def test_fresh_adapter_changes_nothing_and_names_are_canonical() -> None:
    model = toy.llama()
    before, names = model(toy.tokens()), set(model.state_dict())
    lora(model, options(variant="dora", targets=["*_proj", "embedding"]), seed=0)
    torch.testing.assert_close(model(toy.tokens()), before, atol=1e-6, rtol=1e-6)
    added = set(model.state_dict()) - names
    assert names <= set(model.state_dict())
    q_proj = {name.removeprefix("layers.0.attention.q_proj.") for name in added if "layers.0.attention.q_proj" in name}
    assert q_proj == {"lora_a.default", "lora_b.default", "lora_magnitude.default"}
    assert model.embedding.lora_a["default"].shape == (4, 97) and model.embedding.lora_b["default"].shape == (32, 4)


@pytest.mark.parametrize("autocast", [False, True])
def test_chunked_loss_of_a_tied_head(autocast: bool) -> None:
    model = toy.llama()
    lora(model, options(targets=["*_proj"]), seed=0)
    toy.perturb(model)
    tokens = toy.tokens()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        chunked_cross_entropy(model.hidden(tokens[:, :-1]), model.head_weight(), tokens[:, 1:]).backward()
    if autocast:
        assert all(
            p.grad is not None and p.grad.dtype == torch.float32 for n, p in model.named_parameters() if "lora" in n
        )
    assert model.embedding.weight.grad is None


@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("quantized", [False, True])
def test_chunked_loss_of_an_adapted_head(variant: str, quantized: bool) -> None:
    """The loss in chunks never calls the output matrix, and trains its adapter all the same."""
    model = toy.llama(tied=False)
    if quantized:
        apply(model, [QuantizeOptions(kind="quantize", bits="int8", targets=["head"])], seed=0)
    lora(model, options(targets=["head"], variant=variant), seed=0)
    toy.perturb(model)
    tokens, learned = toy.tokens(), [p for p in model.parameters() if p.requires_grad]
    chunked = chunked_cross_entropy(model.hidden(tokens[:, :-1]), model.head_weight(), tokens[:, 1:])
    plain = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(chunked, plain, atol=1e-3, rtol=1e-5)
    found, expected = (torch.autograd.grad(loss, learned) for loss in (chunked, plain))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_any_shape_and_leading_dimensions() -> None:
    for inputs, outputs, shape, bias in [(1, 5, (2, 1), True), (7, 3, (7,), False), (6, 6, (2, 3, 4, 6), True)]:
        model = nn.ModuleDict({"linear": nn.Linear(inputs, outputs, bias=bias)})
        x = torch.randn(shape)
        lora(model, options(targets=["linear"], variant="dora", rank=9), seed=0)
        toy.perturb(model)
        linear = model["linear"]
        expected = nn.functional.linear(x, linear.merged(), linear.bias)
        torch.testing.assert_close(linear(x), expected, atol=1e-5, rtol=1e-5)


def test_gradients_against_finite_differences() -> None:
    model = nn.ModuleDict({"linear": nn.Linear(5, 4)}).double()
    lora(model, options(targets=["linear"], rank=2), seed=0)
    toy.perturb(model)
    linear = model["linear"].double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    a, b = linear.lora_a["default"], linear.lora_b["default"]

    def run(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(linear, {"lora_a.default": a, "lora_b.default": b}, (x,))

    assert torch.autograd.gradcheck(run, (x, a.detach().requires_grad_(), b.detach().requires_grad_()))


def test_dropout_only_in_training() -> None:
    model = toy.llama()
    lora(model, options(dropout=0.5), seed=0)
    toy.perturb(model)
    tokens = toy.tokens()
    model.train()
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_frozen_stays_bitwise_and_has_no_gradient() -> None:
    model = toy.llama()
    lora(model, options(), seed=0)
    toy.perturb(model)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trained = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, fused=True)
    for _ in range(3):
        model(toy.tokens()).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    now = dict(model.named_parameters())
    assert "embedding.weight" in frozen and "layers.0.attention.q_proj.weight" in frozen
    assert all(torch.equal(now[name], value) and now[name].grad is None for name, value in frozen.items())
    assert not any(torch.equal(now[name], value) for name, value in trained.items())


def test_train_keeps_base_parameters_trainable() -> None:
    model = toy.llama()
    lora(model, options(targets=["*.q_proj"], train=["norm.weight"]), seed=0)
    base = {name for name, p in model.named_parameters() if p.requires_grad and "lora" not in name}
    assert base == {"norm.weight"}
    assert "norm.weight" in adapter_tensors(model, "default")
    with pytest.raises(GroundupError, match="in full and adapted") as caught:
        lora(toy.llama(), options(targets=["*.q_proj"], train=["*.q_proj.weight"]), seed=0)
    assert caught.value.code == "E-ADAPT-002"


def test_switching_and_mixing() -> None:
    model = toy.llama()
    base = model(toy.tokens())
    lora(model, options(name="one", targets=["*.q_proj"]), seed=0)
    lora(model, options(name="two", targets=["*.q_proj", "*.up_proj"], variant="dora"), seed=1)
    toy.perturb(model)
    tokens = toy.tokens()
    outputs = {}
    for key, mixing in {"one": "one", "two": "two", "mixed": {"one": 0.3, "two": 0.6}, "none": None}.items():
        set_adapter(model, mixing)
        outputs[key] = model(tokens)
    assert torch.equal(outputs["none"], base)
    assert not any(torch.allclose(outputs[key], base, atol=1e-4) for key in ("one", "two", "mixed"))
    set_adapter(model, "one")
    with without_adapters(model):
        assert torch.equal(model(tokens), base)
    assert torch.equal(model(tokens), outputs["one"])
    set_adapter(model, {"one": 0.3, "two": 0.6})
    merge(model)
    torch.testing.assert_close(model(tokens), outputs["mixed"], atol=1e-5, rtol=1e-5)
    with pytest.raises(GroundupError, match="no adapter named three") as caught:
        set_adapter(model, "three")
    assert caught.value.code == "E-ADAPT-004"


def test_seed_and_round_trip() -> None:
    first, second, third = toy.llama(), toy.llama(), toy.llama()
    for model, seed in ((first, 4), (second, 4), (third, 5)):
        apply(model, [options(variant="dora")], seed=seed)
    weights = [model.layers[0].attention.q_proj.lora_a["default"] for model in (first, second, third)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    toy.perturb(first)
    load_adapter_tensors(third, "default", adapter_tensors(first, "default"))
    assert torch.equal(first(toy.tokens()), third(toy.tokens()))
    wrong = adapter_tensors(first, "default")
    wrong["layers.9.x.lora_a"] = wrong.pop("layers.0.attention.q_proj.lora_a")
    wrong["layers.0.attention.k_proj.lora_b"] = torch.zeros(3, 3)
    with pytest.raises(GroundupError) as caught:
        load_adapter_tensors(third, "default", wrong)
    text = str(caught.value)
    assert "missing: layers.0.attention.q_proj.lora_a" in text and "unexpected: layers.9.x.lora_a" in text
    assert "layers.0.attention.k_proj.lora_b: (3, 3), expected (16, 4)" in text


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"targets": ["*.qproj", "*.none"]}, "E-ADAPT-001", ['"*.qproj"', "layers.0.attention.q_proj", '"*.none"']),
        ({"targets": ["*.attention"]}, "E-ADAPT-002", ["layers.0.attention.*"]),
        ({"targets": ["*norm"]}, "E-ADAPT-002", ["input_norm is of type RMSNorm"]),
        ({"targets": ["*.q_proj.weight"]}, "E-ADAPT-002", ["parameter of shape (32, 32)"]),
        ({"targets": ["*.q_proj"], "rank_by": {"*.k_proj": 2}}, "E-ADAPT-001", ["rank_by", "*.k_proj"]),
        ({"targets": ["*.q_proj"], "train": ["*.wat"]}, "E-ADAPT-001", ["lora.train"]),
    ],
)  # fmt: skip
def test_patterns_that_do_not_fit(fields: dict[str, object], code: str, words: list[str]) -> None:
    with pytest.raises(GroundupError) as caught:
        lora(toy.llama(), options(**fields), seed=0)
    assert caught.value.code == code
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_names_that_cannot_be() -> None:
    model = toy.llama()
    lora(model, options(), seed=0)
    with pytest.raises(GroundupError) as caught:
        lora(model, options(), seed=0)
    assert caught.value.code == "E-ADAPT-005"
    for name in ("keys", "a.b", "", "training"):
        with pytest.raises(ValueError, match="name"):
            options(name=name)


def test_stacked_experts_are_refused() -> None:
    experts = nn.Module()
    experts.gate_proj = nn.Parameter(torch.zeros(4, 3, 2))
    model = nn.ModuleDict({"layers": nn.ModuleDict({"0": experts})})
    with pytest.raises(GroundupError, match="cannot be adapted") as caught:
        lora(model, options(targets=["*_proj"]), seed=0)
    assert caught.value.code == "E-ADAPT-002" and "(4, 3, 2)" in str(caught.value)


def test_on_a_quantized_base() -> None:
    model, tokens = toy.llama(), toy.tokens()
    apply(model, [QuantizeOptions(kind="quantize"), options(variant="dora")], seed=0)
    toy.perturb(model)
    logits = model(tokens)
    logits.square().sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        name for name, p in model.named_parameters() if "lora_" in name
    }
    merge(model)
    assert set(model.state_dict()) == set(toy.llama().state_dict())
    torch.testing.assert_close(model(tokens), logits, atol=1e-5, rtol=1e-5)
