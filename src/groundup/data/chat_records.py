"""Whole records from files of records: every field of every row, with its place.

JSON lines, JSON arrays, tables and parquet, each also packed, through the same caps as all other reading. A
row that cannot be parsed comes as a record without fields and says why; only a file that cannot be read at
all raises. What the fields mean is decided elsewhere.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from groundup.data.columns import import_pyarrow
from groundup.data.rows import _object as unique_fields
from groundup.data.rows import parse_json
from groundup.data.segments import Cutting, segments
from groundup.data.sources import Source, broken

LONGEST_ROW = 1 << 24
"""Bytes of one row; a longer line is passed over and set aside."""

BATCH = 1024
"""Rows of a parquet file that are in memory at a time."""

BLANK = re.compile(r"\s*")


class Record(NamedTuple):
    """One row: its place (`line` counts from 1; in parquet it is the row), its fields, or what is wrong."""

    line: int
    fields: dict[str, Any] | None
    problem: str = ""


def read_records(source: Source) -> Iterator[Record]:
    """The rows of one file in order.

    Raises:
        GroundupError: E-DATA-009 if the file is damaged, E-DATA-014 if it is parquet and pyarrow is missing.
    """
    if source.format == "csv":
        yield from _csv_rows(source)
    elif source.format == "parquet":
        yield from _parquet_rows(source)
    else:
        for segment in segments(0, source, _CUTTING):
            if segment.kind == "problem":
                yield Record(segment.line, None, segment.problem)
            elif segment.kind == "json":
                yield from _json_rows(segment.data)
            else:
                yield from _json_lines(segment.data, segment.line)


_CUTTING = Cutting(
    documents="line", max_document_bytes=LONGEST_ROW, text_field="", group_field=None, skip_bad_files=False,
    scratch=Path(),
)  # fmt: skip


def _json_lines(data: bytes, first: int) -> Iterator[Record]:
    for line, row in enumerate(data.split(b"\n"), start=first):
        if line == 1:
            row = row.removeprefix(b"\xef\xbb\xbf")
        if not row.strip():
            continue
        value, problem = parse_json(row)
        yield Record(line, None, problem) if problem else _record(line, value)


def _json_rows(data: bytes) -> Iterator[Record]:
    """The elements of an array, one by one, so that each has its line and a cut file keeps its beginning."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    place = _after_blank(text, 0)
    if not text.startswith("[", place):
        yield from _object_rows(data)
        return
    line, counted, place = 1, 0, _after_blank(text, place + 1)
    while not text.startswith("]", place):
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = _decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            problem = parse_json(text[place:].encode("utf-8", "surrogateescape"))[1]
            yield Record(line, None, f"{problem}; the rest of the file cannot be read")
            return
        yield _record(line, value)
        place = _after_blank(text, place)
        if text.startswith(",", place):
            place = _after_blank(text, place + 1)
            if text.startswith("]", place):
                yield Record(line, None, "not JSON: a comma after the last row")
        elif not text.startswith("]", place):
            yield Record(line, None, "not JSON: the array is not closed; the rest of the file cannot be read")
            return


def _object_rows(data: bytes) -> Iterator[Record]:
    """A file that is one object: rows one a line under the wrong suffix, a wrapped list, or a single row."""
    value, problem = parse_json(data.removeprefix(b"\xef\xbb\xbf"))
    if problem and b"\n{" in data:
        yield from _json_lines(data, 1)
        return
    lists = [part for part in value.values() if isinstance(part, list)] if isinstance(value, dict) else []
    if len(lists) == 1 and len(value) <= 2 and not {"messages", "conversations"} & value.keys():
        yield from (_record(number, item) for number, item in enumerate(lists[0], start=1))
    else:
        yield Record(1, None, problem) if problem else _record(1, value)


def _after_blank(text: str, place: int) -> int:
    found = BLANK.match(text, place)
    return found.end() if found else place


def _record(line: int, value: Any) -> Record:
    if not isinstance(value, dict):
        return Record(line, None, f"the row is {'a list' if isinstance(value, list) else 'no object'}")
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return Record(line, None, "not valid Unicode text: undecodable bytes or half a surrogate pair")
    return Record(line, value)


_decoder = json.JSONDecoder(object_pairs_hook=unique_fields)


def _csv_rows(source: Source) -> Iterator[Record]:
    """Rows of a table with a header; the delimiter is the one that the header holds most of."""
    problems: list[Record] = []

    def lines() -> Iterator[str]:
        for segment in segments(0, dataclasses.replace(source, format="jsonl"), _CUTTING):
            if segment.kind == "problem":
                problems.append(Record(segment.line, None, segment.problem))
                continue
            data = segment.data.removeprefix(b"\xef\xbb\xbf") if segment.line == 1 else segment.data
            # only line feeds end a line: a lone carriage return may stand in a quoted field
            for row in data.removesuffix(b"\n").split(b"\n"):
                yield row.decode("utf-8", "surrogateescape") + "\n"

    feed = lines()
    header = next(feed, "")
    delimiter = max(",\t;", key=header.count)
    csv.field_size_limit(LONGEST_ROW)
    try:
        names = next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error as error:
        raise broken(source.path, f"its header is not csv: {error}") from error
    reader = csv.reader(feed, delimiter=delimiter)
    while True:
        line = reader.line_num + 2  # the header is line 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield Record(line, None, f"not csv: {error}")
            continue
        yield from problems
        problems.clear()
        if row is None:
            return
        if not row:
            continue
        if len(row) != len(names):
            yield Record(line, None, f"{len(row)} fields, the header has {len(names)}")
        elif any("\udc80" <= character <= "\udcff" for value in row for character in value):
            yield Record(line, None, "not valid UTF-8")
        else:
            yield Record(line, dict(zip(names, row)))


def _parquet_rows(source: Source) -> Iterator[Record]:
    pyarrow = import_pyarrow(source.path)
    if source.packed:
        raise broken(source.path, "parquet inside gzip cannot be read row by row", "unpack it: gunzip")
    line = 1
    try:
        for batch in pyarrow.parquet.ParquetFile(source.path).iter_batches(batch_size=BATCH):
            for fields in batch.to_pylist():
                yield Record(line, fields)
                line += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise broken(source.path, f"not whole parquet data: {error}") from error
