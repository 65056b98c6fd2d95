"""Beam search against exhaustive search and a greedy loop; and the search with a real encoder-decoder."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from groundup.errors import GroundupError
from groundup.inference.beam import BeamOptions, Hypothesis, beam_search, length_penalty, translate
from groundup.models.transformer import Transformer, TransformerOptions

BEGIN, END = 0, 1
VOCABULARY, LONGEST = 4, 4

Prefixes = list[tuple[int, tuple[int, ...]]]


def logits_after(one: int, prefix: tuple[int, ...], seed: int) -> Tensor:
    """Logits that depend on the input and on every token so far."""
    code = one + 10 * sum((token + 1) * 7**place for place, token in enumerate(prefix))
    return 2 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1000 * seed + code))


def search(inputs: int, seed: int, **given: Any) -> list[list[Hypothesis]]:
    def step(state: Prefixes, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Prefixes]:
        before = [state[row] for row in rows.tolist()]
        state = [(one, (*prefix, token)) for (one, prefix), token in zip(before, tokens.tolist())]
        return torch.stack([logits_after(one, prefix, seed) for one, prefix in state]), state

    options = BeamOptions(**{"max_tokens": LONGEST} | given)
    return beam_search([(one, ()) for one in range(inputs)], step, inputs, options, begin_id=BEGIN, end_id=END)


def exhaustive(one: int, seed: int, alpha: float) -> list[tuple[float, list[int]]]:
    """Every output there is, with its score, the best first."""
    found = []
    going = [token for token in range(VOCABULARY) if token != END]
    for length in range(1, LONGEST + 1):
        for before in itertools.product(going, repeat=length - 1):
            for last in [END, *(going if length == LONGEST else [])]:
                whole = (BEGIN, *before, last)
                log_p = sum(
                    float(logits_after(one, whole[:place], seed).double().log_softmax(dim=-1)[whole[place]])
                    for place in range(1, length + 1)
                )
                ids = list(before) if last == END else [*before, last]
                found.append((log_p / ((5 + length) / 6) ** alpha, ids))
    return sorted(found, key=lambda pair: -pair[0])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_wide_enough_equals_exhaustive_search(alpha: float) -> None:
    found = search(3, 5, beams=121, n_best=121, length_penalty=alpha)  # 1+3+9+27 that end and 81 that are cut off
    for one, hypotheses in enumerate(found):
        expected = exhaustive(one, 5, alpha)
        assert len(hypotheses) == len(expected) == 121
        assert [hypothesis.ids for hypothesis in hypotheses] == [ids for _, ids in expected]
        for hypothesis, (score, ids) in zip(hypotheses, expected):
            assert math.isclose(hypothesis.score, score, rel_tol=1e-9)
            assert hypothesis.finish == ("length" if len(ids) == LONGEST else "stop")
            chosen = len(ids) + (hypothesis.finish == "stop")
            assert math.isclose(hypothesis.log_probability, score * length_penalty(chosen, alpha), rel_tol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_one_beam_is_greedy(alpha: float) -> None:
    for seed in range(8):
        for one, (hypothesis,) in enumerate(search(3, seed, beams=1, length_penalty=alpha)):
            prefix: tuple[int, ...] = (BEGIN,)
            while len(prefix) <= LONGEST and prefix[-1] != END:
                prefix = (*prefix, int(logits_after(one, prefix, seed).argmax()))
            assert hypothesis.ids == [token for token in prefix[1:] if token != END]
            assert hypothesis.finish == ("stop" if prefix[-1] == END else "length")


def test_n_best_is_ranked_distinct_and_never_beats_the_best_there_is() -> None:
    for beams in (2, 3, 5):
        for one, hypotheses in enumerate(search(4, 9, beams=beams, n_best=beams, length_penalty=0.6)):
            assert 1 <= len(hypotheses) <= beams
            scores = [hypothesis.score for hypothesis in hypotheses]
            assert scores == sorted(scores, reverse=True)
            assert len({tuple(hypothesis.ids) for hypothesis in hypotheses}) == len(hypotheses)
            assert scores[0] <= exhaustive(one, 9, 0.6)[0][0] + 1e-12


def test_inputs_do_not_touch_each_other() -> None:
    together = search(4, 3, beams=3, n_best=3)
    assert search(2, 3, beams=3, n_best=3) == together[:2]


def test_a_higher_penalty_prefers_longer_outputs() -> None:
    assert length_penalty(1, 0.7) == 1.0 and length_penalty(7, 1.0) == 2.0
    lengths = [sum(len(best.ids) for best, *_ in search(6, 2, beams=121, length_penalty=alpha)) for alpha in (0.0, 8.0)]
    assert lengths[0] < lengths[1]


def test_options_that_contradict_each_other_are_refused() -> None:
    for wrong in (
        {"beams": 0},
        {"n_best": 5},
        {"length_penalty": -1.0},
        {"length_penalty": math.nan},
        {"max_tokens": 0},
    ):
        with pytest.raises(ValidationError):
            BeamOptions.model_validate(wrong)


def network() -> Transformer:
    """A model that is sure enough of its tokens, and of the end now and then."""
    options = TransformerOptions(
        vocabulary=23, context=12, width=16, encoder_layers=1, decoder_layers=2, heads=2, hidden=24, dropout=0.5,
        tied=False,
    )  # fmt: skip
    model = Transformer(options)
    model.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.head.weight.mul_(2)
        model.decoder.norm.bias.copy_(0.5 * model.head.weight[2])  # type: ignore[union-attr, operator]
    return model


SOURCES = [[3, 4, 5], [9, 8, 7, 6, 5, 4, 3, 10], [12], [4, 4, 19, 20, 21, 22], [5, 3]]


def found_by(model: Transformer, sources: list[list[int]], **given: Any) -> list[list[Hypothesis]]:
    rows = given.pop("batch_rows", 32)
    return translate(model, sources, BeamOptions(**given), begin_id=1, end_id=2, pad_id=0, batch_rows=rows)


@torch.no_grad()
def uncached(model: Transformer, source: list[int], ids: list[int], finish: str) -> float:
    """The log-probability of an output by one whole forward."""
    target = [*ids, *([2] if finish == "stop" else [])]
    logits = model(torch.tensor([source]), None, torch.tensor([[1, *target[:-1]]]))[0].double()
    return float(logits.log_softmax(dim=-1)[torch.arange(len(target)), target].sum())


def test_scores_are_those_of_the_whole_forward_and_the_mode_is_left_alone() -> None:
    model = network().train()
    found = found_by(model, SOURCES, beams=4, n_best=4, batch_rows=3)
    assert model.training and all(part.training for part in model.modules())
    model.eval()
    for source, hypotheses in zip(SOURCES, found):
        assert len(hypotheses) == 4
        for hypothesis in hypotheses:
            expected = uncached(model, source, hypothesis.ids, hypothesis.finish)
            assert math.isclose(hypothesis.log_probability, expected, abs_tol=1e-4)
            assert len(hypothesis.ids) <= model.context
    assert {hypothesis.finish for hypotheses in found for hypothesis in hypotheses} == {"stop", "length"}


@torch.no_grad()
def test_greedy_translation_is_the_likeliest_token_each_time_whatever_shares_the_batch() -> None:
    model = network().eval()
    together = found_by(model, SOURCES, beams=1)
    assert [found_by(model, [source], beams=1)[0][0].ids for source in SOURCES] == [one.ids for (one,) in together]
    for source, (hypothesis,) in zip(SOURCES, together):
        tokens = [1]
        while len(tokens) <= model.context and (len(tokens) == 1 or tokens[-1] != 2):
            tokens.append(int(model(torch.tensor([source]), None, torch.tensor([tokens]))[0, -1].argmax()))
        assert hypothesis.ids == [token for token in tokens[1:] if token != 2]


def test_sources_that_cannot_be_read_are_named_together() -> None:
    with pytest.raises(GroundupError) as caught:
        found_by(network(), [[3], [], list(range(13)), [23], [-1]])
    fault = caught.value
    assert fault.code == "E-GEN-020" and fault.exit_code == 2 and "4 of 5" in fault.what
    for number in (1, 2, 3, 4):
        assert f"source {number}" in fault.where


def test_an_output_that_is_not_finite_is_an_error() -> None:
    model = network()
    with torch.no_grad():
        model.head.weight[5] = math.nan
    with pytest.raises(GroundupError) as caught:
        found_by(model, [[3, 4]])
    assert caught.value.code == "E-GEN-004"
