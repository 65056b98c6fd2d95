"""Evaluation: how well texts are predicted, how good answers are, how sure the numbers are.

`METRICS` in metrics.py is the list of what can be measured. Models come in through the `LanguageModel`
protocol, texts as ids, generation as a function; no model family, tokenizer, file or sampler may enter.
"""

from groundup.evaluation.answers import AnswerExample, AnswerScores, exact_match, score_answers, token_f1
from groundup.evaluation.compare import Comparison, cells, compare
from groundup.evaluation.language import language_metrics, parts_for, score_documents, spread_bytes
from groundup.evaluation.metrics import METRICS, Metric, TextScores, choose_metrics, measure
from groundup.evaluation.statistics import Interval, PerUnit, Verdict, difference, interval, judge, verdict

__all__ = [
    "METRICS",
    "AnswerExample",
    "AnswerScores",
    "Comparison",
    "Interval",
    "Metric",
    "PerUnit",
    "TextScores",
    "Verdict",
    "cells",
    "choose_metrics",
    "compare",
    "difference",
    "exact_match",
    "interval",
    "judge",
    "language_metrics",
    "measure",
    "parts_for",
    "score_answers",
    "score_documents",
    "spread_bytes",
    "token_f1",
    "verdict",
]
