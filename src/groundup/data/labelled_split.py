"""Which rows train, validate and test; and k folds for cross-validation.

Rows of one text (of one group, where groups are asked for) are a unit that is never divided. Units are put in
the order of a hash of their name and a seed, so that the outcome depends neither on the order of the rows nor on
the machine.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from groundup.data.labelled_options import LabelledSplit, Side, SplitKind
from groundup.data.labelled_rows import LabelledRow
from groundup.errors import GroundupError

Unit = list[int]
"""The indices of rows that stay together."""


def assign_sides(
    rows: Sequence[LabelledRow], split: LabelledSplit, kind: SplitKind, *, test: float, validation: float
) -> list[Side]:
    """The side of each row.

    Args:
        rows: of one task.
        split: whose seed counts; its shares do not.
        kind: `random`: a unit's side follows from its own hash alone; the shares hold on average. `stratified`:
            for rows of distinct texts each label has its shares within one row on every side, and training has
            every label. `grouped`: whole groups, as near to the shares of rows as they come.
        test, validation: shares of rows, 0 to 1, together below 1.
    """
    sides: list[Side] = ["train"] * len(rows)
    strata = _strata(rows, kind, split.seed)
    if kind == "random":
        for rank, unit in strata.get("", []):
            place = int.from_bytes(rank) / 2**64
            side: Side = "test" if place < test else "validation" if place < test + validation else "train"
            for index in unit:
                sides[index] = side
        return sides
    owed: dict[Side, float] = {"test": 0.0, "validation": 0.0}
    shares: tuple[tuple[Side, float], ...] = (("test", test), ("validation", validation))
    for stratum in sorted(strata):
        waiting = [unit for _, unit in strata[stratum]]
        total = sum(map(len, waiting))
        room = total - 1 - math.floor(round(total * validation, 9))  # for training, and for what validation is sure of
        for side, share in shares:
            ideal = round(total * share, 9)  # 0.1 × 30 is a little above 3
            wanted = min(max(math.floor(ideal + owed[side] + 0.5), math.floor(ideal)), math.ceil(ideal))
            wanted = min(wanted, room) if side == "test" else wanted
            taken, waiting = _take(waiting, wanted, at_least_one=kind == "grouped" and share > 0)
            owed[side] += ideal - sum(map(len, taken))
            for index in (index for unit in taken for index in unit):
                sides[index] = side
    return sides


def _take(waiting: list[Unit], wanted: int, *, at_least_one: bool) -> tuple[list[Unit], list[Unit]]:
    """Units of together about `wanted` rows, and the others, of which there is always one."""
    taken: list[Unit] = []
    left: list[Unit] = []
    size = 0
    for number, unit in enumerate(waiting):
        # a unit that would overshoot by more than its lack is passed over
        last = not left and number == len(waiting) - 1
        if size + len(unit) / 2 <= wanted and not last:
            taken.append(unit)
            size += len(unit)
        else:
            left.append(unit)
    if at_least_one and not taken and len(left) > 1:
        taken.append(min(left, key=len))
        left.remove(taken[0])
    return taken, left


def folds(
    rows: Sequence[LabelledRow], k: int, *, seed: int = 0, kind: SplitKind = "stratified"
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """k-fold cross-validation: k pairs of the indices to train on and those to test on, each ascending.

    Every row is in exactly one test part. Rows of one text, and with `grouped` rows of one group, are in one
    part together. Where texts are distinct, the parts are of equal size within one row, and with `stratified`
    so is each label's count in them.

    Raises:
        GroundupError: E-DATA-104 if there are fewer units than parts.
    """
    strata = _strata(rows, kind, seed)
    units = sum(map(len, strata.values()))
    if not 2 <= k <= units:
        what = "groups" if kind == "grouped" else "different texts"
        raise GroundupError(
            "E-DATA-104",
            f"{units:,} {what} do not make {k:,} folds",
            where=f"{len(rows):,} rows, split {kind}",
            why="each fold tests on rows that the others train on, so each needs one at least, and two folds are few",
            fix=f"ask for 2 to {units} folds" if units >= 2 else "give more rows",
            exit_code=2,
        )
    total = [0] * k
    part = np.zeros(len(rows), dtype=np.int64)
    for stratum in sorted(strata):
        here = [0] * k
        # the largest first, each to the fold that has least: what is left to even out is small
        for _, unit in sorted(strata[stratum], key=lambda one: (-len(one[1]), one[0])):
            fold = min(range(k), key=lambda number: (here[number], total[number], number))
            part[unit] = fold
            here[fold] += len(unit)
            total[fold] += len(unit)
    return [(np.flatnonzero(part != fold), np.flatnonzero(part == fold)) for fold in range(k)]


def _strata(rows: Sequence[LabelledRow], kind: SplitKind, seed: int) -> dict[str, list[tuple[bytes, Unit]]]:
    """The units of each stratum with their hashes, in the order of these; one stratum "" unless stratified.

    The stratum of a row is its label, where it has several the rarest of them (Sechidis et al. 2011); that of a
    unit whose rows disagree is the first in alphabetical order.
    """
    units: dict[bytes, Unit] = {}
    for index, row in enumerate(rows):
        # a row without a group is a group of its own text
        name = b"group " + row.group.encode("utf-8", "surrogatepass") if kind == "grouped" and row.group else row.key
        units.setdefault(name, []).append(index)
    salt = (seed % 2**64).to_bytes(8, "little")
    count = Counter(label for row in rows for label in set(row.labels))
    strata: dict[str, list[tuple[bytes, Unit]]] = {}
    for name, unit in units.items():
        stratum = ""
        if kind == "stratified":
            stratum = min(min(rows[index].labels, key=lambda one: (count[one], one), default="") for index in unit)
        strata.setdefault(stratum, []).append((hashlib.blake2b(name, digest_size=8, salt=salt).digest(), unit))
    return {stratum: sorted(members) for stratum, members in strata.items()}
