"""How well tokens are labelled: the share of right labels, and precision, recall and F1 of whole entities.

Labels are BIO: `B-TYPE` opens an entity, `I-TYPE` goes on with it, `O` is outside. As in `conlleval`, the script
of the CoNLL shared tasks: an entity begins at every `B-`; at an `I-` after `O`, at the start of a sentence, or
after another type; it ends before the next beginning, before `O` and at the end of the sentence. An entity is right
only if type, start and end all are. No model or file may enter here.

Shapes: S sentences, C columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from groundup.evaluation import counts
from groundup.evaluation.counts import Resampling
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES, Array, Interval, PerUnit, interval


class Entity(NamedTuple):
    """Tokens `start` to `end`, the end left out."""

    start: int
    end: int
    type: str


class TypeScore(NamedTuple):
    """One type of entity: how many there are, how many were predicted, and how well."""

    type: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class TaggingScores:
    """What was measured: "token_accuracy", "precision", "recall" and "f1" of entities, then each type."""

    sentences: int
    tokens: int
    confidence: float
    headline: dict[str, Interval]
    per_type: list[TypeScore]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sentences": self.sentences,
            "tokens": self.tokens,
            "confidence": self.confidence,
            "headline": {name: found.as_dict() for name, found in self.headline.items()},
            "per_type": [one._asdict() for one in self.per_type],
        }


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sentence, in order.

    Raises:
        ValueError: a label that is neither O nor B- or I- with a type.
    """
    found: list[Entity] = []
    start, kind = 0, ""
    for index, tag in enumerate([*tags, "O"]):
        prefix, _, type_ = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not type_):
            raise ValueError(f"{tag!r} is not a BIO label: expected O, B-TYPE or I-TYPE")
        if kind and (prefix != "I" or type_ != kind):
            found.append(Entity(start, index, kind))
            kind = ""
        if tag != "O" and not kind:
            start, kind = index, type_
    return found


def tagging_scores(
    predicted: Sequence[Sequence[str]],
    truth: Sequence[Sequence[str]],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> TaggingScores:
    """Measure labels of tokens, sentence by sentence; intervals are percentile bootstraps over sentences.

    Raises:
        ValueError: sentences of different lengths, no token at all, or a label that is not BIO.
    """
    if [len(one) for one in predicted] != [len(one) for one in truth] or not any(map(len, truth)):
        raise ValueError("every sentence needs one predicted label for each true one, and there must be some")
    right, true, said = Counter[str](), Counter[str](), Counter[str]()
    rows = []
    for guess, gold in zip(predicted, truth):
        found, wanted = set(entities(guess)), set(entities(gold))
        for counter, those in ((right, found & wanted), (true, wanted), (said, found)):
            counter.update(one.type for one in those)
        rows.append([len(found & wanted), len(wanted), len(found)])

    def metrics(sums: Array) -> dict[str, Array]:
        found = counts.label_metrics(counts.split(sums))
        return {name: found[f"{name}_micro"] for name in ("precision", "recall", "f1")}

    how = Resampling(confidence=confidence, resamples=resamples, seed=seed)
    hits = [sum(a == b for a, b in zip(guess, gold)) for guess, gold in zip(predicted, truth)]
    units = PerUnit.of(hits, [len(gold) for gold in truth])
    headline = {"token_accuracy": interval(units, **how)}
    headline |= counts.intervals(metrics, np.ones(len(truth)), np.array(rows, dtype=np.float64), **how)
    return TaggingScores(
        sentences=len(truth),
        tokens=sum(map(len, truth)),
        confidence=confidence,
        headline=headline,
        per_type=[_type_score(one, right[one], true[one], said[one]) for one in sorted(true | said)],
    )


def _type_score(type_: str, right: int, true: int, said: int) -> TypeScore:
    precision, recall = right / said if said else 0.0, right / true if true else 0.0
    return TypeScore(type_, true, said, precision, recall, 2 * right / (true + said))
