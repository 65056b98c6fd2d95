"""Pairs as ids, and the stream that feeds them: pairs of like length together, padded to the longest of each batch.

Which pairs batch number n of an epoch holds is a function of (seed, epoch, n) alone, so the state is two integers
and the ledger. The noise on a source is a function of (seed, epoch, its place in the epoch's order). How text becomes
ids is handed in; no model enters here.

Shapes: B rows, S tokens of the longest source of the batch, T of the longest target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contract import IGNORE, Batch
from groundup.data.parallel_text import ParallelRow
from groundup.data.text_noise import TextNoise
from groundup.errors import GroundupError

Ids = NDArray[np.int64]

WINDOW = 32
"""Batches whose pairs are sorted by length together: enough that little is padding, and few enough of an epoch that
which pairs meet stays a matter of chance."""


class Pair(NamedTuple):
    """A pair as ids, int64: the source (S,), what the decoder is given (T,), and what it learns to say (T,)."""

    source: Ids
    tokens: Ids
    target: Ids


class EncodedPairs(NamedTuple):
    """Pairs, the index of the row that each was made of, and what fitting to the length did.

    `fit` counts rows: `rows` = `whole` + `cut` + `dropped` + `no_tokens`; and the `source_tokens` and `target_tokens`
    of what is kept.
    """

    pairs: list[Pair]
    indices: list[int]
    fit: dict[str, int]


def encode_pairs(
    rows: Sequence[ParallelRow],
    encode: Callable[[str], Sequence[int]],
    *,
    begin_id: int,
    end_id: int,
    max_length: int,
    over_long: Literal["drop", "cut", "refuse"] = "drop",
) -> EncodedPairs:
    """Make ids of rows. The decoder is given `begin_id` and the target, and learns the target and `end_id`.

    Args:
        rows: pairs of texts.
        encode: a text to ids, without special tokens.
        max_length: tokens that the source, and the target with its special token, may have.
        over_long: cut: a target that was cut does not end in `end_id`, for there its sentence does not end.

    Raises:
        GroundupError: E-DATA-106 if pairs are too long and `over_long` is refuse; E-DATA-107 if none is left.
    """
    pairs, indices = [], []
    fit: Counter[str] = Counter(
        dict.fromkeys(("whole", "cut", "dropped", "no_tokens", "source_tokens", "target_tokens"), 0)
    )
    first, longest = -1, 0
    for index, row in enumerate(rows):
        source, target = list(encode(row.source)), [*encode(row.target), end_id]
        if not source or len(target) == 1:
            fit["no_tokens"] += 1
            continue
        length = max(len(source), len(target))
        longest = max(longest, length)
        if length > max_length and over_long != "cut":
            first = index if first < 0 else first
            fit["dropped"] += 1
            continue
        fit["cut" if length > max_length else "whole"] += 1
        source, target = source[:max_length], target[:max_length]
        pairs.append(Pair(*(np.array(ids, dtype=np.int64) for ids in (source, [begin_id, *target[:-1]], target))))
        indices.append(index)
        fit["source_tokens"] += len(source)
        fit["target_tokens"] += len(target)
    if over_long == "refuse" and fit["dropped"]:
        raise _too_long(rows, first, fit["dropped"], longest, max_length)
    if not pairs:
        raise _none_left(len(rows), fit, max_length)
    return EncodedPairs(pairs, indices, {"rows": len(rows), **fit})


class ParallelStream:
    """Padded batches of `rows` pairs, for ever; implements contract.Source. Each pair is in exactly one batch of an
    epoch, and one batch of an epoch may be smaller.

    Args:
        pairs: at least one.
        rows: pairs in a batch.
        pad_id: the id at padding.
        seed: of order and noise.
        noise: on the sources; none without it.

    Attributes:
        epoch, batch: what comes next.
        ledger: tokens so far: `seen` = `trained` + `masked` + `padded`, exactly. Trained are targets; masked are the
            tokens of sources, which are read and not learned.
    """

    def __init__(
        self, pairs: Sequence[Pair], *, rows: int, pad_id: int, seed: int, noise: TextNoise | None = None
    ) -> None:
        if not pairs or rows < 1:
            raise ValueError(f"{len(pairs)} pairs in batches of {rows}")
        self.pairs, self.rows, self.pad_id, self.seed, self.noise = pairs, rows, pad_id, seed, noise
        self._rank = _by_length(pairs)
        self.epoch = self.batch = 0
        self.ledger = {"seen": 0, "trained": 0, "masked": 0, "padded": 0}
        self._planned: int | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch; the same in each."""
        return -(-len(self.pairs) // self.rows)

    def next(self, turn: str) -> Batch:
        """The next batch; the epochs follow each other without end."""
        if self.batch >= self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
        chosen = [self.pairs[index] for index in self.indices(self.epoch, self.batch)]
        if self.noise is not None:
            places = self._plan[self.batch].tolist()
            chosen = [noisy(one, self.noise, (self.seed, self.epoch, place)) for one, place in zip(chosen, places)]
        batch = collate(chosen, self.pad_id)
        self.batch += 1
        padded = sum(int((batch[name] < 0).sum()) for name in ("source_document_BS", "document_BT"))
        trained = int((batch["target_BT"] != IGNORE).sum())
        seen = batch["source_BS"].numel() + batch["tokens_BT"].numel()
        counted = {"seen": seen, "trained": trained, "masked": seen - trained - padded, "padded": padded}
        self.ledger = {name: self.ledger[name] + number for name, number in counted.items()}
        return batch

    def indices(self, epoch: int, batch: int) -> Ids:
        """Which pairs a batch holds, int64 (B,), the shortest first."""
        if self._planned != epoch:
            random = np.random.default_rng([self.seed, epoch])
            order = random.permutation(len(self.pairs))
            window = self.rows * WINDOW
            batches = []
            for start in range(0, len(order), window):
                near = np.arange(start, min(start + window, len(order)))
                near = near[np.argsort(self._rank[order[near]], kind="stable")]
                batches += [near[at : at + self.rows] for at in range(0, len(near), self.rows)]
            self._order, self._plan = order, [batches[number] for number in random.permutation(len(batches))]
            self._planned = epoch
        return self._order[self._plan[batch]]

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, and the ledger."""
        return {"epoch": self.epoch, "batch": self.batch, "ledger": dict(self.ledger)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which `state_dict` was taken."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.ledger = dict(state["ledger"])


def noisy(pair: Pair, noise: TextNoise, counters: tuple[int, int, int]) -> Pair:
    """A pair with noise on its source; what is learned stays as it was.

    Args:
        counters: seed, epoch and place in the epoch's order, from which all that is random follows.
    """
    seed, epoch, place = counters
    # a trailing 0 would give the generator of the order
    return pair._replace(source=noise.apply(pair.source, np.random.default_rng([seed, epoch, place + 1]))[0])


def batches(pairs: Sequence[Pair], *, rows: int, pad_id: int) -> Iterator[tuple[Batch, Ids]]:
    """Every pair once, for evaluation: batches in the order of length, the longest first so that one that does not
    fit into memory says so at once; and the indices of their pairs, int64 (B,)."""
    order = np.argsort(-_by_length(pairs), kind="stable")
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        yield collate([pairs[index] for index in chosen], pad_id), chosen


def collate(pairs: Sequence[Pair], pad_id: int) -> Batch:
    """Pairs side by side.

    Returns:
        `source_BS`, `tokens_BT`, `target_BT` (IGNORE at padding), and `source_document_BS` and `document_BT` (0, at
        padding -1), all int64.
    """
    sources, tokens = [pair.source for pair in pairs], [pair.tokens for pair in pairs]
    return {
        "source_BS": _padded(sources, pad_id),
        "source_document_BS": _padded([np.zeros_like(ids) for ids in sources], -1),
        "tokens_BT": _padded(tokens, pad_id),
        "target_BT": _padded([pair.target for pair in pairs], IGNORE),
        "document_BT": _padded([np.zeros_like(ids) for ids in tokens], -1),
    }


def _padded(rows: Sequence[Ids], filler: int) -> torch.Tensor:
    array = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for number, ids in enumerate(rows):
        array[number, : len(ids)] = ids
    return torch.from_numpy(array)


def _by_length(pairs: Sequence[Pair]) -> Ids:
    """The rank of each pair by the length of its target, then of its source, int64; equals share a rank."""
    lengths = np.array([(len(pair.tokens), len(pair.source)) for pair in pairs], dtype=np.int64)
    return np.unique(lengths, axis=0, return_inverse=True)[1].reshape(-1)


def _too_long(rows: Sequence[ParallelRow], first: int, count: int, longest: int, max_length: int) -> GroundupError:
    return GroundupError(
        "E-DATA-106",
        f"{count:,} of {len(rows):,} pairs are longer than {max_length:,} tokens, the longest has {longest:,}",
        where=f"first {rows[first].place}",
        why="with over_long: refuse every pair has to fit whole",
        fix=f"set data.max_length={longest} if the model's context allows it\n"
        "or data.over_long=drop (or cut); both count the pairs",
    )


def _none_left(rows: int, fit: Counter[str], max_length: int) -> GroundupError:
    return GroundupError(
        "E-DATA-107",
        f"no pair is left to learn from once {rows:,} pairs are encoded",
        where=f"{fit['dropped']:,} are longer than {max_length:,} tokens, {fit['no_tokens']:,} have an empty side",
        why="pairs longer than the limit are dropped if data.over_long is drop, and the card counts them",
        fix="set data.max_length higher, or data.over_long=cut",
    )
