"""Cross-validation: how well a way of learning does on rows that it has not seen, and how sure that number is.

Folds and a function that trains and measures come in; what the rows are, and how they were divided, may not enter
here. A fold is the indices of the rows to train on and of those to test on. Whatever is fitted (scaling, a
vocabulary, the model) belongs inside the function, so that it sees the rows to train on alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from groundup.errors import GroundupError
from groundup.evaluation.statistics import CONFIDENCE, Array, Interval

Indices = NDArray[np.int64]
Fold = tuple[Indices, Indices]
"""The rows to train on, and those to test on."""
Scores = dict[str, float]
FitAndScore = Callable[[Indices, Indices], Scores]
"""Trains on the first rows from scratch and measures on the second."""
Setting = TypeVar("Setting")


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


@dataclass(frozen=True, kw_only=True)
class Nested:
    """What was measured by nested cross-validation.

    outer: of the chosen settings on the rows that took no part in choosing.
    chosen: the name of the setting, for each outer fold.
    inner: the mean of the metric in the inner folds by setting, for each outer fold.
    """

    outer: CrossValidated
    chosen: list[str]
    inner: list[Scores]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        inner = [{name: x if math.isfinite(x) else None for name, x in means.items()} for means in self.inner]
        return {"outer": self.outer.as_dict(), "chosen": self.chosen, "inner": inner}


def cross_validate(
    fit_and_score: FitAndScore, folds: Sequence[Fold], *, confidence: float = CONFIDENCE
) -> CrossValidated:
    """Train and measure on every fold.

    The interval is the corrected resampled t of Nadeau & Bengio (2003, Inference for the Generalization Error,
    section 3): with J folds, n rows to train on and m to test on, the variance of the mean is (1/J + m/n) times that
    of the folds, since models that share training rows do not err independently. A metric that some fold cannot
    measure (NaN) has neither mean nor interval.

    Args:
        fit_and_score: called once for each fold, in their order; the same metrics each time.
        folds: at least two; the rows to train on and to test on have none in common.
        confidence: of the intervals, between 0 and 1.

    Raises:
        GroundupError: E-EVAL-050 a fold that is empty or tests on rows that it trains on; E-EVAL-051 folds that
            measured different things.
    """
    checked_folds(folds)
    per_fold = [{name: float(x) for name, x in fit_and_score(train, test).items()} for train, test in folds]
    return summarise(per_fold, folds, confidence=confidence)


def nested(
    fit_and_score: Callable[[Setting, Indices, Indices], Scores],
    settings: Mapping[str, Setting],
    folds: Sequence[Fold],
    inner: Callable[[Indices], Sequence[Fold]],
    *,
    metric: str,
    higher_is_better: bool,
    confidence: float = CONFIDENCE,
) -> Nested:
    """Choose a setting inside each outer fold, and measure the choice on the fold's own test rows.

    The best of many settings looks better on the rows that it was chosen on than it is (Cawley & Talbot 2010,
    On Over-fitting in Model Selection, JMLR 11); so each choice sees the rows to train on alone.

    Args:
        fit_and_score: as for `cross_validate`, with the setting first.
        settings: by name; of equally good ones the first is chosen.
        folds: the outer ones.
        inner: divides the rows it is given; its folds count positions among these, from 0.
        metric: what the choice is made by: its mean over the inner folds.
        higher_is_better: whether the largest mean is best.
        confidence: of the intervals.

    Raises:
        GroundupError: as `cross_validate`; E-EVAL-052 no setting has a finite mean of the metric.
    """
    checked_folds(folds)
    chosen: list[str] = []
    means: list[Scores] = []
    per_fold: list[Scores] = []
    for number, (train, test) in enumerate(folds):
        parts = inner(train)
        checked_folds(parts, rows=len(train), where=f"outer fold {number}, inner ")
        found: Scores = {}
        measured: set[str] = set()
        for name, setting in settings.items():
            scores = [fit_and_score(setting, train[one], train[other]) for one, other in parts]
            found[name] = float(np.mean([score.get(metric, math.nan) for score in scores]))
            measured = measured.union(*scores)
        best = best_setting(found, metric, higher_is_better, f"outer fold {number}", measured)
        chosen.append(best)
        means.append(found)
        per_fold.append({name: float(x) for name, x in fit_and_score(settings[best], train, test).items()})
    return Nested(outer=summarise(per_fold, folds, confidence=confidence), chosen=chosen, inner=means)


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


def learning_curve(
    fit_and_score: FitAndScore,
    folds: Sequence[Fold],
    sizes: Sequence[int],
    *,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> dict[int, CrossValidated]:
    """What was measured with fewer rows to train on, by their number, ascending; always on the same test rows.

    Args:
        fit_and_score: as for `cross_validate`.
        folds: whose rows to train on are thinned out. A smaller sample is part of every larger one.
        sizes: numbers of rows to train on.
        seed: of the samples.
        confidence: of the intervals, which take the share of rows in the test parts from the whole folds.

    Raises:
        GroundupError: as `cross_validate`; E-EVAL-053 a size is below 1 or above what a fold has to train on.
    """
    checked_folds(folds)
    most = min(len(train) for train, _ in folds)
    if not sizes or min(sizes) < 1 or max(sizes) > most:
        raise GroundupError(
            "E-EVAL-053",
            f"a learning curve over {', '.join(map(str, sizes)) or 'no'} rows does not fit these folds",
            where=f"the smallest of {len(folds)} folds trains on {most:,} rows",
            why="each point of the curve trains on that many rows of every fold",
            fix=f"give sizes from 1 to {most}",
            exit_code=2,
        )
    order = [np.random.default_rng([seed, number]).permutation(train) for number, (train, _) in enumerate(folds)]
    curve: dict[int, CrossValidated] = {}
    for size in sorted(set(sizes)):
        thinned = [(np.sort(rows[:size]), test) for rows, (_, test) in zip(order, folds, strict=True)]
        per_fold = [{name: float(x) for name, x in fit_and_score(*fold).items()} for fold in thinned]
        curve[size] = summarise(per_fold, folds, confidence=confidence)
    return curve


def summarise(per_fold: Sequence[Scores], folds: Sequence[Fold], *, confidence: float = CONFIDENCE) -> CrossValidated:
    """Means and intervals of what folds measured; see `cross_validate`."""
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
    share = float(np.mean([len(test) for _, test in folds]) / np.mean([len(train) for train, _ in folds]))
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


def checked_folds(folds: Sequence[Fold], *, rows: int | None = None, where: str = "") -> None:
    """Refuse folds that cannot tell how a model does on unseen rows.

    Args:
        folds: at least two.
        rows: how many there are, if known.
        where: words before the number of the fold.

    Raises:
        GroundupError: E-EVAL-050, all of them together.
    """
    faults = [] if len(folds) > 1 else [f"{where}{len(folds)} folds: two at least"]
    for number, (train, test) in enumerate(folds):
        both = np.intersect1d(train, test)
        if both.size:
            some = ", ".join(map(str, both[:5].tolist()))
            faults.append(f"{where}fold {number}: {both.size:,} rows to train on and to test on: {some}")
        for name, part in (("train", train), ("test", test)):
            if not len(part):
                faults.append(f"{where}fold {number}: no row to {name} on")
            elif min(part) < 0 or (rows is not None and max(part) >= rows):
                faults.append(f"{where}fold {number}: rows {min(part)} to {max(part)} to {name} on, of {rows or 'all'}")
    if faults:
        raise GroundupError(
            "E-EVAL-050",
            f"{len(faults)} of the folds cannot measure how a model does on unseen rows",
            where="; ".join(faults[:5]) + ("; …" if len(faults) > 5 else ""),
            why="rows that a model was trained on make it look better than it is, and no rows say nothing",
            fix="make the folds anew: no row of a fold both to train on and to test on, and some of each",
            exit_code=2,
        )


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
