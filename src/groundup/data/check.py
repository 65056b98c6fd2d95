"""Looking at data files without preparing them: what they hold, row by row, and what is wrong with them.

The same readers, cleaning and filters as preparation, so that what is said here is what would happen there.
Files of conversations are recognised by their fields and checked as such.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.data.chat_layout import Layout, RowFault, detect, normalize
from groundup.data.chat_records import Record, read_records
from groundup.data.clean import clean_text
from groundup.data.filters import reason_to_set_aside
from groundup.data.ledger import Ledger
from groundup.data.options import PrepareOptions
from groundup.data.parts import kind_of_problem
from groundup.data.rows import rows_of
from groundup.data.segments import Cutting, segments
from groundup.data.sources import BadFile, Source, open_sources
from groundup.errors import GroundupError, printable

PLACES = 3
TO_DETECT = 20


@dataclass
class FileReport:
    """What was found in one file.

    Attributes:
        layout: text, or the layout of its conversations (messages, sharegpt, alpaca, columns …); "unknown"
            for records without a field of text.
        columns: the fields of its first records.
        first: for each reason the first few places and what is wrong there.
        fault: why the file could not be read to its end; empty if it could.
    """

    file: str
    format: str
    layout: str
    columns: list[str]
    ledger: Ledger = field(default_factory=Ledger)
    first: dict[str, list[str]] = field(default_factory=dict)
    fault: GroundupError | None = None

    def reject(self, reason: str, place: str, size: int, *, malformed: bool) -> None:
        """Count a row that would be set aside, and remember the first places."""
        self.ledger.reject(reason, size, malformed=malformed)
        places = self.first.setdefault(reason, [])
        if len(places) < PLACES:
            places.append(printable(place))

    def within(self, limit: float) -> bool:
        """Whether preparation would take this file: whole, and not too much of it malformed."""
        return self.fault is None and self.ledger.malformed <= limit * self.ledger.documents

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "file": self.file,
            "format": self.format,
            "layout": self.layout,
            "columns": self.columns,
            **self.ledger.as_dict(),
            "first": self.first,
            "fault": self.fault.as_dict() if self.fault else None,
        }


def check_files(options: PrepareOptions) -> list[FileReport]:
    """Read all files of `options` and report on each. A damaged file is reported, not raised."""
    sources, _ = open_sources(options.files, [])
    with tempfile.TemporaryDirectory() as scratch:
        return [_check(source, options, Path(scratch)) for source in sources]


def _check(source: Source, options: PrepareOptions, scratch: Path) -> FileReport:
    report = FileReport(source.name, source.format, "text", [])
    try:
        if source.format != "text":
            head = [row.fields for row in itertools.islice(_records(source), TO_DETECT) if row.fields]
            report.columns = list(dict.fromkeys(name for row in head for name in row))
            layout = detect(head)
            is_text = any(options.text_field in row for row in head)
            if layout is not None and not is_text:
                report.layout = str(layout)
                _check_conversations(source, layout, report)
                return report
            report.layout = "text" if is_text or not report.columns else "unknown"
        _check_texts(source, options, scratch, report)
    except BadFile as error:
        report.fault = error
    return report


def _records(source: Source) -> Iterator[Record]:
    # Whether a packed parquet file holds conversations is not looked at: it can only be read unpacked.
    return iter(()) if source.format == "parquet" and source.packed else read_records(source)


def _check_conversations(source: Source, layout: Layout, report: FileReport) -> None:
    for record in read_records(source):
        place = f"line {record.line}: "
        if record.fields is None:
            report.reject(kind_of_problem(record.problem), place + record.problem, 0, malformed=True)
            continue
        try:
            messages = normalize(record.fields, layout.format, layout.columns)
        except RowFault as fault:
            reason = "malformed: not a conversation" if fault.malformed else "not to be learned from"
            report.reject(reason, f"{place}{fault}", 0, malformed=fault.malformed)
            continue
        size = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
        report.ledger.keep(size, size)


def _check_texts(source: Source, options: PrepareOptions, scratch: Path, report: FileReport) -> None:
    cap = options.max_document_bytes
    text_field, group_field = options.text_field, options.split.group_field
    cutting = Cutting(options.documents, cap, text_field, group_field, False, scratch)
    for segment in segments(0, source, cutting):
        for row in rows_of(segment, source, text_field, group_field, cap, False):
            place = f"line {row.line}: "
            if row.text is None:
                reason = kind_of_problem(row.problem)
                report.reject(reason, place + row.problem, row.length, malformed=True)
                continue
            cleaned = clean_text(row.text, options)
            if cleaned.problem:
                reason = "malformed: invalid UTF-8"
                report.reject(reason, place + cleaned.problem, row.length, malformed=True)
                continue
            for repair in cleaned.repairs:
                report.first.setdefault(f"repaired: {repair}", [f"line {row.line}"])
            failed = reason_to_set_aside(cleaned.text, options.filters)
            if failed is not None:
                report.reject(failed[0], place + failed[1], row.length, malformed=False)
            else:
                report.ledger.keep(row.length, len(cleaned.encoded))
