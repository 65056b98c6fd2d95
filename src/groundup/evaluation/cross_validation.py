"""Cross-validation: how sure the mean of what folds measured is, and which setting did best in them.

What each fold measured comes in as numbers; what the rows are, how they were divided and how a model is trained may
not enter here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from groundup.errors import GroundupError
from groundup.evaluation.statistics import CONFIDENCE, Array, Interval

Scores = dict[str, float]
"""What one fold measured, by metric."""


@dataclass(frozen=True, kw_only=True)
class CrossValidated:
    """What was measured.

    metrics: the mean over the folds, with an interval that knows that the folds share training rows.
    per_fold: what each fold measured, in their order.
    """

    metrics: dict[str, Interval]
    per_fold: list[Scores]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, where what is not finite is null."""
        return {
            "metrics": {name: found.as_dict() for name, found in self.metrics.items()},
            "per_fold": [
                {name: value if math.isfinite(value) else None for name, value in scores.items()}
                for scores in self.per_fold
            ],
        }


def best_setting(found: Scores, metric: str, higher_is_better: bool, where: str, measured: Iterable[str]) -> str:
    """The setting of the best mean, of several the first.

    Args:
        found: the mean of the metric by setting.
        where: the outer fold, for the message.
        measured: the metrics that there are.

    Raises:
        GroundupError: E-EVAL-052 no mean is finite.
    """
    ranked = [name for name, mean in found.items() if math.isfinite(mean)]
    if not ranked:
        raise GroundupError(
            "E-EVAL-052",
            f"none of the {len(found)} settings has a finite mean of {metric}",
            where=f"{where}: " + ", ".join(f"{name} {mean}" for name, mean in found.items()),
            why=f"the choice is made by {metric}, which every inner fold must measure",
            fix="name a metric that is measured on every inner fold: " + ", ".join(sorted(measured)),
            exit_code=2,
        )
    return max(ranked, key=lambda name: found[name] if higher_is_better else -found[name])


def summarise(
    per_fold: Sequence[Scores], rows: Sequence[tuple[int, int]], *, confidence: float = CONFIDENCE
) -> CrossValidated:
    """Means and intervals of what folds measured.

    The interval is the corrected resampled t of Nadeau & Bengio (2003, Inference for the Generalization Error,
    section 3): with J folds, n rows to train on and m to test on, the variance of the mean is (1/J + m/n) times that
    of the folds, since models that share training rows do not err independently. A metric that some fold cannot
    measure (NaN) has neither mean nor interval.

    Args:
        per_fold: what each of at least two folds measured, the same metrics each time.
        rows: how many each fold trained on and tested on.
        confidence: of the intervals, between 0 and 1.

    Raises:
        GroundupError: E-EVAL-051 folds that measured different things.
    """
    names = list(per_fold[0])
    odd = [number for number, scores in enumerate(per_fold) if set(scores) != set(names)]
    if odd:
        raise GroundupError(
            "E-EVAL-051",
            f"fold {odd[0]} measured {', '.join(sorted(per_fold[odd[0]])) or 'nothing'}, "
            f"fold 0 {', '.join(sorted(names)) or 'nothing'}",
            where=f"{len(odd)} of {len(per_fold)} folds",
            why="a mean over folds is one of the same metric in each",
            fix="return the same names from every fold, with NaN for what one of them cannot measure",
        )
    share = sum(test for _, test in rows) / sum(train for train, _ in rows)
    metrics = {}
    for name in names:
        values = np.array([scores[name] for scores in per_fold])
        metrics[name] = _interval(values, share, confidence)
    return CrossValidated(metrics=metrics, per_fold=list(per_fold))


def _interval(value_J: Array, share: float, confidence: float) -> Interval:
    if not np.isfinite(value_J).all():
        return Interval(math.nan, math.nan, math.nan)
    mean, spread = float(value_J.mean()), float(value_J.std(ddof=1))
    reach = student(confidence, len(value_J) - 1) * spread * math.sqrt(1 / len(value_J) + share)
    return Interval(mean, mean - reach, mean + reach)


def student(confidence: float, freedom: int) -> float:
    """How many standard errors an interval reaches to either side, by Student's distribution.

    The probability between -t and t is the finite sum of Abramowitz & Stegun (1964, 26.7.3 and 26.7.4); its
    inverse is found by halving.

    Args:
        confidence: between 0 and 1.
        freedom: degrees of freedom, at least 1.
    """

    def inside(angle: float) -> float:
        cosine, odd = math.cos(angle), freedom % 2
        term = cosine if odd else 1.0
        terms = [term] if freedom > 1 else []
        for k in range(2 + odd, freedom, 2):
            term *= cosine**2 * (k - 1) / k
            terms.append(term)
        total = math.sin(angle) * math.fsum(terms)
        return 2 / math.pi * (angle + total) if odd else total

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)
