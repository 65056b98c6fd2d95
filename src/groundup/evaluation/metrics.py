"""The metrics by name: what each is measured on, and which way is better. To add one, add a line.

A metric is a ratio of sums over units (see statistics.py), perhaps transformed. Nothing here computes with a
model; the scores come from language.py and answers.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from groundup.errors import GroundupError, nearest, printable
from groundup.evaluation.answers import AnswerScores
from groundup.evaluation.statistics import Array, Interval, PerUnit, Transform, identity, interval


class TextScores(NamedTuple):
    """What was measured on each document, or part of one: float64 arrays of one shape."""

    nats: Array
    targets: Array
    text_bytes: Array


class LabelScores(NamedTuple):
    """What was measured on each labelled row: float64 arrays of one length.

    nats: the loss of the row's targets (nats; squared errors for numbers).
    targets: how many targets the row has.
    right: how many of them were right; for embeddings 1 / rank of the row's partner among all.
    """

    nats: Array
    targets: Array
    right: Array


class EpisodeScores(NamedTuple):
    """What was measured on each episode of an environment: float64 arrays of one length."""

    returns: Array
    lengths: Array


class ImageScores(NamedTuple):
    """What was measured on each image that a network makes anew: float64 arrays of one length.

    nats: the negative evidence lower bound, an upper bound of -log p(image).
    error: the mean squared error of its pixels.
    """

    nats: Array
    error: Array


AnyScores = TextScores | AnswerScores | LabelScores | EpisodeScores | ImageScores


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    measure: scores to units; takes TextScores if `data` is "text", AnswerScores if it is "answers",
        LabelScores if it is "labels", "values", "pairs",
        "translations" or "hidden", EpisodeScores if it is "episodes", ImageScores if it is
        "images".
    data: the kind of data it needs.
    higher_is_better: which way is better.
    unit: what the number is in.
    per_token: whether it counts in tokens, so that only models with one tokenizer compare.
    transform: from the ratio to the number shown.
    """

    measure: Callable[[Any], PerUnit]
    data: Literal["text", "answers", "labels", "values", "pairs", "translations", "hidden", "episodes", "images"]
    higher_is_better: bool
    unit: str
    per_token: bool = False
    transform: Transform = identity


def nats_per_target(scores: TextScores | AnswerScores | LabelScores) -> PerUnit:
    """Cross-entropy in nats, weighted by targets."""
    return PerUnit.of(scores.nats, scores.targets)


def bits_per_byte(scores: TextScores) -> PerUnit:
    """Cross-entropy in bits, over the UTF-8 bytes of the text."""
    return PerUnit.of(scores.nats / math.log(2), scores.text_bytes)


def exact(scores: AnswerScores) -> PerUnit:
    """Share of answers with the reference's tokens."""
    return PerUnit.of(scores.exact, scores.answered)


def f1(scores: AnswerScores) -> PerUnit:
    """Mean token F1."""
    return PerUnit.of(scores.f1, scores.answered)


def ended(scores: AnswerScores) -> PerUnit:
    """Share of greedy answers that the model ended by itself."""
    return PerUnit.of(scores.ended, scores.answered)


def share_right(scores: LabelScores) -> PerUnit:
    """Share of targets that were right; the mean of 1 / rank for embeddings."""
    return PerUnit.of(scores.right, scores.targets)


def mean_return(scores: EpisodeScores) -> PerUnit:
    """Mean of the undiscounted rewards of an episode."""
    return PerUnit.of(scores.returns)


def mean_bound(scores: ImageScores) -> PerUnit:
    """Mean negative evidence lower bound of an image."""
    return PerUnit.of(scores.nats)


def mean_error(scores: ImageScores) -> PerUnit:
    """Mean squared error of a pixel."""
    return PerUnit.of(scores.error)


METRICS: dict[str, Metric] = {
    "loss": Metric(measure=nats_per_target, data="text", higher_is_better=False, unit="nats/token", per_token=True),
    "perplexity": Metric(
        measure=nats_per_target,
        data="text",
        higher_is_better=False,
        unit="",
        per_token=True,
        transform=np.exp,
    ),
    "bits_per_byte": Metric(measure=bits_per_byte, data="text", higher_is_better=False, unit="bits/byte"),
    "answer_loss": Metric(
        measure=nats_per_target, data="answers", higher_is_better=False, unit="nats/token", per_token=True
    ),
    "exact_match": Metric(measure=exact, data="answers", higher_is_better=True, unit="share"),
    "f1": Metric(measure=f1, data="answers", higher_is_better=True, unit="share"),
    "ended": Metric(measure=ended, data="answers", higher_is_better=True, unit="share"),
    "label_loss": Metric(measure=nats_per_target, data="labels", higher_is_better=False, unit="nats"),
    "accuracy": Metric(measure=share_right, data="labels", higher_is_better=True, unit="share"),
    "squared_error": Metric(measure=nats_per_target, data="values", higher_is_better=False, unit=""),
    "token_loss": Metric(
        measure=nats_per_target, data="translations", higher_is_better=False, unit="nats/token", per_token=True
    ),
    "token_accuracy": Metric(measure=share_right, data="translations", higher_is_better=True, unit="share"),
    "masked_loss": Metric(
        measure=nats_per_target, data="hidden", higher_is_better=False, unit="nats/token", per_token=True
    ),
    "masked_accuracy": Metric(
        measure=share_right, data="hidden", higher_is_better=True, unit="share", per_token=True
    ),
    "return": Metric(measure=mean_return, data="episodes", higher_is_better=True, unit=""),
    "negative_bound": Metric(measure=mean_bound, data="images", higher_is_better=False, unit="nats/image"),
    "pixel_error": Metric(measure=mean_error, data="images", higher_is_better=False, unit=""),
    "reciprocal_rank": Metric(measure=share_right, data="pairs", higher_is_better=True, unit=""),
}


def choose_metrics(names: Iterable[str], data: Iterable[str]) -> list[str]:
    """The metrics asked for, or all that these kinds of data allow if none is named.

    Raises:
        GroundupError: E-EVAL-001 for unknown names, E-EVAL-002 for metrics that need other data.
    """
    kinds, wanted = sorted(set(data)), list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in METRICS]
    if unknown:
        near = nearest(unknown[0], list(METRICS))
        raise GroundupError(
            code="E-EVAL-001",
            what=f"{printable(', '.join(unknown))}: no such metric",
            where="metrics",
            why="a metric that is not known cannot be measured",
            fix=(f"did you mean {near}? " if near else "") + f"Known: {', '.join(METRICS)}",
            exit_code=2,
        )
    unfit = [name for name in wanted if METRICS[name].data not in kinds]
    if unfit:
        need = {
            "text": "text files (.txt, .md, .jsonl with text)",
            "answers": "rows with questions and answers",
            "labels": "rows with labels",
            "values": "rows with numbers to predict",
            "pairs": "pairs of texts",
            "translations": "texts with their translations",
            "hidden": "a model that was pretrained on hidden tokens",
            "episodes": "a model that acts (--episodes)",
            "images": "images that a network makes anew",
        }
        raise GroundupError(
            code="E-EVAL-002",
            what=f"{', '.join(unfit)} cannot be measured on these files",
            where=f"the files hold {' and '.join(kinds) or 'nothing'}",
            why=f"{unfit[0]} needs {need[METRICS[unfit[0]].data]}",
            fix="give such files with --files, or leave the metric out",
            exit_code=2,
        )
    return wanted or [name for name, metric in METRICS.items() if metric.data in kinds]


def measure(name: str, scores: AnyScores, *, seed: int = 0) -> Interval:
    """The metric called `name` with its bootstrap interval."""
    metric = METRICS[name]
    return interval(metric.measure(scores), transform=metric.transform, seed=seed)
