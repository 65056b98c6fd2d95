"""Document scores against a naive loop: every target once, packed or not, long or short."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toy_models import toy_llama

from groundup.errors import GroundupError
from groundup.evaluation.language import (
    language_metrics,
    pack,
    parts_for,
    score_documents,
    spread_bytes,
    windows,
)
from groundup.models.llama import Llama


def documents(*lengths: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 61, length).astype("<u2") for length in lengths]


def naive(model: Llama, document: np.ndarray, context: int, stride: int) -> list[float]:
    """The nats of each target, one forward per target: the window that first reaches it."""
    ids = torch.from_numpy(document.astype(np.int64))
    found = []
    for target in range(1, len(ids)):
        if target <= context:
            start = 0
        else:
            scored = (target - context - 1) // stride + 1  # which later window
            end = min(context + scored * stride, len(ids) - 1)
            start = max(0, end - context)
        with torch.no_grad():
            found.append(-float(model(ids[None, start:target]).log_softmax(-1)[0, -1, ids[target]]))
    return found


@pytest.mark.parametrize(("context", "stride"), [(32, 32), (32, 16), (12, 5), (7, 1), (1, 1)])
def test_equals_one_forward_for_each_target(context: int, stride: int) -> None:
    model, texts = toy_llama(), documents(2, 40, 1, 9, 33, 34, 3, 0, 12)
    nats, targets = score_documents(model, texts, context=context, stride=stride, batch_rows=3)
    assert targets[:, 0].tolist() == [max(0, len(d) - 1) for d in texts]
    expected = [math.fsum(naive(model, d, context, stride)) for d in texts]
    np.testing.assert_allclose(nats[:, 0], expected, rtol=2e-5, atol=1e-6)


def test_parts_sum_to_the_whole_and_hold_their_own_targets() -> None:
    model, texts = toy_llama(), documents(41, 5)
    nats, targets = score_documents(model, texts, context=16, stride=8, parts=4)
    assert targets.tolist() == [[10, 10, 10, 10], [1, 1, 1, 1]]
    each = np.array(naive(model, texts[0], 16, 8)).reshape(4, 10).sum(axis=1)
    np.testing.assert_allclose(nats[0], each, rtol=2e-5)


def test_only_the_learned_targets_count() -> None:
    model, texts = toy_llama(), documents(40, 10, 6)
    learn = [np.random.default_rng(1).random(len(d)) < 0.4 for d in texts]
    learn[2][:] = False
    nats, targets = score_documents(model, texts, context=16, stride=8, learn=learn)
    for d in range(3):
        each = naive(model, texts[d], 16, 8)
        picked = [n for n, counts in zip(each, learn[d][1:]) if counts]
        assert targets[d, 0] == len(picked)
        assert nats[d, 0] == pytest.approx(math.fsum(picked), rel=2e-5)


@pytest.mark.parametrize(
    ("targets", "context", "stride"), [(0, 5, 5), (1, 5, 2), (5, 5, 1), (6, 5, 1), (99, 10, 7)]
)
def test_windows_score_every_target_once_and_fit(targets: int, context: int, stride: int) -> None:
    made = windows(3, targets, context, stride)
    assert [t for w in made for t in range(w.first, w.end)] == list(range(targets))
    assert all(0 <= w.start <= w.first and w.end - w.start <= context for w in made)
    assert all(w.end - w.start == context for w in made[1:])  # later windows look back as far as they can


def test_packing_places_every_window_once_within_the_room_and_tightly() -> None:
    lengths = np.random.default_rng(0).integers(1, 33, 500).tolist()
    rows = pack(lengths, 32)
    assert sorted(i for row in rows for i in row) == list(range(500))
    assert max(sum(lengths[i] for i in row) for row in rows) <= 32
    assert sum(lengths) / (32 * len(rows)) > 0.94
    assert rows == pack(lengths, 32)


def test_batches_and_neighbours_do_not_change_a_document() -> None:
    model, texts = toy_llama(), documents(5, 30, 8, 8, 20, 3)
    together, _ = score_documents(model, texts, context=32, stride=16)
    for index, text in enumerate(texts):
        alone, _ = score_documents(model, [text], context=32, stride=16, batch_rows=1)
        assert together[index, 0] == pytest.approx(alone[0, 0], rel=1e-5)


def test_mode_and_gradients_are_left_alone() -> None:
    model = toy_llama().train()
    model.layers[1].eval()
    score_documents(model, documents(5), context=8, stride=8)
    assert model.training and model.layers[0].training and not model.layers[1].training
    assert torch.is_grad_enabled() and all(p.grad is None for p in model.parameters())


def test_autocast_is_close() -> None:
    model, texts = toy_llama(), documents(30, 12)
    exact, _ = score_documents(model, texts, context=16, stride=8)
    rough, _ = score_documents(model, texts, context=16, stride=8, autocast=torch.bfloat16)
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, rtol=0.03)


def test_wrong_sizes_are_refused_and_damaged_weights_named() -> None:
    model = toy_llama()
    for context, stride in [(33, 1), (0, 1), (8, 0), (8, 9)]:
        with pytest.raises(ValueError, match="do not fit"):
            score_documents(model, [], context=context, stride=stride)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(GroundupError) as caught:
        score_documents(model, documents(5), context=8, stride=8)
    assert caught.value.code == "E-EVAL-003"


def test_metrics_by_hand() -> None:
    found = language_metrics([2.0, 4.0], [2, 1], [6, 3])
    assert found["loss"].value == 2.0
    assert found["perplexity"].value == pytest.approx(math.exp(2))
    assert found["bits_per_byte"].value == pytest.approx(6 / math.log(2) / 9)
    assert all(f.low <= f.value <= f.high for f in found.values())
    assert list(language_metrics([1.0], [1])) == ["loss", "perplexity"]


def test_a_uniform_model_has_the_vocabulary_as_perplexity() -> None:
    model = toy_llama()
    with torch.no_grad():
        model.head.weight.zero_()
    nats, targets = score_documents(model, documents(20, 9), context=16, stride=16)
    found = language_metrics(nats, targets)
    assert found["perplexity"].value == pytest.approx(61, rel=1e-5)


def test_parts_do_not_depend_on_tokens_and_bytes_add_up() -> None:
    assert parts_for([10] * 30) == 1
    assert parts_for([1_000_000]) == 100
    assert parts_for([1_000_000] * 8) == 13
    assert parts_for([900]) == 4 and parts_for([50]) == 1 and parts_for([]) == 1
    spread = spread_bytes([10, 7, 5], np.array([[1, 3], [0, 2], [0, 0]]))
    assert spread.tolist() == [[2.5, 7.5], [0, 7], [0, 0]]
