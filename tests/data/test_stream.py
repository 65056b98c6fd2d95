"""The stream of batches: it adds up, mixes by weight, and goes on from any row."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from groundup.contract import IGNORE, Batch
from groundup.data.pack import ChatPacker, Conversation, TextPacker
from groundup.data.stream import PackedStream, Packer

CONTEXT = 8


class Constant:
    """Documents that consist of one token each, so that a row tells its source."""

    def __init__(self, token: int, lengths: list[int]) -> None:
        self.token, self.lengths = token, np.array(lengths, dtype=np.int64)

    def document(self, index: int) -> np.ndarray:
        return np.full(int(self.lengths[index]), self.token, dtype=np.uint16)


def text(token: int, lengths: list[int]) -> TextPacker:
    return TextPacker(Constant(token, lengths), context=CONTEXT, seed=token, pad_id=0)


def chat() -> ChatPacker:
    chance = np.random.default_rng(0)
    given = [
        Conversation(chance.integers(1, 50, n), chance.random(n) < 0.5) for n in chance.integers(2, CONTEXT + 2, 40)
    ]
    return ChatPacker(given, context=CONTEXT, seed=2, pad_id=0)


def stream(packers: dict[str, Packer], weights: dict[str, float] | None = None, *, rows: int = 4) -> PackedStream:
    return PackedStream(packers, weights=weights or dict.fromkeys(packers, 1.0), rows=rows, seed=7)


def equal(one: Batch, other: Batch) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("packer", [lambda: text(5, [4, 11, 30, 2, 9]), chat], ids=["text", "chat"])
def test_G8_the_ledger_adds_up(packer) -> None:  # type: ignore[no-untyped-def]
    source = stream({"main": packer()}, rows=3)
    seen = trained = padded = 0
    for _ in range(40):  # several epochs
        batch = source.next("model")
        seen += batch["tokens_BT"].numel()
        trained += int((batch["target_BT"] != IGNORE).sum())
        padded += int((batch["document_BT"] < 0).sum())
        ledger = source.ledger
        assert ledger["seen"] == ledger["trained"] + ledger["masked"] + ledger["padded"]
        assert (ledger["seen"], ledger["trained"], ledger["padded"]) == (seen, trained, padded)
    assert trained and padded


@pytest.mark.parametrize("rows", [1, 3])
def test_a_stream_goes_on_from_any_row(rows: int) -> None:
    def fresh() -> PackedStream:
        return stream({"a": text(5, [4, 11, 30]), "b": chat()}, {"a": 2.0, "b": 1.0}, rows=rows)

    whole = fresh()
    states, batches = [], []
    for _ in range(30):
        states.append(json.loads(json.dumps(whole.state_dict())))  # as a checkpoint keeps it
        batches.append(whole.next("model"))
    for at in range(0, 30, 4):
        resumed = fresh()
        resumed.load_state_dict(states[at])
        for expected in batches[at:]:
            assert equal(resumed.next("model"), expected)
        assert resumed.ledger == whole.ledger and resumed.state_dict() == whole.state_dict()


def test_a_state_is_a_copy() -> None:
    source = stream({"main": chat()})
    state = source.state_dict()
    source.next("model")
    assert state == stream({"main": chat()}).state_dict()


def test_sources_are_mixed_by_weight_whatever_the_micro_batch() -> None:
    weights = {"a": 6.0, "b": 3.0, "c": 1.0}
    tokens = {"a": 1, "b": 2, "c": 3}
    drawn = []
    for rows in (1, 4, 16):
        packers: dict[str, Packer] = {name: text(token, [9] * 50) for name, token in tokens.items()}
        source = stream(packers, weights, rows=rows)
        batches = [source.next("model")["tokens_BT"][:, 0] for _ in range(3200 // rows)]
        drawn.append(torch.cat(batches))
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    shares = torch.bincount(drawn[0], minlength=4)[1:] / 3200
    # four standard deviations of a binomial share
    assert torch.allclose(shares, torch.tensor([0.6, 0.3, 0.1]), atol=4 * (0.25 / 3200) ** 0.5)


def test_each_source_goes_through_its_own_epochs() -> None:
    source = stream({"small": text(1, [9, 9]), "large": text(2, [9] * 30)}, rows=1)
    for _ in range(40):
        source.next("model")
    small, large = source.cursor["small"], source.cursor["large"]
    assert small["epoch"] * 2 + small["row"] + large["epoch"] * 30 + large["row"] == 40
    assert small["epoch"] > large["epoch"]
