"""What decided a few answers of a finished model: held-out rows whose explanations stand in results.json, the surest
mistakes beside the surest right answers. Nothing is drawn at random, and the model is left as it was found.

Shapes: N rows, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from groundup.evaluation.attribution import POINTS_AT_ONCE
from groundup.models.heads import Headed
from groundup.models.predictor import Predictor
from groundup.recipe.tree import TableData
from groundup.run.explained import Explanation, explained
from groundup.run.explaining_inputs import Input, image_input, table_input, text_input
from groundup.run.explaining_page import drawn
from groundup.run.filming import FAULTS
from groundup.run.pictures import bounded
from groundup.run.work import Work

if TYPE_CHECKING:
    from groundup.run.language import LanguageWork
    from groundup.run.prediction import PredictionWork

OF_EACH = 2
"""Mistakes that are explained, and right answers."""

MOST_OPERATIONS, ACCELERATED = 3e11, 100.0
"""Floating-point operations for all of them together, which took one core of a small CPU a quarter of a minute; and how
many times more another device may do."""

STEPS, FEWEST_STEPS = 64, 20
"""Of integrated gradients; an explanation in fewer would miss too much, and there is none."""

MOST_COLUMNS = 200
"""Columns of a row that are kept, those that count most."""

Chosen = tuple[int, bool]
"""A row, and whether its answer is one of the right ones (of numbers: of the closest)."""


class Held(NamedTuple):
    """Held-out rows, ready to be explained.

    Attributes:
        data: what they are called.
        said: logits (N, L) or values (N,).
        target: labels (N,) or values (N,), as `said` has them.
        rows: those that can be explained.
        ready: a row as an input.
        operations: of forward and backward for one point on the way to a row.
        unit, zero: scale and zero of a value in the unit of the data.
    """

    data: str
    said: NDArray[Any]
    target: NDArray[Any]
    rows: Sequence[int]
    ready: Callable[[int], Input]
    operations: Callable[[int], float]
    unit: float = 1.0
    zero: float = 0.0


def decided(model: nn.Module, work: Work, held: Callable[[], Held]) -> dict[str, Any]:
    """`explanations` of a few held-out rows, for results.json: {data, rows, left_out: how many would have taken too
    long}. Empty where there is nothing to explain: an explanation that cannot be made costs no finished run.

    Args:
        model: finished; of kind classify or regress, or nothing is explained.
        work: of the run.
        held: the rows, by `held_texts` or `held_rows`.
    """
    if not isinstance(model, Headed | Predictor) or model.kind not in ("classify", "regress"):
        return {}
    try:
        return _decided(model, work, held())
    except FAULTS:
        return {}


def held_texts(model: nn.Module, work: LanguageWork, said: NDArray[np.float64]) -> Held:
    """Held-out texts. Rows of two texts are left out, and so are those whose text stood before.

    Args:
        model: finished.
        work: with labelled texts.
        said: what the model says of each row of the measured side.
    """
    assert isinstance(model, Headed) and work.labels is not None
    side = work.labels.measured
    rows, examples = work.labels.parts[side].rows, work.labels.parts[side].examples
    once = {row.key: index for index, row in reversed(list(enumerate(rows))) if row.other is None}

    def ready(index: int) -> Input:
        row = rows[index]
        return text_input(model, work.tokenizer, row.text, row.place, work.device, longest=examples[index].length)

    def operations(index: int) -> float:
        return each * examples[index].length

    each = work.flops_per_unit(model)
    return Held(side, said, work.labels.rows(side).targets, sorted(once.values()), ready, operations)


def held_rows(model: nn.Module, work: PredictionWork, said: NDArray[np.float64]) -> Held:
    """Held-out rows of a table, or images; else as `held_texts`."""
    assert isinstance(model, Predictor)
    side, each = work.measured, work.flops_per_unit(model)
    target, unit, zero = work.rows(side).targets, 1.0, 0.0
    if work.table is not None:
        assert isinstance(work.recipe.data, TableData)
        fitted, own = work.table.preprocessor, work.table.parts[side].rows
        scaling = work.recipe.data.preprocessing.scaling
        if model.kind == "regress":
            unit, zero = fitted.unit, float(fitted.restore_target(0.0))

        def ready(index: int) -> Input:
            return table_input(model, work.said, fitted, scaling, own[index], work.device)

    else:
        assert work.images is not None
        images, part = work.images, work.images.part(side)
        places = [row.place for row in images.rows if row.side == side]

        def ready(index: int) -> Input:
            image_CHW = np.ascontiguousarray(part.images[part.index[index]])
            return image_input(model, images.preparation, image_CHW, places[index], work.device)

    return Held(side, said, target, range(len(target)), ready, lambda index: each, unit, zero)


def _decided(model: Headed | Predictor, work: Work, held: Held) -> dict[str, Any]:
    left = MOST_OPERATIONS * (1.0 if work.device.type == "cpu" else ACCELERATED)
    found: list[tuple[Chosen, Explanation]] = []
    left_out = 0
    at_once = min(POINTS_AT_ONCE, work.recipe.budget.micro_batch or 1)  # no more memory than a step of training takes
    for one in chosen(held):
        row, label = one[0], None if held.said.ndim == 1 else model.labels[int(held.said[one[0]].argmax())]
        cost = max(1.0, held.operations(row) * 2 / 3)  # without the gradients of the weights
        steps = min(STEPS, int(left / cost))
        if steps < FEWEST_STEPS:
            left_out += 1
            continue
        left -= steps * cost
        how: dict[str, Any] = {"steps": steps, "rows": at_once, "unit": held.unit, "zero": held.zero}
        with suppress(*FAULTS), _uncompiled(work):
            found.append((one, explained(model, held.ready(row), name="", label=label, **how)))
    if not found and not left_out:
        return {}
    found.sort(key=lambda pair: pair[0][1])  # mistakes first
    told = [_told(model, held, one, explanation) for one, explanation in found]
    for line, images in zip(told, _pictures([explanation for _, explanation in found]), strict=True):
        line["pictures"] = images
    return {"explanations": {"data": held.data, "rows": told, "left_out": left_out}}


def chosen(held: Held) -> list[Chosen]:
    """The surest mistakes and the surest right answers, by turns; of numbers the farthest from the truth and the
    closest to it."""
    rows = np.asarray(held.rows, dtype=np.int64)
    if held.said.ndim == 1:
        distance = np.abs(held.said[rows] - held.target[rows].astype(np.float64))
        near = rows[np.argsort(distance, kind="stable")]
        half = min(OF_EACH, len(near) // 2)
        wrong, right = near[::-1][: OF_EACH if half == OF_EACH else len(near) - half], near[:half]
    else:
        said_NL = torch.from_numpy(held.said[rows])
        best = said_NL.argmax(dim=1, keepdim=True)
        # log-odds, for probabilities of a sure model are all 1
        sure = said_NL.gather(1, best)[:, 0] - said_NL.scatter(1, best, -torch.inf).logsumexp(dim=1)
        order = np.argsort(-sure.numpy(), kind="stable")
        hit = best[:, 0].numpy() == held.target[rows].astype(np.int64)
        wrong, right = rows[order[~hit[order]]], rows[order[hit[order]]]
    turns: list[Chosen] = []
    for turn in range(OF_EACH):
        turns += [(int(row), False) for row in wrong[turn : turn + 1]]
        turns += [(int(row), True) for row in right[turn : turn + 1]]
    return turns


def _uncompiled(work: Work) -> AbstractContextManager[object]:
    """Compiling a backward pass to inputs of a length of their own would take longer than it saves."""
    if work.recipe.hardware.compile != "on":
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def _told(model: Headed | Predictor, held: Held, one: Chosen, found: Explanation) -> dict[str, Any]:
    """An explanation as results.json holds it."""
    row, right = one
    target = held.target[row]
    truth = _few(float(target) * held.unit + held.zero) if held.said.ndim == 1 else model.labels[int(target)]
    told = found.as_dict()
    for name in ("model", "heat"):
        told.pop(name, None)
    parts = [{**part, "amount": _few(part["amount"])} for part in told["parts"]]
    if found.kind == "table" and len(parts) > MOST_COLUMNS:
        least = sorted(range(len(parts)), key=lambda place: -abs(parts[place]["amount"]))[MOST_COLUMNS:]
        told["unlisted"] = {"parts": len(least), "amount": sum(parts[place]["amount"] for place in least)}
        gone = set(least)
        parts = [part for place, part in enumerate(parts) if place not in gone]
    return {"right": right, "truth": truth, **told, "parts": parts}


def _few(number: float) -> float:
    """A number in as many digits as float32 has."""
    return float(f"{number:.6g}")


def _pictures(found: Sequence[Explanation]) -> list[list[dict[str, str]]]:
    """Of each explanation its pictures, {png (base64), caption, description}, all of them small enough together."""
    layers = [drawn(one) for one in found]
    every = [layer.image_CHW.transpose(1, 2, 0) for some in layers for layer in some]
    texts = iter(bounded([one.repeat(3 // one.shape[2], axis=2) for one in every]))
    return [
        [{"png": next(texts), "caption": layer.caption, "description": layer.description} for layer in some]
        for some in layers
    ]
