"""Hidden tokens: how many, which, and that the choice is a function of the seed, the epoch and the row."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from tests.data.test_pack import Numbered

from groundup.contract import IGNORE
from groundup.data.mask import MaskedPacker, Masking, held_out_batches, held_out_windows
from groundup.data.pack import Row

PAD, BEGIN, END, MASK = 0, 1, 2, 1000
MASKING = Masking.of(0.15, MASK, 1001, [PAD, BEGIN, END, MASK])


class Texts(Numbered):
    """Documents of ordinary tokens between a begin and an end."""

    def __init__(self, lengths: list[int]) -> None:
        super().__init__(lengths)
        inner = [text % 900 + 10 for text in self.texts]
        self.texts = [np.concatenate(([BEGIN], text, [END])).astype(np.uint16) for text in inner]
        self.lengths = self.lengths + 2


def rows(packer: MaskedPacker, epoch: int = 0) -> list[Row]:
    return [packer.row(epoch, index) for index in range(packer.rows(epoch))]


def packer(lengths: list[int], seed: int = 0, masking: Masking = MASKING) -> MaskedPacker:
    return MaskedPacker(Texts(lengths), masking, context=32, seed=seed, pad_id=PAD)


def whole(row: Row) -> list[int]:
    """The tokens of a row as they were."""
    return np.where(row.target == IGNORE, row.tokens, row.target)[row.document >= 0].tolist()


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_shares_of_the_chosen_tokens(share: float) -> None:
    masking = Masking.of(share, MASK, 1001, [PAD, BEGIN, END, MASK])
    tokens = np.random.default_rng(0).integers(10, 1000, 40_000)
    given, target = masking.apply(tokens, np.ones(len(tokens), dtype=np.bool_), np.random.default_rng(1))
    chosen = target != IGNORE
    assert chosen.sum() == round(share * len(tokens))
    assert (target[chosen] == tokens[chosen]).all() and (given[~chosen] == tokens[~chosen]).all()
    assert (given[chosen] == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (given[chosen] == tokens[chosen]).mean() == pytest.approx(0.1, abs=0.02)
    others = given[chosen & (given != MASK) & (given != tokens)]
    assert len(others) / chosen.sum() == pytest.approx(0.1, abs=0.02)
    assert len(set(others.tolist())) > 100 and not np.isin(others, [PAD, BEGIN, END]).any()


def test_neither_special_tokens_nor_padding_are_chosen() -> None:
    for row in rows(packer([3, 70, 1, 12, 5])):
        assert not np.isin(row.target, [PAD, BEGIN, END, MASK]).any()
        assert (row.target[row.document < 0] == IGNORE).all()
        assert (row.tokens[row.document < 0] == PAD).all()
        assert (row.target != IGNORE).sum() == max(1, round(0.15 * ((row.tokens > END).sum())))


def test_a_row_of_special_tokens_alone_has_no_target() -> None:
    tokens = np.array([BEGIN, END, BEGIN, END])
    given, target = MASKING.apply(tokens, np.ones(4, dtype=np.bool_), np.random.default_rng(0))
    assert (given == tokens).all() and (target == IGNORE).all()


def test_every_token_of_every_document_once_in_each_epoch() -> None:
    made = packer([3, 70, 1, 12, 5, 100])
    expected = Counter(int(id) for text in Texts([3, 70, 1, 12, 5, 100]).texts for id in text)
    for epoch in (0, 1):
        assert Counter(id for row in rows(made, epoch) for id in whole(row)) == expected


def test_the_choice_belongs_to_seed_epoch_and_row() -> None:
    lengths = [60, 40, 7, 90]
    one, again = rows(packer(lengths)), list(reversed([packer(lengths).row(0, n) for n in (5, 4, 3, 2, 1, 0)]))
    for row, other in zip(one, again):
        assert (row.tokens == other.tokens).all() and (row.target == other.target).all()
    assert any((a.target != b.target).any() for a, b in zip(one, rows(packer(lengths), 1)))
    assert any((a.target != b.target).any() for a, b in zip(one, rows(packer(lengths, seed=1))))


def test_held_out_windows_are_always_hidden_alike() -> None:
    windows = held_out_windows(Texts([50, 3, 20]), context=32, limit=None)
    assert [len(window) for window in windows] == [32, 20, 5, 22]
    assert sum(len(window) for window in held_out_windows(Texts([50, 3, 20]), context=32, limit=55)) == 55
    found: dict[int, list[torch.Tensor]] = {}
    for size in (1, 3):
        for batch, numbers in held_out_batches(windows, MASKING, rows=size, pad_id=PAD):
            assert (batch["target_BT"][batch["document_BT"] < 0] == IGNORE).all()
            for row, number in enumerate(numbers):
                found.setdefault(int(number), []).append(batch["target_BT"][row, : len(windows[number])])
    assert sorted(found) == [0, 1, 2, 3]
    assert all(torch.equal(one, other) for one, other in found.values())
