"""Pairs of a text and its translation: read, cleaned, divided so that no source stands in two parts, and counted.

What a sentence is in ids is decided in `parallel_stream`; tokenizers and tensors do not enter here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from groundup.data.chat_layout import RowFault
from groundup.data.chat_records import LONGEST_ROW, Record, read_records
from groundup.data.chat_rows import ROWS_TO_DETECT, SetAside
from groundup.data.clean import clean_text
from groundup.data.labelled_options import Side
from groundup.data.labelled_rows import LabelledLedger
from groundup.data.options import PrepareOptions
from groundup.data.parallel_options import ParallelColumns, ParallelOptions, ParallelSplit
from groundup.data.segments import Cutting, segments
from groundup.data.set_faults import SIDES, empty_side, too_many_malformed
from groundup.data.sources import Source, open_sources
from groundup.errors import GroundupError, nearest, printable

USUAL = (
    ("source", "target"),
    ("src", "tgt"),
    ("src", "trg"),
    ("source_text", "target_text"),
    ("text", "translation"),
    ("sentence", "translation"),
)
"""Names of columns that are used together for a text and its translation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelRow:
    """One pair.

    Attributes:
        key: the hash of the source whatever its case and spacing: what makes two sources the same.
        file, line: where it stands; `line` counts from 1 (parquet: the row).
    """

    source: str
    target: str
    key: bytes
    file: str
    line: int
    side: Side = "train"

    @property
    def place(self) -> str:
        """`FILE:LINE`."""
        return f"{self.file}:{self.line}"


class ParallelSet(NamedTuple):
    """Pairs ready to be encoded: those of all sides in the order of the files, and the card of what was read."""

    rows: list[ParallelRow]
    card: dict[str, Any]

    def side(self, side: Side) -> list[ParallelRow]:
        """The pairs of one side in order."""
        return [row for row in self.rows if row.side == side]


def read_parallel(options: ParallelOptions, aside: list[SetAside]) -> ParallelSet:
    """Read, clean and divide.

    Args:
        options: what to read.
        aside: takes every row that is set aside, also where this raises.

    Raises:
        GroundupError: E-DATA-015 shares that leave nothing to train; E-DATA-105 columns that are not known;
            E-DATA-003 too many malformed rows; E-DATA-001 an empty set; E-DATA-002, -008, -009 and -014 for files
            that cannot be read.
    """
    split = options.split
    if split.test + split.validation >= 1:
        raise _nothing_to_train(split)
    ledger = LabelledLedger()
    given: dict[Side, list[str]] = {
        "train": options.files, "validation": options.validation_files, "test": options.test_files
    }  # fmt: skip
    rows: list[ParallelRow] = []
    for side in SIDES:
        for item in read_pairs(given[side], options.columns, ledger, side=side) if given[side] else ():
            if isinstance(item, SetAside):
                aside.append(item)
            else:
                rows.append(item)
    test = 0.0 if options.test_files else split.test
    validation = 0.0 if options.validation_files else split.validation
    rows = [
        dataclasses.replace(row, side=side_of(row.key, split.seed, test=test, validation=validation))
        if row.side == "train"
        else row
        for row in rows
    ]
    rows = _without_shared(rows, ledger, aside)
    if options.remove_duplicates:
        rows = _withdraw(rows, _repeated(rows), "repeats an earlier training pair", ledger, aside)
    if ledger.rows != ledger.kept + sum(ledger.set_aside.values()) or ledger.kept != len(rows):
        raise AssertionError(f"rows do not add up: {ledger.as_dict()}")
    _check(rows, options, ledger, aside)
    return ParallelSet(rows, _card(rows, options, ledger))


def read_pairs(
    files: Sequence[str | Path], columns: ParallelColumns, ledger: LabelledLedger, *, side: Side = "train"
) -> Iterator[ParallelRow | SetAside]:
    """Every row of the files in order; `ledger` counts along.

    Raises:
        GroundupError: E-DATA-105 if the columns of a file are not known; E-DATA-002, -008, -009 and -014 for files
            that cannot be read.
    """
    sources, _ = open_sources([str(name) for name in files], [])
    by_number = isinstance(columns.source, int) or isinstance(columns.target, int)
    for source in sources:
        records = _tabbed_lines(source) if by_number or source.format == "text" else read_records(source)
        head = list(itertools.islice(records, ROWS_TO_DETECT))
        names = list(dict.fromkeys(name for record in head for name in record.fields or ()))
        found = _find_columns(source, names, columns) if names else None
        entry = {"set": side, "rows": 0, "bytes": source.size, "sha256": source.sha256}
        ledger.files[source.name] = entry | {"columns": "source={}, target={}".format(*found) if found else ""}
        for line, fields, problem in itertools.chain(head, records):
            ledger.rows += 1
            ledger.files[source.name]["rows"] += 1
            try:
                if fields is None or found is None:
                    raise RowFault(problem or "a readable row after many that are not")
                source_text, target_text = _text(fields, found[0], "source"), _text(fields, found[1], "target")
            except RowFault as fault:
                aside = SetAside(source.name, line, fault.reason, fault.field, fault.malformed, fields)
                ledger.reject(aside)
                yield aside
                continue
            ledger.kept += 1
            yield ParallelRow(
                source=source_text, target=target_text, key=source_key(source_text), file=source.name, line=line,
                side=side,
            )  # fmt: skip


def source_key(text: str) -> bytes:
    """The hash by which sources are the same and are divided: of the text whatever its case and spacing."""
    plain = " ".join(text.casefold().split())
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def side_of(key: bytes, seed: int, *, test: float, validation: float) -> Side:
    """The side of a source: a function of its key and the seed alone, so that other rows do not move it.

    Args:
        test, validation: shares of sources, 0 to 1, together below 1; they hold on average.
    """
    salt = (seed % 2**64).to_bytes(8, "little")
    place = int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=salt).digest()) / 2**64
    return "test" if place < test else "validation" if place < test + validation else "train"


_CUTTING = Cutting(
    documents="line", max_document_bytes=LONGEST_ROW, text_field="", group_field=None, skip_bad_files=False,
    scratch=Path(),
)  # fmt: skip


def _tabbed_lines(source: Source) -> Iterator[Record]:
    """Lines of fields between tabs, named "1", "2" and so on. A quotation mark is a character like any other: in
    such files it opens direct speech, not a field."""
    if source.format not in ("csv", "text") or source.path.name.lower().removesuffix(".gz").endswith(".csv"):
        raise _no_columns(source, [], "its columns have names, or commas between them, and are not numbered")
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
                parts = raw.decode("utf-8").removesuffix("\r").split("\t")
            except UnicodeDecodeError:
                yield Record(line, None, "not valid UTF-8")
                continue
            yield Record(line, {str(number): part for number, part in enumerate(parts, start=1)})


def _find_columns(source: Source, names: list[str], columns: ParallelColumns) -> tuple[str, str]:
    """The names of the two columns, as the records have them."""
    given = (columns.source, columns.target)
    if source.format == "text" and given == (None, None):
        return "1", "2"  # a table has a line of names, plain lines have none
    if (given[0] is None) != (given[1] is None) or isinstance(given[0], int) != isinstance(given[1], int):
        raise _no_columns(source, names, "data.columns names one side, or one by name and one by number")
    if isinstance(given[0], int):
        if min(int(number) for number in given if number is not None) < 1 or given[0] == given[1]:
            raise _no_columns(source, names, "columns count from 1, and the two sides stand in two of them")
        return str(given[0]), str(given[1])
    if given[0] is not None:
        missing = [str(name) for name in given if name not in names]
        if missing:
            close = [f"{name!r} may be {near!r}" for name in missing if (near := nearest(name, names))]
            raise _no_columns(source, names, f"no column {', '.join(map(repr, missing))}", *close)
        return str(given[0]), str(given[1])
    known = {name.strip().casefold(): name for name in reversed(names)}
    for first, second in USUAL:
        if first in known and second in known:
            return known[first], known[second]
    raise _no_columns(source, names, "none are known as a text and its translation")


def _text(fields: dict[str, Any], name: str, what: str) -> str:
    """One side, clean: one normal form, no control characters, single spaces."""
    if name not in fields:
        raise RowFault(f"the {what} is missing: {len(fields)} fields, none is {printable(name, 40)!r}", name)
    value = fields[name]
    if value is not None and not isinstance(value, str):
        raise RowFault(f"the {what} is not text: {printable(repr(value), 60)}", name)
    cleaned = " ".join(clean_text(value or "", _CLEANING).text.split())
    if not cleaned:
        raise RowFault(f"the {what} is empty", name, malformed=False)
    return cleaned


_CLEANING = PrepareOptions(files=["-"])


def _without_shared(rows: list[ParallelRow], ledger: LabelledLedger, aside: list[SetAside]) -> list[ParallelRow]:
    """No training pair whose source is measured on, and no validation pair whose source is tested: possible only
    where these sets have files of their own."""
    for number, side in ((2, "test"), (1, "validation")):
        keys = {row.key for row in rows if row.side == side}
        gone = [row for row in rows if row.side in SIDES[:number] and row.key in keys]
        rows = _withdraw(rows, gone, f"its source also stands in the {side} set", ledger, aside)
    return rows


def _repeated(rows: list[ParallelRow]) -> list[ParallelRow]:
    seen: set[tuple[bytes, str]] = set()
    found = []
    for row in rows:
        if row.side == "train":
            if (row.key, row.target) in seen:
                found.append(row)
            seen.add((row.key, row.target))
    return found


def _withdraw(
    rows: list[ParallelRow], gone: list[ParallelRow], reason: str, ledger: LabelledLedger, aside: list[SetAside]
) -> list[ParallelRow]:
    """The rows without those that are set aside after all."""
    for row in gone:
        record = {"source": row.source, "target": row.target, "side": row.side}
        aside.append(SetAside(row.file, row.line, reason, "", False, record))
        ledger.kept -= 1
        ledger.reject(aside[-1])
    places = {id(row) for row in gone}
    return [row for row in rows if id(row) not in places]


def _card(rows: list[ParallelRow], options: ParallelOptions, ledger: LabelledLedger) -> dict[str, Any]:
    sources = {side: {row.key for row in rows if row.side == side} for side in SIDES}
    counts = Counter(row.side for row in rows)
    return {
        "rows": ledger.as_dict(),
        "sides": {side: counts[side] for side in SIDES},
        "distinct_sources": {side: len(sources[side]) for side in SIDES},
        "split": {"kind": "source", "seed": options.split.seed},
        "repeated_training_rows": len(_repeated(rows)),
    }


def _check(
    rows: list[ParallelRow], options: ParallelOptions, ledger: LabelledLedger, aside: Sequence[SetAside]
) -> None:
    found = [
        too_many_malformed(
            ledger,
            aside,
            options.malformed_limit,
            things="pairs",
            why="a mismatch here usually means the wrong columns or a damaged export",
            fix="mend the rows, or name the right columns: data.columns={source: NAME, target: NAME}",
        ),
        empty_side(rows, options, ledger, aside, things="pairs"),
    ]
    faults = [fault for fault in found if fault is not None]
    if faults:
        faults[0].others = faults[1:]
        raise faults[0]


def _nothing_to_train(split: ParallelSplit) -> GroundupError:
    return GroundupError(
        "E-DATA-015",
        f"data.split.test {split.test} and data.split.validation {split.validation} leave nothing to train",
        where="data.split",
        why="the shares are of all sources together",
        fix="make both smaller: data.split.test=0.1 data.split.validation=0.1",
        exit_code=2,
    )


def _no_columns(source: Source, names: Sequence[str], problem: str, *hints: str) -> GroundupError:
    shown = ", ".join(printable(name, 40) for name in names[:30]) or "unknown"
    return GroundupError(
        "E-DATA-105",
        f"the columns of {printable(source.name)} are not as needed: {printable(problem)}",
        where=f"{printable(source.name)}: its columns are {shown}",
        why="which side is translated into which is not guessed: the wrong way round would train all the same",
        fix="name them: data.columns={source: NAME, target: NAME}\n"
        "or, for tab-separated lines without names: data.columns={source: 1, target: 2}"
        + "".join(f"\n{printable(hint)}" for hint in hints),
        exit_code=2,
    )
