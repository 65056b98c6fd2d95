"""Texts and conversations out of the files that a language model is to be measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from groundup.data.chat_layout import RowFault, detect, normalize
from groundup.data.chat_records import read_records
from groundup.data.sources import ByteStream, Source, open_sources
from groundup.errors import GroundupError, printable

Conversation = Sequence[dict[str, Any]]
MALFORMED_LIMIT = 0.01
"""The share of malformed rows above which an evaluation would say little about its file."""


class EvaluationData(NamedTuple):
    """What files for an evaluation hold: plain texts, conversations that end with a reference answer, and
    how many rows were set aside for which reason."""

    texts: list[str]
    conversations: list[Conversation]
    set_aside: dict[str, int]


def read_evaluation_files(files: Sequence[str | Path]) -> EvaluationData:
    """Texts and conversations out of the files that preparation reads (text, rows, tables; each also .gz).

    A text file is one document, a row with a field `text` another; other rows are read in the layouts for
    fine-tuning. Texts are measured as they are: the bytes counted are those of the file.

    Raises:
        GroundupError: E-EVAL-005 for a text that is not UTF-8 or a file with more than 1 % malformed rows;
            E-DATA errors for paths that do not exist and files of unknown kinds.
    """
    data = EvaluationData([], [], {})
    for source in open_sources([str(file) for file in files], [])[0]:
        if source.format == "text":
            _read_text(source, data)
        else:
            _read_rows(source, data)
    return data


def _read_text(source: Source, data: EvaluationData) -> None:
    with ByteStream(source) as stream:
        content = b"".join(iter(lambda: stream.read(1 << 20), b""))
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable(source, f"not UTF-8 at byte {error.start:,}", "save it as UTF-8") from error
    if text.strip():
        data.texts.append(text)


def _read_rows(source: Source, data: EvaluationData) -> None:
    """Sort the rows of one file into `data`."""
    records = list(read_records(source))
    layout = detect(record.fields for record in records if record.fields is not None)
    malformed: list[str] = []
    for record in records:
        fields, reason, counts = record.fields or {}, record.problem, True
        if not reason and isinstance(fields.get("text"), str):
            data.texts.append(fields["text"])
            continue
        if not reason and layout is None:
            reason = "no field text, and no layout of questions and answers"
        if not reason and layout is not None:
            try:
                data.conversations.append([dict(m) for m in normalize(fields, layout.format, layout.columns)])
                continue
            except RowFault as fault:
                reason, counts = fault.reason, fault.malformed
        data.set_aside[reason] = data.set_aside.get(reason, 0) + 1
        if counts:
            malformed.append(f"line {record.line}: {reason}")
    if len(malformed) > MALFORMED_LIMIT * len(records):
        what = f"{len(malformed)} of {len(records)} rows are malformed (limit {MALFORMED_LIMIT:.0%})"
        raise _unreadable(source, what, "groundup data check FILE   (shows the rows)", malformed[0])


def _unreadable(source: Source, what: str, fix: str, detail: str = "") -> GroundupError:
    return GroundupError(
        code="E-EVAL-005",
        what=f"{printable(source.path.name)}: {what}",
        where=printable(source.name) + (f", {printable(detail)}" if detail else ""),
        why="a number measured on part of a file would be taken for the whole",
        fix=fix,
    )
