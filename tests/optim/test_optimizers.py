"""Every optimizer beside torch's own, the L1 step beside lasso's closed form, and states that come back exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from groundup.errors import GroundupError
from groundup.optim.optimizer import Optimizer
from groundup.optim.options import OptimizerOptions

READ: TypeAdapter[Any] = TypeAdapter(OptimizerOptions)
STEPS = 20
RATE = 0.03

Theirs = type[torch.optim.Optimizer]
CASES: dict[str, tuple[dict[str, Any], Theirs, dict[str, Any]]] = {
    "sgd": ({"kind": "sgd", "momentum": 0.0}, torch.optim.SGD, {}),
    "sgd momentum": ({"kind": "sgd", "momentum": 0.8}, torch.optim.SGD, {"momentum": 0.8}),
    "sgd nesterov": (
        {"kind": "sgd", "momentum": 0.8, "nesterov": True}, torch.optim.SGD, {"momentum": 0.8, "nesterov": True}
    ),
    "adamw": (
        {"kind": "adamw", "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}, torch.optim.AdamW,
        {"betas": (0.8, 0.99), "eps": 1e-6},
    ),
    "adam": ({"kind": "adam"}, torch.optim.Adam, {}),
    "adam betas": (
        {"kind": "adam", "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}, torch.optim.Adam,
        {"betas": (0.8, 0.99), "eps": 1e-6},
    ),
    "rmsprop": ({"kind": "rmsprop"}, torch.optim.RMSprop, {}),
    "rmsprop momentum": (
        {"kind": "rmsprop", "momentum": 0.7, "alpha": 0.9, "epsilon": 1e-6}, torch.optim.RMSprop,
        {"momentum": 0.7, "alpha": 0.9, "eps": 1e-6},
    ),
    "rmsprop centered": (
        {"kind": "rmsprop", "momentum": 0.7, "centered": True}, torch.optim.RMSprop, {"momentum": 0.7, "centered": True}
    ),
    "adagrad": ({"kind": "adagrad"}, torch.optim.Adagrad, {}),
    "adagrad epsilon": ({"kind": "adagrad", "epsilon": 1e-3}, torch.optim.Adagrad, {"eps": 1e-3}),
}  # fmt: skip
KINDS = ["sgd", "adamw", "muon", "adam", "rmsprop", "adagrad"]


class Net(nn.Module):
    """A small network with real gradients, in double precision unless said. It looks up rows, so that its head holds
    rows too, and is spared by penalties."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 5, dtype=dtype)
        self.first, self.norm = nn.Linear(5, 7, dtype=dtype), nn.LayerNorm(7, dtype=dtype)
        self.second, self.head = nn.Linear(7, 7, dtype=dtype), nn.Linear(7, 3, dtype=dtype)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)

    def backward(self, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 5, generator=generator).to(self.first.weight.dtype) + self.embedding(torch.arange(16))
        target = torch.randint(3, (16,), generator=generator)
        hidden = torch.tanh(self.second(torch.tanh(self.norm(self.first(x)))))
        nn.functional.cross_entropy(self.head(hidden), target).backward()


def made(net: nn.Module, kind: str, **fields: Any) -> Optimizer:
    fields = {"learning_rate": RATE, "schedule": {"kind": "constant", "warmup": 0}, **fields}
    return Optimizer(net, READ.validate_python({"kind": kind, **fields}), steps=STEPS)


def theirs(net: Net, case: str, decay: float, **more: Any) -> torch.optim.Optimizer:
    _, kind, fields = CASES[case]
    matrices = [net.first.weight, net.second.weight]
    rest = [p for p in net.parameters() if not any(p is one for one in matrices)]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return kind(groups, lr=RATE, **fields, **more)  # type: ignore[call-arg]


def difference(one: Net, other: Net) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("case", CASES)
def test_each_is_torchs_step_by_step(case: str, decay: float) -> None:
    mine, yours = Net(), Net()
    ours = made(mine, **CASES[case][0], weight_decay=decay, clip=None)
    reference = theirs(yours, case, decay, foreach=False)
    for step in range(STEPS):
        mine.backward(step)
        yours.backward(step)
        ours.step(step)
        reference.step()
        ours.zero_grad()
        reference.zero_grad()
        assert difference(mine, yours) < 1e-12, step
    assert difference(mine, Net()) > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_in_single_precision_each_is_torchs_to_the_last_bit(case: str) -> None:
    mine, yours = Net(torch.float32), Net(torch.float32)
    ours = made(mine, **CASES[case][0], weight_decay=0.1)
    fused = {"fused": True} if case.startswith("adam") else {}
    reference = theirs(yours, case, 0.1, **fused)
    for step in range(STEPS):
        mine.backward(step)
        yours.backward(step)
        ours.step(step)
        reference.step()
        ours.zero_grad()
        reference.zero_grad()
        assert difference(mine, yours) == 0.0, step


def test_adam_adds_the_penalty_to_the_gradient_and_adamw_does_not() -> None:
    coupled, decoupled = Net(), Net()
    for net, kind in ((coupled, "adam"), (decoupled, "adamw")):
        optimizer = made(net, kind, beta1=0.9, beta2=0.95, weight_decay=0.5)
        net.backward(0)
        optimizer.step(0)
    assert (coupled.first.weight - decoupled.first.weight).abs().max() > 1e-4
    assert torch.equal(coupled.first.bias, decoupled.first.bias)


def test_decay_and_l1_are_off_where_a_recipe_does_not_ask_for_them() -> None:
    for kind in ("adam", "rmsprop", "adagrad"):
        options = READ.validate_python({"kind": kind})
        assert options.weight_decay == 0.0 and options.l1 == 0.0
    assert all(READ.validate_python({"kind": kind}).l1 == 0.0 for kind in KINDS)


@pytest.mark.parametrize("l1", [-0.1, math.nan, math.inf])
def test_an_l1_that_is_no_penalty_is_refused(l1: float) -> None:
    with pytest.raises(ValidationError):
        READ.validate_python({"kind": "sgd", "l1": l1})


@pytest.mark.parametrize("kind", KINDS)
def test_l1_moves_matrices_towards_zero_after_the_update_and_spares_the_rest(kind: str) -> None:
    plain, shrunk = Net(), Net()
    first, second = made(plain, kind, layer_decay=None), made(shrunk, kind, l1=2.0)
    for net, optimizer in ((plain, first), (shrunk, second)):
        net.backward(0)
        optimizer.step(0)
    moved = dict(shrunk.named_parameters())
    for name, parameter in plain.named_parameters():
        expected = parameter
        if name in ("first.weight", "second.weight"):
            expected = parameter.sign() * (parameter.abs() - 2.0 * RATE).clamp(min=0.0)
            assert (expected == 0).any()
        assert torch.allclose(moved[name], expected, rtol=0, atol=1e-12), name


def test_l1_follows_groups_rates_and_the_schedule() -> None:
    plain, shrunk = Net(), Net()
    groups = [{"pattern": "head.weight", "l1": 1.0, "rate": 0.5}, {"pattern": "second.weight", "l1": 0.0}]
    schedule = {"kind": "linear", "warmup": 2}
    without = [{"pattern": "head.weight", "rate": 0.5}]
    for net, fields in ((plain, {"groups": without}), (shrunk, {"groups": groups, "l1": 3.0})):
        net.backward(0)
        made(net, "sgd", schedule=schedule, **fields).step(0)
    other = dict(shrunk.named_parameters())
    change = {n: float((other[n] - p).detach().abs().max()) for n, p in plain.named_parameters()}
    assert change["head.weight"] == pytest.approx(1.0 * RATE / 2 * 0.5)  # half the rate in the first of two steps
    assert change["first.weight"] == pytest.approx(3.0 * RATE / 2)
    assert change["second.weight"] == change["first.bias"] == 0.0


def test_l1_leaves_a_parameter_without_a_gradient_alone() -> None:
    net = Net()
    before = net.second.weight.detach().clone()
    net.backward(0)
    net.second.weight.grad = None
    made(net, "adam", l1=5.0).step(0)
    assert torch.equal(net.second.weight, before)


def test_gradient_descent_with_l1_finds_the_lasso() -> None:
    """The lasso is where the gradient of the squared error is -l1·sign(w), and at most l1 where w is 0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([3.0, -2.0, 0, 0, 1.0, 0, 0, 0], dtype=torch.float64)
    y += 0.3 * torch.randn(60, generator=generator, dtype=torch.float64)
    net = nn.Module()
    net.weight = nn.Parameter(torch.zeros(1, 8, dtype=torch.float64))
    optimizer = made(net, "sgd", momentum=0.0, weight_decay=0.0, l1=0.2, learning_rate=0.3)
    for step in range(400):
        ((x @ net.weight[0] - y) ** 2 / (2 * len(x))).sum().backward()
        optimizer.step(step)
        optimizer.zero_grad()
    weight = net.weight.detach()[0]
    gradient = x.T @ (x @ weight - y) / len(x)
    kept = weight != 0
    assert kept.tolist() == [True, True, False, False, True, False, False, False]
    assert torch.allclose(gradient[kept], -0.2 * weight[kept].sign(), rtol=0, atol=1e-10)
    assert (gradient[~kept].abs() < 0.2).all()


def test_an_l1_that_nothing_takes_is_refused() -> None:
    net = nn.ModuleDict({"embedding": nn.Embedding(3, 4), "head": nn.Linear(4, 2), "norm": nn.LayerNorm(2)})
    with pytest.raises(GroundupError) as caught:
        made(net, "sgd", l1=0.01)
    fault = caught.value
    assert fault.code == "E-RECIPE-060" and fault.exit_code == 2 and "5 trainable" in fault.what
    assert "{pattern: head.*weight, l1: 0.01}" in fault.fix
    made(net, "sgd", l1=0.01, groups=[{"pattern": "head.*weight", "l1": 0.01}])  # what it advises


def test_the_head_of_a_network_that_looks_nothing_up_is_a_layer_like_others() -> None:
    net = nn.ModuleDict({"head": nn.Linear(4, 2), "norm": nn.LayerNorm(2)})
    groups = {
        name: group
        for group in made(net, "adamw", weight_decay=0.3).parts[0].param_groups
        for name in (group["weight_decay"],)
    }
    assert [tuple(p.shape) for p in groups[0.3]["params"]] == [(2, 4)] and len(groups[0.0]["params"]) == 3


STATES = {
    "sgd": {"momentum_buffer"},
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "muon": {"momentum", "step", "exp_avg", "exp_avg_sq"},
    "adam": {"step", "exp_avg", "exp_avg_sq"},
    "rmsprop": {"step", "square_avg", "momentum_buffer", "grad_avg"},
    "adagrad": {"step", "sum"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [0, 1, 7])
def test_a_state_that_is_put_back_goes_on_to_the_last_bit(kind: str, stop: int) -> None:
    fields: dict[str, Any] = {"rmsprop": {"momentum": 0.5, "centered": True}}.get(kind, {})
    fields |= {"l1": 0.01, "weight_decay": 0.05, "schedule": {"kind": "one_cycle"}}
    one, other = Net(torch.float32), Net(torch.float32)
    first = made(one, kind, **fields)
    for step in range(stop):
        one.backward(step)
        first.step(step)
        first.zero_grad()
    saved = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    if stop:
        assert {name.partition("/")[2] for name in saved} == STATES[kind]
        assert {name.partition("/")[0] for name in saved} == {name for name, _ in one.named_parameters()}
    second = made(other, kind, **fields)
    other.backward(3)
    second.step(0)  # a state of its own, which must not survive
    second.zero_grad()
    other.load_state_dict({name: tensor.clone() for name, tensor in one.state_dict().items()})
    second.load_state_dict(saved)
    back = second.state_dict()
    assert set(back) == set(saved)
    assert all(torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in saved.items())
    assert second.bytes_of_state() == first.bytes_of_state()
    for step in range(stop, STEPS):
        for net, optimizer in ((one, first), (other, second)):
            net.backward(step)
            optimizer.step(step)
            optimizer.zero_grad()
    assert difference(one, other) == 0.0
    assert all(not torch.equal(saved[name], tensor) for name, tensor in first.state_dict().items() if name in saved)


def test_a_saved_state_is_a_copy() -> None:
    net = Net()
    optimizer = made(net, "rmsprop")
    net.backward(0)
    optimizer.step(0)
    given: dict[str, Tensor] = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    kept = {name: tensor.clone() for name, tensor in given.items()}
    optimizer.load_state_dict(given)
    optimizer.step(1)
    assert all(torch.equal(given[name], kept[name]) for name in kept)
