"""A model on a recipe's held-out data: scores for the evaluations of a run, and samples over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.adapters.quantize import Matrix
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
from groundup.evaluation.metrics import AnyScores, LabelScores
from groundup.inference.generate import Result
from groundup.inference.sample import SampleOptions
from groundup.run import labels as labelled
from groundup.run.answers import METRICS_OF, Rows, score_rows
from groundup.run.deciding import decided, held_texts
from groundup.run.engines import answer_prompts
from groundup.run.masked import score_masked
from groundup.run.results import Scores
from groundup.text.rows import opening_ids

if TYPE_CHECKING:
    from groundup.run.language import LanguageWork

HELD_OUT = "held_out"
TEXT_METRICS = ("loss", "perplexity", "bits_per_byte")
ANSWER_METRICS = ("answer_loss", "exact_match", "f1", "ended")
PROMPT_BYTES = 48
NUM_PROMPTS = 3
LONGEST_ANSWER = 160
FEWEST_ANSWERS, ANSWER_OPERATIONS, QUANTIZED_COST = 16, 1e12, 4

MOST_ANSWERS = 200
"""Held-out questions that the model answers itself before and after; the loss is measured on the same."""

FIRST_LOOK = 8192
"""Held-out tokens that a network without training is scored on: its loss is that of a fair die, near enough."""

FIRST_ROWS = 256
"""Labelled rows that a head without training is scored on."""


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
    weights = sum(parameter.numel() for parameter in model.parameters())
    # each token makes the matrices anew, which costs more than to multiply by them
    weights += sum(QUANTIZED_COST * module.num_weights for module in model.modules() if isinstance(module, Matrix))
    return max(FEWEST_ANSWERS, int(ANSWER_OPERATIONS / (2 * weights * LONGEST_ANSWER)))


def score_conversations(
    model: Any,
    work: LanguageWork,
    examples: Sequence[AnswerExample],
    *,
    answers: bool,
) -> AnswerScores:
    """Scores of held-out questions; with `answers` the model also writes its own."""

    def answer(prompts: list[list[int]]) -> list[tuple[str, bool]]:
        options = SampleOptions(temperature=0.0, max_tokens=LONGEST_ANSWER)
        results = _answers(model, work, prompts, options)
        return [(work.tokenizer.decode(result.ids), result.finish == "stop") for result in results]

    return score_answers(
        model,
        examples,
        answer if answers else None,
        context=work.options.context,
        most_answers=most_answers(model),
        device=work.device,
        autocast=work.dtype,
    )


def _answers(model: Any, work: LanguageWork, prompts: list[list[int]], options: SampleOptions) -> list[Result]:
    compiled = work.recipe.hardware.kernels != "plain"
    return answer_prompts(model, prompts, options, end_ids=work.tokenizer.end_ids, compiled=compiled)


def evaluation_of(scores: AnyScores, names: Sequence[str]) -> dict[str, Any]:
    """The `metrics` and `intervals` of an evaluate line."""
    found = {name: measure(name, scores) for name in names}
    return {
        "metrics": {name: interval.value for name, interval in found.items()},
        "intervals": {name: [interval.low, interval.high] for name, interval in found.items()},
    }


def evaluate_texts(model: Any, work: LanguageWork, *, limit: int) -> dict[str, Any]:
    """The evaluation while training: a bounded part of each source's held-out text, without overlap. The loss of hidden
    tokens is also called `loss`."""
    assert work.texts is not None
    context = work.recipe.data.context or work.options.context
    results = {}
    for name, documents in work.texts.held_out.items():
        if work.texts.masking is not None:
            found = evaluation_of(score_masked(model, work, documents, limit=limit), METRICS_OF["masked"])
            results[data_name(name)] = {kind: _loss_first(values) for kind, values in found.items()}
            continue
        scores = score_texts(
            model, documents, context=context, stride=context, limit=limit, device=work.device, autocast=work.dtype
        )
        results[data_name(name)] = evaluation_of(scores, TEXT_METRICS)
    return results


def _loss_first(values: dict[str, Any]) -> dict[str, Any]:
    first, *others = values
    return {"loss": values[first], **{name: values[name] for name in others}}


def evaluate_answers(model: Any, work: LanguageWork, *, limit: int) -> dict[str, Any]:
    """The evaluation while fine-tuning: the loss of held-out answers. Its first metric is also called `loss`,
    so that early stopping has one name for both."""
    assert work.chats is not None
    chosen: list[AnswerExample] = []
    left = limit
    for example in work.chats.held_out:
        left -= len(example.ids)
        if left < 0 and chosen:
            break
        chosen.append(example)
    if not chosen:
        return {}
    scores = score_conversations(model, work, chosen, answers=False)
    found = evaluation_of(scores, ("answer_loss",))
    return {
        HELD_OUT: {
            "metrics": {"loss": found["metrics"]["answer_loss"]},
            "intervals": {"loss": found["intervals"]["answer_loss"]},
        }
    }


def evaluate_labels(model: Any, work: LanguageWork, *, limit: int) -> dict[str, Any]:
    """The evaluation while training: the validation rows, as many as `limit` tokens hold. Its first metric is
    also called `loss`."""
    assert work.labels is not None
    examples = _bounded(work.labels.parts["validation"].examples, limit)
    rows = work.labels.rows("validation", len(examples))
    return evaluate_rows(model, rows, device=work.device, autocast=work.dtype)


def evaluate_rows(model: Any, rows: Rows, **how: Any) -> dict[str, Any]:
    """The evaluation of labelled rows while training. Its first metric is also called `loss`."""
    if not len(rows):
        return {}
    names = METRICS_OF[rows.task]
    found = evaluation_of(score_rows(model, rows, **how), names)
    for values in found.values():
        if not METRICS[names[0]].higher_is_better:
            values["loss"] = values.pop(names[0])
    return {"validation": found}


def _bounded(examples: Sequence[Example], limit: int) -> list[Example]:
    """The first examples that together have at most `limit` tokens, and one at least."""
    total = np.cumsum([example.length for example in examples])
    return list(examples[: max(1, int(np.searchsorted(total, limit, side="right")))]) if examples else []


def label_results(model: Any, work: LanguageWork) -> dict[str, Any]:
    """What the report shows of a headed model besides the table, for results.json."""
    if work.labels is None:
        return {}

    def decide(said: NDArray[np.float64]) -> dict[str, Any]:
        return decided(model, work, partial(held_texts, model, work, said))

    return labelled.results(model, work.labels, decide, device=work.device, autocast=work.dtype)


def data_name(source: str) -> str:
    """What a source's held-out part is called in events and reports."""
    return HELD_OUT if source == "main" else f"{HELD_OUT} {source}"


def sample_prompts(work: LanguageWork) -> list[tuple[str, list[int]]]:
    """The fixed prompts of the samples over time: text and ids. Those of the recipe, else the beginnings of
    held-out documents, or held-out questions."""
    tokenizer = work.tokenizer
    given = work.recipe.events.prompts
    if work.chats is not None:
        if given:
            messages = [[{"role": "user", "content": prompt}] for prompt in given]
            rendered = work.chats.template.render_batch(messages, tokenizer, add_generation_prompt=True)
            return [(f"{prompt}\n", list(one.ids)) for prompt, one in zip(given, rendered, strict=True)]
        pairs = zip(work.chats.questions, work.chats.held_out, strict=True)
        return [(f"{question}\n", example.prompt) for question, example in itertools.islice(pairs, NUM_PROMPTS)]
    if work.texts is None or work.texts.masking is not None:
        return []
    if given:
        return [(prompt, opening_ids(tokenizer, tokenizer.encode(prompt))) for prompt in given]
    prompts = []
    for documents in work.texts.held_out.values():
        for index in range(min(NUM_PROMPTS, documents.num_documents)):
            ids = [int(i) for i in documents.document(index)[1:33]]
            text = tokenizer.decode(ids)[:PROMPT_BYTES]
            prompts.append((text, opening_ids(tokenizer, tokenizer.encode(text))))
    return prompts[:NUM_PROMPTS]


def answers_of(
    model: Any, work: LanguageWork, prompts: list[tuple[str, list[int]]], *, max_tokens: int
) -> list[dict[str, str]]:
    """What the model goes on to say, greedily: [{prompt, text, finish}]."""
    if not prompts:
        return []
    options = SampleOptions(temperature=0.0, max_tokens=max_tokens)
    room = work.options.context - 1
    ids = [one[-room:] for _, one in prompts]
    results = _answers(model, work, ids, options)
    return [
        {"prompt": prompt, "text": work.tokenizer.decode(result.ids), "finish": result.finish}
        for (prompt, _), result in zip(prompts, results, strict=True)
    ]


def score_all(model: Any, work: LanguageWork, *, final: bool) -> Scores:
    """Score the held-out data: all of it if `final`, else as much as the evaluations while training take."""
    if work.chats is not None:
        examples = work.chats.held_out[:MOST_ANSWERS]
        if not examples:
            return Scores({})
        scores = score_conversations(model, work, examples, answers=final)
        return Scores({data_name("main"): scores}, partial=not final)
    if work.labels is not None:
        side = work.labels.measured
        rows = work.labels.rows(side, None if final else FIRST_ROWS)
        if not len(rows):
            return Scores({})
        return Scores({side: score_rows(model, rows, device=work.device, autocast=work.dtype)}, partial=not final)
    assert work.texts is not None
    context = work.recipe.data.context or work.options.context
    limit = None if final else min(FIRST_LOOK, work.recipe.events.evaluate_tokens)
    if work.texts.masking is not None:
        held_out = work.texts.held_out.items()
        hidden = {data_name(name): score_masked(model, work, documents, limit=limit) for name, documents in held_out}
        return Scores(dict(hidden), partial=not final)
    by_data: dict[str, Any] = {
        data_name(name): score_texts(
            model,
            documents,
            context=context,
            stride=max(1, context // 2) if final else context,
            limit=limit,
            device=work.device,
            autocast=work.dtype,
        )
        for name, documents in work.texts.held_out.items()
    }
    return Scores(by_data, partial=not final)


def metric_names(scores: Any, task: str) -> tuple[str, ...]:
    """The metrics of a table, by what was scored."""
    if isinstance(scores, LabelScores):
        return METRICS_OF[task]
    return TEXT_METRICS if isinstance(scores, TextScores) else ANSWER_METRICS
