"""Preparation from end to end: files → cleaned corpus → token shards.

Two steps, so that a tokenizer can be trained on the corpus in between:

    corpus = clean_corpus(options, out)
    sets = tokenize_corpus(corpus, encoder, out / "tokens")

A chunk of input is cleaned by one worker into one part file; then a single pass over the fingerprints of all
documents decides what stays; then each part is written out as shards. Chunks do not depend on the number of
workers and every file appears whole or not at all, so the result is byte-identical for any number of workers
and a killed preparation goes on where it stopped. What an earlier preparation left in the same folder is
replaced only when the new one is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.data.card import add_examples, build_card, nothing_left, over_the_limit, quarantine_lines
from groundup.data.corpus import CARD, CLEAN, QUARANTINE, CleanShard, Corpus, write_index, write_shard
from groundup.data.decide import REASONS, Documents, decide, place
from groundup.data.evaluation_files import evaluation_index
from groundup.data.files import (
    cannot_write,
    check_free_space,
    digest_of,
    readable_json,
    write_atomic,
)
from groundup.data.ledger import Ledger
from groundup.data.options import PrepareOptions
from groundup.data.parts import EXCERPT, Part, Work, clean_chunk, merge_repairs, part_path
from groundup.data.segments import Cutting, chunk_bytes, chunks
from groundup.data.shards import TokenSet
from groundup.data.sources import open_sources
from groundup.data.split import Piece
from groundup.data.tokens import tokenize_corpus
from groundup.data.workers import Task, run_tasks, usable_cores
from groundup.errors import GroundupError

if TYPE_CHECKING:
    from groundup.contract import TextEncoder

VERSION = 1
"""Raised when the same input and options give another result than before: finished work is then redone."""
SMALL = 1 << 23
"""Below this many bytes, starting worker processes costs more than it saves."""
LARGE = 1 << 26
"""Above this many bytes, writing the shards is worth processes of its own."""

Progress = Callable[[str], None]


def silent(message: str) -> None:
    """The progress callback that shows nothing."""


def prepare(
    options: PrepareOptions,
    encoder: TextEncoder | None,
    out: Path,
    *,
    workers: int = 0,
    progress: Progress = silent,
) -> tuple[Corpus, dict[str, TokenSet]]:
    """Clean and, if there is an encoder, tokenize into `out/tokens`."""
    corpus = clean_corpus(options, out, workers=workers, progress=progress)
    if encoder is None:
        return corpus, {}
    return corpus, tokenize_corpus(corpus, encoder, out / "tokens", workers=workers, progress=progress)


def clean_corpus(
    options: PrepareOptions, out: Path, *, workers: int = 0, progress: Progress = silent
) -> Corpus:
    """Read, clean, filter, deduplicate and split files into `out`.

    Args:
        out: receives `clean/`, `card.json` and `quarantine.jsonl`; `work/` while it is being made.
        workers: processes; 0 takes all cores, or none beside this one for small input.
        progress: called with a line now and then.

    Raises:
        GroundupError: nothing to read or nothing left, too many malformed rows, a damaged file, no room …
    """
    _check_options(options)
    held_out = options.split.held_out_files if options.split.kind == "files" else []
    sources, ignored = open_sources(options.files, held_out, out.resolve())
    evaluation = evaluation_index(options)
    described = [(s.name, s.group, s.format, s.held_out, s.size, s.sha256) for s in sources]
    digest = digest_of(
        [VERSION, options.model_dump(mode="json"), described, evaluation.names, evaluation.digest()]
    )
    finished = _finished(out, digest)
    if finished is not None:
        progress("the corpus is already prepared and unchanged")
        return finished
    total = sum(source.size * (4 if source.packed else 1) for source in sources)
    check_free_space(out, 2 * total + (64 << 20))
    folder = out / "work"
    _claim(folder, digest)
    work = Work(options, sources, evaluation, folder)
    cores = _processes(workers, total)
    count = _clean_parts(work, total, cores, progress)
    notes: dict[str, Any] = {"repairs": {}, "scripts": {}, "examples": {}, "ignored": ignored}
    notes["evaluation"] = evaluation.names
    ledgers = _check_parts(work, count, out, notes)
    progress("looking for duplicates")
    documents = decide(folder, count, options, sources)
    writers = cores if total > LARGE else 1
    shards = _write_parts(work, count, documents, ledgers, writers, notes)
    _check_sets(options, ledgers, shards)
    corpus_digest = write_index(folder / CLEAN, shards)
    card = build_card(digest, corpus_digest, options, sources, ledgers, documents, shards, notes)
    _publish(out, folder, count, card)
    return Corpus.open(out)


def _check_options(options: PrepareOptions) -> None:
    split = options.split
    problem = ""
    if split.kind == "files" and (not split.held_out_files or len(split.held_out) != 1):
        problem = "split.kind=files needs split.held_out_files and exactly one name in split.held_out"
    elif split.kind != "files" and split.held_out_files:
        problem = f"split.held_out_files is set, but split.kind is {split.kind}"
    elif split.kind != "group" and split.group_field is not None:
        problem = f"split.group_field is set, but split.kind is {split.kind}"
    elif split.kind in ("hash", "group", "tail") and not (
        split.held_out and 0 < sum(split.held_out.values()) < 1 and min(split.held_out.values()) > 0
    ):
        problem = f"the shares in split.held_out must each be above 0 and together below 1: {split.held_out}"
    elif len({split.train, *split.held_out}) != 1 + len(split.held_out):
        problem = f"split.train and split.held_out share a name: {split.train!r}"
    elif not all(name.isidentifier() for name in split.names):
        problem = f"the names of sets must be words of letters, digits and underscores: {split.names}"
    if problem:
        raise GroundupError(
            "E-DATA-015",
            problem,
            where="data.split",
            why="a field that would not be used is more likely a mistake than meant",
            fix="set kind and fields that belong together; groundup prepare --help lists them",
            exit_code=2,
        )


def _processes(workers: int, total: int) -> int:
    if workers > 0:
        return workers
    return 1 if total < SMALL else usable_cores()


def _finished(out: Path, digest: str) -> Corpus | None:
    """The corpus in `out`, if it is complete and was made from this very input."""
    try:
        card = json.loads((out / CARD).read_bytes())
        return Corpus.open(out) if card["input_digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError, GroundupError):
        return None


def _claim(folder: Path, digest: str) -> None:
    """Make the working folder belong to this input: what was left by another is removed."""
    state = folder / "state.json"
    try:
        mine = json.loads(state.read_bytes())["input_digest"] == digest
    except (OSError, ValueError, KeyError, TypeError):
        mine = False
    try:
        if not mine and folder.exists():
            shutil.rmtree(folder)
        shutil.rmtree(folder / CLEAN, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("*.tmp-*"):
            stale.unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error
    write_atomic(state, readable_json({"input_digest": digest}))


def _clean_parts(work: Work, total: int, cores: int, progress: Progress) -> int:
    """Clean all chunks whose part is not there yet; returns how many parts there are."""
    options = work.options
    cutting = Cutting(
        documents=options.documents,
        max_document_bytes=options.max_document_bytes,
        text_field=options.text_field,
        group_field=options.split.group_field,
        skip_bad_files=options.on_bad_file == "skip",
        scratch=work.folder,
    )
    count = 0

    def tasks() -> Iterator[Task]:
        nonlocal count
        for chunk in chunks(work.sources, cutting, chunk_bytes(total)):
            count += 1
            if not part_path(work.folder, chunk.number).exists():
                first = chunk.segments[0]
                name = f"chunk {chunk.number}: {work.sources[first.source].name} from byte {first.offset:,}"
                yield Task(name, chunk)

    for done, (name, _) in enumerate(run_tasks(clean_chunk, work, tasks(), cores), start=1):
        if done % 16 == 0:
            progress(f"cleaned {name}")
    return count


def _check_parts(work: Work, count: int, out: Path, notes: dict[str, Any]) -> dict[int, Ledger]:
    """Add up the ledgers of all parts and gather their notes; stop if too much is malformed or nothing is left."""
    ledgers: dict[int, Ledger] = {}
    first: dict[str, Any] | None = None
    for number in range(count):
        with closing(Part(part_path(work.folder, number))) as part:
            found = part.notes()
            for source, ledger in part.ledgers(found).items():
                ledgers.setdefault(source, Ledger()).add(ledger)
        merge_repairs(notes["repairs"], found["repairs"])
        for script, letters in found["scripts"].items():
            notes["scripts"][script] = notes["scripts"].get(script, 0) + letters
        if first is None:
            first = next(
                (record for record in found["aside"] if record["reason"].startswith("malformed")), None
            )
    total = Ledger()
    for ledger in ledgers.values():
        total.add(ledger)
    total.check()
    if first is not None and total.malformed > work.options.malformed_limit * total.documents:
        pieces = []
        for number in range(count):
            with closing(Part(part_path(work.folder, number))) as part:
                pieces.append(quarantine_lines(part.notes()["aside"]))
        write_atomic(out / QUARANTINE, b"".join(pieces))
        raise over_the_limit(total, work.options, first, out / QUARANTINE)
    if not total.kept_documents:
        raise nothing_left(total, "", work.options)
    return ledgers


@dataclass(frozen=True)
class _Outcome:
    """What was decided about the documents of one part."""

    number: int
    sides: list[int]
    verdicts: list[int]
    twins: dict[int, str]
    pieces: dict[int, list[Piece]]


def _write_parts(
    work: Work,
    count: int,
    documents: Documents,
    ledgers: dict[int, Ledger],
    cores: int,
    notes: dict[str, Any],
) -> dict[str, list[CleanShard]]:
    """Write the shards of all parts, set duplicates aside in the ledgers, collect examples."""
    for index in (documents.verdict != 0).nonzero()[0].tolist():
        reason = REASONS[int(documents.verdict[index])]
        sizes = int(documents.raw_bytes[index]), int(documents.clean_bytes[index])
        ledgers[int(documents.source[index])].withdraw(reason, *sizes)

    def tasks() -> Iterator[Task]:
        for number in range(count):
            here = documents.of_part(number)
            removed = (documents.verdict[here] != 0).nonzero()[0].tolist()
            twins = {i: place(documents, work.sources, int(documents.twin[here.start + i])) for i in removed}
            pieces = {i - here.start: p for i, p in documents.pieces.items() if here.start <= i < here.stop}
            sides, verdicts = documents.side[here].tolist(), documents.verdict[here].tolist()
            yield Task(f"writing part {number}", _Outcome(number, sides, verdicts, twins, pieces))

    results = dict(result for _, result in run_tasks(_write_part, work, tasks(), cores))
    shards: dict[str, list[CleanShard]] = {name: [] for name in work.options.split.names}
    for number in range(count):
        written, records = results[number]
        for name, shard in written.items():
            shards[name].append(shard)
        add_examples(notes["examples"], records)
    notes["examples"] = dict(sorted(notes["examples"].items()))
    return shards


def _write_part(
    work: Work, outcome: _Outcome
) -> tuple[int, tuple[dict[str, CleanShard], list[dict[str, Any]]]]:
    """The shards and the quarantine of one part (runs in a worker)."""
    with closing(Part(part_path(work.folder, outcome.number))) as part:
        blob, ends, numbers = part["text"].tobytes(), part["ends"].tolist(), part["numbers"]
        aside = part.notes()["aside"]
    names = work.options.split.names
    texts: dict[str, list[str]] = {name: [] for name in names}
    start = 0
    for index, end in enumerate(ends):
        text = blob[start:end].decode()
        start = end
        if outcome.verdicts[index]:
            order, source, line, offset, _, _ = numbers[index].tolist()
            aside.append(
                {
                    "order": order,
                    "file": work.sources[source].name,
                    "line": line,
                    "byte": offset,
                    "reason": REASONS[outcome.verdicts[index]],
                    "detail": f"like {outcome.twins[index]}",
                    "text": text[:EXCERPT],
                }
            )
            continue
        for side, first, last in outcome.pieces.get(index, [Piece(outcome.sides[index], 0, len(text))]):
            texts[names[side]].append(text[first:last])
    write_atomic(work.folder / f"quarantine-{outcome.number:05d}", quarantine_lines(aside))
    shards = {}
    for name, part_texts in texts.items():
        if part_texts:
            shards[name] = write_shard(work.folder / CLEAN, f"{name}-{outcome.number:05d}", part_texts)
    few: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(aside, key=lambda record: int(record["order"])):
        few.setdefault(record["reason"], []).append(record)
    return outcome.number, (shards, [record for records in few.values() for record in records[:3]])


def _check_sets(
    options: PrepareOptions, ledgers: dict[int, Ledger], shards: dict[str, list[CleanShard]]
) -> None:
    for name, part in shards.items():
        if not part:
            total = Ledger()
            for ledger in ledgers.values():
                total.add(ledger)
            raise nothing_left(total, name, options)


def _publish(out: Path, folder: Path, count: int, card: dict[str, Any]) -> None:
    """Put the finished corpus in place: the card last, for with it the corpus counts as finished."""
    temporary = folder / QUARANTINE
    try:
        with temporary.open("wb") as file:
            for number in range(count):
                file.write((folder / f"quarantine-{number:05d}").read_bytes())
            file.flush()
            os.fsync(file.fileno())
        (out / CARD).unlink(missing_ok=True)
        if (out / CLEAN).exists():
            shutil.rmtree(out / CLEAN)
        (folder / CLEAN).rename(out / CLEAN)
        temporary.replace(out / QUARANTINE)
    except OSError as error:
        raise cannot_write(out, error) from error
    write_atomic(out / CARD, readable_json(card))
    shutil.rmtree(folder, ignore_errors=True)
