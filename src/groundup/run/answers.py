"""What a model with a task head, or a classic network, says of labelled rows, and how right it is. The rows may be
texts, tables or images: whatever gives batches.

Shapes: B rows of a batch, N rows in all, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import IGNORE, Batch
from groundup.evaluation.classifier_results import classification_results
from groundup.evaluation.metrics import LabelScores
from groundup.evaluation.multilabel import choose_thresholds, multilabel_scores
from groundup.evaluation.regression import regression_scores
from groundup.functional import evaluating

ROWS_AT_ONCE = 64
METRICS_OF = {
    "classify": ("label_loss", "accuracy"),
    "choice": ("label_loss", "accuracy"),
    "multilabel": ("label_loss", "accuracy"),
    "tag": ("label_loss", "accuracy"),
    "regress": ("squared_error",),
    "embed": ("reciprocal_rank",),
    "masked": ("masked_loss", "masked_accuracy"),
}
"""What the closing table and the evaluations while training show, by task; the first is what early stopping
calls `loss`."""


class Rows(Protocol):
    """Rows to answer. `targets` is what is right, in their order: labels (N,), several of them (N, L), or values."""

    @property
    def task(self) -> str: ...
    @property
    def targets(self) -> NDArray[Any]: ...
    def __len__(self) -> int: ...
    def batches(self) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
        """Every row once, and which rows a batch holds."""
        ...


@torch.inference_mode()
def answers(
    model: nn.Module, rows: Rows, *, device: torch.device, autocast: torch.dtype | None
) -> Iterator[tuple[Batch, NDArray[np.int64], Tensor, Tensor | None]]:
    """What the model says of every row: (batch, indices, answer, the answer for the second text of a pair)."""
    with evaluating(model), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        for batch, indices in rows.batches():
            placed = {name: tensor.to(device) for name, tensor in batch.items()}
            other = None
            if rows.task == "embed":
                second = {name.removeprefix("other_"): t for name, t in placed.items() if name.startswith("other_")}
                other = model(second).float().cpu()
            yield batch, indices, model(placed).float().cpu(), other


def logits_of(model: nn.Module, rows: Rows, **how: Any) -> NDArray[np.float64]:
    """Logits (N, L) or values (N,) of every row, in their order."""
    said: list[Tensor] = [torch.empty(0)] * len(rows)
    for _, indices, answer, _ in answers(model, rows, **how):
        for index, row in zip(indices, answer, strict=True):
            said[int(index)] = row
    return torch.stack(said).double().numpy()


def score_rows(model: nn.Module, rows: Rows, **how: Any) -> LabelScores:
    """The loss and the hits of each row."""
    nats, targets, right = np.zeros(len(rows)), np.ones(len(rows)), np.zeros(len(rows))
    if rows.task == "embed":
        score_NN = similarities(model, rows, **how)
        rank_N = 1 + (score_NN > score_NN.diagonal()[:, None]).sum(dim=1)
        return LabelScores(nats, targets, (1.0 / rank_N).numpy())
    for batch, indices, answer, _ in answers(model, rows, **how):
        where = [int(index) for index in indices]
        loss_B, count_B, right_B = _row_scores(rows.task, answer, batch)
        nats[where], targets[where], right[where] = loss_B.numpy(), count_B.numpy(), right_B.numpy()
    return LabelScores(nats, targets, right)


def similarities(model: nn.Module, rows: Rows, **how: Any) -> Tensor:
    """Of each first text with every second one, float64 (N, N), in the order of the rows."""
    sides: list[list[Tensor]] = [[torch.empty(0)] * len(rows) for _ in range(2)]
    for _, indices, first, second in answers(model, rows, **how):
        assert second is not None
        for side, said in zip(sides, (first, second), strict=True):
            for index, row in zip(indices, said, strict=True):
                side[int(index)] = row
    return torch.stack(sides[0]).double() @ torch.stack(sides[1]).double().T


def _row_scores(task: str, answer: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, number of targets and hits of each row, float64 (B,)."""
    answer = answer.double()
    if task in ("classify", "choice"):
        label_B = batch["label_B"]
        loss_B = F.cross_entropy(answer, label_B, reduction="none")
        return loss_B, torch.ones_like(loss_B), (answer.argmax(dim=-1) == label_B).double()
    if task == "multilabel":
        label_BL = batch["label_BL"].double()
        loss_BL = F.binary_cross_entropy_with_logits(answer, label_BL, reduction="none")
        right_BL = (answer > 0) == (label_BL > 0.5)
        return loss_BL.sum(dim=1), torch.full((len(answer),), answer.shape[1]).double(), right_BL.double().sum(dim=1)
    if task == "regress":
        error_B = (answer - batch["value_B"].double()) ** 2
        return error_B, torch.ones_like(error_B), torch.zeros_like(error_B)
    label_BT = batch["label_BT"]
    loss_BT = F.cross_entropy(answer.transpose(1, 2), label_BT, ignore_index=IGNORE, reduction="none")
    valid_BT = label_BT != IGNORE
    right_BT = (answer.argmax(dim=-1) == label_BT) & valid_BT
    return loss_BT.sum(dim=1), valid_BT.double().sum(dim=1), right_BT.double().sum(dim=1)


def row_results(
    model: nn.Module,
    rows: Rows,
    said: NDArray[np.float64],
    labels: Sequence[str],
    *,
    data: str,
    texts: Sequence[str],
    validation: Rows | None,
    restore: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray,
    **how: Any,
) -> dict[str, Any]:
    """Everything that the report shows of answers that are labels or numbers, for results.json; see evaluation/.

    Args:
        model: said so.
        rows: what is measured on; task classify, multilabel or regress.
        said: what `logits_of` gives for them.
        labels: their names.
        data: what the rows are called.
        texts: what each row is called where single rows are shown.
        validation: other rows, to choose temperature and thresholds on.
        restore: from the numbers that the model learns to those of the data.
    """
    if rows.task == "regress":
        scores = regression_scores(restore(said), restore(rows.targets))
        return {"regression": scores.as_dict() | {"data": data}}
    other = None if validation is None else (logits_of(model, validation, **how), validation.targets)
    if rows.task == "multilabel":
        probability = 1 / (1 + np.exp(-said))
        threshold = 0.5 if other is None else choose_thresholds(1 / (1 + np.exp(-other[0])), other[1])
        found = multilabel_scores(probability, rows.targets, list(labels), threshold)
        return {"multilabel": found.as_dict() | {"data": data}}
    return {
        "classification": classification_results(
            said, rows.targets, list(labels), data=data, texts=texts, validation=other
        )
    }
