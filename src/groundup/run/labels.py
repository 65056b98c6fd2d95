"""Labelled rows for a run: read, divided, encoded with the model's tokenizer; and how a headed model does on them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import IGNORE, Batch
from groundup.data.chat_rows import SetAside
from groundup.data.labelled_examples import Example, encode_rows
from groundup.data.labelled_options import LabelledOptions, Side
from groundup.data.labelled_rows import LabelledRow
from groundup.data.labelled_set import read_labelled
from groundup.data.labelled_stream import LabelledStream, batches
from groundup.evaluation.classifier_results import classification_results
from groundup.evaluation.metrics import LabelScores
from groundup.evaluation.multilabel import choose_thresholds, multilabel_scores
from groundup.evaluation.regression import regression_scores
from groundup.evaluation.retrieval import retrieval_scores
from groundup.evaluation.tagging import tagging_scores
from groundup.functional import evaluating
from groundup.models.heads import HeadOptions
from groundup.recipe.tree import LabelledData, Recipe
from groundup.text.rows import RowEncoder
from groundup.text.tokenizer import AnyTokenizer

Say = Callable[[str], None]
ROWS_AT_ONCE = 64
METRICS_OF = {
    "classify": ("label_loss", "accuracy"),
    "choice": ("label_loss", "accuracy"),
    "multilabel": ("label_loss", "accuracy"),
    "tag": ("label_loss", "accuracy"),
    "regress": ("squared_error",),
    "embed": ("reciprocal_rank",),
}
"""What the closing table and the evaluations while training show, by task; the first is what early stopping
calls `loss`."""


@dataclass
class Part:
    """One side of the data: rows and what they became."""

    rows: list[LabelledRow] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


@dataclass
class PreparedLabels:
    """Encoded rows of every side, and what became of each row."""

    task: str
    labels: list[str]
    parts: dict[Side, Part]
    ledger: dict[str, Any]
    findings: list[str]
    pad_id: int

    @property
    def measured(self) -> Side:
        """The side that the closing evaluation is made on: test, or validation where there is no test."""
        return "test" if self.parts["test"].examples else "validation"

    @property
    def counts(self) -> dict[str, int]:
        """Training targets of each label."""
        counted = Counter(label for row in self.parts["train"].rows for label in row.labels)
        return {label: counted[label] for label in self.labels}


def prepare_labels(recipe: Recipe, tokenizer: AnyTokenizer, *, context: int, folder: Path | None) -> PreparedLabels:
    """Read all rows and make them ready.

    Args:
        recipe: with labelled data.
        tokenizer: of the model.
        context: longest row, in tokens.
        folder: where card.json and quarantine.jsonl go; None writes nothing.
    """
    data = recipe.data
    assert isinstance(data, LabelledData)
    options = LabelledOptions(**{name: dict(data)[name] for name in LabelledOptions.model_fields})
    aside: list[SetAside] = []
    try:
        found = read_labelled(options, aside)
    finally:
        if folder is not None:
            _write_quarantine(folder, aside)
    parts: dict[Side, Part] = {}
    fit: dict[str, Any] = {}
    longest = min(context, data.max_length or context)
    encoder = RowEncoder(tokenizer)
    for side in ("train", "validation", "test"):
        rows = found.side(side)
        encoded = encode_rows(
            rows,
            task=data.task,
            labels=found.labels,
            encode=encoder.encode,
            encode_words=encoder.encode_words,
            max_length=longest,
            over_long=data.over_long,
            keep_last=encoder.closing,
        )
        parts[side] = Part([rows[index] for index in encoded.indices], encoded.examples)
        fit[side] = encoded.fit
    card = found.card | {"fit": fit, "tokenizer": tokenizer.digest, "files": data.files}
    if folder is not None:
        (folder / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return PreparedLabels(data.task, found.labels, parts, card, found.findings, tokenizer.pad_id)


def _write_quarantine(folder: Path, aside: Sequence[SetAside]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "quarantine.jsonl").open("w", encoding="utf-8") as file:
        for item in aside:
            file.write(json.dumps(item._asdict(), ensure_ascii=False, default=repr) + "\n")


def head_options(recipe: Recipe, labels: list[str]) -> HeadOptions:
    """The head that the recipe's task and settings ask for."""
    assert isinstance(recipe.data, LabelledData)
    named = recipe.data.task in ("classify", "multilabel", "tag")
    return HeadOptions(kind=recipe.data.task, labels=labels if named else [], **dict(recipe.head))


def label_stream(recipe: Recipe, prepared: PreparedLabels) -> LabelledStream:
    """The training stream of a resolved recipe."""
    assert isinstance(recipe.data, LabelledData)
    return LabelledStream(
        prepared.parts["train"].examples,
        task=recipe.data.task,
        rows=recipe.budget.micro_batch or 1,
        context=recipe.data.context or 0,
        pad_id=prepared.pad_id,
        seed=recipe.seed,
        balanced=recipe.data.balanced,
    )


@torch.inference_mode()
def answers(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    task: str,
    pad_id: int,
    device: torch.device,
    autocast: torch.dtype | None,
) -> list[tuple[Batch, np.ndarray[Any, Any], Tensor, Tensor | None]]:
    """What the model says of every example: (batch, indices, answer, the answer for the second text)."""
    said = []
    with evaluating(model), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        for batch, indices in batches(examples, task=task, rows=ROWS_AT_ONCE, pad_id=pad_id):  # type: ignore[arg-type]
            placed = {name: tensor.to(device) for name, tensor in batch.items()}
            other = None
            if task == "embed":
                second = {name.removeprefix("other_"): t for name, t in placed.items() if name.startswith("other_")}
                other = model(second).float().cpu()
            said.append((batch, indices, model(placed).float().cpu(), other))
    return said


def logits_of(model: nn.Module, examples: Sequence[Example], **how: Any) -> np.ndarray[Any, Any]:
    """Logits (N, L) or values (N,) of every example, float64, in the order of the examples."""
    rows: list[Tensor | None] = [None] * len(examples)
    for _, indices, answer, _ in answers(model, examples, **how):
        for index, row in zip(indices, answer, strict=True):
            rows[int(index)] = row
    return torch.stack([row for row in rows if row is not None]).double().numpy()


def score_labels(
    model: nn.Module, examples: Sequence[Example], *, task: str, pad_id: int, device: torch.device,
    autocast: torch.dtype | None,
) -> LabelScores:  # fmt: skip
    """The loss and the hits of each example."""
    nats, targets, right = np.zeros(len(examples)), np.ones(len(examples)), np.zeros(len(examples))
    how: dict[str, Any] = {"task": task, "pad_id": pad_id, "device": device, "autocast": autocast}
    if task == "embed":
        score_NN = similarities(model, examples, **how)
        rank_N = 1 + (score_NN > score_NN.diagonal()[:, None]).sum(dim=1)
        return LabelScores(nats, targets, (1.0 / rank_N).numpy())
    for batch, indices, answer, _ in answers(model, examples, **how):
        where = [int(index) for index in indices]
        loss_B, count_B, right_B = _row_scores(task, answer, batch)
        nats[where], targets[where], right[where] = loss_B.numpy(), count_B.numpy(), right_B.numpy()
    return LabelScores(nats, targets, right)


def similarities(model: nn.Module, examples: Sequence[Example], **how: Any) -> Tensor:
    """Of each first text with every second one, float64 (N, N), in the order of the examples."""
    sides: list[list[Tensor]] = [[torch.empty(0)] * len(examples) for _ in range(2)]
    for _, indices, first, second in answers(model, examples, **how):
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


def results(model: nn.Module, prepared: PreparedLabels, **how: Any) -> dict[str, Any]:
    """Everything that the report shows of the model on its measured side, for results.json; see evaluation/."""
    side = prepared.measured
    part, validation = prepared.parts[side], prepared.parts["validation"]
    if not part.examples:
        return {}
    how |= {"task": prepared.task, "pad_id": prepared.pad_id}
    if prepared.task == "tag":
        return {"tagging": _tagging(model, part, prepared, how) | {"data": side}}
    if prepared.task == "embed":
        return {"retrieval": _retrieval(model, part, how) | {"data": side}}
    if prepared.task == "choice":
        return {}
    said = logits_of(model, part.examples, **how)
    target = np.array([example.target for example in part.examples])
    other = None
    if side == "test" and validation.examples:
        other = (logits_of(model, validation.examples, **how), np.array([e.target for e in validation.examples]))
    if prepared.task == "regress":
        return {"regression": regression_scores(said, target).as_dict() | {"data": side}}
    if prepared.task == "multilabel":
        probability = 1 / (1 + np.exp(-said))
        threshold = 0.5 if other is None else choose_thresholds(1 / (1 + np.exp(-other[0])), other[1])
        found = multilabel_scores(probability, target, prepared.labels, threshold)
        return {"multilabel": found.as_dict() | {"data": side}}
    texts = [row.text for row in part.rows]
    return {
        "classification": classification_results(
            said, target, prepared.labels, data=side, texts=texts, validation=other
        )
    }


def _tagging(model: nn.Module, part: Part, prepared: PreparedLabels, how: dict[str, Any]) -> dict[str, Any]:
    predicted: list[list[str]] = [[] for _ in part.examples]
    truth: list[list[str]] = [[] for _ in part.examples]
    for batch, indices, answer, _ in answers(model, part.examples, **how):
        for index, row, label in zip(indices, answer.argmax(dim=-1), batch["label_BT"], strict=True):
            there = label != IGNORE
            predicted[int(index)] = [prepared.labels[int(i)] for i in row[there]]
            truth[int(index)] = [prepared.labels[int(i)] for i in label[there]]
    if not all(label == "O" or label.startswith(("B-", "I-")) for label in prepared.labels):
        # tags that name no spans, such as parts of speech: each word is a span of its own
        predicted, truth = ([[f"B-{label}" for label in row] for row in side] for side in (predicted, truth))
    return tagging_scores(predicted, truth).as_dict()


def _retrieval(model: nn.Module, part: Part, how: dict[str, Any]) -> dict[str, Any]:
    score = similarities(model, part.examples, **how).numpy()
    # the same text may stand in several pairs: each of its partners is a right answer
    same = np.array([row.key for row in part.rows])
    relevant = same[:, None] == same[None, :]
    return {"headline": {name: found.as_dict() for name, found in retrieval_scores(score, relevant).items()}}
