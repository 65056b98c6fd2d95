"""Which rows train, validate and test; and k folds for cross-validation.

Rows of one text (of one group, where groups are asked for; of one moment, where time divides) are a unit that is never
divided. Units are put in the order of a hash of their name and a seed, or of time, so that the outcome depends neither
on the order of the rows nor on the machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from groundup.data.chat_rows import SetAside
from groundup.data.labelled_options import Fold, LabelledSplit, Side, SplitKind
from groundup.data.labelled_rows import LabelledLedger, LabelledRow
from groundup.errors import GroundupError

Unit = list[int]
"""The indices of rows that stay together."""
Row = TypeVar("Row", bound=LabelledRow)


def divide(
    rows: Sequence[Row],
    split: LabelledSplit,
    kind: SplitKind,
    ledger: LabelledLedger,
    aside: list[SetAside],
    *,
    test: float,
    validation: float,
) -> list[Row]:
    """The rows with their sides, by shares or by folds; those that a fold leaves out are set aside. Arguments as for
    `assign_sides`."""
    if split.folds:
        sides = fold_sides(rows, split.folds, kind, seed=split.seed, validation=validation)
    else:
        sides = [*assign_sides(rows, split, kind, test=test, validation=validation)]
    divided = []
    for row, side in zip(rows, sides, strict=True):
        if side is None:
            aside.append(ledger.withdraw(row, "this fold of the cross-validation leaves it out"))
        else:
            divided.append(row if side == row.side else dataclasses.replace(row, side=side))
    return divided


def split_faults(
    split: LabelledSplit, kind: SplitKind, *, group: str | None, time: str | None, test_files: Sequence[str]
) -> list[str]:
    """What contradicts itself in the options of a division: a sentence each.

    Args:
        split: the options.
        kind: the kind that applies.
        group, time: the columns that are named for them.
        test_files: those of the test set, if it has any.
    """
    wrong = []
    if split.test + split.validation >= 1:
        wrong.append(
            f"data.split.test {split.test} and data.split.validation {split.validation} leave nothing to train"
        )
    if group is not None and kind != "grouped":
        wrong.append(f"data.columns.group is set, but data.split.kind is {kind}")
    if time is not None and kind != "time":
        wrong.append(f"data.columns.time is set, but data.split.kind is {kind}")
    if split.folds and test_files:
        wrong.append("data.split.folds is set, but data.test_files are the test set already")
    for place, fold in enumerate(split.folds):
        if fold.number >= fold.of:
            wrong.append(f"data.split.folds.{place}.number is {fold.number}, but {fold.of} folds count from 0")
    return wrong


def assign_sides(
    rows: Sequence[LabelledRow], split: LabelledSplit, kind: SplitKind, *, test: float, validation: float
) -> list[Side]:
    """The side of each row.

    Args:
        rows: of one task.
        split: whose seed counts; its shares and folds do not.
        kind: `random`: a unit's side follows from its own hash alone; the shares hold on average. `stratified`:
            for rows of distinct texts each label has its shares within one row on every side, and training has
            every label. `grouped`: whole groups, as near to the shares of rows as they come. `time`: whole moments,
            the latest for test, those before them for validation.
        test, validation: shares of rows, 0 to 1, together below 1.
    """
    sides: list[Side] = ["train"] * len(rows)
    shares: tuple[tuple[Side, float], ...] = (("test", test), ("validation", validation))
    if kind == "time":
        latest = moments(rows)[::-1]
        for side, share in shares:
            taken = _first(latest[:-1], max(1, round(len(rows) * share))) if share > 0 else []
            latest = latest[len(taken) :]
            for index in (index for unit in taken for index in unit):
                sides[index] = side
        return sides
    strata = _strata(rows, kind, split.seed)
    if kind == "random":
        for rank, unit in strata.get("", []):
            place = int.from_bytes(rank) / 2**64
            side = "test" if place < test else "validation" if place < test + validation else "train"
            for index in unit:
                sides[index] = side
        return sides
    owed: dict[Side, float] = {"test": 0.0, "validation": 0.0}
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

    With `time` the rows are cut into k + 1 parts of as many moments; fold i trains on the first i + 1 of them and tests
    on the next, so that no model knows what came later (Tashman 2000, expanding window), and the earliest part is
    never tested on.

    Raises:
        GroundupError: E-DATA-104 if there are fewer units than parts; E-DATA-108 for times that have no order.
    """
    if kind == "time":
        return _expanding(moments(rows), k)
    strata = _strata(rows, kind, seed)
    units = sum(map(len, strata.values()))
    if not 2 <= k <= units:
        raise _too_few(units, "groups" if kind == "grouped" else "different texts", k, units, len(rows), kind)
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


def fold_sides(
    rows: Sequence[LabelledRow], chain: Sequence[Fold], kind: SplitKind, *, seed: int, validation: float
) -> list[Side | None]:
    """The side of each row in one fold; None for those that the fold leaves out.

    Args:
        rows: of one task.
        chain: the fold; a second one divides the rows that the first trains on, whose test rows are left out.
        kind, seed: as for `folds`.
        validation: share of the rows to train on, 0 to 1, that is the validation set.
    """
    fold, deeper = chain[0], chain[1:]
    train, test = folds(rows, fold.of, seed=seed, kind=kind)[fold.number]
    sides: list[Side | None] = [None] * len(rows)
    inner = [rows[index] for index in train]
    inner_sides: list[Side | None]
    if deeper:
        kept = _thinned(inner, fold.share, kind, seed)
        thin = [inner[index] for index in kept]
        inner_sides = [None] * len(inner)
        for index, side in zip(kept, fold_sides(thin, deeper, kind, seed=seed, validation=validation), strict=True):
            inner_sides[index] = side
    else:
        options = LabelledSplit(seed=seed)
        inner_sides = [*assign_sides(inner, options, kind, test=0.0, validation=validation)]
        learned = [index for index, side in enumerate(inner_sides) if side == "train"]
        kept = _thinned([inner[index] for index in learned], fold.share, kind, seed)
        for place in set(range(len(learned))) - set(kept):
            inner_sides[learned[place]] = None
        for index in test:
            sides[index] = "test"
    for index, side in zip(train, inner_sides, strict=True):
        sides[index] = side
    return sides


def _thinned(rows: Sequence[LabelledRow], share: float, kind: SplitKind, seed: int) -> list[int]:
    """The indices of about a share of the rows, ascending: of each stratum those whose hashes come last, or the latest;
    a smaller share is part of every larger one."""
    if share >= 1.0:
        return list(range(len(rows)))
    if kind == "time":
        strata = {"": moments(rows)}
    else:
        strata = {name: [unit for _, unit in members] for name, members in _strata(rows, kind, seed).items()}
    kept: list[int] = []
    for units in strata.values():
        total = sum(map(len, units))
        kept += [index for unit in _first(units[::-1], max(1, round(total * share))) for index in unit]
    return sorted(kept)


def _first(units: Sequence[Unit], wanted: int) -> list[Unit]:
    """The first units, until they have `wanted` rows."""
    before = np.cumsum([0, *map(len, units)])[:-1]
    return [unit for unit, size in zip(units, before, strict=True) if size < wanted]


def moments(rows: Sequence[LabelledRow]) -> list[Unit]:
    """Rows of one time together, in the order of time.

    Raises:
        GroundupError: E-DATA-108 if a time is missing, or some are dates and others plain numbers.
    """
    first = {row.time and row.time.dated: row for row in reversed(rows)}
    if len(first) > 1 or None in first:
        names = {None: "no time", False: "a number", True: "a date"}
        raise GroundupError(
            "E-DATA-108",
            "the rows cannot be put in the order of time",
            where="\n".join(f"{row.place}: {names[kind]}" for kind, row in first.items()),
            why="a split by time needs the time of every row, all of one kind",
            fix="write all times as dates, such as 2026-03-31 or 2026-03-31T12:00, or all as numbers",
            exit_code=2,
        )
    units: dict[float, Unit] = {}
    for index, row in enumerate(rows):
        assert row.time is not None
        units.setdefault(row.time.value, []).append(index)
    return [units[value] for value in sorted(units)]


def _expanding(units: Sequence[Unit], k: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """k folds forward in time."""
    if not 2 <= k < len(units):
        raise _too_few(len(units), "moments", k, len(units) - 1, sum(map(len, units)), "time")
    edges = [part[0] for part in np.array_split(np.arange(len(units)), k + 1)] + [len(units)]

    def rows_of(start: int, end: int) -> NDArray[np.int64]:
        return np.array(sorted(index for unit in units[start:end] for index in unit), dtype=np.int64)

    return [(rows_of(0, edges[i + 1]), rows_of(edges[i + 1], edges[i + 2])) for i in range(k)]


def _too_few(units: int, what: str, k: int, most: int, rows: int, kind: SplitKind) -> GroundupError:
    return GroundupError(
        "E-DATA-104",
        f"{units:,} {what} do not make {k:,} folds",
        where=f"{rows:,} rows, split {kind}",
        why="each fold tests on rows that the others train on, so each needs one at least, and two folds are few",
        fix=f"ask for 2 to {most} folds" if most >= 2 else "give more rows",
        exit_code=2,
    )


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
