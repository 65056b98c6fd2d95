"""Which documents are held out: by hash, by group, by file, or the tail of the text.

The side of a document follows from its own text (or its group's name) and from nothing else, so that adding,
removing or reordering other documents moves none, and equal documents are always on the same side.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from groundup.data.units import mix


class SplitOptions(BaseModel):
    """How documents are divided into training and held-out sets."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["hash", "group", "tail", "files", "none"] = Field(
        "hash",
        description="hash: each document by its text; group: all documents of a group to one side; tail: the last "
        "part of the text, a document cut in two if need be; files: held_out_files; none: all for training",
    )
    held_out: dict[str, float] = Field(
        default_factory=lambda: {"held_out": 0.1},
        description="the held-out sets and the share of documents (tail: of characters) in each, 0 to 1",
    )
    train: str = Field("train", min_length=1, description="the name of the training set")
    group_field: str | None = Field(
        None, description="kind group: the field that names a row's group; without it the file is the group"
    )
    held_out_files: list[str] = Field(
        default_factory=list, description="kind files: files, folders or globs whose documents are held out"
    )
    salt: str = Field("", description="another text draws another split of the same kind and size")
    overlap: Literal["remove", "refuse", "keep"] = Field(
        "remove",
        description="training documents that equal or nearly equal a held-out one: remove them, stop, or keep and "
        "name them",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """All sets, training first."""
        return (self.train, *self.held_out) if self.kind != "none" else (self.train,)


class Piece(NamedTuple):
    """The characters `start` to `stop` of a document that is cut between sets."""

    split: int
    start: int
    stop: int


def assign(
    options: SplitOptions, digests: np.ndarray, groups: np.ndarray, held_out_file: np.ndarray
) -> np.ndarray:
    """The set of each document as an index into `options.names`, int64; for `tail` all zero at first.

    Args:
        digests: uint64 of shape (documents, 2).
        groups: a hash of each document's group, uint64 of shape (documents,).
        held_out_file: whether a document's file is one of `held_out_files`, bool of shape (documents,).
    """
    side = np.zeros(len(digests), dtype=np.int64)
    if options.kind == "files":
        side[held_out_file] = 1
    if options.kind not in ("hash", "group"):
        return side
    salt = np.frombuffer(hashlib.blake2b(options.salt.encode(), digest_size=8).digest(), dtype="<u8")[0]
    key = mix((digests[:, 0] if options.kind == "hash" else groups) ^ salt)
    place = (key >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    below = 0.0
    for number, share in enumerate(options.held_out.values(), start=1):
        side[(place >= below) & (place < below + share)] = number
        below += share
    return side


def cut_tail(
    options: SplitOptions, characters: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, dict[int, list[Piece]]]:
    """Divide the kept documents by their place in the text: training first, then each held-out set in turn.

    Args:
        characters: the length of each document, int64, shape (documents,).
        kept: which documents stand, bool, shape (documents,).

    Returns:
        The set of each document, and for each document that a border runs through its pieces. A border lies
        at `int(total * share)` characters, `share` being what the sets before it hold together.
    """
    ends = np.cumsum(np.where(kept, characters, 0))
    total = int(ends[-1]) if len(ends) else 0
    borders = []
    before = 1.0 - sum(options.held_out.values())
    for share in options.held_out.values():
        borders.append(int(total * round(before, 12)))
        before += share
    starts = ends - np.where(kept, characters, 0)
    side = np.searchsorted(np.asarray(borders), starts, side="right").astype(np.int64)
    pieces: dict[int, list[Piece]] = {}
    for border in borders:
        for document in np.flatnonzero(kept & (starts < border) & (ends > border)).tolist():
            pieces[document] = []
    for document in pieces:
        start, end = int(starts[document]), int(ends[document])
        edges = [start, *sorted({b for b in borders if start < b < end}), end]
        for left, right in itertools.pairwise(edges):
            number = int(np.searchsorted(np.asarray(borders), left, side="right"))
            pieces[document].append(Piece(number, left - start, right - start))
    return side, pieces
