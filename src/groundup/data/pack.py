"""Rows of one fixed length out of documents or conversations of any length.

A row holds one or more pieces. Pieces cannot see each other: each has its own number in `document_BT`, its
positions start at 0, and a target never lies in another piece, since inputs and targets are cut from one
document *before* rows are made. A packer is a pure function of (seed, epoch, row): it has no state, so a
stream resumes at any row without replaying anything.

Pieces and rows count *pairs*: an input token and the target after it; a document of n tokens has n - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from groundup.contract import IGNORE

Ids = NDArray[np.int64]


class Documents(Protocol):
    """What a packer asks of a set of tokenized documents."""

    @property
    def lengths(self) -> NDArray[np.int64]: ...
    def document(self, index: int) -> NDArray[np.unsignedinteger]: ...


@dataclass(frozen=True)
class Row:
    """One row of `context` positions, each array int64 of that length."""

    tokens: Ids
    target: Ids
    position: Ids
    document: Ids
    padded: int


def assemble(pieces: list[tuple[Ids, Ids]], context: int, pad_id: int) -> Row:
    """Lay pieces (inputs, targets) one after another and fill the rest with padding.

    Padding has target IGNORE and document -1; nothing sees it and it trains nothing.
    """
    tokens = np.full(context, pad_id, dtype=np.int64)
    target = np.full(context, IGNORE, dtype=np.int64)
    position = np.zeros(context, dtype=np.int64)
    document = np.full(context, -1, dtype=np.int64)
    at = 0
    for number, (inputs, targets) in enumerate(pieces):
        end = at + len(inputs)
        tokens[at:end], target[at:end] = inputs, targets
        position[at:end] = np.arange(len(inputs))
        document[at:end] = number
        at = end
    return Row(tokens, target, position, document, context - at)


class TextPacker:
    """Rows for pretraining: every pair of every document exactly once in each epoch.

    A document longer than the context is cut into pieces of `context` pairs at an offset that is drawn
    anew in each epoch; these fill rows of their own. What is shorter is laid end to end, in shuffled order,
    and may be cut where a row ends. Only the last row of an epoch can hold padding.
    """

    def __init__(self, documents: Documents, *, context: int, seed: int, pad_id: int) -> None:
        self.documents, self.context, self.seed, self.pad_id = documents, context, seed, pad_id
        self._planned: int | None = None

    def rows(self, epoch: int) -> int:
        """How many rows epoch `epoch` has."""
        self._plan(epoch)
        return len(self._order)

    def row(self, epoch: int, index: int) -> Row:
        """Row `index` of epoch `epoch`."""
        self._plan(epoch)
        chosen = int(self._order[index])
        if chosen < len(self._full_document):
            pieces = [self._piece(self._full_document[chosen], self._full_start[chosen], self.context)]
            return assemble(pieces, self.context, self.pad_id)
        at = (chosen - len(self._full_document)) * self.context
        end = min(at + self.context, int(self._tail_end[-1]))
        pieces = []
        which = int(np.searchsorted(self._tail_end, at, side="right"))
        while at < end:
            before = int(self._tail_end[which - 1]) if which else 0
            length = min(end, int(self._tail_end[which])) - at
            start = int(self._tail_start[which]) + at - before
            pieces.append(self._piece(self._tail_document[which], start, length))
            at, which = at + length, which + 1
        return assemble(pieces, self.context, self.pad_id)

    def _piece(self, document: int, start: int, length: int) -> tuple[Ids, Ids]:
        ids = self.documents.document(int(document))[start : start + length + 1].astype(np.int64)
        return ids[:-1], ids[1:]

    def _plan(self, epoch: int) -> None:
        """Cut and shuffle for one epoch; kept until another epoch is asked for."""
        if self._planned == epoch:
            return
        random = np.random.default_rng([self.seed, epoch])
        pairs = np.maximum(self.documents.lengths - 1, 0)
        offset = np.where(pairs > self.context, random.integers(0, self.context, len(pairs)), 0)
        offset = np.where(pairs > self.context, offset, np.where(pairs < self.context, pairs, 0))
        full = (pairs - offset) // self.context
        self._full_document = np.repeat(np.arange(len(pairs)), full)
        first = np.repeat(np.cumsum(full) - full, full)
        self._full_start = offset[self._full_document] + (np.arange(full.sum()) - first) * self.context
        rest = pairs - offset - full * self.context
        document = np.concatenate([np.arange(len(pairs)), np.arange(len(pairs))])
        start = np.concatenate([np.zeros_like(offset), offset + full * self.context])
        length = np.concatenate([offset, rest])
        order = random.permutation(np.flatnonzero(length))
        self._tail_document, self._tail_start = document[order], start[order]
        self._tail_end = np.cumsum(length[order])
        tail = int(self._tail_end[-1]) if len(order) else 0
        self._order = random.permutation(len(self._full_document) + -(-tail // self.context))
        self._planned = epoch


@dataclass(frozen=True)
class Conversation:
    """One rendered conversation: ids and, for each, whether it is to be learnt (the assistant's part)."""

    ids: Ids
    trainable: NDArray[np.bool_]


class ChatPacker:
    """Rows for fine-tuning: whole conversations, never cut; what is left of a row is padding.

    In each epoch the conversations are shuffled and each goes into the fullest of the open rows that still
    has room for it (best fit). A conversation must fit: n tokens make n - 1 pairs, at most `context`.
    """

    open_rows = 64

    def __init__(
        self, conversations: list[Conversation], *, context: int, seed: int, pad_id: int
    ) -> None:
        self.conversations, self.context, self.seed, self.pad_id = conversations, context, seed, pad_id
        self._planned: int | None = None

    def rows(self, epoch: int) -> int:
        """How many rows epoch `epoch` has."""
        self._plan(epoch)
        return len(self._bins)

    def row(self, epoch: int, index: int) -> Row:
        """Row `index` of epoch `epoch`."""
        self._plan(epoch)
        pieces = []
        for number in self._bins[index]:
            conversation = self.conversations[number]
            target = np.where(conversation.trainable[1:], conversation.ids[1:], IGNORE)
            pieces.append((conversation.ids[:-1], target))
        return assemble(pieces, self.context, self.pad_id)

    def _plan(self, epoch: int) -> None:
        if self._planned == epoch:
            return
        random = np.random.default_rng([self.seed, epoch])
        closed: list[list[int]] = []
        still_open: list[tuple[int, list[int]]] = []  # (room left, conversations)
        for number in random.permutation(len(self.conversations)).tolist():
            pairs = len(self.conversations[number].ids) - 1
            fitting = [i for i, (room, _) in enumerate(still_open) if room >= pairs]
            if fitting:
                best = min(fitting, key=lambda i: still_open[i][0])
                room, members = still_open.pop(best)
            else:
                if len(still_open) == self.open_rows:
                    closed.append(still_open.pop(0)[1])
                room, members = self.context, []
            still_open.append((room - pairs, [*members, number]))
        closed += [members for _, members in still_open]
        self._bins = [closed[i] for i in random.permutation(len(closed))]
        self._planned = epoch
