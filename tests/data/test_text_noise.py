"""Noise on texts: how far tokens move, how many go, which ones stay, and that (seed, epoch, place) say it all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from groundup.data.labelled_examples import Example, Piece
from groundup.data.labelled_stream import LabelledStream, batches, noisy
from groundup.data.parallel_stream import Pair, ParallelStream
from groundup.data.text_noise import TextNoise, TextNoiseOptions
from groundup.errors import GroundupError

PAD, BEGIN, END, MASK = 0, 1, 2, 3
SPECIALS = [PAD, BEGIN, END, MASK]
V = 1000


def noise_of(mask_id: int | None = MASK, **given: Any) -> TextNoise:
    made = TextNoise.of(TextNoiseOptions(**given), V, SPECIALS, mask_id)
    assert made is not None
    return made


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def row(length: int) -> Any:
    """A text of different ordinary tokens between a begin and an end."""
    return np.concatenate(([BEGIN], np.arange(10, 10 + length), [END])).astype(np.int64)


def test_no_noise_is_none_and_leaves_no_trace() -> None:
    assert TextNoise.of(TextNoiseOptions(), V, SPECIALS, None) is None
    ids, nothing = row(50), TextNoise(TextNoiseOptions(), np.ones(V, dtype=np.bool_), MASK)
    changed, places = nothing.apply(ids, random())
    assert np.array_equal(changed, ids) and np.array_equal(places, np.arange(52))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_that_is_dropped_hidden_and_replaced(share: float) -> None:
    ids = np.random.default_rng(1).integers(10, V, 40_000)
    kept, places = noise_of(drop=share).apply(ids, random())
    assert 1 - len(kept) / len(ids) == pytest.approx(share, abs=0.01)
    assert np.array_equal(kept, ids[places]) and (np.diff(places) > 0).all(), "what stays is in order"
    hidden, places = noise_of(mask=share, replace=0.3).apply(ids, random())
    assert np.array_equal(places, np.arange(len(ids)))
    other = (hidden != ids) & (hidden != MASK)
    assert (hidden == MASK).mean() == pytest.approx(share, abs=0.01)
    assert other.mean() == pytest.approx(0.3, abs=0.01)
    assert len(set(hidden[other].tolist())) > 900 and not np.isin(hidden[other], SPECIALS).any()


def test_one_token_of_each_text_stays_at_least_and_special_ones_all() -> None:
    noise, chance = noise_of(drop=0.99), random()
    two = np.array([BEGIN, 10, 11, 12, END, 20, 21, 22, END])
    for _ in range(200):
        kept, _ = noise.apply(two, chance)
        assert kept[kept < 4].tolist() == [BEGIN, END, END]
        first, second = np.split(kept[1:-1], np.flatnonzero(kept[1:-1] == END))
        assert len(first) >= 1 and (first < 20).all() and len(second) >= 2 and (second[1:] >= 20).all()
    assert noise.apply(np.array([BEGIN, END]), chance)[0].tolist() == [BEGIN, END]


@pytest.mark.parametrize("move", [1, 3, 7])
def test_no_token_moves_further_than_it_may(move: int) -> None:
    noise, ids, chance = noise_of(move=move), row(100), random()
    furthest = 0
    for _ in range(50):
        moved, places = noise.apply(ids, chance)
        assert sorted(places.tolist()) == list(range(102)) and np.array_equal(moved, ids[places])
        assert (moved[0], moved[-1]) == (BEGIN, END)
        furthest = max(furthest, int(np.abs(places - np.arange(102)).max()))
    assert max(1, move - 1) <= furthest <= move


def test_no_token_leaves_its_segment() -> None:
    ids, segments = np.arange(10, 30), np.repeat([0, 1], 10)
    for seed in range(50):
        _, places = noise_of(move=5, drop=0.2).apply(ids, random(seed), segments)
        assert (np.diff(segments[places]) >= 0).all()
        example = noisy(Example((Piece(ids, segments),), 1), noise_of(move=5, drop=0.2), (0, 0, seed))
        (piece,) = example.pieces
        assert piece.segments is not None and np.array_equal(piece.segments, (piece.ids >= 20) * 1)


def test_a_learned_prompt_above_the_vocabulary_stays() -> None:
    ids = np.concatenate(([V, V + 1], row(20)))
    changed, _ = noise_of(drop=0.5, move=4, replace=0.4).apply(ids, random())
    assert changed[:3].tolist() == [V, V + 1, BEGIN]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(GroundupError) as caught:
        noise_of(mask_id=None, mask=0.1)
    assert caught.value.code == "E-TOKEN-009" and "data.augment.replace" in caught.value.fix
    with pytest.raises(ValidationError, match="more than all tokens"):
        TextNoiseOptions(mask=0.6, replace=0.6)


ALL = {"drop": 0.2, "move": 3, "mask": 0.1, "replace": 0.1}


def labelled(rows: int = 4, **given: Any) -> LabelledStream:
    examples = [Example((Piece(row(3 + number % 7), None),), number % 2) for number in range(41)]
    options = {"seed": 5, "noise": noise_of(**ALL), **given}
    return LabelledStream(examples, task="classify", rows=rows, context=64, pad_id=PAD, **options)


def parallel(rows: int = 4, **given: Any) -> ParallelStream:
    pairs = [Pair(row(3 + number % 7), row(4), row(4)) for number in range(41)]
    return ParallelStream(pairs, rows=rows, pad_id=PAD, **{"seed": 5, "noise": noise_of(**ALL), **given})


def seen(stream: LabelledStream | ParallelStream, batches: int) -> list[list[int]]:
    """The changed texts of so many batches."""
    name = "source_BS" if isinstance(stream, ParallelStream) else "tokens_BT"
    found = [stream.next("model")[name] for _ in range(batches)]
    return [[id for id in text if id != PAD] for batch in found for text in batch.tolist()]


@pytest.mark.parametrize("made", [labelled, parallel])
def test_the_streams_resume_bit_for_bit_and_draw_anew_in_each_epoch(made: Any) -> None:
    one, resumed, other = made(), made(), made(seed=6)
    first = seen(one, 11)
    assert sorted(first) != sorted(seen(other, 11)) and first == seen(made(), 11)
    seen(one, 3)
    resumed.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for _ in range(12):
        left, right = one.next("model"), resumed.next("model")
        assert list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)
    assert one.state_dict() == resumed.state_dict()
    again = made()
    epochs = [seen(again, 11), seen(again, 11)]
    assert sorted(epochs[0]) != sorted(epochs[1])
    ledger = again.ledger
    assert ledger["seen"] == ledger["trained"] + ledger["masked"] + ledger["padded"] > 0


@pytest.mark.parametrize("made", [labelled, parallel])
def test_the_noise_does_not_depend_on_the_size_of_a_batch(made: Any) -> None:
    assert sorted(seen(made(rows=4), 11)) == sorted(seen(made(rows=41), 1))


@pytest.mark.parametrize("made", [labelled, parallel])
def test_without_noise_the_same_rows_come_in_the_same_batches(made: Any) -> None:
    noise, plain = made(noise=noise_of(mask=0.5)), made(noise=None)
    for _ in range(15):
        left, right = noise.next("model"), plain.next("model")
        changed = "source_BS" if "source_BS" in left else "tokens_BT"
        for name in left:
            if name == changed:
                assert left[name].shape == right[name].shape and not torch.equal(left[name], right[name])
                assert torch.equal(left[name].where(left[name] != MASK, right[name]), right[name])
            else:
                assert torch.equal(left[name], right[name]), name


def test_repeated_draws_of_a_rare_label_differ_and_evaluation_sees_texts_as_they_are() -> None:
    examples = [Example((Piece(row(30), None),), int(number == 0)) for number in range(40)]
    stream = LabelledStream(
        examples, task="classify", rows=40, context=64, pad_id=PAD, seed=0, balanced=True, noise=noise_of(replace=0.3)
    )
    batch = stream.next("model")
    rare = batch["tokens_BT"][batch["label_B"] == 1].tolist()
    assert len(rare) == 20 and len({tuple(text) for text in rare}) == 20
    for plain, chosen in batches(examples, task="classify", rows=7, pad_id=PAD):
        assert all(text == row(30).tolist() for text in plain["tokens_BT"].tolist()) and len(chosen) <= 7
