"""Fine-tuning rows from files: each row becomes a conversation or is set aside with its place and reason.

The layouts are in `chat_layout`, the file formats in `read`; this file counts, removes repeated rows,
decides the held-out side, and stops when too much was malformed. Rows in = rows kept + rows set aside,
always. Templates, tokenizers and tensors do not enter here.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from groundup.data.chat_layout import (
    KNOWN_PAIRS,
    ColumnMapping,
    Layout,
    Message,
    RowFault,
    detect,
    has_tool_turns,
    normalize,
)
from groundup.data.chat_records import read_records
from groundup.data.files import canonical_json
from groundup.data.sides import is_held_out
from groundup.data.sources import Source, open_sources
from groundup.errors import GroundupError, printable

ROWS_TO_DETECT = 20
"""Rows of a file from which its layout is recognised."""

PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class ChatOptions(BaseModel):
    """How fine-tuning rows are read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["auto", "alpaca", "sharegpt", "messages", "columns"] = Field(
        default="auto", description="layout of the rows; auto recognises each file by its fields"
    )
    columns: ColumnMapping | None = Field(
        default=None, description="which columns hold prompt and response; implies format columns"
    )
    malformed_limit: float = Field(
        default=0.01, ge=0.0, le=1.0, description="share of malformed rows (0 to 1) above which reading stops"
    )
    remove_duplicates: bool = Field(default=True, description="whether a repeated row is kept once only")


class Row(NamedTuple):
    """One conversation: its messages, where it came from (`line` counts from 1), and its side."""

    messages: list[Message]
    file: str
    line: int
    held_out: bool


class SetAside(NamedTuple):
    """One row that is not learned: where it stands, why, and the field at fault if there is one."""

    file: str
    line: int
    reason: str
    field: str
    malformed: bool
    record: Any


@dataclass
class ChatLedger:
    """What became of every row. `rows` = `kept` + the sum of `set_aside`.

    `notes` counts what was read but deserves a look, such as placeholders and unused fields; `layouts`
    names the layout of each file.
    """

    rows: int = 0
    kept: int = 0
    held_out: int = 0
    malformed: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    layouts: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The ledger for a data card: the commonest reasons first."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "held_out": self.held_out,
            "malformed": self.malformed,
            "set_aside": dict(sorted(self.set_aside.items(), key=lambda item: (-item[1], item[0]))),
            "notes": dict(sorted(self.notes.items(), key=lambda item: (-item[1], item[0]))),
            "layouts": dict(self.layouts),
        }


def fit(
    ids: Sequence[int],
    trainable: Sequence[bool],
    context: int,
    policy: Literal["drop", "cut", "refuse"],
    where: str = "",
) -> tuple[list[int], list[bool], Literal["whole", "cut", "dropped", "no_target"]]:
    """Make one rendered row fit the context.

    Args:
        ids: the tokens of the row.
        trainable: for each token whether it is learned.
        context: tokens that fit.
        policy: what happens to a longer row: `drop` it, `cut` its end off, or `refuse` to go on.
        where: file and line of the row, for the error.

    Returns:
        The tokens, their mask, and the outcome. A row that has nothing to learn, from the start or because
        its answer was cut off, comes back empty as `no_target`; a dropped row comes back empty as `dropped`.

    Raises:
        GroundupError: E-DATA-062 if the row is too long and the policy is `refuse`.
    """
    if len(ids) != len(trainable):
        raise ValueError(f"{len(ids)} ids and {len(trainable)} mask values")
    too_long = len(ids) > context
    if too_long and policy == "refuse":
        raise GroundupError(
            "E-DATA-062",
            f"a row of {len(ids):,} tokens is longer than the context of {context:,}",
            where=where,
            why="with over_long: refuse every row has to fit whole",
            fix=f"set data.context={len(ids)} or more\nor data.over_long=drop (or cut); both count the rows",
        )
    if too_long and policy == "drop":
        return [], [], "dropped"
    kept_ids, kept_mask = list(ids[:context]), list(trainable[:context])
    if not any(kept_mask):
        return [], [], "no_target"
    return kept_ids, kept_mask, "cut" if too_long else "whole"


def read_chat(
    files: Sequence[str | Path],
    options: ChatOptions,
    ledger: ChatLedger,
    *,
    held_out: float = 0.0,
    salt: str = "",
) -> Iterator[Row | SetAside]:
    """Every row of the files in order, as a conversation or as set aside; `ledger` counts along.

    Args:
        files: files, folders and globs: .jsonl .json .csv .tsv .parquet, each also .gz.
        options: layout, limit and duplicates.
        ledger: a fresh ledger, whole once the iteration has ended.
        held_out: share of prompts (0 to 1) that is held out. The side follows from the prompt alone, so a
            question never stands on both.
        salt: another text draws another split of the same size.

    Raises:
        GroundupError: E-DATA-061 if the layout of a file is not known; at the end E-DATA-003 if the share
            of malformed rows is over the limit, or E-DATA-001 if no row is left.
    """
    sources, _ = open_sources([str(name) for name in files], [])
    seen: set[bytes] = set()
    first: SetAside | None = None
    for source in sources:
        if source.format == "text":
            raise _unknown_layout(source.name, [])
        for item in _read_source(source, options, ledger, seen, held_out, salt):
            ledger.rows += 1
            if isinstance(item, Row):
                ledger.kept += 1
                ledger.held_out += item.held_out
            else:
                # the same fault in another turn or message is the same reason
                ledger.set_aside[re.sub(r"\[\d+\]", "[]", item.reason)] += 1
                ledger.malformed += item.malformed
                first = item if first is None or (item.malformed and not first.malformed) else first
            yield item
    if ledger.malformed > options.malformed_limit * ledger.rows or not ledger.kept:
        raise _too_few_left(ledger, options, first)


def _read_source(
    source: Source, options: ChatOptions, ledger: ChatLedger, seen: set[bytes], held_out: float, salt: str
) -> Iterator[Row | SetAside]:
    records = read_records(source)
    head = list(itertools.islice(records, ROWS_TO_DETECT))
    readable = [record.fields for record in head if record.fields is not None]
    layout = _layout(source.name, readable, options) if readable else None
    if layout:
        ledger.layouts[source.name] = str(layout)
    for line, fields, problem in itertools.chain(head, records):
        if fields is None or layout is None:
            reason = problem or "a readable row after many that are not: the layout is unknown"
            yield SetAside(source.name, line, reason, "", True, fields)
            continue
        try:
            messages = normalize(fields, layout.format, layout.columns)
        except RowFault as fault:
            yield SetAside(source.name, line, fault.reason, fault.field, fault.malformed, fields)
            continue
        digest = hashlib.sha256(canonical_json(messages)).digest()
        if digest in seen and options.remove_duplicates:
            yield SetAside(source.name, line, "repeats an earlier row", "", False, fields)
            continue
        seen.add(digest)
        ledger.notes.update(_notes(fields, layout, messages))
        apart = held_out > 0 and is_held_out(prompt_key(messages), held_out, salt)
        yield Row(messages, source.name, line, apart)


def prompt_key(messages: Sequence[Message]) -> str:
    """What the split goes by: what the user says before the first answer, whatever its case and spacing."""
    turns = itertools.takewhile(lambda message: message["role"] != "assistant", messages)
    text = " ".join(message["content"] for message in turns if message["role"] == "user")
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _layout(file: str, readable: list[dict[str, Any]], options: ChatOptions) -> Layout:
    if options.columns is not None:
        return Layout("columns", options.columns)
    if options.format in ("alpaca", "sharegpt", "messages"):
        return Layout(options.format, None)
    found = detect(readable)
    if found is None or (options.format == "columns" and found.format != "columns"):
        raise _unknown_layout(file, sorted({name for fields in readable for name in fields}))
    return found


def _notes(fields: dict[str, Any], layout: Layout, messages: list[Message]) -> Iterator[str]:
    """What is worth telling about a kept row, once for each row."""
    used = set(layout.fields)
    if "chosen" in fields and layout.format in ("sharegpt", "messages"):
        used |= {"chosen", "rejected"}
        yield "preference pair: the chosen answer is learned, the rejected one is not used"
    if layout.format in ("sharegpt", "messages") and has_tool_turns(fields):
        yield "answers of tools are read as user turns"
    if "label" in fields:
        used.add("label")
    for name in fields:
        if name not in used:
            yield f'field "{printable(name, 60)}" is not used'
    names = {name for message in messages for name in PLACEHOLDER.findall(message["content"])}
    for name in sorted(names):
        yield f"placeholder {{{{{name}}}}} left as it is"


def _unknown_layout(file: str, fields: list[str]) -> GroundupError:
    pairs = ", ".join("+".join(pair) for pair in KNOWN_PAIRS)
    shown = f": its fields are {printable(', '.join(fields))}" if fields else ": it holds plain text"
    return GroundupError(
        "E-DATA-061",
        "the layout of the rows is not known",
        where=f"{file}{shown}",
        why=f"known are messages, conversations, instruction+output, {pairs}",
        fix="name the columns: data.columns={prompt: question, response: answer}"
        if fields
        else "fine-tuning reads rows: .jsonl .json .csv .tsv .parquet, each also .gz",
    )


def percent(share: float) -> str:
    """0.054 → "5.4 %", 0.01 → "1 %"."""
    return f"{100 * share:.3g} %"


def _too_few_left(ledger: ChatLedger, options: ChatOptions, first: SetAside | None) -> GroundupError:
    where = "no row in any file"
    if first is not None:
        where = f"{first.file}, first at line {first.line}: {first.reason}"
    others = ledger.set_aside.most_common(6)
    if len(others) > 1:
        where += "".join(f"\n{count:,} × {reason}" for reason, count in others)
    if not ledger.kept:
        what = f"no row is left to learn from: 0 of {ledger.rows:,} rows kept"
        why = "every row was set aside, for the reasons counted above" if first else "the files are empty"
        limit = ""
    else:
        share = ledger.malformed / ledger.rows
        what = (
            f"bad row skipped is over the limit: {ledger.malformed:,} of {ledger.rows:,} rows "
            f"({percent(share)}, limit {percent(options.malformed_limit)})"
        )
        why = "a format mismatch here usually means the wrong columns are mapped"
        limit = f"\nor allow them: data.malformed_limit={share + 0.0005:.3f}"
    file = first.file if first else "FILE"
    fix = f"groundup data check {file}   (shows the rows; they are kept in quarantine.jsonl)"
    fix += "\nor set data.columns={prompt: question, response: answer}" + limit
    return GroundupError("E-DATA-003" if ledger.kept else "E-DATA-001", what, where=where, why=why, fix=fix)
