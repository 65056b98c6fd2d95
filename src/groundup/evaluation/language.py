"""How well a decoder predicts texts: nats of every target of every document, each counted exactly once.

A document longer than the context is read in windows that overlap; each target is scored in the first window
that reaches it, where it has the most to look back on. Short documents share rows, where they cannot see
each other. Nothing that reads files or text may enter here: documents are ids.

Shapes: D documents, P parts of a document, B rows, T positions, N targets, V vocabulary.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contract import IGNORE, LanguageModel
from groundup.errors import GroundupError
from groundup.evaluation.statistics import Array, Interval, PerUnit, interval
from groundup.functional import evaluating

Ids = NDArray[Any]
"""The ids of a document, any integer dtype, begin and end tokens included."""

LOGITS = 1 << 22
"""Logits held at once, in elements (16 MiB in float32)."""
SHORTEST_ROW = 256
"""Rows are packed at least this long (if the context allows): shorter ones waste the processor, and much
longer ones spend their attention on documents that cannot see each other."""
FEW_DOCUMENTS, WANTED_UNITS, SMALLEST_PART = 30, 100, 200


class Window(NamedTuple):
    """A stretch of one document: inputs `start` to `end`, of which those from `first` on are scored."""

    document: int
    start: int
    end: int
    first: int


def windows(document: int, targets: int, context: int, stride: int) -> list[Window]:
    """The windows of a document with this many targets. Target t is the id that follows input t. All but
    the first window score `stride` new targets and see as far back as the context reaches."""
    end = min(context, targets)
    made = [Window(document, 0, end, 0)] if targets > 0 else []
    while end < targets:
        first, end = end, min(end + stride, targets)
        made.append(Window(document, max(0, end - context), end, first))
    return made


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which windows share a row of `room` positions: best fit, longest first, ties in order."""
    rows: list[list[int]] = []
    left: list[tuple[int, int]] = []  # (positions left, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = bisect.bisect_left(left, (lengths[index], -1))
        if place < len(left):
            free, row = left.pop(place)
            rows[row].append(index)
        else:
            free, row = room, len(rows)
            rows.append([index])
        bisect.insort(left, (free - lengths[index], row))
    return rows


def parts_for(document_bytes: Sequence[int]) -> int:
    """Into how many parts each document is cut, so that an interval has units to draw from: one if there
    are many documents, more if there are few, but none much shorter than 200 bytes. It does not depend on
    the tokenizer, so that the parts of two models can be paired."""
    documents = len(document_bytes)
    if documents >= FEW_DOCUMENTS:
        return 1
    return max(1, min(math.ceil(WANTED_UNITS / max(1, documents)), sum(document_bytes) // SMALLEST_PART))


def score_documents(
    model: LanguageModel,
    documents: Iterable[Ids],
    *,
    context: int,
    stride: int,
    learn: Iterable[NDArray[np.bool_]] | None = None,
    parts: int = 1,
    batch_rows: int = 16,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
) -> tuple[Array, NDArray[np.int64]]:
    """Nats and number of targets of each part of each document.

    Args:
        model: any decoder of the contract; its mode and gradients are left alone.
        documents: ids of each document, begin and end included; all but the first id are targets.
        context: longest window, at most the model's context.
        stride: new targets in each window after a document's first, 1 to `context`. `context` is fastest;
            half of it gives every target at least half a context to look back on.
        learn: for each document, which ids count as targets (bool, as long as the ids); None counts all.
        parts: each document's targets are cut into this many equal stretches, summed apart.
        batch_rows: rows computed at once.
        device: where the model is.
        autocast: dtype of the matrix products, or None for the model's own.

    Returns:
        nats_DP, float64, and targets_DP, int64.

    Raises:
        ValueError: a context or stride out of range.
        GroundupError: E-EVAL-003 when the model's output is not finite.
    """
    if not 1 <= context <= model.context or not 1 <= stride <= context:
        raise ValueError(f"context {context} (model: {model.context}) and stride {stride} do not fit")
    ids = [np.asarray(document) for document in documents]
    masks = [np.ones(len(d), bool) for d in ids] if learn is None else [np.asarray(m, bool) for m in learn]
    if [len(d) for d in ids] != [len(m) for m in masks]:
        raise ValueError("every document needs a mask of its own length")
    nats, counts = np.zeros(len(ids) * parts), np.zeros(len(ids) * parts, np.int64)
    stretches = [w for i, d in enumerate(ids) for w in windows(i, len(d) - 1, context, stride)]
    stretches = [w for w in stretches if masks[w.document][w.first + 1 : w.end + 1].any()]
    longest = max((w.end - w.start for w in stretches), default=1)
    rows = pack([w.end - w.start for w in stretches], min(context, max(longest, SHORTEST_ROW)))
    place = torch.device(device)
    with torch.inference_mode(), evaluating(model):
        for start in range(0, len(rows), batch_rows):
            chosen = [[stretches[index] for index in row] for row in rows[start : start + batch_rows]]
            batch, unit_N = _batch(chosen, ids, masks, parts)
            with torch.autocast(place.type, dtype=autocast, enabled=autocast is not None):
                nats_N = _nats(model, {name: tensor.to(place) for name, tensor in batch.items()})
            if not np.isfinite(nats_N).all():
                raise _not_finite(chosen, nats_N)
            np.add.at(nats, unit_N, nats_N)
            np.add.at(counts, unit_N, 1)
    return nats.reshape(-1, parts), counts.reshape(-1, parts)


def _batch(
    rows: list[list[Window]], ids: list[Ids], masks: list[NDArray[np.bool_]], parts: int
) -> tuple[dict[str, Tensor], NDArray[np.int64]]:
    """The tensors of these rows, and the unit (document and part) of each scored target in row order."""
    length = max(sum(w.end - w.start for w in row) for row in rows)
    tokens_BT, position_BT = np.zeros((2, len(rows), length), np.int64)
    target_BT = np.full((len(rows), length), IGNORE, np.int64)
    document_BT = np.full((len(rows), length), -1, np.int64)
    unit_BT = np.zeros((len(rows), length), np.int64)
    for r, row in enumerate(rows):
        at = 0
        for number, window in enumerate(row):
            here = slice(at, at + window.end - window.start)
            at = here.stop
            document, targets = ids[window.document], len(ids[window.document]) - 1
            input_T = np.arange(window.start, window.end)
            scored = (input_T >= window.first) & masks[window.document][window.start + 1 : window.end + 1]
            tokens_BT[r, here] = document[window.start : window.end]
            following = document[window.start + 1 : window.end + 1].astype(np.int64)
            target_BT[r, here] = np.where(scored, following, IGNORE)
            position_BT[r, here] = input_T - window.start
            document_BT[r, here] = number
            unit_BT[r, here] = window.document * parts + input_T * parts // targets
    batch = {"tokens_BT": tokens_BT, "target_BT": target_BT}
    if any(len(row) > 1 for row in rows):  # else causal attention alone is enough, and faster
        batch |= {"position_BT": position_BT, "document_BT": document_BT}
    return {name: torch.from_numpy(array) for name, array in batch.items()}, unit_BT[target_BT != IGNORE]


def _nats(model: LanguageModel, batch: dict[str, Tensor]) -> Array:
    """The cross-entropy of every scored target, float64, in row order; few logits at a time."""
    hidden_BTD = model.hidden(batch["tokens_BT"], batch.get("position_BT"), batch.get("document_BT"))
    scored_BT = batch["target_BT"] != IGNORE
    hidden_ND, target_N = hidden_BTD[scored_BT], batch["target_BT"][scored_BT]
    weight_VD = model.head_weight()
    rows = max(1, LOGITS // weight_VD.shape[0])
    pieces = [
        nn.functional.cross_entropy(nn.functional.linear(hidden, weight_VD).float(), target, reduction="none").double()
        for hidden, target in zip(hidden_ND.split(rows), target_N.split(rows))
    ]
    return torch.cat(pieces).cpu().numpy()


def _not_finite(rows: list[list[Window]], nats_N: Array) -> GroundupError:
    touched = sorted({window.document for row in rows for window in row})
    return GroundupError(
        code="E-EVAL-003",
        what=f"the loss of {int((~np.isfinite(nats_N)).sum())} of {nats_N.size} targets is not finite",
        where=f"among the documents {', '.join(map(str, touched[:8]))}",
        why="the weights are damaged, or the training that made them diverged",
        fix="groundup verify MODEL   (are the files whole?), then use an earlier checkpoint",
    )


def spread_bytes(document_bytes: Sequence[int], targets_DP: NDArray[np.int64]) -> Array:
    """The bytes of each part of each document, float64 (D, P), in proportion to its targets; the sum over
    a document stays exact."""
    targets_D = targets_DP.sum(axis=1, keepdims=True)
    return np.asarray(document_bytes, np.float64)[:, None] * targets_DP / np.maximum(targets_D, 1)


def language_metrics(
    nats: Any, targets: Any, text_bytes: Any = None, *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """loss (nats per target), perplexity, and bits_per_byte, each with a bootstrap interval over the units.

    Args:
        nats: of each unit (document, or part of one), any shape.
        targets: number of targets of each unit.
        text_bytes: UTF-8 bytes of each unit's text, so that tokenizers compare; None leaves bits_per_byte
            out. The nats of the end tokens are counted, which belong to no byte.
        confidence: of the intervals.
        seed: of the resampling.
    """
    per_target = PerUnit.of(nats, targets)
    found = {
        "loss": interval(per_target, confidence=confidence, seed=seed),
        "perplexity": interval(per_target, transform=np.exp, confidence=confidence, seed=seed),
    }
    if text_bytes is not None:
        bits = PerUnit.of(np.asarray(nats, np.float64) / math.log(2), text_bytes)
        found["bits_per_byte"] = interval(bits, confidence=confidence, seed=seed)
    return found
