"""Embeddings of categories beside closed forms: one-hot with a linear layer, the rows that a gradient reaches, the
width, and what is unknown staying zero under every optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch.nn import functional

from groundup.models import NETWORKS
from groundup.models.categories import CODES, CategoryEmbeddings, embedding_width
from groundup.models.predictor import Predictor
from groundup.optim.optimizer import Optimizer
from groundup.optim.options import OptimizerOptions
from groundup.run.networks import (
    LoadedNetwork,
    NetworkSaid,
    describe_network,
    go_on,
    initialised,
    network_files,
    one_row,
)

SIZES = [(5, 2), (8, 4)]


def said(family: str = "linear", **options: Any) -> NetworkSaid:
    return NetworkSaid(
        family=family, options=NETWORKS[family][0](**options), shape=(3,), outputs=2, kind="classify",
        labels=["no", "yes"], reads="features_BF", embeddings=SIZES,
    )  # fmt: skip


def predictor(family: str = "linear", **options: Any) -> Predictor:
    made = initialised(said(family, **options), torch.device("cpu"), 4)
    assert isinstance(made, Predictor) and made.embedding is not None
    return made


def batch(rows: int = 40, known: int = 1) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(known, size, (rows,), generator=chance) for size, _ in SIZES], dim=1)
    return {"features_BF": torch.randn(rows, 3, generator=chance), CODES: codes}


def test_equal_to_a_linear_layer_over_one_hot() -> None:
    """W [x; E onehot] = [W_x, W_e E] [x; onehot]: the forward pass and the gradient of each vector."""
    model, given = predictor(), batch(known=0)
    head, embedding = model.body.head, model.embedding
    assert embedding is not None
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(1))
    answer = model(given)
    answer[:, 0].sum().backward()
    expected = functional.linear(given["features_BF"], head.weight[:, :3], head.bias)
    start = 3
    for column, (table, (rows, width)) in enumerate(zip(embedding.tables, SIZES, strict=True)):
        one_hot = functional.one_hot(given[CODES][:, column], rows).float()
        part = head.weight[:, start : start + width]
        expected = expected + one_hot @ (part @ table.T).T
        gradient = one_hot.sum(dim=0)[:, None] * part[0]
        gradient[0] = 0.0  # the unknown one learns nothing
        assert table.grad is not None and torch.allclose(table.grad, gradient, atol=1e-6)
        start += width
    assert start == head.in_features and torch.allclose(answer, expected, atol=1e-5)


def test_a_gradient_reaches_the_rows_that_are_used_and_no_others() -> None:
    model = predictor("mlp", hidden=[6])
    given = batch() | {CODES: torch.tensor([[2, 0], [2, 7], [4, 0]] * 10), "features_BF": torch.randn(30, 3)}
    model(given).square().sum().backward()
    used = [
        [row for row, gradient in enumerate(table.grad) if gradient.abs().max() > 0]  # type: ignore[arg-type]
        for table in model.embedding.tables  # type: ignore[union-attr]
    ]
    assert used == [[2, 4], [7]]


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd", "rmsprop", "adagrad", "muon"])
def test_what_is_unknown_stays_zero_and_the_head_decays(kind: str) -> None:
    model, given = predictor("mlp", hidden=[6]), batch(known=0)
    options = TypeAdapter(OptimizerOptions).validate_python({"kind": kind, "learning_rate": 0.1, "weight_decay": 0.5})
    made = Optimizer(model, options, steps=20)
    assert not made.looks_up, "a network with embeddings of categories is no language model"
    before = [table.clone() for table in model.embedding.tables]  # type: ignore[union-attr]
    for step in range(3):
        model.zero_grad()
        functional.cross_entropy(model(given), given[CODES][:, 0] % 2).backward()
        made.step(step)
    for old, table in zip(before, model.embedding.tables, strict=True):  # type: ignore[union-attr]
        assert not table[0].any() and (table[1:] != old[1:]).any()


def test_vectors_are_drawn_with_length_one_and_zero_for_the_unknown() -> None:
    embedding = CategoryEmbeddings([(4001, 9), (2001, 50)])
    embedding.initialise(torch.Generator().manual_seed(0))
    for table in embedding.tables:
        assert not table[0].any() and abs(float(table[1:].detach().square().sum(dim=1).mean()) - 1) < 0.02
    again = CategoryEmbeddings([(4001, 9), (2001, 50)])
    again.initialise(torch.Generator().manual_seed(0))
    assert all(torch.equal(*pair) for pair in zip(embedding.tables, again.tables, strict=True))
    features_BF = torch.ones(2, 3)
    assert torch.equal(embedding(features_BF, torch.zeros(2, 2, dtype=torch.int64))[:, 3:], torch.zeros(2, 59))


@pytest.mark.parametrize(("categories", "width"), [(1, 1), (2, 1), (3, 2), (40, 20), (99, 50), (100, 50), (9999, 50)])
def test_the_width_is_half_the_categories_and_at_most_fifty(categories: int, width: int) -> None:
    assert embedding_width(categories) == width


def test_names_are_those_that_are_saved_and_other_labels_keep_the_vectors() -> None:
    model = predictor("mlp", hidden=[6])
    assert list(model.state_dict()) == [
        "embedding.tables.0", "embedding.tables.1", "body.layers.0.linear.weight", "body.layers.0.linear.bias",
        "body.head.weight", "body.head.bias",
    ]  # fmt: skip
    first = said("mlp", hidden=[6])
    assert describe_network(network_files(first), Path("-")) == first
    other = NetworkSaid(**{**vars(first), "outputs": 3, "labels": ["a", "b", "c"]})
    onward = go_on(LoadedNetwork(first, model, Path("-")), other, seed=9)
    assert torch.equal(onward.get_parameter("embedding.tables.1"), model.get_parameter("embedding.tables.1"))
    assert onward(one_row(other)).shape == (1, 3)
