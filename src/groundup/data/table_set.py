"""A table made ready: read, divided, checked as a whole, preprocessing fitted on its training rows, and numbers for
every side, with a card whose counts add up.

How batches are drawn is in `table_stream`.

Shapes: N rows of a side, F columns of features, K columns of codes, L labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.data.chat_rows import SetAside
from groundup.data.labelled_check import Shared, contradictions, label_counts, shared_rows
from groundup.data.labelled_options import Side
from groundup.data.labelled_rows import LabelledLedger
from groundup.data.labelled_set import sorted_labels
from groundup.data.labelled_split import divide
from groundup.data.set_faults import SHOWN, SIDES
from groundup.data.table_check import check_columns, check_options, find_table_faults, missing_cells, table_findings
from groundup.data.table_options import TableOptions, TableTask
from groundup.data.table_rows import (
    FoundColumns,
    TableRow,
    find_table_columns,
    read_tables,
    require_columns,
    vet_rows,
)
from groundup.data.table_scaler import Preprocessor


class TablePart(NamedTuple):
    """One side as numbers.

    Attributes:
        rows: in the order of the files.
        features_NF: float32.
        target: classify int64 (N,), multilabel float32 (N, L) of 0 and 1, regress float32 (N,) as the model learns
            it (`rows[…].value` and `Preprocessor.restore_target` are in the unit of the table); None where the rows
            are unlabelled.
        category_NK: int64, the codes of the features that are embedded; None where none are.
    """

    rows: list[TableRow]
    features_NF: NDArray[np.float32]
    target: NDArray[Any] | None
    category_NK: NDArray[np.int64] | None = None

    def first(self, most: int) -> TablePart:
        """Its first rows."""
        return TablePart(
            self.rows[:most],
            self.features_NF[:most],
            None if self.target is None else self.target[:most],
            None if self.category_NK is None else self.category_NK[:most],
        )


class TableSet(NamedTuple):
    """A table ready to be trained on.

    Attributes:
        rows: of all sides, in the order of the files.
        columns: what each column is.
        labels: the labels in the order of their numbers; empty for task regress.
        preprocessor: to be saved with the model.
        parts: one for each side; empty where there is none.
        card: what was read and what became of it, to be stored beside the run.
        findings: what deserves a look, a sentence each, to be shown before training.
    """

    rows: list[TableRow]
    columns: FoundColumns
    labels: list[str]
    preprocessor: Preprocessor
    parts: dict[Side, TablePart]
    card: dict[str, Any]
    findings: list[str]

    @property
    def counts(self) -> dict[str, int]:
        """Training rows of each label."""
        counted = Counter(label for row in self.parts["train"].rows for label in row.labels)
        return {label: counted[label] for label in self.labels}


def read_table(options: TableOptions, aside: list[SetAside]) -> TableSet:
    """Read, divide, check, fit on the training rows, and make numbers of all.

    Args:
        options: what to read.
        aside: takes every row that is set aside, also where this raises; it is what quarantine.jsonl holds.

    Raises:
        GroundupError: the first of all faults of the table with the rest in `others`: E-DATA-003 too many malformed
            rows, -001 an empty set, -112 missing cells that are refused, -111 leaks, -102 labels unseen in training,
            -103 a single answer. E-DATA-015 for options that contradict each other or the columns, -110 for columns
            that are not as needed, -113, -114 and -118 for what cannot be fitted or transformed; and what `read_tables`
            raises.
    """
    check_options(options)
    ledger = LabelledLedger()
    rows, columns = _read(options, ledger, aside)
    leaks = shared_rows(rows)
    if options.split.leaks == "drop":
        rows = _without_leaks(rows, leaks, ledger, aside)
    gaps = missing_cells(rows)
    faults = find_table_faults(rows, options, ledger, aside, gaps, leaks)
    if faults:
        faults[0].others = faults[1:]
        raise faults[0]
    if ledger.rows != ledger.kept + sum(ledger.set_aside.values()) or ledger.kept != len(rows):
        raise AssertionError(f"rows do not add up: {ledger.as_dict()}")
    labels = table_labels(rows, columns, options)
    found = table_findings(rows, columns, labels, options, ledger, aside, gaps)
    if leaks and options.split.leaks == "allow":
        found.append(f"{len(leaks):,} rows share their features with a set that they are measured on; first {leaks[0]}")
    preprocessor = fit_preprocessor([row for row in rows if row.side == "train"], columns, options)
    parts = {
        side: make_part([row for row in rows if row.side == side], preprocessor, options.task, labels) for side in SIDES
    }
    missing = dict(Counter(gap.column for gap in gaps))
    card = _card(rows, columns, options, ledger, leaks, found)
    card |= {"features": len(preprocessor.names), "embedded": list(preprocessor.embedded), "missing": missing}
    return TableSet(rows, columns, labels, preprocessor, parts, card, found)


def read_rows_to_predict(
    files: Sequence[str],
    preprocessor: Preprocessor,
    options: TableOptions,
    aside: list[SetAside],
    *,
    target: Sequence[str] = (),
) -> tuple[list[TableRow], LabelledLedger]:
    """Rows for a trained model, their columns of the kinds that they had in training.

    Args:
        files: as in `TableOptions.files`.
        preprocessor: of the model.
        options: of its training.
        aside: takes every row that is set aside.
        target: the columns of the answers, to measure; without it rows need none.

    Raises:
        GroundupError: E-DATA-110 if a file lacks a column; and what `read_tables` raises.
    """
    columns = FoundColumns(tuple(target), preprocessor.numeric, preprocessor.categorical)
    ledger = LabelledLedger()
    tables = read_tables(files)
    require_columns(tables, columns, labelled=bool(target))
    rows: list[TableRow] = []
    for table in tables:
        _sort_out(vet_rows(table, columns, options, ledger, side="test", labelled=bool(target)), rows, aside)
    return rows, ledger


def fit_preprocessor(train: Sequence[TableRow], columns: FoundColumns, options: TableOptions) -> Preprocessor:
    """The statistics of these rows, and of no others; for cross-validation those of one fold's training part."""
    return Preprocessor.fit(
        [row.cells for row in train],
        numeric=columns.numeric,
        categorical=columns.categorical,
        options=options.preprocessing,
        places=[row.place for row in train],
        values_N=[row.value for row in train if row.value is not None] if options.scale_target else None,
    )


def make_part(
    rows: Sequence[TableRow],
    preprocessor: Preprocessor,
    task: TableTask,
    labels: Sequence[str],
    *,
    labelled: bool = True,
) -> TablePart:
    """Rows as numbers; see `Preprocessor.transform` for what it raises.

    Args:
        labels: in the order of their numbers.
        labelled: False leaves the target out.

    Raises:
        ValueError: a row carries a label that is not among `labels`.
    """
    cells = [row.cells for row in rows]
    features = preprocessor.transform(cells, [row.place for row in rows])
    target = _target(rows, preprocessor, task, labels) if labelled else None
    return TablePart(list(rows), features, target, preprocessor.codes_of(cells))


def table_labels(rows: Iterable[TableRow], columns: FoundColumns, options: TableOptions) -> list[str]:
    """The labels in the order of their numbers: as listed, the columns that stand for them, or sorted."""
    if options.task == "regress":
        return []
    if len(columns.target) > 1:
        return list(columns.target)
    return list(options.labels or sorted_labels({label for row in rows for label in row.labels}))


def _target(
    rows: Sequence[TableRow], preprocessor: Preprocessor, task: TableTask, labels: Sequence[str]
) -> NDArray[Any]:
    if task == "regress":
        return preprocessor.scaled_target(row.value for row in rows if row.value is not None)
    number = {label: index for index, label in enumerate(labels)}
    stranger = next(((row, label) for row in rows for label in row.labels if label not in number), None)
    if stranger is not None:
        raise ValueError(f"{stranger[0].place}: label {stranger[1]!r} is not among the {len(number)} labels")
    if task == "classify":
        return np.array([number[row.labels[0]] for row in rows], dtype=np.int64)
    several = np.zeros((len(rows), len(labels)), dtype=np.float32)
    for index, row in enumerate(rows):
        several[index, [number[label] for label in row.labels]] = 1.0
    return several


def _read(options: TableOptions, ledger: LabelledLedger, aside: list[SetAside]) -> tuple[list[TableRow], FoundColumns]:
    """The rows of all sides, divided, and what their columns are."""
    files: dict[Side, list[str]] = {
        "train": options.files, "validation": options.validation_files, "test": options.test_files
    }  # fmt: skip
    tables = {side: read_tables(files[side]) for side in SIDES}
    columns = find_table_columns(tables["train"], options)
    check_columns(columns, options)
    rows: dict[Side, list[TableRow]] = {side: [] for side in SIDES}
    for side in SIDES:
        of_side = columns if side == "train" else columns._replace(group=None, time=None)
        require_columns(tables[side], columns._replace(group=None, time=None))
        for table in tables[side]:
            _sort_out(vet_rows(table, of_side, options, ledger, side=side), rows[side], aside)
    split = options.split
    divided = divide(
        rows["train"],
        split,
        options.split_kind,
        ledger,
        aside,
        test=0.0 if options.test_files else split.test,
        validation=0.0 if options.validation_files else split.validation,
    )
    return [*divided, *rows["validation"], *rows["test"]], columns


def _sort_out(items: Iterable[TableRow | SetAside], rows: list[TableRow], aside: list[SetAside]) -> None:
    for item in items:
        if isinstance(item, SetAside):
            aside.append(item)
        else:
            rows.append(item)


def _without_leaks(
    rows: list[TableRow], leaks: Sequence[Shared], ledger: LabelledLedger, aside: list[SetAside]
) -> list[TableRow]:
    aside += [ledger.withdraw(leak.row, f"its features also stand in the {leak.like.side} set") for leak in leaks]
    gone = {id(leak.row) for leak in leaks}
    return [row for row in rows if id(row) not in gone]


def _card(
    rows: Sequence[TableRow],
    columns: FoundColumns,
    options: TableOptions,
    ledger: LabelledLedger,
    leaks: Sequence[Shared],
    found: list[str],
) -> dict[str, Any]:
    disputed = contradictions(rows)
    sides = Counter(row.side for row in rows)
    train = [(row.key, row.answer) for row in rows if row.side == "train"]
    card: dict[str, Any] = {
        "task": options.task,
        "rows": ledger.as_dict(),
        "sides": {side: sides[side] for side in SIDES},
        "columns": {
            "target": list(columns.target),
            "numeric": list(columns.numeric),
            "categorical": list(columns.categorical),
            "group": columns.group,
        },
        "labels": dict(sorted(label_counts(rows).items())),
        "split": {"kind": options.split_kind, "seed": options.split.seed},
        "leaks": {
            "policy": options.split.leaks, "count": len(leaks), "examples": [str(one) for one in leaks[:SHOWN]]
        },
        "contradictions": {"count": len(disputed), "examples": [str(one) for one in disputed[:SHOWN]]},
        "repeated_training_rows": len(train) - len(set(train)),
        "findings": found,
    }  # fmt: skip
    values = {side: [row.value for row in rows if row.side == side and row.value is not None] for side in SIDES}
    if options.task == "regress":
        card["values"] = {
            side: {"least": min(here), "mean": sum(here) / len(here), "most": max(here)}
            for side, here in values.items()
            if here
        }
    return card
