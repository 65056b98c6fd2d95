"""Rows to examples: ids that fit the length, and the answer as a number.

How text becomes ids is handed in, so no tokenizer enters here; nor do batches.

Shapes: T tokens of a text, L labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.contract import IGNORE
from groundup.data.labelled_options import Task
from groundup.data.labelled_rows import LabelledRow
from groundup.errors import GroundupError

Ids = NDArray[np.int64]

Encode = Callable[[str, str | None], tuple[Sequence[int], Sequence[int] | None]]
"""A text, and a second one that is read with it, to ids with all special tokens, and for each id the segment it
is of (0 the first text, 1 the second; ascending). None is one segment for all."""

EncodeWords = Callable[[Sequence[str]], tuple[Sequence[int], Sequence[int]]]
"""Words to ids with all special tokens, and for each id the number of its word, -1 for special tokens."""


class Piece(NamedTuple):
    """One sequence of ids, int64 (T,); `segments` likewise, or None where all are segment 0."""

    ids: Ids
    segments: Ids | None


class Example(NamedTuple):
    """A row as numbers.

    `pieces`: one sequence; task embed the two texts of a pair; task choice one for each candidate.
    `target`: classify and choice a number, multilabel float32 (L,) of 0 and 1, tag int64 (T,) with IGNORE,
    regress a float, embed None; None as well where the row is unlabelled.
    """

    pieces: tuple[Piece, ...]
    target: int | float | NDArray[Any] | None

    @property
    def length(self) -> int:
        """Tokens of the longest piece."""
        return max(len(piece.ids) for piece in self.pieces)


class Encoded(NamedTuple):
    """Examples, the index of the row that each was made of, and what fitting to the length did.

    `fit` counts rows: `rows` = `whole` + `cut` + `dropped` + `no_target` + `no_tokens`; and the `tokens` of what
    is kept and the `cut_tokens`.
    """

    examples: list[Example]
    indices: list[int]
    fit: dict[str, int]


def encode_rows(
    rows: Sequence[LabelledRow],
    *,
    task: Task,
    labels: Sequence[str],
    encode: Encode,
    encode_words: EncodeWords | None = None,
    max_length: int,
    over_long: Literal["cut", "drop", "refuse"] = "cut",
    keep_last: int = 0,
) -> Encoded:
    """Make examples of rows.

    Args:
        rows: of one task.
        labels: the labels in the order of their numbers.
        encode: for every task but tag.
        encode_words: for task tag; a label goes to the first token of its word, the others are IGNORE.
        max_length: tokens, special ones included, that one sequence may have.
        over_long: cut: the longer of the two segments is cut until both fit.
        keep_last: tokens at the end of each segment that cutting spares, such as a separator.

    Raises:
        GroundupError: E-DATA-062 if rows are too long and `over_long` is refuse.
        ValueError: a label is not among `labels`, or the encoder for the task is missing.
    """
    number = {label: index for index, label in enumerate(labels)}
    examples, indices = [], []
    fit: Counter[str] = Counter(dict.fromkeys(("whole", "cut", "dropped", "no_target", "no_tokens"), 0))
    fit["rows"] = len(rows)
    tokens = cut_tokens = longest = 0
    for index, row in enumerate(rows):
        pieces, word_of = _pieces(row, task, encode, encode_words)
        excess = sum(max(0, len(piece.ids) - max_length) for piece in pieces)
        longest = max(longest, *(len(piece.ids) for piece in pieces))
        if excess and over_long != "cut":
            fit["dropped"] += 1
            continue
        kept = [_kept(piece, max_length, keep_last) for piece in pieces]
        pieces = tuple(_chosen(piece, which) for piece, which in zip(pieces, kept, strict=True))
        if not all(len(piece.ids) for piece in pieces):
            fit["no_tokens"] += 1
            continue
        target = _target(row, task, number, word_of[kept[0]] if word_of is not None else None)
        if task == "tag" and isinstance(target, np.ndarray) and not (target != IGNORE).any():
            fit["no_target"] += 1
            continue
        fit["cut" if excess else "whole"] += 1
        cut_tokens += excess
        tokens += sum(len(piece.ids) for piece in pieces)
        examples.append(Example(pieces, target))
        indices.append(index)
    if over_long == "refuse" and fit["dropped"]:
        raise _too_long(rows, indices, fit["dropped"], longest, max_length)
    return Encoded(examples, indices, {**fit, "tokens": tokens, "cut_tokens": cut_tokens})


def _pieces(
    row: LabelledRow, task: Task, encode: Encode, encode_words: EncodeWords | None
) -> tuple[tuple[Piece, ...], Ids | None]:
    if task == "tag":
        if encode_words is None:
            raise ValueError("task tag needs encode_words")
        ids, word_of = encode_words(row.words)
        return (_piece(ids, None),), np.asarray(word_of, dtype=np.int64)
    if task == "embed":
        texts: list[tuple[str, str | None]] = [(row.text, None)]
        texts += [(row.other, None)] if row.other is not None else []
    elif task == "choice":
        texts = [(row.text, candidate) for candidate in row.candidates]
    else:
        texts = [(row.text, row.other)]
    return tuple(_piece(*encode(*pair)) for pair in texts), None


def _piece(ids: Sequence[int], segments: Sequence[int] | None) -> Piece:
    array = np.asarray(ids, dtype=np.int64)
    return Piece(array, None if segments is None else np.asarray(segments, dtype=np.int64))


def _kept(piece: Piece, max_length: int, keep_last: int) -> Ids:
    """The places of the tokens that stay, int64, ascending, at most `max_length`."""
    total = len(piece.ids)
    if total <= max_length:
        return np.arange(total)
    first = total if piece.segments is None else int((piece.segments == 0).sum())
    second = total - first
    # each may have half of the room, and what the other leaves of its own
    room = max(max_length - second, min(first, max_length - max_length // 2)) if second else max_length
    parts = [(0, first, min(room, first)), (first, total, max_length - min(room, first))]
    places = []
    for start, end, size in parts:
        last = min(keep_last, size)
        places += [np.arange(start, start + size - last), np.arange(end - last, end)]
    return np.concatenate(places)


def _chosen(piece: Piece, which: Ids) -> Piece:
    return Piece(piece.ids[which], None if piece.segments is None else piece.segments[which])


def _target(
    row: LabelledRow, task: Task, number: dict[str, int], word_of: Ids | None
) -> int | float | NDArray[Any] | None:
    unknown = [label for label in row.labels if label not in number]
    if unknown:
        raise ValueError(f"{row.place}: label {unknown[0]!r} is not among the {len(number)} labels")
    if task == "classify":
        return number[row.labels[0]] if row.labels else None
    if task == "multilabel":
        several = np.zeros(len(number), dtype=np.float32)
        several[[number[label] for label in row.labels]] = 1.0
        return several
    if task == "tag" and row.labels and word_of is not None:
        before = np.concatenate([np.full(1, -1), word_of[:-1]])
        first = (word_of >= 0) & (word_of != before)
        of_word = np.array([number[label] for label in row.labels], dtype=np.int64)
        return np.where(first, of_word[word_of], IGNORE)
    return {"regress": row.value, "choice": row.choice}.get(task)


def _too_long(
    rows: Sequence[LabelledRow], kept: Sequence[int], count: int, longest: int, max_length: int
) -> GroundupError:
    standing = set(kept)
    first = next(row for index, row in enumerate(rows) if index not in standing)
    return GroundupError(
        "E-DATA-062",
        f"{count:,} of {len(rows):,} rows are longer than {max_length:,} tokens, the longest has {longest:,}",
        where=f"first {first.place}",
        why="with over_long: refuse every row has to fit whole",
        fix=f"set data.max_length={longest} if the model's context allows it\n"
        "or data.over_long=cut (or drop); both count the rows",
    )
