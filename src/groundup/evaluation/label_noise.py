"""Rows whose given label is probably wrong, found by confident learning (Northcutt, Jiang & Chuang 2021,
Confident Learning: Estimating Uncertainty in Dataset Labels, arXiv:1911.00068).

Probabilities and labels come in as arrays; no model, text or file may enter here. The probabilities must be out of
sample, of models that were not trained on the row: one that was has learned its wrong label too.

Shapes: N rows, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from groundup.evaluation.classification import checked
from groundup.evaluation.counts import Counts
from groundup.evaluation.statistics import Array

Ranking = Literal["margin", "self_confidence"]


class Suspect(NamedTuple):
    """A row whose label is probably wrong. Labels are indices; `score` is lower, the surer the fault."""

    row: int
    given: int
    suggested: int
    score: float


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """What confident learning says about a set of labels.

    threshold_L: the mean probability of each label in the rows that bear it; NaN for a label that no row bears.
    confident_LL: how many rows with given label i (row) are confidently of label j (column).
    joint_LL: estimated share of rows with given label i and true label j, float64, together 1.
    suspects: the rows in question, the surest fault first.
    """

    labels: list[str]
    threshold_L: Array
    confident_LL: Counts
    joint_LL: Array
    suspects: list[Suspect]

    @property
    def share(self) -> float:
        """The estimated share of wrong labels, 0 to 1."""
        return float(1.0 - np.trace(self.joint_LL))

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with labels by name and cells of the joint as [given, true, share] where there is any."""
        names = self.labels
        given, true = (self.joint_LL > 0).nonzero()
        return {
            "share": self.share,
            "threshold": {name: float(x) if x == x else None for name, x in zip(names, self.threshold_L, strict=True)},
            "joint": [
                [names[i], names[j], float(self.joint_LL[i, j])]
                for i, j in zip(given.tolist(), true.tolist(), strict=True)
            ],
            "suspects": [
                {**one._asdict(), "given": names[one.given], "suggested": names[one.suggested]} for one in self.suspects
            ],
        }


def find_label_noise(
    probability_NL: Any, label_N: Any, labels: list[str], *, ranking: Ranking = "margin"
) -> LabelNoise:
    """Find rows whose label is probably wrong.

    A row is confidently of a label when the label's probability reaches its threshold; of several such labels the
    most probable counts (section 3.1). Counts of given against confident labels, scaled to the rows of each
    given label, estimate the joint of given and true labels; each of its cells off the diagonal says how many rows
    are wrong in that way, and those are taken where the other label's probability exceeds that of the given one most
    (section 3.2, prune by noise rate).

    Args:
        probability_NL: float64 (N, L), out of sample, each row summing to 1.
        label_N: the given label of each row, 0 to L - 1.
        labels: their names.
        ranking: `margin`: probability of the given label minus that of the most probable other one;
            `self_confidence`: probability of the given label.

    Raises:
        ValueError: arguments that do not fit each other.
    """
    probability, label = checked(probability_NL, label_N, labels)
    threshold = thresholds(probability, label)
    confident = confident_joint(probability, label, threshold)
    joint = estimate_joint(confident, np.bincount(label, minlength=len(labels)))
    own = probability[np.arange(len(label)), label]
    others = probability.copy()
    others[np.arange(len(label)), label] = -1.0
    score = own if ranking == "self_confidence" else own - others.max(axis=1)
    suspected = np.zeros(len(label), dtype=bool)
    for given, true in zip(*(joint > 0).nonzero(), strict=True):
        if given != true:
            rows = np.flatnonzero(label == given)
            wanted = round(float(joint[given, true]) * len(label))
            excess = probability[rows, true] - probability[rows, given]
            suspected[rows[np.argsort(-excess, kind="stable")[:wanted]]] = True
    rows = np.flatnonzero(suspected)
    rows = rows[np.argsort(score[rows], kind="stable")]
    suggested = others.argmax(axis=1)
    return LabelNoise(
        labels=list(labels),
        threshold_L=threshold,
        confident_LL=confident,
        joint_LL=joint,
        suspects=[Suspect(int(row), int(label[row]), int(suggested[row]), float(score[row])) for row in rows],
    )


def thresholds(probability_NL: Array, label_N: Counts) -> Array:
    """The mean probability of each label in the rows that bear it (equation 2), float64 (L,); NaN where none does."""
    size = probability_NL.shape[1]
    count = np.bincount(label_N, minlength=size)
    total = np.bincount(label_N, weights=probability_NL[np.arange(len(label_N)), label_N], minlength=size)
    return np.divide(total, count, out=np.full(size, np.nan), where=count > 0)


def confident_joint(probability_NL: Array, label_N: Counts, threshold_L: Array) -> Counts:
    """How many rows of each given label are confidently of each label (equation 1), int64 (L, L)."""
    size = probability_NL.shape[1]
    reached = probability_NL >= threshold_L - 1e-12  # a mean of equal numbers may be a hair above them; NaN: never
    confident = reached.any(axis=1)
    true = np.where(reached, probability_NL, -1.0).argmax(axis=1)
    cells = label_N[confident] * size + true[confident]
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def estimate_joint(confident_LL: Counts, count_L: Counts) -> Array:
    """The joint of given and true labels (equation 3): rows scaled to how often each label is given, together 1.
    A given label without any confident row counts as right."""
    rows = confident_LL.sum(axis=1, keepdims=True)
    share = np.where(rows > 0, confident_LL / np.maximum(rows, 1), np.eye(len(count_L)))
    joint: Array = share * count_L[:, None] / count_L.sum()
    return joint
