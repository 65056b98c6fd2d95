"""A model on a recipe's held-out data: scores for the evaluations of a run, and samples over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from groundup.data.labelled_examples import Example
from groundup.data.shards import TokenSet
from groundup.evaluation import (
    METRICS,
    AnswerExample,
    AnswerScores,
    TextScores,
    measure,
    parts_for,
    score_answers,
    score_documents,
    spread_bytes,
)
from groundup.evaluation.metrics import LabelScores
from groundup.inference.generate import generate_batch
from groundup.inference.sample import SampleOptions
from groundup.run import labels as labelled
from groundup.text.rows import opening_ids

if TYPE_CHECKING:
    from groundup.run.parts import Parts

HELD_OUT = "held_out"
TEXT_METRICS = ("loss", "perplexity", "bits_per_byte")
ANSWER_METRICS = ("answer_loss", "exact_match", "f1", "ended")
PROMPT_BYTES = 48
NUM_PROMPTS = 3
LONGEST_ANSWER = 160
FEWEST_ANSWERS, ANSWER_OPERATIONS = 16, 1e12


def score_texts(
    model: Any,
    documents: TokenSet,
    *,
    context: int,
    stride: int,
    limit: int | None = None,
    device: torch.device,
    autocast: torch.dtype | None,
) -> TextScores:
    """Scores of held-out documents, of the first `limit` tokens if that is given."""
    chosen, sizes, left = [], [], limit if limit is not None else documents.num_tokens
    for index in range(documents.num_documents):
        ids = documents.document(index)
        if left < 2:
            break
        part = ids[:left]
        chosen.append(part)
        sizes.append(float(documents.document_bytes[index]) * len(part) / max(1, len(ids)))
        left -= len(part)
    units = parts_for([int(size) for size in sizes])
    nats, targets = score_documents(
        model, chosen, context=context, stride=stride, parts=units, device=device, autocast=autocast
    )
    return TextScores(nats, targets.astype(np.float64), spread_bytes(sizes, targets))  # type: ignore[arg-type]


def most_answers(model: Any) -> int:
    """How many held-out questions a model answers itself: as many as about a minute of a small CPU allows. The loss
    is measured on all of them in any case."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return max(FEWEST_ANSWERS, int(ANSWER_OPERATIONS / (2 * parameters * LONGEST_ANSWER)))


def score_conversations(
    model: Any,
    parts: Parts,
    examples: Sequence[AnswerExample],
    *,
    answers: bool,
    autocast: torch.dtype | None,
) -> AnswerScores:
    """Scores of held-out questions; with `answers` the model also writes its own."""

    def answer(prompts: list[list[int]]) -> list[tuple[str, bool]]:
        options = SampleOptions(temperature=0.0, max_tokens=LONGEST_ANSWER)
        results = generate_batch(model, prompts, options, end_ids=parts.tokenizer.end_ids)
        return [(parts.tokenizer.decode(result.ids), result.finish == "stop") for result in results]

    return score_answers(
        model,
        examples,
        answer if answers else None,
        context=parts.options.context,
        most_answers=most_answers(model),
        device=parts.device,
        autocast=autocast,
    )


def evaluation_of(scores: TextScores | AnswerScores | LabelScores, names: Sequence[str]) -> dict[str, Any]:
    """The `metrics` and `intervals` of an evaluate line."""
    found = {name: measure(name, scores) for name in names}
    return {
        "metrics": {name: interval.value for name, interval in found.items()},
        "intervals": {name: [interval.low, interval.high] for name, interval in found.items()},
    }


def evaluate_texts(model: Any, parts: Parts, *, limit: int, autocast: torch.dtype | None) -> dict[str, Any]:
    """The evaluation while training: a bounded part of each source's held-out text, without overlap."""
    assert parts.texts is not None
    context = parts.recipe.data.context or parts.options.context
    results = {}
    for name, documents in parts.texts.held_out.items():
        scores = score_texts(
            model, documents, context=context, stride=context, limit=limit, device=parts.device, autocast=autocast
        )
        results[data_name(name)] = evaluation_of(scores, TEXT_METRICS)
    return results


def evaluate_answers(model: Any, parts: Parts, *, limit: int, autocast: torch.dtype | None) -> dict[str, Any]:
    """The evaluation while fine-tuning: the loss of held-out answers. Its first metric is also called `loss`,
    so that early stopping has one name for both."""
    assert parts.chats is not None
    chosen: list[AnswerExample] = []
    left = limit
    for example in parts.chats.held_out:
        left -= len(example.ids)
        if left < 0 and chosen:
            break
        chosen.append(example)
    if not chosen:
        return {}
    scores = score_conversations(model, parts, chosen, answers=False, autocast=autocast)
    found = evaluation_of(scores, ("answer_loss",))
    return {
        HELD_OUT: {
            "metrics": {"loss": found["metrics"]["answer_loss"]},
            "intervals": {"loss": found["intervals"]["answer_loss"]},
        }
    }


def evaluate_labels(model: Any, parts: Parts, *, limit: int, autocast: torch.dtype | None) -> dict[str, Any]:
    """The evaluation while training: the validation rows, as many as `limit` tokens hold. Its first metric is
    also called `loss`."""
    assert parts.labels is not None
    examples = _bounded(parts.labels.parts["validation"].examples, limit)
    if not examples:
        return {}
    names = labelled.METRICS_OF[parts.labels.task]
    found = evaluation_of(score_examples(model, parts, examples, autocast=autocast), names)
    for values in found.values():
        if not METRICS[names[0]].higher_is_better:
            values["loss"] = values.pop(names[0])
    return {"validation": found}


def _bounded(examples: Sequence[Example], limit: int) -> list[Example]:
    """The first examples that together have at most `limit` tokens, and one at least."""
    total = np.cumsum([example.length for example in examples])
    return list(examples[: max(1, int(np.searchsorted(total, limit, side="right")))]) if examples else []


def score_examples(
    model: Any, parts: Parts, examples: Sequence[Example], *, autocast: torch.dtype | None
) -> LabelScores:
    """Scores of labelled rows."""
    assert parts.labels is not None
    task, pad = parts.labels.task, parts.labels.pad_id
    return labelled.score_labels(model, examples, task=task, pad_id=pad, device=parts.device, autocast=autocast)


def label_results(model: Any, parts: Parts) -> dict[str, Any]:
    """What the report shows of a headed model besides the table, for results.json."""
    if parts.labels is None:
        return {}
    dtype = torch.bfloat16 if parts.precision == "bfloat16" else None
    return labelled.results(model, parts.labels, device=parts.device, autocast=dtype)


def rises(metric: str) -> bool:
    """Whether more of a metric of the evaluations while training is better."""
    return metric != "loss" and METRICS[metric].higher_is_better


def data_name(source: str) -> str:
    """What a source's held-out part is called in events and reports."""
    return HELD_OUT if source == "main" else f"{HELD_OUT} {source}"


def sample_prompts(parts: Parts) -> list[tuple[str, list[int]]]:
    """The fixed prompts of the samples over time: text and ids. Those of the recipe, else the beginnings of
    held-out documents, or held-out questions."""
    tokenizer = parts.tokenizer
    given = parts.recipe.events.prompts
    if parts.chats is not None:
        if given:
            messages = [[{"role": "user", "content": prompt}] for prompt in given]
            rendered = parts.chats.template.render_batch(messages, tokenizer, add_generation_prompt=True)
            return [(f"{prompt}\n", list(one.ids)) for prompt, one in zip(given, rendered, strict=True)]
        pairs = zip(parts.chats.questions, parts.chats.held_out, strict=True)
        return [(f"{question}\n", example.prompt) for question, example in itertools.islice(pairs, NUM_PROMPTS)]
    if parts.texts is None:
        return []
    if given:
        return [(prompt, opening_ids(tokenizer, tokenizer.encode(prompt))) for prompt in given]
    prompts = []
    for documents in parts.texts.held_out.values():
        for index in range(min(NUM_PROMPTS, documents.num_documents)):
            ids = [int(i) for i in documents.document(index)[1:33]]
            text = tokenizer.decode(ids)[:PROMPT_BYTES]
            prompts.append((text, opening_ids(tokenizer, tokenizer.encode(text))))
    return prompts[:NUM_PROMPTS]


def answers_of(
    model: Any, parts: Parts, prompts: list[tuple[str, list[int]]], *, max_tokens: int
) -> list[dict[str, str]]:
    """What the model goes on to say, greedily: [{prompt, text, finish}]."""
    if not prompts:
        return []
    options = SampleOptions(temperature=0.0, max_tokens=max_tokens)
    room = parts.options.context - 1
    ids = [one[-room:] for _, one in prompts]
    results = generate_batch(model, ids, options, end_ids=parts.tokenizer.end_ids)
    return [
        {"prompt": prompt, "text": parts.tokenizer.decode(result.ids), "finish": result.finish}
        for (prompt, _), result in zip(prompts, results, strict=True)
    ]
