"""From a segment of a file to rows: the text of one document each, or what is wrong with it.

Runs in worker processes. A row that cannot be read never ends the work: it becomes a row with a problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from groundup.data.columns import parquet_rows
from groundup.data.segments import Segment
from groundup.data.sources import BadFile, Source
from groundup.errors import nearest, printable

BLANK_LINES = re.compile(rb"\n(?:[ \t\r]*\n)+")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """One document as it was read.

    Attributes:
        line: where it begins, from 1 (json and parquet: the number of the row).
        offset: its first byte in the unpacked file.
        text: bytes where they still have to be decoded; None if there is a problem.
        problem: why the row is malformed; empty if it is not.
        length: bytes as read: of the text, or of the raw row if it is malformed.
        raw: the row as it stands in the file, for the record of malformed ones.
    """

    line: int
    offset: int
    text: str | bytes | None
    group: str | None = None
    problem: str = ""
    length: int = 0
    raw: bytes = b""


class _DuplicateKey(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKey(
            f"the field {next(name for name in names if names.count(name) > 1)!r} appears twice"
        )
    return result


_decode = json.JSONDecoder(object_pairs_hook=_object).decode


def parse_json(data: bytes) -> tuple[Any, str]:
    """A JSON value and an empty string, or None and what is wrong."""
    try:
        return _decode(data.decode("utf-8", "surrogateescape")), ""
    except _DuplicateKey as error:
        return None, f"duplicate key: {error}"
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        return (
            None,
            f"not JSON: {'the record is cut off' if cut else f'{error.msg} at character {error.pos + 1}'}",
        )
    except ValueError as error:
        return None, f"not JSON: {str(error)[:80]}"
    except RecursionError:
        return None, "not JSON: nested too deeply"


def rows_of(
    segment: Segment, source: Source, text_field: str, group_field: str | None, cap: int, skip_bad_files: bool
) -> Iterator[Row]:
    """The rows of a segment, malformed ones included, in the order of the file."""
    if segment.kind == "problem":
        yield Row(segment.line, segment.offset, None, None, segment.problem, segment.length)
    elif segment.kind == "document":
        yield Row(segment.line, segment.offset, segment.data, source.group, "", len(segment.data))
    elif segment.kind == "csv":
        for line, offset, length, text, group, problem in segment.rows:
            size = length if text is None else len(text.encode("utf-8", "surrogateescape"))
            yield Row(line, offset, _unescape(text), group, problem, size)
    elif segment.kind == "parquet":
        yield from _parquet(segment, source, text_field, group_field, cap, skip_bad_files)
    elif segment.kind == "json":
        yield from _json(segment, text_field, group_field, cap)
    elif segment.kind == "paragraphs":
        yield from _paragraphs(segment, source.group, cap)
    else:
        yield from _lines(segment, source.group, text_field, group_field, cap)


def _unescape(text: str | None) -> str | bytes | None:
    """Bytes again for text whose undecodable bytes were carried along as surrogates."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape")


def _paragraphs(segment: Segment, group: str, cap: int) -> Iterator[Row]:
    line, start = segment.line, 0
    data = segment.data
    ends = [match.end() for match in BLANK_LINES.finditer(data)]
    for end in [*ends, len(data)]:
        part = data[start:end]
        if not part.strip():
            continue  # blank lines before a paragraph go with it
        if len(part) > cap:
            why = f"paragraph too long: {len(part):,} bytes"
            yield Row(line, segment.offset + start, None, group, why, len(part))
        else:
            yield Row(line, segment.offset + start, part.rstrip().lstrip(b"\r\n"), group, "", len(part))
        line += part.count(b"\n")
        start = end


def _lines(segment: Segment, group: str, text_field: str, group_field: str | None, cap: int) -> Iterator[Row]:
    offset = segment.offset
    records = segment.kind == "jsonl"
    lines = segment.data.split(b"\n")
    last = len(lines) - 1
    for number, data in enumerate(lines):
        line, at = segment.line + number, offset
        size = len(data) + (number != last)
        offset += size
        if size == 0 or (records and not data.strip()):
            continue
        if len(data) > cap:
            yield Row(line, at, None, group, f"line too long: {len(data):,} bytes", size)
        elif records:
            value, problem = parse_json(data.removeprefix(BYTE_ORDER_MARK) if at == 0 else data)
            yield _record(value, problem, line, at, data, text_field, group_field)
        else:
            yield Row(line, at, data.removesuffix(b"\r"), group, "", size)


def _json(segment: Segment, text_field: str, group_field: str | None, cap: int) -> Iterator[Row]:
    data = segment.data
    value, problem = parse_json(data.removeprefix(BYTE_ORDER_MARK))
    if problem:
        yield Row(1, 0, None, None, problem, len(data), data[:4096])
        return
    if isinstance(value, dict) and text_field not in value:
        # The usual wrapping: an object one of whose fields is the list of rows.
        value = next((part for part in value.values() if isinstance(part, list)), value)
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        row = _record(item, "", number, 0, b"", text_field, group_field)
        if row.length > cap:
            row = Row(number, 0, None, None, f"record too long: {row.length:,} bytes", row.length)
        elif row.problem:
            raw = json.dumps(item, ensure_ascii=True).encode()
            row = row._replace(length=len(raw), raw=raw[:4096])
        yield row


def _record(
    value: Any, problem: str, line: int, offset: int, data: bytes, text_field: str, group_field: str | None
) -> Row:
    """A row from a JSON value: an object with the text in a field, or the text itself."""
    group = None
    text = value
    if not problem and isinstance(value, dict):
        text = value.get(text_field)
        if text_field not in value:
            close = nearest(text_field, list(value))
            fields = ", ".join(printable(name, 30) for name in list(value)[:8])
            hint = f'did you mean "{printable(close)}"?' if close else f"the row has: {fields or 'no fields'}"
            problem = f'field "{text_field}" is missing; {hint}'
        if group_field is not None and value.get(group_field) is not None:
            group = str(value[group_field])
    if not problem and not isinstance(text, str):
        name = f'field "{text_field}"' if isinstance(value, dict) else "the row"
        problem = f"{name} is {_kind(text)}, expected text"
    if problem:
        return Row(line, offset, None, group, problem, len(data), data[:4096])
    # Surrogates, escaped ones and undecodable bytes alike, are left to the UTF-8 policy of cleaning.
    return Row(line, offset, text, group, "", len(text.encode("utf-8", "surrogatepass")))


def _kind(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _parquet(
    segment: Segment, source: Source, text_field: str, group_field: str | None, cap: int, skip_bad_files: bool
) -> Iterator[Row]:
    number = segment.line
    try:
        for text, group in parquet_rows(
            source, segment.path or source.path, segment.offset, text_field, group_field
        ):
            if text is None:
                yield Row(number, 0, None, group, f'field "{text_field}" is null, expected text')
            elif len(text) > cap:
                yield Row(number, 0, None, group, f"record too long: {len(text):,} bytes", len(text))
            else:
                yield Row(number, 0, text, group, "", len(text))
            number += 1
    except BadFile as error:
        if not skip_bad_files:
            raise
        yield Row(number, 0, None, None, f"unreadable file: {error.what}")
