"""What every network for tables, images and sequences holds: it can be built without data and then drawn, evaluation
repeats itself, dropout is for training alone, and options that cannot work are refused with the values that would."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from groundup.errors import GroundupError
from groundup.models.convnet import Convnet, ConvnetOptions
from groundup.models.inception import Inception, InceptionOptions
from groundup.models.linear import Linear, LinearOptions
from groundup.models.mlp import Mlp, MlpOptions
from groundup.models.recurrent import Recurrent, RecurrentOptions
from groundup.models.resnet import Resnet, ResnetOptions
from groundup.models.vit import Vit, VitOptions

SMALL: list[tuple[Any, Any, tuple[int, ...]]] = [
    (Linear, LinearOptions(), (7,)),
    (Mlp, MlpOptions(hidden=[6, 5], norm="batch", dropout=0.3), (2, 3, 3)),
    (Convnet, ConvnetOptions(channels=[4, 6], kernel=3, hidden=[8]), (2, 9, 8)),
    (Resnet, ResnetOptions(depth=8, width=4, dropout=0.3), (3, 9, 8)),
    (Inception, InceptionOptions(stem=4, channels=[16, 32], modules=1, dropout=0.3), (2, 9, 8)),
    (Vit, VitOptions(patch=4, width=12, layers=2, heads=3, dropout=0.3), (2, 12, 8)),
    (Recurrent, RecurrentOptions(cell="gru", width=5, layers=2, dropout=0.3), (6, 3)),
]
families = pytest.mark.parametrize(("family", "options", "shape"), SMALL, ids=[o.family for _, o, _ in SMALL])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(family: Any, options: Any, shape: tuple[int, ...], outputs: int = 4) -> nn.Module:
    """Built without memory, then filled with NaN, then initialised: what is not drawn stays NaN."""
    with torch.device("meta"):
        network = family(options, shape, outputs)
    network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
        else:
            tensor.fill_(17)
    network.initialise(generator())
    return network


@families
def test_initialise_draws_everything_and_repeats_itself(family: Any, options: Any, shape: tuple[int, ...]) -> None:
    one, two = drawn(family, options, shape), drawn(family, options, shape)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
        assert torch.isfinite(tensor).all(), name
        for ending, value in (("running_mean", 0.0), ("running_var", 1.0), ("num_batches_tracked", 0), (".bias", 0.0)):
            if name.endswith(ending):
                assert bool((tensor == value).all()), name


@families
def test_evaluation_repeats_itself_and_training_drops(family: Any, options: Any, shape: tuple[int, ...]) -> None:
    network = drawn(family, options, shape)
    source = generator(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source))
    x = torch.randn(5, *shape, generator=source)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.eval()
    answer = network(x)
    assert answer.shape == (5, 4)
    assert torch.equal(answer, network(x))
    # a row's answer does not depend on its neighbours, and evaluating moves no statistic
    torch.testing.assert_close(network(x[2:3]), answer[2:3], rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.train()
    if family is not Linear:
        assert not torch.allclose(network(x), network(x), atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())


@families
def test_head_is_the_last_layer(family: Any, options: Any, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = family(options, shape, 9)
    assert network.head.weight.shape[0] == 9
    assert [name for name, _ in network.named_parameters()][-2:] == ["head.weight", "head.bias"]


WRONG: list[tuple[Any, Any, tuple[int, ...], str, str]] = [
    (Convnet, ConvnetOptions(kernel=9, padding="none"), (1, 8, 8), "kernel", "at most 7"),
    (Convnet, ConvnetOptions(kernel=9), (1, 8, 8), "kernel", "at most 7, or at most 1 entries in channels"),
    (Convnet, ConvnetOptions(channels=[4] * 5, kernel=1), (1, 8, 8), "channels", "at most 3 entries"),
    (Convnet, ConvnetOptions(), (1, 1, 8), "family", "mlp, or larger images"),
    (Convnet, ConvnetOptions(), (30,), "family", "mlp"),
    (Resnet, ResnetOptions(depth=18), (3, 32, 32), "depth", "one of 8, 14, 20, 32, 44, 56, 110"),
    (Resnet, ResnetOptions(layout="imagenet"), (3, 32, 32), "depth", "one of 18, 34, 50, 101, 152"),
    (Resnet, ResnetOptions(layout="imagenet", depth=18), (3, 2, 32), "layout", "cifar"),
    (Resnet, ResnetOptions(), (30,), "family", "mlp"),
    (Inception, InceptionOptions(channels=[40, 64]), (1, 28, 28), "channels", "multiples of 16"),
    (Inception, InceptionOptions(), (1, 8, 8), "channels", "at most 2 entries"),
    (Inception, InceptionOptions(), (1, 2, 8), "family", "3×3"),
    (Vit, VitOptions(heads=5), (1, 28, 28), "heads", "one of 1, 2, 4, 8, 16, 32, 64"),
    (Vit, VitOptions(patch=5), (1, 28, 14), "patch", "one of 1, 2, 7, 14"),
    (Vit, VitOptions(), (28, 28), "family", "mlp"),
    (Recurrent, RecurrentOptions(), (30,), "family", "mlp or linear"),
]


@pytest.mark.parametrize(("family", "options", "shape", "field", "legal"), WRONG)
def test_options_that_cannot_work(family: Any, options: Any, shape: tuple[int, ...], field: str, legal: str) -> None:
    with torch.device("meta"), pytest.raises(GroundupError) as caught:
        family(options, shape, 10)
    error = caught.value
    assert error.code == "E-MODEL-100" and error.exit_code == 2
    assert error.where == f"model.{field}" and error.fix.startswith(f"model.{field}: ") and legal in error.fix
    assert error.what and error.why


def test_all_faults_are_listed_at_once() -> None:
    with pytest.raises(GroundupError) as caught:
        Vit(VitOptions(heads=5, patch=3), (1, 28, 28), 10)
    assert caught.value.where.splitlines() == ["model.heads", "model.patch"]
    assert len(caught.value.fix.splitlines()) == 2


@pytest.mark.parametrize("channels", range(1, 6))
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("padding", ["same", "none"])
def test_what_is_not_refused_works(channels: int, kernel: int, padding: Any) -> None:
    options = ConvnetOptions(channels=[2] * channels, kernel=kernel, padding=padding, hidden=[])
    for side in (2, 3, 9, 17):
        with torch.device("meta"):
            try:
                network = Convnet(options, (1, side, side), 3)
            except GroundupError:
                continue
            assert network(torch.empty(2, 1, side, side)).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (MlpOptions, {"hidden": [0]}),
        (MlpOptions, {"activation": "swish"}),
        (ConvnetOptions, {"channels": []}),
        (ConvnetOptions, {"dropout": 1.0}),
        (ResnetOptions, {"width": 0}),
        (InceptionOptions, {"modules": 0}),
        (RecurrentOptions, {"cell": "mgu"}),
        (VitOptions, {"pooling": "max"}),
        (LinearOptions, {"hidden": [1]}),
    ],
)
def test_values_out_of_range(options: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options.model_validate(wrong)
