"""Rows of a table, each with its text and its answer, or set aside with its place and reason.

What a label means as a number, the split and the set as a whole are decided elsewhere; tokenizers and tensors
do not enter here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from groundup.data.chat_layout import RowFault
from groundup.data.chat_records import LONGEST_ROW, Record, read_records
from groundup.data.chat_rows import ROWS_TO_DETECT, SetAside
from groundup.data.labelled_columns import Found, find_columns
from groundup.data.labelled_options import LabelledOptions, Side, Task
from groundup.data.segments import Cutting, segments
from groundup.data.sources import Source, open_sources
from groundup.errors import printable

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Moment(NamedTuple):
    """When a row is from: a date in seconds since 1970 (without a zone in UTC), or a plain number."""

    dated: bool
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRow:
    """One row, its answer still in words.

    Attributes:
        text: the text; task tag: the words with a space between.
        key: the hash of what makes two rows the same question: the texts whatever their case and spacing
            (tasks embed and choice: the first text alone).
        file, line: where it stands; `line` counts from 1 (parquet: the row).
        side: the set it belongs to.
        other: the second text.
        labels: task classify one, multilabel any number in alphabetical order, tag one for each word.
        value: task regress.
        words: task tag.
        candidates: task choice.
        choice: task choice: the number of the right candidate, from 0.
        group: what a grouped split goes by; empty if the row has none.
        time: what a split by time goes by.
    """

    text: str
    key: bytes
    file: str
    line: int
    side: Side = "train"
    other: str | None = None
    labels: tuple[str, ...] = ()
    value: float | None = None
    words: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    choice: int | None = None
    group: str = ""
    time: Moment | None = None

    @property
    def place(self) -> str:
        """`FILE:LINE`."""
        return f"{self.file}:{self.line}"

    @property
    def answer(self) -> str:
        """The answer as one text: what two rows of one key must agree on."""
        if self.candidates:
            return "" if self.choice is None else self.candidates[self.choice]
        return " ".join(self.labels) if self.value is None else repr(self.value).removesuffix(".0")


@dataclass
class LabelledLedger:
    """What became of every row: `rows` = `kept` + the sum of `set_aside`, always.

    `files` says for each file its set, rows, bytes, digest, and which of its columns were read.
    """

    rows: int = 0
    kept: int = 0
    malformed: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def reject(self, aside: SetAside) -> None:
        """A row came in and is set aside; what follows a colon in the reason is about that row alone."""
        self.set_aside[aside.reason.split(": ")[0]] += 1
        self.malformed += aside.malformed

    def withdraw(self, row: LabelledRow, reason: str) -> SetAside:
        """A row that was kept is set aside after all."""
        self.kept -= 1
        self.set_aside[reason] += 1
        record = {"text": row.text, "answer": row.answer, "side": row.side}
        return SetAside(row.file, row.line, reason, "", False, record)

    def as_dict(self) -> dict[str, Any]:
        """For a data card: the commonest reasons first."""
        reasons = dict(sorted(self.set_aside.items(), key=lambda item: (-item[1], item[0])))
        return {
            "rows": self.rows,
            "kept": self.kept,
            "malformed": self.malformed,
            "set_aside": reasons,
            "files": {name: dict(entry) for name, entry in self.files.items()},
        }


def read_rows(
    files: Sequence[str | Path],
    options: LabelledOptions,
    ledger: LabelledLedger,
    *,
    side: Side = "train",
    labelled: bool = True,
) -> Iterator[LabelledRow | SetAside]:
    """Every row of the files in order; `ledger` counts along.

    Args:
        files: files, folders and globs.
        options: the task and the columns.
        side: the set that the rows belong to for now.
        labelled: False reads texts to predict: labels are neither needed nor looked at.

    Raises:
        GroundupError: E-DATA-100 if the columns of a file are not known; E-DATA-002, -008, -009 and -014 for
            files that cannot be read.
    """
    sources, _ = open_sources([str(name) for name in files], [])
    for source in sources:
        records = _tabbed_lines(source, options.task, labelled) if source.format == "text" else read_records(source)
        head = list(itertools.islice(records, ROWS_TO_DETECT))
        names = list(dict.fromkeys(name for record in head for name in record.fields or ()))
        columns = find_columns(source.name, names, options, labelled=labelled) if names else None
        entry = {"set": side, "rows": 0, "bytes": source.size, "sha256": source.sha256}
        ledger.files[source.name] = entry | {"columns": columns.shown() if columns is not None else ""}
        for line, fields, problem in itertools.chain(head, records):
            ledger.rows += 1
            ledger.files[source.name]["rows"] += 1
            try:
                if fields is None or columns is None:
                    raise RowFault(problem or "a readable row after many that are not")
                row = _row(fields, columns, options, source.name, line, side, labelled)
            except RowFault as fault:
                aside = SetAside(source.name, line, fault.reason, fault.field, fault.malformed, fields)
                ledger.reject(aside)
                yield aside
            else:
                ledger.kept += 1
                yield row


_CUTTING = Cutting(
    documents="line", max_document_bytes=LONGEST_ROW, text_field="", group_field=None, skip_bad_files=False,
    scratch=Path(),
)  # fmt: skip


def _tabbed_lines(source: Source, task: Task, labelled: bool) -> Iterator[Record]:
    """Plain text: `text<TAB>label` in each line, cut at its last tab; unlabelled, each line is a text."""
    second = "other" if task == "embed" else "label"
    for segment in segments(0, dataclasses.replace(source, format="jsonl"), _CUTTING):
        if segment.kind == "problem":
            yield Record(segment.line, None, segment.problem)
            continue
        # only line feeds end a line: other breaks that Unicode knows may stand in a text
        for line, raw in enumerate(segment.data.split(b"\n"), start=segment.line):
            raw = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
            if not raw.strip():
                continue
            try:
                text = raw.decode("utf-8").removesuffix("\r")
            except UnicodeDecodeError:
                yield Record(line, None, "not valid UTF-8")
                continue
            before, tab, after = text.rpartition("\t")
            if tab and labelled:
                yield Record(line, {"text": before.rstrip(), second: after})
            elif labelled:
                yield Record(line, None, "no tab between text and label")
            else:
                yield Record(line, {"text": text})


def _row(
    fields: dict[str, Any], columns: Found, options: LabelledOptions, file: str, line: int, side: Side, labelled: bool
) -> LabelledRow:
    task = options.task
    words: tuple[str, ...] = ()
    if task == "tag":
        words = _words(fields, columns.text)
        text = " ".join(words)
    else:
        text = _text(fields, columns.text, "text")
    other = _text(fields, columns.other, "second text") if columns.other else None
    candidates = _candidates(fields, columns.candidates) if task == "choice" else ()
    labels: tuple[str, ...] = ()
    value, choice = None, None
    if columns.label is not None:
        cell = _field(fields, columns.label)
        if task == "regress":
            value = _number(cell, columns.label)
        elif task == "choice":
            choice = _choice(cell, columns.label, candidates)
        else:
            labels = _labels(cell, columns.label, options, words)
    group = "" if columns.group is None else str(fields.get(columns.group) or "").strip()
    time = None if columns.time is None else moment_of(fields.get(columns.time), columns.time)
    compared = (text,) if other is None or task in ("embed", "choice") else (text, other)
    return LabelledRow(
        text=text, key=_key(compared), file=file, line=line, side=side, other=other, labels=labels, value=value,
        words=words, candidates=candidates, choice=choice, group=group, time=time,
    )  # fmt: skip


def _key(texts: Sequence[str]) -> bytes:
    parts = (" ".join(unicodedata.normalize("NFC", text).casefold().split()) for text in texts)
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _field(fields: dict[str, Any], name: str) -> Any:
    if name not in fields:
        raise RowFault(f'field "{printable(name, 60)}" is missing', name)
    return fields[name]


def _shown(value: Any) -> str:
    return printable(repr(value), 60)


def _text(fields: dict[str, Any], name: str, what: str) -> str:
    value = _field(fields, name)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowFault(f"the {what} is empty", name, malformed=False)
    if not isinstance(value, str):
        raise RowFault(f"the {what} is not text: {_shown(value)}", name)
    return value


def _texts(value: Any, name: str, what: str) -> tuple[str, ...]:
    if not all(isinstance(one, str) and one.strip() for one in value):
        raise RowFault(f"the {what} are not all text: {_shown(value)}", name)
    return tuple(value)


def _words(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    value = _field(fields, name)
    if isinstance(value, list) and value:
        return _texts(value, name, "words")
    return tuple(_text({name: None if value == [] else value}, name, "text").split())


def _candidates(fields: dict[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """The candidates of one row: a list in one column, or a column each of which the last may be empty."""
    if len(names) > 1:
        values = [_field(fields, name) for name in names]
        while values and values[-1] in (None, ""):
            values.pop()
    else:
        values = _field(fields, names[0])
        if not isinstance(values, list):
            raise RowFault(f"the candidates are not a list: {_shown(values)}", names[0])
    if len(values) < 2:
        raise RowFault(f"fewer than two candidates: {_shown(values)}", names[0])
    return _texts(values, names[0], "candidates")


def _label(value: Any, name: str) -> str:
    """A label as text: numbers and truth values as they are written in a table."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowFault("the label is empty", name, malformed=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise RowFault(f"the label is not finite: {_shown(value)}", name)
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise RowFault(f"the label is neither text nor a number: {_shown(value)}", name)


def _labels(cell: Any, name: str, options: LabelledOptions, words: tuple[str, ...]) -> tuple[str, ...]:
    several = options.task != "classify"
    if several and isinstance(cell, str) and cell.strip() and (options.label_separator or options.task == "tag"):
        cell = [part for part in cell.split(options.label_separator) if part.strip()]
    if several and isinstance(cell, list):
        labels = [_label(one, name) for one in cell]
    else:
        labels = [_label(cell, name)]
    if options.task == "tag" and len(labels) != len(words):
        raise RowFault(f"tags and words differ in number: {len(labels)} tags for {len(words)} words", name)
    if options.labels is not None:
        unknown = [label for label in labels if label not in options.labels]
        if unknown:
            raise RowFault(f"the label is not in data.labels: {_shown(unknown[0])}", name)
    return tuple(sorted(set(labels)) if options.task == "multilabel" else labels)


def _number(cell: Any, name: str) -> float:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise RowFault("the label is empty", name, malformed=False)
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise RowFault(f"the label is not a number: {_shown(cell)}", name)
    try:
        value = float(cell)
    except ValueError as error:
        raise RowFault(f"the label is not a number: {_shown(cell)}", name) from error
    except OverflowError:
        value = math.inf
    # it will be float32, where finite ends at 3.4e38
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise RowFault(f"the value is not finite: {_shown(cell)}", name)
    return value


def moment_of(cell: Any, name: str) -> Moment:
    """A cell as a time.

    Raises:
        RowFault: it is empty, or neither a finite number nor an ISO date.
    """
    if isinstance(cell, bool) or cell is None or (isinstance(cell, str) and not cell.strip()):
        raise RowFault("the time is empty" if cell in (None, "") else f"the time is no time: {_shown(cell)}", name)
    try:
        value = float(cell) if isinstance(cell, str | int | float) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if math.isfinite(value):
        return Moment(False, value)
    try:
        date = datetime.fromisoformat(cell.strip() if isinstance(cell, str) else str(cell))
        return Moment(True, (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise RowFault(f"the time is neither a number nor an ISO date: {_shown(cell)}", name) from error


def _choice(cell: Any, name: str, candidates: tuple[str, ...]) -> int:
    """The right candidate: its own text, else its number from 0, else its letter from A."""
    label = _label(cell, name)
    if label in candidates:
        return candidates.index(label)
    number = int(label) if label.isascii() and label.isdigit() and len(label) < 4 else LETTERS.find(label.upper())
    if len(label) > 1 and not label.isdigit():
        number = -1
    if not 0 <= number < len(candidates):
        raise RowFault(f"the label names none of the candidates: {_shown(cell)} of {len(candidates)}", name)
    return number
