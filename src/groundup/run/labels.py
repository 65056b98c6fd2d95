"""Labelled rows for a run: read, divided, encoded with the model's tokenizer; and how a headed model does on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from groundup.contract import IGNORE, Batch
from groundup.data.chat_rows import SetAside
from groundup.data.labelled_examples import Example, encode_rows
from groundup.data.labelled_options import LabelledOptions, Side
from groundup.data.labelled_rows import LabelledRow
from groundup.data.labelled_set import read_labelled
from groundup.data.labelled_stream import LabelledStream, batches, require_examples
from groundup.data.text_noise import TextNoise
from groundup.evaluation.retrieval import retrieval_scores
from groundup.evaluation.tagging import tagging_scores
from groundup.models.heads import HeadOptions
from groundup.recipe.tree import LabelledData, Recipe
from groundup.run.answers import ROWS_AT_ONCE, answers, logits_of, row_results, similarities
from groundup.run.cards import write_card, write_quarantine
from groundup.run.noise import noise_of
from groundup.text.rows import RowEncoder
from groundup.text.tokenizer import AnyTokenizer

Decide = Callable[[NDArray[np.float64]], dict[str, Any]]


@dataclass(frozen=True)
class TextRows:
    """Encoded rows to answer; implements answers.Rows."""

    examples: Sequence[Example]
    task: str
    pad_id: int

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def targets(self) -> NDArray[Any]:
        """What is right."""
        return np.array([example.target for example in self.examples])

    def batches(self) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
        """Rows of like length together."""
        return batches(self.examples, task=self.task, rows=ROWS_AT_ONCE, pad_id=self.pad_id)  # type: ignore[arg-type]


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
    noise: TextNoise | None = None

    @property
    def measured(self) -> Side:
        """The side that the closing evaluation is made on: test, or validation where there is no test."""
        return "test" if self.parts["test"].examples else "validation"

    def rows(self, side: Side, most: int | None = None) -> TextRows:
        """The rows of a side, or the first of them, to answer."""
        return TextRows(self.parts[side].examples[:most], self.task, self.pad_id)

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
            write_quarantine(folder, aside)
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
        write_card(folder, card)
    require_examples(len(parts["train"].examples), data.task, longest)
    noise = noise_of(data.augment, tokenizer)
    return PreparedLabels(data.task, found.labels, parts, card, found.findings, tokenizer.pad_id, noise)


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
        noise=prepared.noise,
    )


def results(model: nn.Module, prepared: PreparedLabels, decide: Decide, **how: Any) -> dict[str, Any]:
    """Everything that the report shows of the model on its measured side, for results.json; see evaluation/.

    Args:
        decide: adds what decided a few of the answers, from what the model says of each row.
    """
    side = prepared.measured
    rows, validation = prepared.rows(side), prepared.rows("validation")
    if not len(rows) or prepared.task == "choice":
        return {}
    if prepared.task == "tag":
        return {"tagging": _tagging(model, rows, prepared, how) | {"data": side}}
    if prepared.task == "embed":
        keys = [row.key for row in prepared.parts[side].rows]
        return {"retrieval": _retrieval(model, rows, keys, how) | {"data": side}}
    said = logits_of(model, rows, **how)
    found = row_results(
        model,
        rows,
        said,
        prepared.labels,
        data=side,
        texts=[row.text for row in prepared.parts[side].rows],
        validation=validation if side == "test" and len(validation) else None,
        **how,
    )
    return found | decide(said)


def _tagging(model: nn.Module, rows: TextRows, prepared: PreparedLabels, how: dict[str, Any]) -> dict[str, Any]:
    predicted: list[list[str]] = [[] for _ in range(len(rows))]
    truth: list[list[str]] = [[] for _ in range(len(rows))]
    for batch, indices, answer, _ in answers(model, rows, **how):
        for index, row, label in zip(indices, answer.argmax(dim=-1), batch["label_BT"], strict=True):
            there = label != IGNORE
            predicted[int(index)] = [prepared.labels[int(i)] for i in row[there]]
            truth[int(index)] = [prepared.labels[int(i)] for i in label[there]]
    if not all(label == "O" or label.startswith(("B-", "I-")) for label in prepared.labels):
        # tags that name no spans, such as parts of speech: each word is a span of its own
        predicted, truth = ([[f"B-{label}" for label in row] for row in side] for side in (predicted, truth))
    return tagging_scores(predicted, truth).as_dict()


def _retrieval(model: nn.Module, rows: TextRows, keys: list[bytes], how: dict[str, Any]) -> dict[str, Any]:
    score = similarities(model, rows, **how).numpy()
    # the same text may stand in several pairs: each of its partners is a right answer
    same = np.array(keys)
    relevant = same[:, None] == same[None, :]
    return {"headline": {name: found.as_dict() for name, found in retrieval_scores(score, relevant).items()}}
