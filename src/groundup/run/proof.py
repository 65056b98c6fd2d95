"""The proof that a model which was written and read again is still the same (G10): every weight against the rounding
that its type allows, answers side by side, and the greedy text of both. What is not proved does not get its name.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from groundup.errors import GroundupError, printable
from groundup.inference import SampleOptions, generate_batch
from groundup.models.heads import Headed
from groundup.run.models import Described
from groundup.text.rows import RowEncoder, opening_ids

TEXTS = (
    "The quick brown fox jumps over the lazy dog. 1 + 1 = 2, isn't it?",
    "def add(a, b):\n    return a + b\n",
    "床前明月光，疑是地上霜。",
    "Once upon a time, there was a little girl who",
)
GREEDY_TOKENS = 128
RECORD = ".proof.json"
"""What the name of the file beside an export ends with: the comparison, to be read later."""

LIMIT = 1e-4
"""Largest difference of an answer that is not explained by rounding, as a share of the spread of the answers: what
float32 sums in another order give, and no more."""


class Weights(NamedTuple):
    """How many tensors were compared with what they must be, and the names of those that are something else."""

    compared: int
    differing: tuple[str, ...]


@dataclass(frozen=True)
class Proof:
    """What the comparison found.

    Attributes:
        dtype: of the written weights.
        largest_difference: of a logit (or embedding, or value) of the source and of what was read back; it shows
            what the type of the weights costs.
        unexplained: the same beside the source with its weights rounded to that type; there is nothing to cost then.
        limit: the largest `unexplained` that is allowed here.
        tokens, agreed: greedy tokens of the source, and how many of them the other chose in the same place when
            given the same beginning; 0 for models that write no text.
        tensors, exact: tensors of the source, and how many were read back as exactly what they are in the written
            type; 0 for a format whose weights cannot be told apart.
        differing: the first names of those that were not.
    """

    dtype: str
    largest_difference: float
    unexplained: float
    limit: float
    tokens: int
    agreed: int
    tensors: int = 0
    exact: int = 0
    differing: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def require(self, target: Path) -> None:
        """Refuse a difference over the limit, or a weight that is another.

        Raises:
            GroundupError: E-FORMAT-095.
        """
        faults = []
        if not (math.isfinite(self.unexplained) and self.unexplained <= self.limit):
            faults.append(f"its answers differ by {self.unexplained:.3g} (limit {self.limit:.3g})")
        if self.exact < self.tensors:
            names = ", ".join(map(printable, self.differing))
            faults.append(f"{self.tensors - self.exact} of {self.tensors} tensors are not those of the source: {names}")
        if not faults:
            return
        raise GroundupError(
            "E-FORMAT-095",
            f"what was written is not the model it was made from: {'; '.join(faults)}",
            where=f"{printable(str(target))}: it was removed again",
            why="a file that gives other answers than its model would mislead whoever uses it",
            fix="this is most likely a fault of groundup: report it with the output of groundup inspect MODEL",
        )


def compare_weights(expected: Iterable[tuple[str, Tensor]], found: Mapping[str, Tensor]) -> Weights:
    """Compare tensors bit by bit with what they must be.

    Args:
        expected: names and tensors, one after the other, so that they need not be in memory together.
        found: what was read back; names beside the expected ones do not count.
    """
    compared, differing = 0, []
    for name, tensor in expected:
        compared += 1
        if name not in found or not torch.equal(found[name], tensor.to(found[name].dtype)):
            differing.append(name)
    return Weights(compared, tuple(differing))


@torch.inference_mode()
def prove(
    model: nn.Module,
    other: Any,
    said: Described,
    dtype: str,
    weights: Weights | None = None,
    rounded: nn.Module | None = None,
) -> Proof:
    """Compare a model with what was read back.

    Args:
        model: the source, on the CPU.
        other: called like the model.
        said: what the source's files say.
        dtype: of the written weights.
        weights: what `compare_weights` found; None where the format hides them.
        rounded: the source with its weights rounded to `dtype`; None where that changes nothing.
    """
    model.eval()
    compared, differing = weights or Weights(0, ())
    facts = (compared, compared - len(differing), differing[:3])
    rows = isinstance(model, Headed) or said.family == "bert"
    compare = _compare_rows if rows else _compare_logits
    difference, scale = compare(model, other, said)
    unexplained = difference if rounded is None else compare(rounded.eval(), other, said)[0]
    tokens, agreed = (0, 0) if rows else _greedy(model, other, said, _prompts(said)[-1])
    return Proof(dtype, difference, unexplained, LIMIT * scale, tokens, agreed, *facts)


def _prompts(said: Described) -> list[list[int]]:
    prompts = [opening_ids(said.tokenizer, said.tokenizer.encode(text)) for text in TEXTS]
    return [ids[: said.options.context] for ids in prompts]


def _compare_logits(model: nn.Module, other: Any, said: Described) -> tuple[float, float]:
    """The largest difference of the logits, and their standard deviation."""
    pairs = [[one(torch.tensor([ids])).float() for one in (model, other)] for ids in _prompts(said)]
    return _largest((ours, theirs) for ours, theirs in pairs), float(torch.cat([p[0].flatten() for p in pairs]).std())


def _largest(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The largest difference; infinity where the shapes differ, and not a number where an answer is none."""
    found = [float((a - b).abs().max()) if a.shape == b.shape else math.inf for a, b in pairs]
    return math.nan if any(math.isnan(each) for each in found) else max(found)


def _greedy(model: Any, other: Any, said: Described, prompt: list[int]) -> tuple[int, int]:
    """The source's greedy text, and at how many of its places the other chooses the same token."""
    room = min(GREEDY_TOKENS, said.options.context - len(prompt))
    if room < 1:
        return 0, 0
    [written] = generate_batch(model, [prompt], SampleOptions(max_tokens=room), end_ids=())
    ids = [*prompt, *written.ids]
    chosen = other(torch.tensor([ids[:-1]])).argmax(dim=-1)[0, len(prompt) - 1 :].tolist()
    return len(written.ids), sum(a == b for a, b in zip(written.ids, chosen, strict=True))


def _compare_rows(model: nn.Module, other: Any, said: Described) -> tuple[float, float]:
    """The largest difference and the size of the answers: each text by itself, and all in one padded batch."""
    encoder = RowEncoder(said.tokenizer)
    rows = [encoder.encode(text)[0][: said.options.context] for text in TEXTS]
    pairs = []
    for batch in [*(_batch([row]) for row in rows), _batch(rows)]:
        real = batch["document_BT"] >= 0
        if isinstance(model, Headed) and model.kind == "choice":
            batch = {name.replace("_BT", "_BCT"): tensor[None] for name, tensor in batch.items()}
        ours, theirs = _answer(model, batch), _answer(other, batch)
        if ours.shape[:2] == real.shape and ours.dim() == 3:  # one answer for each token: what padding says is nothing
            ours, theirs = ours[real], theirs[real]
        pairs.append((ours, theirs))
    size = torch.cat([ours.flatten() for ours, _ in pairs]).square().mean().sqrt()
    return _largest(pairs), float(size)


def _batch(rows: Sequence[list[int]]) -> dict[str, Tensor]:
    width = max(map(len, rows))
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    document = torch.full_like(tokens, -1)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
        document[number, : len(row)] = 0
    position = torch.arange(width).expand_as(tokens).contiguous()
    return {"tokens_BT": tokens, "position_BT": position, "document_BT": document}


def _answer(model: Any, batch: dict[str, Tensor]) -> Tensor:
    if isinstance(model, nn.Module) and not isinstance(model, Headed):
        hidden: Tensor = model.hidden(batch["tokens_BT"], batch["position_BT"], batch["document_BT"])  # type: ignore[operator]
        return hidden.float()
    answer: Tensor = model(batch)
    return answer.float()


@contextmanager
def new_place(target: Path) -> Iterator[None]:
    """Refuse a target that is there, make the folders above it, and take them away again if what follows fails.

    Raises:
        GroundupError: E-FORMAT-096.
    """
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise GroundupError(
            "E-FORMAT-096",
            f"{printable(target.name)} is there already",
            where=printable(str(target)),
            why="what somebody made is never overwritten",
            fix="choose another --out, or move it away",
            exit_code=2,
        )
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in made:  # empty after a fault alone
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def write_proved(target: Path, write: Callable[[Path], None], compare: Callable[[Path], Proof]) -> Proof:
    """Write beside the target, read back, compare, and only then give it its name. The comparison is kept in a file
    beside it. After a fault nothing is left.

    Args:
        target: the file or folder; new.
        write: writes to the path that it is given.
        compare: reads from there.

    Raises:
        GroundupError: E-FORMAT-095 for what differs, E-FORMAT-096 if the target is there.
        OSError: the disk refused.
    """
    record = target.with_name(target.name + RECORD)
    draft = target.with_name(f".{target.stem}.unproved{target.suffix}")
    with new_place(target):
        _remove(draft)
        try:
            write(draft)
            proof = compare(draft)
            proof.require(target)
            record.write_text(json.dumps(proof.as_dict(), indent=2) + "\n", encoding="utf-8")
            if target.is_dir():
                target.rmdir()
            draft.replace(target)
        finally:
            _remove(draft)
            if not target.exists():
                record.unlink(missing_ok=True)
    return proof


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
