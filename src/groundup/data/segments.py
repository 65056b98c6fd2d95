"""Cutting files into segments and segments into chunks, while streaming.

A chunk is the unit of work: what one worker does at a time and what is done again after a kill. Its borders
follow from the files and the options alone, never from the number of workers. A segment is a stretch of one
file that begins and ends between two rows, so that a worker can parse it alone. Memory stays bounded by the
chunk size and the cap on a document, whatever the file.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from groundup.data.files import cannot_write
from groundup.data.sources import MAX_UNPACKED, BadFile, ByteStream, Source, broken

BLOCK = 1 << 20
MAX_JSON = 1 << 28
CsvRow = tuple[int, int, int, str | None, str | None, str]
"""Line, byte offset, raw bytes, text, group, what is wrong with the row."""


@dataclass(frozen=True)
class Segment:
    """A stretch of one file.

    Attributes:
        kind: how `data` is parsed; "problem" is a stretch that was not read, "parquet" is one row group.
        line: the line that it begins in, from 1 (parquet: the row, from 1).
        offset: its first byte in the unpacked file (parquet: the row group).
        data: the raw bytes; for "csv" unused.
        problem: why a "problem" could not be read.
        length: raw bytes of a problem.
    """

    source: int
    kind: Literal["document", "paragraphs", "lines", "jsonl", "json", "csv", "parquet", "problem"]
    line: int
    offset: int
    data: bytes = b""
    rows: tuple[CsvRow, ...] = ()
    problem: str = ""
    length: int = 0
    path: Path | None = None

    @property
    def weight(self) -> int:
        """Bytes of work."""
        return len(self.data) or self.length


@dataclass
class Chunk:
    """Consecutive segments that are worked on together."""

    number: int
    segments: list[Segment] = field(default_factory=list)


@dataclass(frozen=True)
class Cutting:
    """What cutting needs to know of the options."""

    documents: str
    max_document_bytes: int
    text_field: str
    group_field: str | None
    skip_bad_files: bool
    scratch: Path


def chunk_bytes(total: int) -> int:
    """The size of a chunk for input of `total` bytes: about 64 chunks, between 1 and 16 MiB each."""
    return min(max(total >> 6, 1 << 20), 1 << 24)


def chunks(sources: list[Source], cutting: Cutting, size: int) -> Iterator[Chunk]:
    """Cut all files, in order, into chunks of at least `size` bytes (the last is smaller)."""
    chunk, weight = Chunk(0), 0
    for number, source in enumerate(sources):
        for segment in segments(number, source, cutting):
            chunk.segments.append(segment)
            weight += segment.weight
            if weight >= size:
                yield chunk
                chunk, weight = Chunk(chunk.number + 1), 0
    if chunk.segments:
        yield chunk


def segments(number: int, source: Source, cutting: Cutting) -> Iterator[Segment]:
    """Cut one file. A damaged file ends in a "problem" segment if that is allowed.

    Raises:
        BadFile: the file cannot be read to its end, and `skip_bad_files` is off.
    """
    place = (1, 0)
    try:
        for segment in READERS[source.format](number, source, cutting):
            place = (segment.line, segment.offset)
            yield segment
    except BadFile as error:
        if not cutting.skip_bad_files:
            raise
        yield Segment(number, "problem", place[0], place[1], problem=f"unreadable file: {error.what}")


def _text(number: int, source: Source, cutting: Cutting) -> Iterator[Segment]:
    with ByteStream(source) as stream:
        if cutting.documents == "file":
            cap = cutting.max_document_bytes  # a block of that size: a file is cut only if it must be
            yield from _numbered(number, "document", _pieces(stream, cap, cap, _after_paragraph))
        elif cutting.documents == "paragraph":
            pieces = _pieces(stream, BLOCK, cutting.max_document_bytes, _after_paragraph)
            yield from _numbered(number, "paragraphs", pieces)
        else:
            pieces = _pieces(stream, BLOCK, cutting.max_document_bytes, _after_line)
            yield from _numbered(number, "lines", pieces)


def _jsonl(number: int, source: Source, cutting: Cutting) -> Iterator[Segment]:
    with ByteStream(source) as stream:
        yield from _numbered(number, "jsonl", _pieces(stream, BLOCK, cutting.max_document_bytes, _after_line))


def _json(number: int, source: Source, cutting: Cutting) -> Iterator[Segment]:
    with ByteStream(source) as stream:
        data = stream.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        fix = f"convert it to one row a line: jq -c '.[]' {source.path.name} > rows.jsonl"
        raise broken(source.path, f"a .json file is read whole, and this one is over {MAX_JSON:,} bytes", fix)
    yield Segment(number, "json", 1, 0, data)


Piece = tuple[int, bytes, int, int]
"""Byte offset, data, length, line feeds within; data is empty for a stretch that was skipped."""


def _numbered(
    number: int, kind: Literal["document", "paragraphs", "lines", "jsonl"], pieces: Iterator[Piece]
) -> Iterator[Segment]:
    line = 1
    for offset, data, length, feeds in pieces:
        if data:
            yield Segment(number, kind, line, offset, data)
        else:
            why = f"line too long: {length:,} bytes"
            yield Segment(number, "problem", line, offset, problem=why, length=length)
        line += feeds


def _after_line(buffer: bytes, at_cap: bool) -> int:
    return buffer.rfind(b"\n") + 1


def _after_paragraph(buffer: bytes, at_cap: bool) -> int:
    """After the last blank line; in a buffer that may not grow, after a line if blank lines come too early."""
    blank = max(buffer.rfind(b"\n\n") + 2, buffer.rfind(b"\n\r\n") + 3)
    if blank > 3 and (blank * 4 > len(buffer) or not at_cap):
        return blank
    return _after_line(buffer, at_cap) if at_cap else 0


def _pieces(stream: ByteStream, block: int, cap: int, cut: Callable[[bytes, bool], int]) -> Iterator[Piece]:
    """Pieces of about `block` bytes, at most `cap`, that end where `cut` says.

    A stretch that has no such place within `cap` bytes is passed over without being kept, up to the next line.
    """
    buffer, offset, want = b"", 0, min(block, cap)
    while True:
        buffer += stream.read(want + 1 - len(buffer))
        if len(buffer) <= want:
            if buffer:
                yield offset, buffer, len(buffer), buffer.count(b"\n")
            return
        end = cut(buffer[:want], want == cap)
        if end:
            yield offset, buffer[:end], end, buffer.count(b"\n", 0, end)
            buffer, offset, want = buffer[end:], offset + end, min(block, cap)
        elif want < cap:
            want = min(2 * want, cap)
        else:
            length, buffer = _skip_line(stream, buffer)
            yield offset, b"", length, 1
            offset, want = offset + length, max(min(block, cap), min(len(buffer), cap))


def _skip_line(stream: ByteStream, buffer: bytes) -> tuple[int, bytes]:
    """Read up to the next line feed without keeping it: the bytes passed over, and what follows."""
    length = 0
    while True:
        end = buffer.find(b"\n") + 1
        if end:
            return length + end, buffer[end:]
        length += len(buffer)
        buffer = stream.read(BLOCK)
        if not buffer:
            return length, b""


class _CsvLines:
    """The lines of a csv file for `csv.reader`, with the place of the record being read."""

    def __init__(self, stream: ByteStream, cap: int) -> None:
        self.offset = 0
        self.skipped: list[tuple[int, int, int]] = []
        self.line = 1
        self._pieces = _pieces(stream, BLOCK, cap, _after_line)

    def __iter__(self) -> Iterator[str]:
        for offset, data, length, feeds in self._pieces:
            if not data:
                self.skipped.append((self.line, offset, length))
                self.offset, self.line = offset + length, self.line + feeds
                continue
            if offset == 0:
                data = data.removeprefix(b"\xef\xbb\xbf")
            # Only line feeds end a line here: splitlines() would cut at a lone carriage return in a field.
            for row in data.removesuffix(b"\n").split(b"\n"):
                self.offset += len(row) + 1
                self.line += 1
                yield row.decode("utf-8", "surrogateescape") + "\n"
            self.offset = offset + length


def _csv(number: int, source: Source, cutting: Cutting) -> Iterator[Segment]:
    from groundup.data.columns import csv_columns

    with ByteStream(source) as stream:
        lines = _CsvLines(stream, cutting.max_document_bytes)
        feed = iter(lines)
        header = next(feed, "")
        delimiter = max(",\t;", key=header.count) if header else ","
        csv.field_size_limit(cutting.max_document_bytes)
        try:
            names = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error as error:
            raise broken(source.path, f"its header is not csv: {error}") from error
        text, group = csv_columns(source, names, cutting.text_field, cutting.group_field)
        reader = csv.reader(feed, delimiter=delimiter)
        rows: list[CsvRow] = []
        start = weight = 0
        while True:
            line, offset = lines.line, lines.offset
            rows += [
                (at, byte, size, None, None, f"line too long: {size:,} bytes")
                for at, byte, size in lines.skipped
            ]
            lines.skipped.clear()
            try:
                fields = next(reader, None)
            except csv.Error as error:
                rows.append((line, offset, lines.offset - offset, None, None, f"not csv: {error}"))
                continue
            if fields is None or weight >= BLOCK:
                if rows:
                    yield Segment(number, "csv", rows[0][0], start, rows=tuple(rows), length=weight)
                rows, start, weight = [], offset, 0
            if fields is None:
                return
            if fields:
                size = lines.offset - offset
                weight += size
                rows.append((line, offset, size, *_csv_row(fields, len(names), text, group)))


def _csv_row(
    fields: list[str], width: int, text: int, group: int | None
) -> tuple[str | None, str | None, str]:
    if len(fields) != width:
        return None, None, f"{len(fields)} fields, the header has {width}"
    return fields[text], None if group is None else fields[group], ""


def _parquet(number: int, source: Source, cutting: Cutting) -> Iterator[Segment]:
    from groundup.data.columns import open_parquet

    path = source.path
    if source.packed:
        path = _unpack(source, cutting.scratch)
    row = 1
    for group, (rows, size) in enumerate(open_parquet(source, path, cutting.text_field, cutting.group_field)):
        if size > MAX_UNPACKED:
            raise broken(source.path, f"row group {group} says it holds {size:,} bytes")
        yield Segment(number, "parquet", row, group, length=size, path=path)
        row += rows


def _unpack(source: Source, scratch: Path) -> Path:
    """Parquet is read from its end, so a packed one is unpacked to disk first, within the caps."""
    path = scratch / f"{source.sha256}.parquet"
    if path.exists():
        return path
    scratch.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with ByteStream(source) as stream:
        try:
            with temporary.open("wb") as file:
                while piece := stream.read(BLOCK):
                    file.write(piece)
            temporary.replace(path)
        except OSError as error:
            raise cannot_write(temporary, error) from error
    return path


READERS: dict[str, Callable[[int, Source, Cutting], Iterator[Segment]]] = {
    "text": _text,
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
}
