"""Scores before and after a run, and what they say: the `evaluations` of results.json and report.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from groundup.evaluation import METRICS, AnswerScores, Interval, TextScores, measure
from groundup.evaluation.compare import compare
from groundup.evaluation.metrics import LabelScores
from groundup.run import labels as labelled
from groundup.run.measuring import (
    ANSWER_METRICS,
    TEXT_METRICS,
    data_name,
    score_conversations,
    score_examples,
    score_texts,
)

if TYPE_CHECKING:
    from groundup.run.parts import Parts

MOST_ANSWERS = 200
"""Held-out questions that the model answers itself before and after; the loss is measured on the same."""

FIRST_LOOK = 8192
"""Held-out tokens that a network without training is scored on: its loss is that of a fair die, near enough."""

FIRST_ROWS = 256
"""Labelled rows that a head without training is scored on."""

RowScores = TextScores | AnswerScores | LabelScores

FIELDS: dict[type, tuple[str, ...]] = {kind: kind._fields for kind in (TextScores, AnswerScores, LabelScores)}


@dataclass
class Scores:
    """Scores by the name of the data they were taken on."""

    by_data: dict[str, RowScores]
    partial: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        found = {
            name: {"kind": type(scores).__name__, **{k: v.tolist() for k, v in scores._asdict().items()}}
            for name, scores in self.by_data.items()
        }
        return {"scores": found, "partial": self.partial}

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Scores:
        """What `as_dict` gave."""
        kinds = {kind.__name__: kind for kind in FIELDS}
        by_data = {}
        for name, entry in said["scores"].items():
            kind = kinds[entry["kind"]]
            by_data[name] = kind(**{field: np.array(entry[field]) for field in FIELDS[kind]})
        return cls(by_data, said["partial"])


def score_all(module: torch.nn.Module, parts: Parts, *, final: bool) -> Scores:
    """Score the held-out data: all of it if `final`, else as much as the evaluations while training take."""
    dtype = torch.bfloat16 if parts.precision == "bfloat16" else None
    if parts.chats is not None:
        examples = parts.chats.held_out[:MOST_ANSWERS]
        if not examples:
            return Scores({})
        scores = score_conversations(module, parts, examples, answers=final, autocast=dtype)
        return Scores({data_name("main"): scores}, partial=not final)
    if parts.labels is not None:
        side = parts.labels.measured
        rows = parts.labels.parts[side].examples[: None if final else FIRST_ROWS]
        if not rows:
            return Scores({})
        return Scores({side: score_examples(module, parts, rows, autocast=dtype)}, partial=not final)
    assert parts.texts is not None
    context = parts.recipe.data.context or parts.options.context
    by_data: dict[str, RowScores] = {
        data_name(name): score_texts(
            module,
            documents,
            context=context,
            stride=max(1, context // 2) if final else context,
            limit=None if final else min(FIRST_LOOK, parts.recipe.events.evaluate_tokens),
            device=parts.device,
            autocast=dtype,
        )
        for name, documents in parts.texts.held_out.items()
    }
    return Scores(by_data, partial=not final)


def outside(before: float, after: Interval, higher_is_better: bool) -> str:
    """The verdict where the units differ: whether the earlier value lies outside the later interval."""
    if not (after.low <= before <= after.high):
        return "better" if (after.value > before) == higher_is_better else "worse"
    return "within noise"


def metric_names(scores: RowScores, task: str) -> tuple[str, ...]:
    """The metrics of a table, by what was scored."""
    if isinstance(scores, LabelScores):
        return labelled.METRICS_OF[task]
    return TEXT_METRICS if isinstance(scores, TextScores) else ANSWER_METRICS


def evaluations(stage: str, before: Scores, after: Scores, task: str = "") -> list[dict[str, Any]]:
    """[{stage, data, metric, before, after, low, high, verdict}]: low and high are the 95 % interval of
    `after`; the verdict is by the paired bootstrap where both were measured on the same units."""
    lines = []
    for data, scores in after.by_data.items():
        names = metric_names(scores, task)
        earlier = before.by_data.get(data)
        same = earlier is not None and len(earlier[0]) == len(scores[0]) and not before.partial
        verdicts = {c.metric: c for c in compare(earlier, scores, names)} if same and earlier else {}
        for name in names:
            interval = measure(name, scores)
            line: dict[str, Any] = {"stage": stage, "data": data, "metric": name}
            line |= {"before": measure(name, earlier).value if earlier is not None else None}
            if before.partial and name in ("exact_match", "f1", "ended"):
                line["before"] = None  # the model was not asked to answer before
            line |= {"after": interval.value, "low": interval.low, "high": interval.high}
            line["higher_is_better"] = METRICS[name].higher_is_better
            if name in verdicts:
                change = verdicts[name].difference
                line |= {"verdict": verdicts[name].verdict, "change": [change.low, change.high]}
            elif line["before"] is not None:
                line["verdict"] = outside(line["before"], interval, METRICS[name].higher_is_better)
            lines.append(line)
    return lines
