"""How well embeddings find what belongs together: reciprocal rank, recall among the first, and correlation.

Scores come in as arrays; no model, text or file may enter here.

Shapes: Q queries, D documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from groundup.evaluation.counts import Resampling
from groundup.evaluation.regression import spearman
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES, Interval, PerUnit, interval


def retrieval_scores(
    score_QD: Any,
    relevant_QD: Any,
    *,
    among: Sequence[int] = (1, 5, 10),
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """The mean reciprocal rank of the first relevant document among ten ("mrr_at_10"), and the share of a query's
    relevant documents among the first k ("recall_at_k"), with percentile bootstrap intervals over queries.

    Of equally scored documents the irrelevant ones count as first, so that a model that scores everything alike
    gains nothing. Queries without a relevant document are left out.

    Args:
        score_QD: float64, higher is nearer.
        relevant_QD: bool.
        among: each k of recall.
        confidence, resamples, seed: of the intervals.

    Raises:
        ValueError: shapes that differ, a score that is not finite, or no query with a relevant document.
    """
    score, relevant = np.asarray(score_QD, dtype=np.float64), np.asarray(relevant_QD, dtype=bool)
    if score.shape != relevant.shape or score.ndim != 2 or not relevant.any():
        raise ValueError(f"scores {score.shape} and relevance {relevant.shape} do not fit, or nothing is relevant")
    if not np.isfinite(score).all():
        raise ValueError("a score is not finite")
    asked = relevant.any(axis=1)
    score, relevant = score[asked], relevant[asked]
    order = np.lexsort((relevant, -score), axis=1)
    hit_QD = np.take_along_axis(relevant, order, axis=1)
    first_Q = hit_QD.argmax(axis=1)
    how = Resampling(confidence=confidence, resamples=resamples, seed=seed)
    found = {"mrr_at_10": interval(PerUnit.of(np.where(first_Q < 10, 1 / (first_Q + 1), 0.0)), **how)}
    for k in among:
        share = hit_QD[:, :k].sum(axis=1) / hit_QD.sum(axis=1)
        found[f"recall_at_{k}"] = interval(PerUnit.of(share), **how)
    return found


def pair_scores(similarity_N: Any, score_N: Any, *, confidence: float = CONFIDENCE) -> dict[str, Interval]:
    """Spearman's correlation of the similarity of pairs with the scores that people gave them ("spearman")."""
    return {"spearman": spearman(similarity_N, score_N, confidence)}
