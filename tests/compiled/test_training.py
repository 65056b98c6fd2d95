"""Every compiled function beside its plain form, forward and backward, and a whole network with both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.compiled import training
from groundup.compiled.compiler import Unavailable
from groundup.contract import IGNORE
from groundup.functional import (
    attention,
    attention_mask,
    chunked_cross_entropy,
    first_seen,
    linears,
    rms_norm,
    rotate_pairs,
)
from groundup.models.llama import Llama, LlamaOptions
from groundup.objectives.next_token import NextToken, NextTokenOptions

pytestmark = pytest.mark.skipif(training.why_not() is not None, reason=str(training.why_not()))


def assert_near(one: Tensor, two: Tensor, tolerance: float = 2e-6) -> None:
    assert one.shape == two.shape
    assert float((one - two).abs().max()) <= tolerance * max(1.0, float(two.abs().max()))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def both(function, inputs: tuple[Tensor, ...]) -> None:  # type: ignore[no-untyped-def]
    """The same value and the same gradients with and without the compiled functions."""
    found = []
    for compiled in (True, False):
        with training.use(compiled):
            value = function(*inputs)
            upward = torch.randn(value.shape, generator=torch.Generator().manual_seed(9))
            found.append((value, *torch.autograd.grad(value, inputs, upward)))
    for one, two in zip(*found, strict=True):
        assert_near(one.detach(), two.detach())


@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 50), (1, 1, 1), (7, 3)])
def test_norm(shape: tuple[int, ...]) -> None:
    both(lambda x, w: rms_norm(x, w, 1e-5), (drawn(*shape), drawn(shape[-1], seed=1)))


def test_norm_of_a_tensor_with_strides() -> None:
    both(lambda x, w: rms_norm(x.transpose(0, 1), w, 1e-5), (drawn(4, 6, 32), drawn(32, seed=1)))


@pytest.mark.parametrize("hidden", [1, 16, 45])
def test_swiglu(hidden: int) -> None:
    gate, up = drawn(6, hidden), drawn(6, hidden, seed=1)
    with torch.no_grad():
        gate[0, 0], gate[1, 0] = 200.0, -200.0  # neither side overflows
    plain, value = F.silu(gate) * up, training.swiglu(gate, up)
    upward = torch.ones_like(plain)
    assert_near(value.detach(), plain.detach())
    found, expected = (torch.autograd.grad(one, (gate, up), upward) for one in (value, plain))
    for one, two in zip(found, expected, strict=True):
        assert_near(one, two)


@pytest.mark.parametrize("classes", [2, 16, 77])
def test_cross_entropy(classes: int) -> None:
    target = torch.randint(0, classes, (2, 9), generator=torch.Generator().manual_seed(2))
    target[0, :3] = IGNORE
    both(lambda h, w: chunked_cross_entropy(h, w, target), (drawn(2, 9, 8), drawn(classes, 8, seed=1)))


def test_cross_entropy_of_logits_that_are_not_finite_is_not_finite() -> None:
    target = torch.zeros(3, dtype=torch.int64)
    logits = torch.zeros(3, 40)
    logits[0, 5], logits[1, 5] = float("nan"), float("inf")
    loss = training.cross_entropy_(logits, target, gradient=True)
    assert not loss[0].isfinite() and not loss[1].isfinite() and loss[2].isfinite()


def visible(document: Tensor, window: int | None) -> Tensor:
    start = first_seen(document, window)
    assert start is not None
    return start


@pytest.mark.parametrize(
    ("rows", "length", "heads", "key_heads", "size", "window"),
    [
        (2, 50, 4, 2, 16, None),
        (1, 130, 6, 6, 32, None),
        (2, 200, 4, 1, 64, 40),
        (1, 64, 2, 2, 48, None),
        (1, 1, 1, 1, 16, 3),
    ],
)
def test_attention_among_documents(
    rows: int, length: int, heads: int, key_heads: int, size: int, window: int | None
) -> None:
    generator = torch.Generator().manual_seed(3)
    document = torch.randint(0, 4, (rows, length), generator=generator).sort(dim=1).values
    document[0, length - length // 10 :] = -1  # padding
    angle = 6 * torch.rand(rows, length, size // 2, generator=generator)
    cos, sin = angle.cos(), angle.sin()
    inputs = drawn(rows, length, heads, size), drawn(rows, length, key_heads, size, seed=1), drawn(
        rows, length, key_heads, size, seed=2
    )

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key = (rotate_pairs(x.transpose(1, 2), cos[:, None], sin[:, None]) for x in (query, key))
        return attention(query, key, value.transpose(1, 2), attention_mask(document, window)).transpose(1, 2)

    start = visible(document, window)
    found = [training.attention(*inputs, cos, sin, start), plain(*inputs)]
    upward = torch.randn(found[0].shape, generator=generator)
    assert_near(found[0].detach(), found[1].detach())
    for one, two in zip(*(torch.autograd.grad(value, inputs, upward) for value in found), strict=True):
        assert_near(one, two, 5e-6)


def test_a_document_in_two_pieces_is_no_range() -> None:
    assert first_seen(torch.tensor([[0, 1, 0]])) is None
    assert visible(torch.tensor([[5, 5, 2, 2, -1, -1]]), None).tolist() == [[0, 0, 2, 2, 4, 5]]
    assert visible(torch.zeros(1, 5, dtype=torch.int64), 2).tolist() == [[0, 0, 1, 2, 3]]


@pytest.mark.parametrize("changed", [{}, {"query_key_norm": True}, {"attention_bias": True}, {"sliding_window": 9}])
def test_a_whole_network_packed_and_not(changed: dict[str, object]) -> None:
    options = {"vocabulary": 90, "context": 600, "width": 64, "layers": 2, "heads": 4, "key_value_heads": 2,
               "head_size": 16, "hidden": 72, **changed}  # fmt: skip
    model = Llama(LlamaOptions.model_validate(options))
    model.initialise(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 90, (1, 601), generator=generator)
    document = (torch.arange(600) // 130)[None]
    batch = {
        "tokens_BT": tokens[:, :-1],
        "target_BT": tokens[:, 1:].contiguous(),
        "position_BT": (torch.arange(600) % 130)[None],
        "document_BT": document,
    }
    objective, found = NextToken(NextTokenOptions(), model), []
    for compiled in (True, False):
        with training.use(compiled):
            total = objective.loss("model", batch).total
            found.append((total.detach(), *torch.autograd.grad(total, list(model.parameters()))))
    for one, two in zip(*found, strict=True):
        assert_near(one, two, 1e-5)
    with training.use(True), torch.no_grad():
        whole = model(batch["tokens_BT"], batch["position_BT"], document)[0]
        alone = [model(part[None])[0] for part in batch["tokens_BT"][0].split(130)]
    assert_near(whole, torch.cat(alone), 1e-5)


def test_the_same_bits_for_any_number_of_threads() -> None:
    inputs = drawn(2, 150, 4, 16), drawn(2, 150, 2, 16, seed=1), drawn(2, 150, 2, 16, seed=2)
    angle = torch.rand(2, 150, 8, generator=torch.Generator().manual_seed(4))
    start, found, threads = visible(torch.zeros(2, 150, dtype=torch.int64), None), [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            value = training.attention(*inputs, angle.cos(), angle.sin(), start)
            found.append((value, *torch.autograd.grad(value, inputs, torch.ones_like(value))))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_merged_products_leave_other_modules_alone() -> None:
    x, layers = torch.randn(600, 8), [torch.nn.Linear(8, 4, bias=False), torch.nn.Linear(8, 6, bias=True)]
    with training.use(True):
        assert [part.shape[-1] for part in linears(x, *layers)] == [4, 6]
        layers[1] = torch.nn.Linear(8, 6, bias=False)
        one, two = linears(x, *layers)
    assert_near(one.detach(), layers[0](x).detach())
    assert_near(two.detach(), layers[1](x).detach())


def test_only_float32_of_a_cpu_outside_autocast() -> None:
    x = torch.ones(2)
    assert not training.in_use(x)
    with training.use(True):
        assert training.in_use(x) and not training.in_use(x, x.double()) and not training.in_use(x.to("meta"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not training.in_use(x)
    assert not training.in_use(x)


def test_without_a_compiler_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    training.functions.cache_clear()
    monkeypatch.setenv("PATH", "")
    try:
        assert "compiler" in str(training.why_not())
        with pytest.raises(Unavailable), training.use(True):
            pass
    finally:
        training.functions.cache_clear()
