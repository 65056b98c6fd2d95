"""What is wrong or odd with a table as a whole, found before anything is trained on it.

Faults stop; all of them are raised together. Findings are sentences for the card and the screen. Rows are
counted and compared here, never changed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from groundup.data.chat_rows import SetAside
from groundup.data.labelled_check import Shared, contradictions, label_counts, shortened
from groundup.data.labelled_rows import LabelledLedger
from groundup.data.labelled_split import split_faults
from groundup.data.set_faults import (
    SHOWN,
    SIDES,
    and_more,
    empty_side,
    refuse_contradictions,
    too_many_malformed,
    what_was_set_aside,
)
from groundup.data.table_cells import is_missing
from groundup.data.table_faults import BadCell, missing_fault
from groundup.data.table_options import TableOptions
from groundup.data.table_rows import FoundColumns, TableRow
from groundup.errors import GroundupError, printable

MANY = 20
"""Categories from which on a feature is suspected to be a name rather than a kind."""


def check_options(options: TableOptions) -> None:
    """E-DATA-015 with every option that contradicts another."""
    split, task, columns, prepared = options.split, options.task, options.columns, options.preprocessing
    several = isinstance(columns.target, list)
    wrong = split_faults(
        split, options.split_kind, group=columns.group, time=columns.time, test_files=options.test_files
    )
    for field, names in (("labels", options.labels or []), ("columns.target", columns.target if several else [])):
        twice = sorted(name for name, count in Counter(names or []).items() if count > 1)
        wrong += [f"data.{field} names twice: {printable(', '.join(twice))}"] if twice else []
    roles = {"numeric": columns.numeric, "categorical": columns.categorical, "ignore": columns.ignore}
    roles["target"] = list(columns.target) if isinstance(columns.target, list) else [columns.target or ""]
    roles |= {"group": [columns.group or ""], "time": [columns.time or ""]}
    count = Counter(name for names in roles.values() for name in set(names) if name)
    both = sorted(name for name, number in count.items() if number > 1)
    wrong += [f"data.columns gives more than one part to: {printable(', '.join(both))}"] if both else []
    if several and len(columns.target or ()) < 2:
        wrong.append("data.columns.target lists fewer than two columns: for one, write its name and task classify")
    if several and task != "multilabel":
        wrong.append(f"data.columns.target is a list, but task {task} has one target")
    if options.labels is not None and (task == "regress" or several):
        wrong.append("data.labels is set, but the " + ("columns are the labels" if several else "target is a number"))
    if options.label_separator is not None and (task != "multilabel" or several):
        wrong.append("data.label_separator is set, but a cell of the target holds one answer")
    if split.kind == "stratified" and task == "regress":
        wrong.append("data.split.kind is stratified, but task regress has no labels to keep the shares of")
    if options.balanced and task != "classify":
        wrong.append(f"data.balanced is set, but task {task} has not one label a row to draw equally often")
    if prepared.missing_indicator and prepared.missing in ("refuse", "drop"):
        wrong.append(f"data.preprocessing.missing_indicator is set, but missing: {prepared.missing} leaves none")
    if prepared.scale_target is not None and task != "regress":
        wrong.append(f"data.preprocessing.scale_target is set, but the target of task {task} is no number")
    refuse_contradictions(wrong)


def check_columns(columns: FoundColumns, options: TableOptions) -> None:
    """E-DATA-015 with every option for a kind of column that the table does not have."""
    wrong = []
    if options.noise and not columns.numeric:
        wrong.append("data.noise is set, but the table has no numeric feature")
    if options.preprocessing.rare and not columns.categorical:
        wrong.append("data.preprocessing.rare is set, but the table has no categorical feature")
    if options.preprocessing.categories == "embed" and not columns.categorical:
        wrong.append("data.preprocessing.categories is embed, but the table has no categorical feature")
    refuse_contradictions(wrong)


def find_table_faults(
    rows: Sequence[TableRow],
    options: TableOptions,
    ledger: LabelledLedger,
    aside: Sequence[SetAside],
    gaps: Sequence[BadCell],
    leaks: Sequence[Shared],
) -> list[GroundupError]:
    """Everything that forbids to train on this table, whose missing cells and shared rows are given."""
    refuse = options.preprocessing.missing == "refuse"
    found = [
        too_many_malformed(
            ledger,
            aside,
            options.malformed_limit,
            why="a mismatch here usually means a column of the other kind, the wrong target, or a damaged export",
            fix="mend the rows; text in a column of numbers can be learned as categories: "
            "data.columns.categorical=[NAME]\nor leave such a column out: data.columns.ignore=[NAME]",
        ),
        empty_side(rows, options, ledger, aside),
        missing_fault(gaps, len(rows)) if gaps and refuse else None,
        _leaked(leaks) if options.split.leaks == "refuse" else None,
        _unseen_labels(rows),
        _single(rows),
    ]
    return [fault for fault in found if fault is not None]


def missing_cells(rows: Sequence[TableRow]) -> list[BadCell]:
    """Features that are empty, NaN or infinite, row by row."""
    return [
        BadCell(row.place, name, cell) for row in rows for name, cell in row.cells.items() if is_missing(cell)
    ]  # fmt: skip


def table_findings(
    rows: Sequence[TableRow],
    columns: FoundColumns,
    labels: Sequence[str],
    options: TableOptions,
    ledger: LabelledLedger,
    aside: Sequence[SetAside],
    gaps: Sequence[BadCell],
) -> list[str]:
    """What deserves a look but does not stop: a sentence each, with counts and an example."""
    found = what_was_set_aside(ledger, aside)
    disputed = contradictions(rows)
    if disputed:
        found.append(f"{len(disputed):,} sets of equal features stand with different answers; first {disputed[0]}")
    train = [row for row in rows if row.side == "train"]
    infinities = Counter(gap.column for gap in gaps if gap.value in (math.inf, -math.inf))
    for name, count in Counter(gap.column for gap in gaps).most_common():
        infinite = infinities[name]
        found.append(
            f"column {printable(name, 60)!r}: {count:,} of {len(rows):,} cells are missing"
            + (f", {infinite:,} of them infinite" if infinite else "")
            + f"; data.preprocessing.missing={options.preprocessing.missing} fills them in"
        )
    for name in columns.features:
        values = {row.cells[name] for row in train}
        if len(values) == 1 and len(train) > 1:
            found.append(f"column {printable(name, 60)!r} is the same in all {len(train):,} training rows")
        elif name in columns.categorical and len(values) > max(MANY, len(train) // 2):
            found.append(
                f"column {printable(name, 60)!r} has {len(values):,} categories in {len(train):,} training rows: if it "
                "names the rows, leave it out with data.columns.ignore"
            )
    for side in SIDES[1:]:
        here = [row for row in rows if row.side == side]
        if len(here) > 1 and len({row.answer for row in here}) == 1:
            found.append(f"all {len(here):,} rows of the {side} set have the answer {printable(here[0].answer, 60)!r}")
    absent = sorted(set(labels) - {label for row in train for label in row.labels})
    if absent:
        found.append(f"labels that no training row carries: {printable(', '.join(absent))}")
    return found


def _leaked(leaks: Sequence[Shared]) -> GroundupError | None:
    if not leaks:
        return None
    return GroundupError(
        "E-DATA-111",
        f"{len(leaks):,} rows have the same features as a row of a set that they are measured on",
        where=and_more([str(leak) for leak in leaks[:SHOWN]], len(leaks)),
        why="what was seen in training is recognised, not predicted: the measured numbers would be too good",
        fix="take the rows out of the training side: data.split.leaks=drop\n"
        "or go on and have it said in the card: data.split.leaks=allow",
    )


def _unseen_labels(rows: Sequence[TableRow]) -> GroundupError | None:
    counts = label_counts(rows)
    unseen = sorted(label for label, sides in counts.items() if not sides["train"])
    if not unseen or not any(row.side == "train" for row in rows):
        return None
    lines = []
    for label in unseen[:SHOWN]:
        first = next(row for row in rows if label in row.labels)
        where = ", ".join(f"{count:,} in {side}" for side, count in counts[label].items() if count)
        lines.append(f"{printable(label, 60)!r}: {where}, first {first.place}: {shortened(first)}")
    if len(unseen) > SHOWN:
        lines.append(f"and {len(unseen) - SHOWN:,} more")
    return GroundupError(
        "E-DATA-102",
        f"{len(unseen):,} labels are measured but never seen in training",
        where="\n".join(lines),
        why="a label without a training row cannot be learned, so every row that carries it would count as wrong",
        fix="mend the spelling if it is another label, or add training rows that carry it\n"
        "or, if one table is divided, set data.split.kind=stratified",
    )


def _single(rows: Sequence[TableRow]) -> GroundupError | None:
    train = [row for row in rows if row.side == "train"]
    if len({row.answer for row in train}) != 1:
        return None
    return GroundupError(
        "E-DATA-103",
        f"all {len(train):,} training rows have the answer {printable(train[0].answer, 60)!r}",
        where=f"first {train[0].place}: {shortened(train[0])}",
        why="where there is one answer there is nothing to tell apart, and any model would be right at once",
        fix="add rows with other answers, or name the right column: data.columns.target=NAME\n"
        "a file sorted by its target that was cut gives this too",
    )
