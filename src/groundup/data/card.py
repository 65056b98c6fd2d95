"""The data card and the quarantine: what a corpus was made of, what became of it, and what was left out.

Nothing in the card depends on the machine, the time or the number of workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.corpus import CleanShard
from groundup.data.decide import Documents
from groundup.data.ledger import Ledger
from groundup.data.options import PrepareOptions
from groundup.data.sources import Source
from groundup.errors import GroundupError, printable

EXAMPLES = 3
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def build_card(
    input_digest: str,
    corpus_digest: str,
    options: PrepareOptions,
    sources: list[Source],
    ledgers: dict[int, Ledger],
    documents: Documents,
    shards: dict[str, list[CleanShard]],
    notes: dict[str, Any],
) -> dict[str, Any]:
    """Everything that is known about a corpus, as plain JSON values.

    Args:
        ledgers: one for each source, by its number.
        notes: repairs, scripts, examples, names of evaluation files, number of ignored files.
    """
    total = Ledger()
    for ledger in ledgers.values():
        total.add(ledger)
    total.check()
    splits = {
        name: {
            "documents": sum(shard.documents for shard in part),
            "bytes": sum(shard.bytes for shard in part),
            "characters": sum(shard.characters for shard in part),
        }
        for name, part in shards.items()
    }
    more = sum(len(pieces) - 1 for pieces in documents.pieces.values())
    if sum(part["documents"] for part in splits.values()) != total.kept_documents + more:
        raise AssertionError("the documents of the sets are not those of the ledger")
    if sum(part["bytes"] for part in splits.values()) != total.kept_bytes:
        raise AssertionError("the bytes of the sets are not those of the ledger")
    aside = total.as_dict()["set_aside"]
    return {
        "schema": 1,
        "input_digest": input_digest,
        "corpus_digest": corpus_digest,
        "ledger": total.as_dict(),
        "splits": splits,
        "documents_cut_between_sets": more,
        "document_bytes": _quantiles(documents.clean_bytes[documents.kept]),
        "scripts": _shares(notes["scripts"]),
        "repairs": {
            name: {"documents": count, "first": first}
            for name, (count, first) in sorted(notes["repairs"].items())
        },
        "duplicates": {
            name: entry for name, entry in aside.items() if "duplicate" in name and "malformed" not in name
        },
        "held_out_overlap": {"policy": options.split.overlap, "found": len(documents.across)},
        "evaluation_overlap": {
            "files": notes["evaluation"],
            "documents": aside.get("overlaps an evaluation file", {"documents": 0})["documents"],
        },
        "examples": notes["examples"],
        "sources": [_source(source, ledgers.get(number, Ledger())) for number, source in enumerate(sources)],
        "ignored_files": notes["ignored"],
        "options": options.model_dump(mode="json"),
    }


def _source(source: Source, ledger: Ledger) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "file": source.name,
        "format": source.format,
        "size": source.size,
        "sha256": source.sha256,
    }
    ledger.check()
    return shown | ledger.as_dict()


def _quantiles(values: np.ndarray) -> dict[str, float]:
    if not values.size:
        return {}
    found = np.percentile(values, QUANTILES, method="nearest")
    return {f"{share} %": int(value) for share, value in zip(QUANTILES, found)} | {
        "mean": round(float(values.mean()), 1)
    }


def _shares(counts: dict[str, int]) -> dict[str, float]:
    """Shares of the letters of all scripts, the most frequent first."""
    total = sum(counts.values())
    return {
        name: round(count / total, 4)
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }


def add_examples(examples: dict[str, list[dict[str, Any]]], records: Iterable[dict[str, Any]]) -> None:
    """Remember the first few set-aside documents of each reason."""
    for record in records:
        shown = examples.setdefault(record["reason"], [])
        if len(shown) < EXAMPLES:
            shown.append(
                {
                    "file": record["file"],
                    "line": record["line"],
                    "detail": printable(record["detail"], 120),
                    "text": printable(record["text"], 120),
                }
            )


def quarantine_lines(records: Iterable[dict[str, Any]]) -> bytes:
    """Set-aside documents as JSON lines: file, line, byte, reason, detail, text."""
    lines = []
    for record in sorted(records, key=lambda record: int(record["order"])):
        shown = {name: value for name, value in record.items() if name != "order"}
        lines.append(json.dumps(shown, ensure_ascii=False) + "\n")
    return "".join(lines).encode("utf-8", "replace")


def share(part: int, whole: int) -> str:
    """A share in per cent, with enough digits to differ from zero."""
    return f"{100 * part / max(whole, 1):.3g} %"


def over_the_limit(
    total: Ledger, options: PrepareOptions, first: dict[str, Any], quarantine: Path
) -> GroundupError:
    """The error for too many malformed rows."""
    return GroundupError(
        "E-DATA-003",
        f"malformed rows are over the limit: {total.malformed:,} of {total.documents:,} "
        f"({share(total.malformed, total.documents)}, limit {100 * options.malformed_limit:g} %)",
        where=f"{printable(first['file'])}, first at line {first['line']}: {printable(first['detail'])}",
        why="a format mismatch here usually means that the wrong field is read, or that the files are damaged",
        fix=f"groundup data check '{printable(first['file'])}'   (shows the rows; they are kept in {quarantine})\n"
        "or name the field of the text: data.text_field=NAME\n"
        "or, if they may go, raise data.malformed_limit",
    )


def nothing_left(total: Ledger, name: str, options: PrepareOptions) -> GroundupError:
    """The error for an empty corpus, or an empty set."""
    counts = [f"{reason}: {entry['documents']:,}" for reason, entry in total.as_dict()["set_aside"].items()]
    if not total.documents:
        what, fix = "the files hold no documents", "give files with text in them"
    elif not total.kept_documents:
        what, fix = f"all {total.documents:,} documents were set aside", "loosen the filter that took most"
    else:
        what = f"the set {name!r} is empty: {total.kept_documents:,} documents are too few for this split"
        fix = "cut the text itself: data.split.kind=tail, or hold nothing out: data.split.kind=none"
        if options.documents == "file":
            fix += ",\nor make more documents of each file: data.documents=paragraph"
    return GroundupError(
        "E-DATA-001",
        what,
        where="\n".join([f"read: {total.documents:,}", *counts]),
        why="there would be nothing to learn from or to measure on",
        fix=fix,
    )
