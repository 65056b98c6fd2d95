"""The stream that feeds a headed model: examples of like length together, padded to the longest of each batch.

Which examples batch number n of an epoch holds is a function of (seed, epoch, n) alone, so the state is two
integers and the ledger. The noise on an example is a function of (seed, epoch, its place in the epoch's order), so that
it does not depend on the size of a batch either. Reading and encoding are done before; no model enters here.

Shapes: B rows, T tokens of the longest row of the batch, L labels, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contract import IGNORE, Batch
from groundup.data.labelled_examples import Example, Ids, Piece
from groundup.data.labelled_options import Task
from groundup.data.text_noise import TextNoise
from groundup.errors import GroundupError

WINDOW = 32
"""Batches whose rows are sorted by length together: enough that little is padding, and few enough of an epoch that
which rows meet stays a matter of chance."""


class LabelledStream:
    """Padded batches of `rows` examples, for ever; implements contract.Source.

    Each example is in exactly one batch of an epoch, and one batch of an epoch may be smaller. `balanced`
    instead draws each class equally often: an epoch has as many draws as there are examples, rows of a small class
    come several times and those of a large one take turns from epoch to epoch.

    Args:
        examples: encoded rows of one task.
        task: which names the batch has; see `collate`.
        rows: rows in a batch.
        context: tokens that a row may have at most.
        pad_id: the id at padding.
        seed: of order and noise.
        balanced: task classify only.
        noise: on the texts; none without it.

    Attributes:
        epoch, batch: what comes next.
        ledger: tokens so far: `seen` = `trained` + `masked` + `padded`, exactly. Masked are, for task tag,
            tokens without a label of their own.

    Raises:
        GroundupError: E-DATA-001 without examples, E-DATA-015 if `balanced` does not fit the task, E-DATA-062 if an
            example is longer than `context`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        task: Task,
        rows: int,
        context: int,
        pad_id: int,
        seed: int,
        balanced: bool = False,
        noise: TextNoise | None = None,
    ) -> None:
        self.examples, self.task, self.rows, self.pad_id, self.seed = examples, task, rows, pad_id, seed
        self._lengths = np.array([example.length for example in examples], dtype=np.int64)
        _check(self._lengths, task, context, balanced)
        self._class = np.array([example.target for example in examples]) if balanced else None
        self.noise = noise
        self.epoch = self.batch = 0
        self.ledger = {"seen": 0, "trained": 0, "masked": 0, "padded": 0}
        self._planned: int | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch; the same in each."""
        return -(-len(self.examples) // self.rows)

    def next(self, turn: str) -> Batch:
        """The next batch; the epochs follow each other without end."""
        if self.batch >= self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
        chosen = [self.examples[index] for index in self.indices(self.epoch, self.batch)]
        if self.noise is not None:
            places = self._plan[self.batch].tolist()
            chosen = [noisy(one, self.noise, (self.seed, self.epoch, place)) for one, place in zip(chosen, places)]
        self.batch += 1
        batch = collate(chosen, self.task, self.pad_id)
        self._count(batch)
        return batch

    def indices(self, epoch: int, batch: int) -> Ids:
        """Which examples a batch holds, int64 (B,), the shortest first."""
        if self._planned != epoch:
            random = np.random.default_rng([self.seed, epoch])
            order = random.permutation(len(self.examples)) if self._class is None else _balanced(self._class, random)
            window = self.rows * WINDOW
            batches = []
            for start in range(0, len(order), window):
                near = np.arange(start, min(start + window, len(order)))
                near = near[np.argsort(self._lengths[order[near]], kind="stable")]
                batches += [near[at : at + self.rows] for at in range(0, len(near), self.rows)]
            self._order, self._plan = order, [batches[number] for number in random.permutation(len(batches))]
            self._planned = epoch
        return self._order[self._plan[batch]]

    def _count(self, batch: Batch) -> None:
        documents = [value for name, value in batch.items() if "document" in name]
        size = sum(value.numel() for value in documents)
        padded = sum(int((value < 0).sum()) for value in documents)
        trained = int((batch["label_BT"] != IGNORE).sum()) if "label_BT" in batch else size - padded
        self.ledger["seen"] += size
        self.ledger["trained"] += trained
        self.ledger["padded"] += padded
        self.ledger["masked"] += size - padded - trained

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, and the ledger."""
        return {"epoch": self.epoch, "batch": self.batch, "ledger": dict(self.ledger)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which `state_dict` was taken."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.ledger = dict(state["ledger"])


def noisy(example: Example, noise: TextNoise, counters: tuple[int, int, int]) -> Example:
    """An example with noise on its texts, its answer as it was.

    Args:
        counters: seed, epoch and place in the epoch's order, from which all that is random follows.
    """
    seed, epoch, place = counters
    random = np.random.default_rng([seed, epoch, place + 1])  # a trailing 0 would give the generator of the order
    pieces = []
    for piece in example.pieces:
        ids, places = noise.apply(piece.ids, random, piece.segments)
        pieces.append(Piece(ids, None if piece.segments is None else piece.segments[places]))
    return example._replace(pieces=tuple(pieces))


def batches(examples: Sequence[Example], *, task: Task, rows: int, pad_id: int) -> Iterator[tuple[Batch, Ids]]:
    """Every example once, for evaluation: batches in the order of length, the longest first so that one that does
    not fit into memory says so at once; and the indices of their examples, int64 (B,)."""
    order = np.argsort([-example.length for example in examples], kind="stable").astype(np.int64)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        yield collate([examples[index] for index in chosen], task, pad_id), chosen


def collate(examples: Sequence[Example], task: Task, pad_id: int) -> Batch:
    """Examples side by side.

    Returns:
        `tokens_BT`, `position_BT` (from 0 in each row) and `document_BT` (0, at padding -1), int64, and
        `segment_BT` if the encoder told segments. Task embed: the same again as `other_tokens_BT` and so on.
        Task choice: `tokens_BCT` and so on; a row with fewer candidates has ones that are padding throughout.
        The answer, unless the rows are unlabelled: `label_B` int64 (classify, choice), `label_BL` float32
        (multilabel), `value_B` float32 (regress), `label_BT` int64 with IGNORE (tag).
    """
    batch: Batch = {}
    if task == "choice":
        most = max(len(example.pieces) for example in examples)
        nothing = Piece(np.zeros(0, dtype=np.int64), None)
        padded = [piece for one in examples for piece in (*one.pieces, *[nothing] * (most - len(one.pieces)))]
        for name, array in _side_by_side(padded, pad_id).items():
            batch[f"{name}_BCT"] = torch.from_numpy(array.reshape(len(examples), most, -1))
    else:
        for number, prefix in enumerate(("", "other_")[: min(len(example.pieces) for example in examples)]):
            for name, array in _side_by_side([example.pieces[number] for example in examples], pad_id).items():
                batch[f"{prefix}{name}_BT"] = torch.from_numpy(array)
    targets = [example.target for example in examples]
    if task == "embed" or any(target is None for target in targets):
        return batch
    if task == "tag":
        label = np.full(batch["tokens_BT"].shape, IGNORE, dtype=np.int64)
        for row, tags in enumerate(map(np.asarray, targets)):
            label[row, : len(tags)] = tags
        batch["label_BT"] = torch.from_numpy(label)
    elif task == "multilabel":
        batch["label_BL"] = torch.from_numpy(np.stack([np.asarray(target) for target in targets]))
    else:
        name, dtype = ("value_B", torch.float32) if task == "regress" else ("label_B", torch.int64)
        batch[name] = torch.tensor(targets, dtype=dtype)
    return batch


def _side_by_side(pieces: Sequence[Piece], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """Arrays of shape (pieces, T)."""
    shape = (len(pieces), max(len(piece.ids) for piece in pieces))
    arrays = {"tokens": np.full(shape, pad_id), "position": np.zeros(shape), "document": np.full(shape, -1)}
    if any(piece.segments is not None for piece in pieces):
        arrays["segment"] = np.zeros(shape)
    arrays = {name: array.astype(np.int64) for name, array in arrays.items()}
    for row, piece in enumerate(pieces):
        length = len(piece.ids)
        arrays["tokens"][row, :length] = piece.ids
        arrays["position"][row, :length] = np.arange(length)
        arrays["document"][row, :length] = 0
        if piece.segments is not None:
            arrays["segment"][row, :length] = piece.segments
    return arrays


def _balanced(classes: NDArray[Any], random: np.random.Generator) -> Ids:
    """As many draws as there are examples, each class equally often within one, int64."""
    names = np.unique(classes)
    each, rest = divmod(len(classes), len(names))
    draws = np.full(len(names), each)
    draws[random.permutation(len(names))[:rest]] += 1
    chosen = []
    for name, count in zip(names, draws):
        members = np.flatnonzero(classes == name)
        rounds = [random.permutation(members) for _ in range(-(-int(count) // len(members)))]
        chosen.append(np.concatenate([np.zeros(0, dtype=np.int64), *rounds])[:count])
    return random.permutation(np.concatenate(chosen))


def require_examples(number: int, task: Task, context: int) -> None:
    """Something is left to learn from. Raises E-DATA-001."""
    if not number:
        raise GroundupError(
            "E-DATA-001",
            "no row is left to learn from once rows are encoded",
            where=f"task {task}, context {context}",
            why="rows longer than the limit are dropped if data.over_long is drop, and the card counts them",
            fix="set data.max_length higher, or data.over_long=cut",
        )


def _check(lengths: Ids, task: Task, context: int, balanced: bool) -> None:
    require_examples(len(lengths), task, context)
    if balanced and task != "classify":
        raise GroundupError(
            "E-DATA-015",
            f"classes cannot be balanced for task {task}",
            where="balanced: true",
            why="only where each row has exactly one label can all labels be drawn equally often",
            fix="leave it out, or weight the labels in the loss",
            exit_code=2,
        )
    if lengths.max() > context:
        raise GroundupError(
            "E-DATA-062",
            f"{int((lengths > context).sum()):,} rows are longer than the context of {context:,} tokens",
            where=f"the longest row has {int(lengths.max()):,} tokens",
            why="the model has no positions beyond its context",
            fix=f"set data.max_length={context} or less",
        )
