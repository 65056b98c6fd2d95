"""Rows out of documents and conversations: nothing twice, nothing lost, nothing across a boundary."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from groundup.contract import IGNORE
from groundup.data.pack import ChatPacker, Conversation, Row, TextPacker
from groundup.models.llama import Llama, LlamaOptions
from groundup.parallel.blocks import compile_blocks

PAD = 0
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12).filter(lambda found: max(found) > 1)


class Numbered:
    """Documents in which every token is another number, so that each pair tells where it is from."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths, dtype=np.int64)
        starts = np.cumsum(self.lengths) - self.lengths + 1
        self.texts = [np.arange(s, s + n, dtype=np.uint16) for s, n in zip(starts, lengths, strict=True)]

    def document(self, index: int) -> NDArray[np.unsignedinteger]:
        return self.texts[index]

    def pairs(self) -> Counter[tuple[int, int]]:
        return Counter((int(a), int(b)) for text in self.texts for a, b in pairwise(text))


def rows_of(packer: TextPacker | ChatPacker, epoch: int) -> list[Row]:
    return [packer.row(epoch, index) for index in range(packer.rows(epoch))]


def check_layout(row: Row, context: int) -> None:
    """Positions restart with each piece, pieces are numbered in order, padding comes last."""
    for array in (row.tokens, row.target, row.position, row.document):
        assert array.shape == (context,) and array.dtype == np.int64
    filled = context - row.padded
    assert (row.document[filled:] == -1).all() and (row.document[:filled] >= 0).all()
    assert (row.target[filled:] == IGNORE).all() and (row.tokens[filled:] == PAD).all()
    for number in range(int(row.document.max()) + 1):
        where = np.flatnonzero(row.document == number)
        assert where.size and (np.diff(where) == 1).all()
        assert row.position[where].tolist() == list(range(where.size))
    assert (np.diff(row.document[:filled]) >= 0).all()


@given(LENGTHS, st.integers(2, 16), st.integers(0, 3), st.integers(0, 2))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_every_pair_once_in_each_epoch(lengths: list[int], context: int, seed: int, epoch: int) -> None:
    documents = Numbered(lengths)
    rows = rows_of(TextPacker(documents, context=context, seed=seed, pad_id=PAD), epoch)
    found: Counter[tuple[int, int]] = Counter()
    for row in rows:
        check_layout(row, context)
        kept = row.document >= 0
        found.update(zip(row.tokens[kept].tolist(), row.target[kept].tolist(), strict=True))
        # each pair is one of a document's own, so no label lies in another document
        assert (row.target[kept] == row.tokens[kept] + 1).all()
    assert found == documents.pairs()
    assert sum(row.padded for row in rows) < context and sum(row.padded > 0 for row in rows) <= 1


@given(LENGTHS, st.integers(2, 16))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_pieces_of_one_document_follow_each_other_inside_a_row(lengths: list[int], context: int) -> None:
    """A piece is a stretch of its document: what it may see is what stood before it there."""
    for row in rows_of(TextPacker(Numbered(lengths), context=context, seed=1, pad_id=PAD), 0):
        for number in range(int(row.document.max()) + 1):
            assert (np.diff(row.tokens[row.document == number]) == 1).all()


def test_rows_are_a_function_of_seed_epoch_and_index() -> None:
    documents = Numbered([5, 40, 17, 3, 29])
    packer = TextPacker(documents, context=8, seed=4, pad_id=PAD)
    once = rows_of(packer, 0)
    packer.row(1, 0)  # another plan in between
    again = [TextPacker(documents, context=8, seed=4, pad_id=PAD).row(0, index) for index in range(len(once))]
    for one, other, third in zip(once, again, rows_of(packer, 0), strict=True):
        assert one.tokens.tolist() == other.tokens.tolist() == third.tokens.tolist()
    orders = {
        tuple(row.tokens[0] for row in rows_of(TextPacker(documents, context=8, seed=s, pad_id=PAD), e))
        for s, e in ((4, 0), (4, 1), (5, 0))
    }
    assert len(orders) == 3


def conversations(lengths: list[int]) -> list[Conversation]:
    documents = Numbered(lengths)
    chance = np.random.default_rng(0)
    return [
        Conversation(text.astype(np.int64), chance.random(len(text)) < 0.5)
        for text in documents.texts
    ]


@given(st.lists(st.integers(2, 17), min_size=1, max_size=90), st.integers(0, 3), st.integers(0, 2))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_conversations_are_never_cut_and_come_once_in_each_epoch(
    lengths: list[int], seed: int, epoch: int
) -> None:
    context, given_ones = 16, conversations(lengths)
    found = []
    for row in rows_of(ChatPacker(given_ones, context=context, seed=seed, pad_id=PAD), epoch):
        check_layout(row, context)
        for number in range(int(row.document.max()) + 1):
            where = row.document == number
            found.append((row.tokens[where].tolist(), row.target[where].tolist()))
    expected = [
        (c.ids[:-1].tolist(), np.where(c.trainable[1:], c.ids[1:], IGNORE).tolist()) for c in given_ones
    ]
    assert sorted(found) == sorted(expected)


def test_each_conversation_goes_into_the_fullest_row_that_has_room() -> None:
    """Rows are filled as by hand: best fit over the order that the row numbers show."""
    lengths = [int(n) for n in np.random.default_rng(5).integers(2, 18, size=50)]
    given_ones, context = conversations(lengths), 16
    order = np.random.default_rng([3, 0]).permutation(len(lengths)).tolist()
    rooms: list[tuple[int, list[int]]] = []
    for number in order:
        pairs = lengths[number] - 1
        fitting = [row for row in rooms if row[0] >= pairs]
        chosen = min(fitting, key=lambda row: row[0]) if fitting else (context, [])
        if fitting:
            rooms.remove(chosen)
        rooms.append((chosen[0] - pairs, [*chosen[1], number]))
    packer = ChatPacker(given_ones, context=context, seed=3, pad_id=PAD)
    by_first_token = {int(c.ids[0]): number for number, c in enumerate(given_ones)}
    packed = [
        [by_first_token[int(row.tokens[i])] for i in np.flatnonzero((row.position == 0) & (row.document >= 0))]
        for row in rows_of(packer, 0)
    ]
    assert sorted(packed) == sorted(members for _, members in rooms)
    fewest = -(-sum(n - 1 for n in lengths) // context)
    assert len(packed) <= fewest + 3, "best fit leaves little unused"


# ---------------------------------------------------------------- packed = unpacked


OPTIONS = LlamaOptions(
    vocabulary=200, context=32, width=16, layers=2, heads=2, key_value_heads=1, head_size=8, hidden=32,
    query_key_norm=True,
)  # fmt: skip


def packed_equals_unpacked(compiled: bool, window: int | None) -> None:
    options = OPTIONS.model_copy(update={"sliding_window": window})
    model = Llama(options)
    model.initialise(torch.Generator().manual_seed(0))
    alone = Llama(options)
    alone.load_state_dict(model.state_dict())
    if compiled:
        compile_blocks(model.layers)
    packer = ChatPacker(conversations([9, 5, 12, 3, 20, 7, 30, 2]), context=32, seed=0, pad_id=PAD)
    rows = rows_of(packer, 0)
    assert any(row.padded for row in rows) and max(int(row.document.max()) for row in rows) >= 2
    stacked = {
        name: torch.from_numpy(np.stack([vars(row)[name] for row in rows]))
        for name in ("tokens", "position", "document")
    }
    with torch.no_grad():
        logits = model(stacked["tokens"], stacked["position"], stacked["document"])
        assert bool(torch.isfinite(logits).all())
        for index, row in enumerate(rows):
            for number in range(int(row.document.max()) + 1):
                where = torch.from_numpy(row.document == number)
                expected = alone(torch.from_numpy(row.tokens)[where][None])[0]
                assert torch.allclose(logits[index, where], expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("window", [None, 4])
def test_packed_logits_are_those_of_each_document_alone(window: int | None) -> None:
    packed_equals_unpacked(compiled=False, window=window)


@pytest.mark.slow
def test_packed_logits_are_those_of_each_document_alone_when_compiled() -> None:
    packed_equals_unpacked(compiled=True, window=None)
