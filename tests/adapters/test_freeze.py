"""Freezing: what has no gradient and no optimizer state, schedules, and exact resumes."""

from __future__ import annotations

import pytest
import torch
from tests.adapters import toy
from torch import nn

from groundup.adapters import FreezeOptions, evaluate_frozen, freeze, frozen_at, unfreeze_at, unfreezing_steps
from groundup.errors import GroundupError
from groundup.optim.optimizer import Optimizer
from groundup.optim.options import AdamWOptions

NAMES = [name for name, _ in toy.llama(tied=False).named_parameters()]


def options(**fields: object) -> FreezeOptions:
    return FreezeOptions.model_validate({"kind": "freeze", **fields})


def trained(**fields: object) -> set[str]:
    return set(NAMES) - set(frozen_at(NAMES, options(**fields), 0))


def test_what_is_frozen() -> None:
    layer0, layer1 = ({name for name in NAMES if name.startswith(f"layers.{n}.")} for n in (0, 1))
    rest = {"norm.weight", "head.weight"}
    assert trained(first_layers=1) == layer1 | rest | {"embedding.weight"}
    assert trained(all_but_last=1) == layer1 | rest
    assert trained(all_but_last=0) == rest
    assert trained(embeddings=True) == layer0 | layer1 | rest
    assert trained(patterns=["*"], train=["*.v_proj.weight", "head.*"]) == {
        "layers.0.attention.v_proj.weight", "layers.1.attention.v_proj.weight", "head.weight",
    }  # fmt: skip
    bert = ["embedding.weight", "position_embedding.weight", "embedding_norm.bias", "layers.0.attention_norm.bias"]
    assert frozen_at(bert, options(embeddings=True), 0) == bert[:3]
    assert frozen_at([f"body.{name}" for name in bert], options(all_but_last=1), 0) == [f"body.{n}" for n in bert[:3]]


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"patterns": ["layers.*.atention.*"]}, "E-ADAPT-001", "atention"),
        ({"patterns": ["*.q_proj"]}, "E-ADAPT-001", "freeze.patterns"),
        ({"first_layers": 3}, "E-ADAPT-003", "has 2 layers"),
        ({"all_but_last": 5}, "E-ADAPT-003", "has 2 layers"),
        ({"all_but_last": 0, "unfreeze": [{"step": 5, "patterns": ["norm.*"]}]}, "E-ADAPT-003", "step 5"),
        ({"all_but_last": 0, "unfreeze": [{"step": 5, "last_layers": 9}]}, "E-ADAPT-003", "unfreeze[0].last_layers"),
    ],
)
def test_what_cannot_be_frozen(fields: dict[str, object], code: str, word: str) -> None:
    with pytest.raises(GroundupError) as caught:
        freeze(toy.llama(), options(**fields), seed=0)
    assert caught.value.code == code and word in str(caught.value)


def test_options_that_say_nothing() -> None:
    for fields in ({}, {"embeddings": True, "unfreeze": [{"step": 3, "last_layers": 1}, {"step": 3, "last_layers": 2}]},
                   {"embeddings": True, "unfreeze": [{"step": 1}]}):  # fmt: skip
        with pytest.raises(ValueError):
            options(**fields)


SCHEDULE = options(all_but_last=0, unfreeze=[{"step": 2, "last_layers": 1}, {"step": 4, "patterns": ["layers.0.*"]}])


class Trainer:
    """A few steps as the engine takes them."""

    def __init__(self) -> None:
        self.model = toy.llama(tied=False)
        freeze(self.model, SCHEDULE, seed=0)
        self.optimizer = Optimizer(self.model, AdamWOptions(kind="adamw", learning_rate=1e-2), steps=8)

    def run(self, first: int, last: int) -> None:
        unfreeze_at(self.model, SCHEDULE, first)
        for step in range(first, last):
            if step in unfreezing_steps(SCHEDULE):
                unfreeze_at(self.model, SCHEDULE, step)
            self.model(toy.tokens(seed=step)).square().mean().backward()
            self.optimizer.step(step)
            self.optimizer.zero_grad()

    def bytes_of_trainable(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)


def test_gradual_unfreezing_costs_nothing_before_and_resumes_exactly() -> None:
    whole = Trainer()
    start = {name: value.clone() for name, value in whole.model.state_dict().items()}
    sizes = []
    for first, last in ((0, 2), (2, 3), (3, 4), (4, 6)):
        whole.run(first, last)
        counters = 4 * len(whole.optimizer.state_dict()) // 3  # AdamW's step counter of each parameter
        sizes.append((whole.optimizer.bytes_of_state() - counters, whole.bytes_of_trainable()))
        moved = {name for name, value in whole.model.state_dict().items() if not torch.equal(value, start[name])}
        still = set(start) - set(frozen_at(NAMES, SCHEDULE, last - 1))
        assert moved == still
    assert [state for state, _ in sizes] == [2 * weights for _, weights in sizes]
    assert sizes[0] < sizes[1] == sizes[2] < sizes[3]
    assert torch.equal(whole.model.state_dict()["embedding.weight"], start["embedding.weight"])

    for stop in (1, 2, 3, 4, 5):
        half, resumed = Trainer(), Trainer()
        half.run(0, stop)
        resumed.model.load_state_dict(half.model.state_dict())
        resumed.optimizer.load_state_dict({key: value.clone() for key, value in half.optimizer.state_dict().items()})
        resumed.run(stop, 6)
        for name, value in whole.model.state_dict().items():
            assert torch.equal(resumed.model.state_dict()[name], value), (stop, name)


def test_frozen_modules_evaluate() -> None:
    part = lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm1d(3))  # noqa: E731
    model = nn.Sequential(part(), part())
    freeze(model, options(patterns=["0.*"]), seed=0)
    model.train()
    evaluate_frozen(model)
    assert [module.training for module in model[0].modules()] == [False] * 4
    assert [module.training for module in model[1].modules()] == [True] * 4
    x = torch.randn(5, 3)
    model(x).sum().backward()
    assert torch.equal(model[0][2].running_mean, torch.zeros(3)) and model[1][2].running_mean.abs().sum() > 0
    assert all(p.grad is None for p in model[0].parameters())
