"""Rows of tables of numbers and categories, each vetted cell by cell, or set aside with its place and reason.

Which column is what is decided here; scaling, the split and the set as a whole are decided elsewhere, and tensors
do not enter.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from groundup.data.builtin_tables import is_builtin, read_builtin
from groundup.data.chat_layout import RowFault
from groundup.data.chat_records import Record, read_records
from groundup.data.chat_rows import SetAside
from groundup.data.labelled_options import GROUP, LABEL, TIME, VALUE, Side
from groundup.data.labelled_rows import LabelledLedger, LabelledRow, moment_of
from groundup.data.sources import open_sources
from groundup.data.table_cells import Cell, category_of, is_missing, number_of, shown
from groundup.data.table_options import TableOptions
from groundup.errors import GroundupError, nearest, printable

YES, NO = ("1", "1.0", "true"), ("0", "0.0", "false")
"""What a column that stands for one label of several may hold, in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow(LabelledRow):
    """One row of a table.

    Attributes:
        cells: the features by name; numbers are floats, NaN or infinite where missing.
        text: the first cells, for messages.
        key: the hash of all features: equal for rows that no model can tell apart.
    """

    cells: Mapping[str, Cell]


class RawTable(NamedTuple):
    """One file as it was read; `names` are its columns in order."""

    name: str
    names: list[str]
    records: list[Record]
    size: int
    sha256: str


class FoundColumns(NamedTuple):
    """The columns of a table by what they are; `target` has several names for task multilabel alone."""

    target: tuple[str, ...]
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    group: str | None = None
    time: str | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Numbers first, then categories: the order of the columns that a model sees."""
        return self.numeric + self.categorical


def read_tables(files: Sequence[str]) -> list[RawTable]:
    """Every file, and every built-in table that is named after them, whole.

    Raises:
        GroundupError: E-DATA-110 for a file without named columns, -119 for a table that is not built in; E-DATA-002,
            -008, -009 and -014 for files that cannot be read.
    """
    paths = [name for name in files if not is_builtin(name)]
    sources = open_sources(paths, [])[0] if paths else []
    tables = []
    for source in sources:
        if source.format == "text":
            raise _columns_fault([f"{printable(source.name)} is plain text, which has no columns"], [], [])
        tables.append(_raw(source.name, list(read_records(source)), source.size, source.sha256))
    for name in dict.fromkeys(filter(is_builtin, files)):
        found = read_builtin(name)
        tables.append(_raw(name, found.records, found.size, found.sha256))
    return tables


def _raw(name: str, records: list[Record], size: int, sha256: str) -> RawTable:
    names = list(dict.fromkeys(column for record in records for column in record.fields or ()))
    return RawTable(name, names, records, size, sha256)


def find_table_columns(tables: Sequence[RawTable], options: TableOptions) -> FoundColumns:
    """What each column of the training files is: as named; a feature that is not named is numeric if more of its
    cells are numbers than are not.

    Raises:
        GroundupError: E-DATA-110 with every column that is missing, not recognised or lacking in one of the files.
    """
    named = options.columns
    names = list(dict.fromkeys(name for table in tables for name in table.names))
    if not names:
        return FoundColumns((), (), ())  # nothing was read; why is said where the rows are counted
    known = {name.strip().casefold(): name for name in reversed(names)}
    usual = VALUE + LABEL if options.task == "regress" else LABEL + VALUE
    found = next((known[name] for name in usual if name in known), None)
    target = (found,) if named.target is None else named.target
    targets = tuple(name for name in ((target,) if isinstance(target, str) else target) if name is not None)
    group = None
    if options.split_kind == "grouped":
        group = named.group or next((known[name] for name in GROUP if name in known), None)
    time = None
    if options.split_kind == "time":
        time = named.time or next((known[name] for name in TIME if name in known), None)
    asked = [*targets, *named.numeric, *named.categorical, *named.ignore, *filter(None, (group, time))]
    unknown = [name for name in asked if name not in names]
    apart = {*targets, *named.ignore, group, time}
    features = [name for name in names if name not in apart]
    problems = [f"no column {printable(name, 60)!r}" for name in unknown]
    problems += [] if targets else ["none is known as the target"]
    problems += ["none is known as the group"] if options.split_kind == "grouped" and not group else []
    problems += ["none is known as the time"] if options.split_kind == "time" and not time else []
    problems += [] if features else ["none is left to be a feature"]
    nameless = "a column has no name, as row numbers do: give it one, or leave it out with data.columns.ignore=['']"
    problems += [nameless] if "" in features else []
    if problems:
        raise _columns_fault(problems, names, unknown)
    numeric = [
        name for name in features
        if name in named.numeric or (name not in named.categorical and _mostly_numbers(tables, name))
    ]  # fmt: skip
    categorical = [name for name in features if name not in numeric]
    columns = FoundColumns(targets, tuple(numeric), tuple(categorical), group, time)
    require_columns(tables, columns)
    return columns


def require_columns(tables: Sequence[RawTable], columns: FoundColumns, *, labelled: bool = True) -> None:
    """Every file has every column, or E-DATA-110."""
    needed = [*columns.features, *(columns.target if labelled else ())]
    needed += [*filter(None, (columns.group, columns.time))] if labelled else []
    problems, lacking = [], []
    for table in tables:
        missing = [name for name in needed if name not in table.names]
        if table.names and missing:
            lacking += missing
            listed = ", ".join(repr(printable(name, 60)) for name in missing[:10])
            more = f" and {len(missing) - 10:,} more" if len(missing) > 10 else ""
            problems.append(f"{printable(table.name)} has no column {listed}{more}")
    if problems:
        names = next(table.names for table in tables if table.names and set(needed) - set(table.names))
        raise _columns_fault(problems, names, lacking)


def vet_rows(
    table: RawTable,
    columns: FoundColumns,
    options: TableOptions,
    ledger: LabelledLedger,
    *,
    side: Side = "train",
    labelled: bool = True,
) -> Iterator[TableRow | SetAside]:
    """Every row of a file in order; `ledger` counts along.

    Args:
        columns: what each column is; those of the preprocessor where a trained model predicts.
        side: the set that the rows belong to for now.
        labelled: False reads rows to predict: targets and groups are neither needed nor looked at.
    """
    shown_columns = f"{len(columns.numeric)} numbers, {len(columns.categorical)} categories"
    ledger.files[table.name] = {
        "set": side, "rows": 0, "bytes": table.size, "sha256": table.sha256, "columns": shown_columns
    }  # fmt: skip
    for line, fields, problem in table.records:
        ledger.rows += 1
        ledger.files[table.name]["rows"] += 1
        try:
            if fields is None:
                raise RowFault(problem or "the row cannot be read")
            row = _row(fields, columns, options, table.name, line, side, labelled)
        except RowFault as fault:
            aside = SetAside(table.name, line, fault.reason, fault.field, fault.malformed, fields)
            ledger.reject(aside)
            yield aside
        else:
            ledger.kept += 1
            yield row


def _row(
    fields: Mapping[str, Any],
    columns: FoundColumns,
    options: TableOptions,
    file: str,
    line: int,
    side: Side,
    labelled: bool,
) -> TableRow:
    cells: dict[str, Cell] = {}
    numeric = len(columns.numeric)
    for place, name in enumerate(columns.features):
        read: Callable[[Any], Cell] = number_of if place < numeric else category_of
        try:
            cells[name] = read(fields.get(name))
        except ValueError as error:
            what, _, held = str(error).partition(": ")
            raise RowFault(f'column "{printable(name, 60)}" is {what}: {held}', name) from error
    if options.preprocessing.missing == "drop":
        empty = next((name for name, cell in cells.items() if is_missing(cell)), None)
        if empty is not None:
            raise RowFault(f"a feature is missing: {printable(empty, 60)}", empty, malformed=False)
    labels: tuple[str, ...] = ()
    value: float | None = None
    if labelled:
        labels, value = _answer(fields, columns.target, options)
    group = "" if columns.group is None or not labelled else str(fields.get(columns.group) or "").strip()
    time = None if columns.time is None or not labelled else moment_of(fields.get(columns.time), columns.time)
    text = ", ".join(f"{name}={cells[name]}" for name in columns.features[:4])
    key = _key(cells)
    return TableRow(
        text=text, key=key, file=file, line=line, side=side, labels=labels, value=value, group=group, time=time,
        cells=cells,
    )  # fmt: skip


def _key(cells: Mapping[str, Cell]) -> bytes:
    """The hash of all features, whatever the order of the columns."""
    # 0.0 added makes -0.0 the 0.0 that it equals
    values = [(name, cell + 0.0 if isinstance(cell, float) else cell) for name, cell in sorted(cells.items())]
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _answer(
    fields: Mapping[str, Any], target: tuple[str, ...], options: TableOptions
) -> tuple[tuple[str, ...], float | None]:
    """The labels and the value of a row."""
    absent = next((name for name in target if name not in fields), None)
    if absent is not None:
        raise RowFault(f'field "{printable(absent, 60)}" is missing', absent)
    if len(target) > 1:
        return tuple(name for name in target if _holds(fields[name], name)), None
    (name,) = target
    cell = fields[name]
    if options.task == "regress":
        return (), _value(cell, name)
    if options.task == "multilabel" and isinstance(cell, str) and options.label_separator:
        cell = [part for part in cell.split(options.label_separator) if part.strip()]
    if options.task == "multilabel" and isinstance(cell, list):
        labels = sorted({_label(one, name) for one in cell})
    else:
        labels = [_label(cell, name)]
    unknown = [label for label in labels if options.labels is not None and label not in options.labels]
    if unknown:
        raise RowFault(f"the label is not in data.labels: {shown(unknown[0])}", name)
    return tuple(labels), None


def _label(cell: Any, name: str) -> str:
    if isinstance(cell, float) and not math.isfinite(cell):
        raise RowFault(f"the label is not finite: {cell}", name)
    try:
        label = category_of(cell)
    except ValueError as error:
        raise RowFault(f"the label is {error}", name) from error
    if label is None:
        raise RowFault("the label is empty", name, malformed=False)
    return label


def _value(cell: Any, name: str) -> float:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise RowFault("the target is empty", name, malformed=False)
    try:
        value = number_of(cell)
    except ValueError as error:
        raise RowFault(f"the target is {error}", name) from error
    if not math.isfinite(value):
        raise RowFault(f"the target is not finite: {printable(repr(cell), 60)}", name)
    return value


def _holds(cell: Any, name: str) -> bool:
    """Whether a row has the label that a column stands for."""
    said = _label(cell, name).casefold()
    if said not in YES + NO:
        raise RowFault(f'label column "{printable(name, 60)}" holds neither 0 nor 1: {shown(cell)}', name)
    return said in YES


def _mostly_numbers(tables: Sequence[RawTable], name: str) -> bool:
    numbers = others = 0
    for table in tables:
        for record in table.records:
            try:
                number = number_of((record.fields or {}).get(name))
            except ValueError:
                others += 1
            else:
                numbers += not math.isnan(number)
    return numbers > others or not others


def _columns_fault(problems: Sequence[str], names: Sequence[str], missing: Sequence[str]) -> GroundupError:
    listed = ", ".join(printable(name, 40) for name in names[:30]) or "none"
    more = f" and {len(names) - 30:,} more" if len(names) > 30 else ""
    close = [f"{name!r} may be {near!r}" for name in missing if (near := nearest(name, list(names)))]
    return GroundupError(
        "E-DATA-110",
        f"the columns of the table are not as needed: {problems[0]}"
        + (f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""),
        where="\n".join([*problems[:10], f"the columns are: {listed}{more}"]),
        why="a model sees the same columns in the same order, in training and ever after",
        fix="name them: data.columns.target=NAME, and data.columns.ignore=[NAME] for those that are no features"
        + (f"\n{printable('; '.join(close[:5]))}" if close else "")
        + "\na table without a first line of column names needs one",
        exit_code=2,
    )
