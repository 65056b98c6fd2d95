"""What one chunk of work leaves behind: cleaned texts with their fingerprints, and what was set aside.

`clean_chunk` runs in worker processes. Its result is one file, written atomically: it exists and is whole, or
the chunk is done again.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.clean import Cleaned, clean_text
from groundup.data.deduplicate import band_keys, signatures, text_digest
from groundup.data.files import write_atomic
from groundup.data.filters import reason_to_set_aside
from groundup.data.ledger import Ledger
from groundup.data.options import PrepareOptions
from groundup.data.overlap import EvaluationIndex
from groundup.data.rows import Row, rows_of
from groundup.data.scripts import count_scripts
from groundup.data.segments import Chunk
from groundup.data.sources import Source
from groundup.errors import GroundupError, printable

EXCERPT = 2000
"""Characters of a set-aside text that are kept in quarantine."""


@dataclass(frozen=True)
class Work:
    """What every chunk needs; sent to each worker once."""

    options: PrepareOptions
    sources: list[Source]
    evaluation: EvaluationIndex
    folder: Path


def part_path(folder: Path, number: int) -> Path:
    """Where the result of a chunk lies."""
    return folder / f"part-{number:05d}.npz"


@dataclass
class _Result:
    texts: list[str] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    groups: list[bytes] = field(default_factory=list)
    numbers: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    aside: list[dict[str, Any]] = field(default_factory=list)
    ledgers: dict[int, Ledger] = field(default_factory=dict)
    repairs: dict[str, list[Any]] = field(default_factory=dict)


def clean_chunk(work: Work, chunk: Chunk) -> None:
    """Read, clean, filter and fingerprint one chunk, and write its part."""
    options = work.options
    result = _Result()
    order = 0
    for segment in chunk.segments:
        source = work.sources[segment.source]
        ledger = result.ledgers.setdefault(segment.source, Ledger())
        for row in rows_of(
            segment,
            source,
            options.text_field,
            options.split.group_field,
            options.max_document_bytes,
            options.on_bad_file == "skip",
        ):
            _take(row, order, segment.source, source, ledger, options, result)
            order += 1
    _remove_overlap(result, work)
    _write(part_path(work.folder, chunk.number), result, options)


def _take(
    row: Row,
    order: int,
    number: int,
    source: Source,
    ledger: Ledger,
    options: PrepareOptions,
    result: _Result,
) -> None:
    """One row: into the kept texts, or aside with a reason."""
    if row.text is None:
        _aside(result, ledger, order, source, row, kind_of_problem(row.problem), row.problem, row.raw, True)
        return
    cleaned = clean_text(row.text, options)
    if cleaned.problem:
        if options.utf8 == "error":
            raise _invalid(source, row, cleaned)
        raw = row.text if isinstance(row.text, bytes) else row.text.encode("utf-8", "surrogatepass")
        _aside(result, ledger, order, source, row, "malformed: invalid UTF-8", cleaned.problem, raw, True)
        return
    for repair in cleaned.repairs:
        entry = result.repairs.setdefault(repair, [0, f"{source.name}:{row.line}"])
        entry[0] += 1
    failed = reason_to_set_aside(cleaned.text, options.filters)
    if failed is not None:
        _aside(result, ledger, order, source, row, *failed, cleaned.encoded, False)
        return
    digest = text_digest(cleaned.encoded)
    result.texts.append(cleaned.text)
    result.encoded.append(cleaned.encoded)
    result.digests.append(digest)
    group = (
        digest[:8]
        if row.group is None
        else hashlib.blake2b(row.group.encode("utf-8", "replace"), digest_size=8).digest()
    )
    result.groups.append(group)
    result.numbers.append((order, number, row.line, row.offset, row.length, len(cleaned.text)))
    ledger.keep(row.length, len(cleaned.encoded))


def kind_of_problem(problem: str) -> str:
    """The class that a problem is counted under: what is said before the first detail."""
    for beginning, reason in (
        ("line too long", "malformed: too long"),
        ("record too long", "malformed: too long"),
        ("paragraph too long", "malformed: too long"),
        ("unreadable file", "malformed: unreadable file"),
        ("duplicate key", "malformed: duplicate key"),
        ("not JSON", "malformed: not JSON"),
        ("not csv", "malformed: not csv"),
    ):
        if problem.startswith(beginning):
            return reason
    return "malformed: missing field" if " is missing" in problem else "malformed: wrong type or shape"


def _aside(
    result: _Result,
    ledger: Ledger,
    order: int,
    source: Source,
    row: Row,
    reason: str,
    detail: str,
    raw: bytes,
    malformed: bool,
) -> None:
    ledger.reject(reason, row.length, malformed=malformed)
    text = raw[: 4 * EXCERPT].decode("utf-8", "replace")[:EXCERPT]
    result.aside.append(_record(order, source.name, row.line, row.offset, reason, detail, text))


def _record(
    order: int, name: str, line: int, offset: int, reason: str, detail: str, text: str
) -> dict[str, Any]:
    """One line of quarantine; `order` is its place within the chunk and is dropped when it is written."""
    return {
        "order": order,
        "file": name,
        "line": line,
        "byte": offset,
        "reason": reason,
        "detail": detail,
        "text": text,
    }


def _invalid(source: Source, row: Row, cleaned: Cleaned) -> GroundupError:
    return GroundupError(
        "E-DATA-006",
        f"text that is not valid UTF-8: {cleaned.problem}",
        where=f"{source.path}: line {row.line}, document at byte {row.offset}",
        why="data.utf8 is set to error",
        fix="convert the file (iconv -f OLD-ENCODING -t UTF-8),\nor set data.utf8=replace or data.utf8=set_aside",
    )


def _remove_overlap(result: _Result, work: Work) -> None:
    if not work.evaluation.names:
        return
    found = work.evaluation.find(result.texts)
    for index, name in found.items():
        order, number, line, offset, raw, _ = result.numbers[index]
        reason = "overlaps an evaluation file"
        result.ledgers[number].withdraw(reason, raw, len(result.encoded[index]))
        text = result.texts[index][:EXCERPT]
        result.aside.append(_record(order, work.sources[number].name, line, offset, reason, name, text))
    stays = [index for index in range(len(result.texts)) if index not in found]
    result.texts = [result.texts[index] for index in stays]
    result.encoded = [result.encoded[index] for index in stays]
    result.digests = [result.digests[index] for index in stays]
    result.groups = [result.groups[index] for index in stays]
    result.numbers = [result.numbers[index] for index in stays]
    result.aside.sort(key=lambda record: int(record["order"]))


def _write(path: Path, result: _Result, options: PrepareOptions) -> None:
    count = len(result.texts)
    arrays: dict[str, np.ndarray] = {
        "text": np.frombuffer(b"".join(result.encoded), dtype=np.uint8),
        "ends": np.cumsum([len(part) for part in result.encoded], dtype=np.int64),
        "digests": np.frombuffer(b"".join(result.digests), dtype="<u8").reshape(-1, 2),
        "groups": np.frombuffer(b"".join(result.groups), dtype="<u8"),
        "numbers": np.asarray(result.numbers, dtype=np.int64).reshape(count, 6),
    }
    if options.deduplicate.near:
        signature, compared = signatures(result.texts, options.deduplicate)
        arrays["signature"] = signature
        keys = band_keys(signature, options.deduplicate.threshold)
        # One array a band, so that looking for equal keys holds one band of all documents at a time.
        arrays |= {f"band_{number}": keys[:, number] for number in range(keys.shape[1])}
        arrays["compared"] = compared
    notes = {
        "aside": result.aside,
        "ledgers": {str(number): ledger.as_dict() for number, ledger in sorted(result.ledgers.items())},
        "repairs": result.repairs,
        "scripts": count_scripts(result.texts),
    }
    arrays["notes"] = np.frombuffer(json.dumps(notes).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


class Part:
    """The result of one chunk, read array by array as they are asked for."""

    ORDER, SOURCE, LINE, OFFSET, RAW, CHARACTERS = range(6)

    def __init__(self, path: Path) -> None:
        self._arrays = np.load(path, allow_pickle=False)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self._arrays[name])

    def notes(self) -> dict[str, Any]:
        """Set-aside records, ledgers by source, repairs, scripts."""
        loaded: dict[str, Any] = json.loads(self["notes"].tobytes())
        return loaded

    def ledgers(self, notes: dict[str, Any]) -> dict[int, Ledger]:
        """The ledger of each source that this chunk holds rows of."""
        return {int(number): Ledger.from_dict(value) for number, value in notes["ledgers"].items()}

    def close(self) -> None:
        self._arrays.close()


def merge_repairs(total: dict[str, list[Any]], more: dict[str, list[Any]]) -> None:
    """Add counts; the first place of each repair stays."""
    for repair, (count, place) in more.items():
        entry = total.setdefault(repair, [0, printable(place)])
        entry[0] += count
