"""The quantized base: its values, its gradients, its memory, its state."""

from __future__ import annotations

import pytest
import torch
from tests.adapters import toy
from torch import nn

from groundup.adapters import QuantizeOptions, base_bytes, dequantize, quantize
from groundup.adapters.quantize import Int8Matrix, NF4Matrix, QuantizedLinear, nf4_values
from groundup.errors import GroundupError
from groundup.functional import chunked_cross_entropy
from groundup.models.llama import Llama, LlamaOptions

# table 4 of Dettmers et al. 2023, appendix E, to six digits
PUBLISHED = [
    -1.0, -0.696193, -0.525073, -0.394917, -0.284441, -0.184773, -0.091050, 0.0,
    0.079580, 0.160930, 0.246112, 0.337915, 0.440710, 0.562617, 0.722957, 1.0,
]  # fmt: skip
KINDS = [{"bits": "int8"}, {"bits": "nf4"}, {"bits": "nf4", "double": False, "group": 32}]


def options(**fields: object) -> QuantizeOptions:
    return QuantizeOptions.model_validate({"kind": "quantize", **fields})


def test_values_are_the_published_ones() -> None:
    torch.testing.assert_close(torch.tensor(nf4_values()), torch.tensor(PUBLISHED), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(3, 5), (64, 64), (7, 130), (300, 128)])
def test_codes_are_the_nearest(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02
    dense = Int8Matrix(weight).dense(torch.float32)
    assert ((dense - weight).abs() <= weight.abs().amax(dim=1, keepdim=True) / 254 + 1e-9).all()
    for double in (False, True):
        matrix = NF4Matrix(weight, group=64, double=double)
        values = torch.tensor(nf4_values())
        scales = matrix.group_scales().repeat_interleave(64)[: weight.numel()].view(shape)
        best = (scales[..., None] * values - weight[..., None]).abs().amin(dim=-1)
        torch.testing.assert_close((matrix.dense(torch.float32) - weight).abs(), best, atol=1e-8, rtol=1e-5)
        exact = NF4Matrix(weight, group=64, double=False).group_scales()
        assert ((matrix.group_scales() - exact).abs() <= 0.02 * exact.max()).all()


def test_zero_rows_and_zero_groups() -> None:
    weight = torch.zeros(4, 64)
    assert torch.equal(Int8Matrix(weight).dense(torch.float32), weight)
    for double in (False, True):
        assert torch.equal(NF4Matrix(weight, group=64, double=double).dense(torch.float32), weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_data_types(dtype: torch.dtype) -> None:
    weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))
    for matrix in (Int8Matrix(weight), NF4Matrix(weight, group=8, double=True)):
        dense = matrix.dense(dtype)
        assert dense.dtype == dtype
        torch.testing.assert_close(dense.float(), matrix.dense(torch.float32), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_forward_and_backward_equal_the_dequantized_model(fields: dict[str, object]) -> None:
    tokens = toy.tokens()
    quantized, reference = toy.llama(), toy.llama()
    quantize(quantized, options(**fields), seed=0)
    reference.load_state_dict(
        {name: quantized.get_submodule(name.rpartition(".")[0]).weight for name in reference.state_dict()}
    )
    states = torch.randn(3, 11, 32, generator=torch.Generator().manual_seed(2))
    results = []
    for model in (quantized, reference):
        x = states.clone().requires_grad_()
        for block in model.layers:
            x_out = block(x, model.cos_TR[:11][None], model.sin_TR[:11][None], None)
        x_out.square().sum().backward()
        results.append(
            (x_out, x.grad, model(tokens), chunked_cross_entropy(model.hidden(tokens), model.head_weight(), tokens))
        )
    for mine, theirs in zip(*results):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert not any(p.requires_grad for p in quantized.parameters())


def test_backward_keeps_no_dense_weight() -> None:
    module = QuantizedLinear(NF4Matrix(torch.randn(64, 64), group=64, double=True), 64, 64, None)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        module(torch.randn(2, 64, requires_grad=True)).sum().backward()
    assert not kept


def test_head_and_embedding_share_their_codes() -> None:
    model = toy.llama(tied=True)
    quantize(model, options(), seed=0)
    state = model.state_dict()
    assert state["head.matrix.codes"].data_ptr() == state["embedding.matrix.codes"].data_ptr()
    assert model.head.matrix is model.embedding.matrix
    assert torch.equal(model.embedding(torch.tensor([5])), model.head_weight()[5:6])
    untied = toy.llama(tied=False)
    quantize(untied, options(), seed=0)
    assert isinstance(untied.head, nn.Linear) and not isinstance(untied.embedding, nn.Embedding)


def test_state_round_trip_and_dequantize() -> None:
    first, second = toy.llama(seed=0), toy.llama(seed=1)
    for model in (first, second):
        quantize(model, options(), seed=0)
    second.load_state_dict(first.state_dict())
    logits = first(toy.tokens())
    assert torch.equal(second(toy.tokens()), logits)
    dequantize(second)
    assert set(second.state_dict()) == set(toy.llama().state_dict())
    assert second.head.weight is second.embedding.weight
    torch.testing.assert_close(second(toy.tokens()), logits, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("fields", "limit"), [({"bits": "nf4"}, 0.17), ({"bits": "int8"}, 0.27),
                                               ({"embedding": "float32"}, 0.35)])  # fmt: skip
def test_memory_of_the_base(fields: dict[str, object], limit: float) -> None:
    # the shape of SmolLM2-135M with fewer layers and as many fewer token ids
    model = Llama(
        LlamaOptions(vocabulary=3277, context=64, width=576, layers=2, heads=9, key_value_heads=3, head_size=64,
                     hidden=1536, tied=True)
    )  # fmt: skip
    model.initialise(torch.Generator().manual_seed(0))
    before = sum(p.numel() * 4 for p in model.parameters())
    quantize(model, options(**fields), seed=0)
    assert base_bytes(model) / before <= limit


def test_targets_that_cannot_be_quantized() -> None:
    for targets, code in ((["*_porj"], "E-ADAPT-001"), (["*norm"], "E-ADAPT-002")):
        with pytest.raises(GroundupError) as caught:
            quantize(toy.llama(), options(targets=targets), seed=0)
        assert caught.value.code == code
    model = toy.llama()
    quantize(model, options(), seed=0)
    with pytest.raises(GroundupError):
        quantize(model, options(), seed=0)
