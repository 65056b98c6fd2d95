"""Evaluation: how well texts are predicted, rows classified and answers given, and how sure the numbers are.

`METRICS` in metrics.py is the list of what can be measured of texts and answers; classifiers, regressors, taggers
and embeddings have a file each. Models come in through the `LanguageModel` protocol or as the arrays that they
gave, texts as ids, generation as a function; no model family, tokenizer, file or sampler may enter.
"""

from groundup.evaluation.answers import AnswerExample, AnswerScores, exact_match, score_answers, token_f1
from groundup.evaluation.calibration import (
    Calibration,
    Temperature,
    Threshold,
    choose_threshold,
    fit_temperature,
    measure_calibration,
    selective,
)
from groundup.evaluation.classification import ClassificationScores, classification_scores, sigmoid, softmax
from groundup.evaluation.classifier_compare import ClassifierComparison, McNemar, compare_classifiers, mcnemar
from groundup.evaluation.classifier_results import classification_results
from groundup.evaluation.compare import Comparison, cells, compare
from groundup.evaluation.language import language_metrics, parts_for, score_documents, spread_bytes
from groundup.evaluation.masked import score_hidden
from groundup.evaluation.metrics import METRICS, Metric, TextScores, choose_metrics, measure
from groundup.evaluation.multilabel import choose_thresholds, multilabel_scores
from groundup.evaluation.regression import RegressionScores, regression_scores, spearman
from groundup.evaluation.retrieval import pair_scores, retrieval_scores
from groundup.evaluation.slices import confused_pairs, sure_mistakes, worst_slices
from groundup.evaluation.statistics import Interval, PerUnit, Verdict, difference, interval, judge, verdict
from groundup.evaluation.tagging import Entity, TaggingScores, entities, tagging_scores

__all__ = [
    "METRICS",
    "AnswerExample",
    "AnswerScores",
    "Calibration",
    "ClassificationScores",
    "ClassifierComparison",
    "Comparison",
    "Entity",
    "Interval",
    "McNemar",
    "Metric",
    "PerUnit",
    "RegressionScores",
    "TaggingScores",
    "Temperature",
    "TextScores",
    "Threshold",
    "Verdict",
    "cells",
    "choose_metrics",
    "choose_threshold",
    "choose_thresholds",
    "classification_results",
    "classification_scores",
    "compare",
    "compare_classifiers",
    "confused_pairs",
    "difference",
    "entities",
    "exact_match",
    "fit_temperature",
    "interval",
    "judge",
    "language_metrics",
    "mcnemar",
    "measure",
    "measure_calibration",
    "multilabel_scores",
    "pair_scores",
    "parts_for",
    "regression_scores",
    "retrieval_scores",
    "score_answers",
    "score_documents",
    "score_hidden",
    "selective",
    "sigmoid",
    "softmax",
    "spearman",
    "spread_bytes",
    "sure_mistakes",
    "tagging_scores",
    "token_f1",
    "verdict",
    "worst_slices",
]
