"""Hiding tokens of rows, for a model that learns to tell which they were (Devlin et al. 2018, arXiv:1810.04805, section
3.1 and appendix A.1). The choice is drawn anew in each epoch (RoBERTa, Liu et al. 2019, arXiv:1907.11692, section 4.1),
and is a function of (seed, epoch, row) alone, so that it depends neither on the size of a micro-batch nor on a resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contract import IGNORE, Batch
from groundup.data.pack import Documents, Ids, Row, TextPacker

HIDDEN, REPLACED = 0.8, 0.1
"""Of the chosen tokens: how many become the mask token, and how many another one; the rest stays as it is, for a model
that is fine-tuned later sees no mask token."""

EVALUATION = 1810_04805
"""Seed of the choice in held-out documents: one for all runs, so that they answer the same questions."""


@dataclass(frozen=True)
class Masking:
    """How tokens are hidden.

    Attributes:
        share: of the ordinary tokens of a row that are chosen, one at least.
        mask_id: what stands where a token is hidden.
        ordinary: whether a token may be chosen, and stand in for another, by id: no special token may. bool (V,).
    """

    share: float
    mask_id: int
    ordinary: NDArray[np.bool_]

    @classmethod
    def of(cls, share: float, mask_id: int, vocabulary: int, specials: Sequence[int]) -> Masking:
        """All tokens of the vocabulary are ordinary but the special ones."""
        ordinary = np.ones(vocabulary, dtype=np.bool_)
        ordinary[list(specials)] = False
        return cls(share, mask_id, ordinary)

    def apply(self, tokens: Ids, real: NDArray[np.bool_], random: np.random.Generator) -> tuple[Ids, Ids]:
        """Hide some of the tokens.

        Args:
            tokens: int64 (T,).
            real: where there is no padding, bool (T,).
        Returns:
            What the model is given, and the targets: the token that was chosen, IGNORE elsewhere.
        """
        given, target = tokens.copy(), np.full_like(tokens, IGNORE)
        candidates = np.flatnonzero(real & self.ordinary[tokens])
        if not len(candidates):
            return given, target
        chosen = random.choice(candidates, size=max(1, round(self.share * len(candidates))), replace=False)
        target[chosen] = tokens[chosen]
        fate = random.random(len(chosen))
        others = random.choice(np.flatnonzero(self.ordinary), size=len(chosen))
        given[chosen] = np.where(
            fate < HIDDEN, self.mask_id, np.where(fate < HIDDEN + REPLACED, others, tokens[chosen])
        )
        return given, target


class _Whole:
    """Documents with one id more at the end: a packer cuts them into pairs, whose inputs are then all their tokens."""

    def __init__(self, documents: Documents, pad_id: int) -> None:
        self.documents, self.pad_id = documents, pad_id

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.where(self.documents.lengths > 0, self.documents.lengths + 1, 0)

    def document(self, index: int) -> NDArray[np.unsignedinteger]:
        ids = self.documents.document(index)
        return np.append(ids, np.array([self.pad_id], dtype=ids.dtype))


class MaskedPacker:
    """Rows for masked pretraining: every token of every document exactly once in each epoch, some of them hidden."""

    def __init__(self, documents: Documents, masking: Masking, *, context: int, seed: int, pad_id: int) -> None:
        self.packer = TextPacker(_Whole(documents, pad_id), context=context, seed=seed, pad_id=pad_id)
        self.masking, self.seed = masking, seed

    def rows(self, epoch: int) -> int:
        """How many rows epoch `epoch` has."""
        return self.packer.rows(epoch)

    def row(self, epoch: int, index: int) -> Row:
        """Row `index` of epoch `epoch`."""
        row = self.packer.row(epoch, index)
        random = np.random.default_rng([self.seed, epoch, index + 1])  # numpy takes a 0 at the end for none
        tokens, target = self.masking.apply(row.tokens, row.document >= 0, random)
        return replace(row, tokens=tokens, target=target)


def held_out_windows(documents: Documents, *, context: int, limit: int | None) -> list[Ids]:
    """The documents, each in windows of at most `context` tokens that do not overlap; `limit` tokens in all."""
    windows: list[Ids] = []
    left = int(documents.lengths.sum()) if limit is None else limit
    for index in range(len(documents.lengths)):
        ids = documents.document(index)[: max(0, left)].astype(np.int64)
        windows += [ids[start : start + context] for start in range(0, len(ids), context)]
        left -= len(ids)
    return windows


def held_out_batches(
    windows: Sequence[Ids], masking: Masking, *, rows: int, pad_id: int
) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
    """Every window once, the longest first, and which windows a batch holds. What is hidden in window number n is
    always the same."""
    order = np.argsort([-len(window) for window in windows], kind="stable")
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        length = len(windows[chosen[0]])
        tokens_BT = np.full((len(chosen), length), pad_id, dtype=np.int64)
        target_BT = np.full_like(tokens_BT, IGNORE)
        document_BT = np.full_like(tokens_BT, -1)
        for row, number in enumerate(chosen):
            ids, random = windows[number], np.random.default_rng([EVALUATION, int(number) + 1])
            here = (row, slice(len(ids)))
            tokens_BT[here], target_BT[here] = masking.apply(ids, np.ones(len(ids), dtype=np.bool_), random)
            document_BT[here] = 0
        position_BT = np.tile(np.arange(length), (len(chosen), 1))
        arrays = {"tokens_BT": tokens_BT, "target_BT": target_BT, "position_BT": position_BT}
        yield (
            {name: torch.from_numpy(array) for name, array in {**arrays, "document_BT": document_BT}.items()},
            chosen,
        )
