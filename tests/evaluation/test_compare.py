"""The registry of metrics and the comparison of two models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from groundup.errors import GroundupError
from groundup.evaluation import METRICS, AnswerScores, TextScores, cells, choose_metrics, compare, measure


def text_scores(shift: float, noise: float = 0.01) -> TextScores:
    generator = np.random.default_rng(0)
    targets = generator.integers(20, 300, 80).astype(float)
    hard = generator.normal(3, 0.5, 80)
    own = np.random.default_rng(1 + round(abs(shift) * 100)).normal(0, noise, 80)
    return TextScores(targets * (hard + shift + own), targets, targets * 4)


def answer_scores(right: int) -> AnswerScores:
    hits = (np.arange(100) < right).astype(float)
    return AnswerScores(np.full(100, 20.0) - hits, np.full(100, 10.0), hits, (hits + 1) / 2, np.ones(100))


def test_every_metric_by_hand() -> None:
    text, answers = text_scores(0.0), answer_scores(25)
    loss = text.nats.sum() / text.targets.sum()
    expected = {
        "loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": loss / math.log(2) / 4,
        "answer_loss": 1.975,
        "exact_match": 0.25,
        "f1": 0.625,
        "ended": 1.0,
    }
    written = {name: metric for name, metric in METRICS.items() if metric.data in ("text", "answers")}
    assert list(written) == list(expected)
    for name, metric in written.items():
        found = measure(name, text if metric.data == "text" else answers)
        assert found.value == pytest.approx(expected[name])
        assert found.low <= found.value <= found.high


def test_a_lower_loss_is_better_and_a_lower_share_is_worse() -> None:
    rows = compare(text_scores(0.0), text_scores(-0.1), ["loss", "perplexity", "bits_per_byte"])
    assert [row.verdict for row in rows] == ["better"] * 3
    assert rows[0].difference.value == pytest.approx(-0.1, abs=0.01)
    assert rows[1].difference.value == pytest.approx(rows[1].after.value - rows[1].before.value)
    rows = compare(answer_scores(60), answer_scores(30), ["exact_match", "f1", "ended", "answer_loss"])
    assert [row.verdict for row in rows] == ["worse", "worse", "within noise", "worse"]


def test_a_difference_inside_the_noise_is_called_so() -> None:
    (row,) = compare(text_scores(0.0, noise=0.2), text_scores(0.01, noise=0.2), ["loss"])
    assert row.verdict == "within noise" and row.difference.low < 0 < row.difference.high
    (line,) = cells([row])
    assert line[0] == "loss" and line[-1] == "within noise" and line[3].startswith(f"{row.difference.value:+.4f}")
    assert row.as_dict()["verdict"] == "within noise"


def test_metrics_follow_from_the_data_when_none_is_named() -> None:
    assert choose_metrics([], ["text"]) == ["loss", "perplexity", "bits_per_byte"]
    every = [name for name, metric in METRICS.items() if metric.data in ("text", "answers")]
    assert choose_metrics([], ["answers", "text"]) == every
    assert choose_metrics([], ["labels"]) == ["label_loss", "accuracy"]
    assert choose_metrics(["f1", "f1"], ["answers"]) == ["f1"]


def test_unknown_and_unfit_metrics_are_refused_with_the_way_out() -> None:
    with pytest.raises(GroundupError) as caught:
        choose_metrics(["perplexty"], ["text"])
    assert caught.value.code == "E-EVAL-001" and "did you mean perplexity?" in caught.value.fix
    with pytest.raises(GroundupError) as caught:
        choose_metrics(["f1"], ["text"])
    assert caught.value.code == "E-EVAL-002" and caught.value.exit_code == 2
