"""Which rate and which decay each parameter learns with: by layer, by pattern, for all optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from tests.contract.toy_run import assert_same, at, outcome, run, saved, terminate, text_file, text_recipe
from torch import nn

from groundup.errors import GroundupError
from groundup.models.bert import Bert, BertOptions
from groundup.models.heads import Headed, HeadOptions
from groundup.models.llama import Llama, LlamaOptions
from groundup.optim.optimizer import Optimizer
from groundup.optim.options import OptimizerOptions

READ: TypeAdapter[Any] = TypeAdapter(OptimizerOptions)
KINDS = ["adamw", "sgd", "muon"]
ADAMW_SCALE = 2.0
"""What Muon multiplies the rate of its AdamW part with."""


def llama(layers: int = 3, *, tied: bool = False) -> nn.Module:
    sizes = {"width": 16, "heads": 2, "key_value_heads": 2, "head_size": 8, "hidden": 16}
    model = Llama(LlamaOptions(vocabulary=20, context=16, layers=layers, tied=tied, **sizes))
    model.initialise(torch.Generator().manual_seed(0))
    return model


def headed() -> nn.Module:
    body = Bert(BertOptions(vocabulary=20, context=16, width=16, layers=2, heads=2, hidden=32))
    model = Headed(body, HeadOptions(kind="classify", labels=["a", "b"]))
    model.initialise(torch.Generator().manual_seed(0))
    return model


def optimizer(model: nn.Module, kind: str, **fields: Any) -> Optimizer:
    options = READ.validate_python({"kind": kind, "learning_rate": 0.1, **fields})
    return Optimizer(model, options, steps=10)


def seen(optimizer: Optimizer) -> dict[str, tuple[float, float]]:
    """Rate multiple and decay of each parameter by name; Muon's own scale of its AdamW part is divided out."""
    found = {}
    for part in optimizer.parts:
        factor = ADAMW_SCALE if isinstance(part, torch.optim.AdamW) and optimizer.options.kind == "muon" else 1.0
        for group in part.param_groups:
            for parameter in group["params"]:
                found[optimizer.names[parameter]] = (group["scale"] / factor, group["weight_decay"])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_layer_decay_falls_from_the_top_to_the_embedding(kind: str) -> None:
    model = llama(3)
    rates = seen(optimizer(model, kind, layer_decay=0.5))
    assert set(rates) == {name for name, _ in model.named_parameters()}
    for name, (rate, _) in rates.items():
        distance = {"layers.2": 0, "layers.1": 1, "layers.0": 2, "embedding": 3, "norm": 0, "head": 0}
        expected = next(0.5**d for prefix, d in distance.items() if name.startswith(f"{prefix}."))
        assert rate == pytest.approx(expected), name


@pytest.mark.parametrize("kind", KINDS)
def test_layer_decay_reaches_a_head_and_all_embeddings_of_an_encoder(kind: str) -> None:
    rates = {name: rate for name, (rate, _) in seen(optimizer(headed(), kind, layer_decay=0.5)).items()}
    below = [name for name in rates if "embedding" in name]
    assert len(below) == 5 and {rates[name] for name in below} == {0.25}
    assert rates["head.output.weight"] == rates["head.output.bias"] == 1.0
    assert rates["body.layers.1.attention.q_proj.weight"] == 1.0
    assert rates["body.layers.0.attention.q_proj.bias"] == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_is_what_a_step_moves_by(kind: str) -> None:
    """Two models with equal gradients: a parameter with half the rate moves half as far."""
    plain, decayed = llama(2), llama(2)
    for model, fields in ((plain, {}), (decayed, {"layer_decay": 0.5})):
        made = optimizer(model, kind, weight_decay=0.0, schedule={"kind": "constant", "warmup": 0}, **fields)
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        made.step(0)
    first = dict(llama(2).named_parameters())
    for (name, one), (_, other) in zip(plain.named_parameters(), decayed.named_parameters()):
        share = {"layers.0": 0.5, "embedding": 0.25}.get(".".join(name.split(".")[:2]), 1.0)
        share = 0.25 if name.startswith("embedding") else share
        assert torch.allclose(other - first[name], share * (one - first[name]), atol=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_pattern_that_matches_counts(kind: str) -> None:
    groups = [
        {"pattern": "layers.0.*", "rate": 0.5},
        {"pattern": "*.q_proj.weight", "rate": 3.0, "weight_decay": 0.0},
        {"pattern": "*norm.weight", "weight_decay": 0.3},
    ]
    found = seen(optimizer(llama(2), kind, groups=groups, weight_decay=0.1))
    assert found["layers.0.attention.q_proj.weight"] == (0.5, 0.1)
    assert found["layers.0.input_norm.weight"] == (0.5, 0.0)
    assert found["layers.1.attention.q_proj.weight"] == (3.0, 0.0)
    assert found["layers.1.input_norm.weight"] == found["norm.weight"] == (1.0, 0.3)
    assert found["layers.1.attention.k_proj.weight"] == (1.0, 0.1)
    assert found["embedding.weight"] == found["head.weight"] == (1.0, 0.0)


def test_groups_multiply_with_layer_decay() -> None:
    groups = [{"pattern": "layers.0.*", "rate": 3.0}]
    found = seen(optimizer(llama(3), "adamw", groups=groups, layer_decay=0.5))
    assert found["layers.0.input_norm.weight"][0] == pytest.approx(0.75)


@pytest.mark.parametrize("kind", KINDS)
def test_all_idle_patterns_are_refused_with_the_nearest_name(kind: str) -> None:
    groups = [{"pattern": "*.q_proj.weight"}, {"pattern": "layers.7.*"}, {"pattern": "haed.weight", "rate": 2.0}]
    with pytest.raises(GroundupError) as caught:
        optimizer(llama(2), kind, groups=groups)
    fault = caught.value
    assert fault.code == "E-RECIPE-041" and fault.exit_code == 2 and "2 of 3" in fault.what
    assert '"layers.7.*"' in fault.where and '"haed.weight" (did you mean head.weight?)' in fault.where
    assert "q_proj" not in fault.where and fault.where.startswith("optim.model.groups")


def test_a_pattern_of_frozen_parameters_is_idle() -> None:
    model = llama(2)
    model.get_parameter("norm.weight").requires_grad_(False)
    with pytest.raises(GroundupError) as caught:
        optimizer(model, "adamw", groups=[{"pattern": "norm.weight", "rate": 2.0}])
    assert caught.value.code == "E-RECIPE-041"


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_kept_by_name_and_a_resume_is_bitwise(kind: str, tmp_path: Path) -> None:
    groups = [{"pattern": "layers.0.*", "rate": 0.5}, {"pattern": "*norm*", "weight_decay": 0.2}]
    optim = {"model": {"kind": kind, "learning_rate": 0.01, "layer_decay": 0.7, "groups": groups}}
    recipe = text_recipe(text_file(tmp_path, 60), optim=optim, budget__steps=4)
    run(recipe, tmp_path / "straight")
    run(recipe, tmp_path / "run", listeners=(at("step", 2, terminate),))
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "straight"))
    owners = {name.split("/")[1] for name in saved(tmp_path / "run").tensors["optimizer"]}
    assert "layers.1.feed_forward.up_proj.weight" in owners and "embedding.weight" in owners


def test_state_follows_its_name_into_other_groups() -> None:
    """Groups are no part of the state: another order of parameters takes the same state."""
    model = llama(2)
    one = optimizer(model, "muon")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    one.step(0)
    other = optimizer(model, "muon", groups=[{"pattern": "*.weight", "rate": 2.0}], layer_decay=0.5)
    other.load_state_dict(one.state_dict())
    state = other.state_dict()
    assert set(state) == set(one.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())
