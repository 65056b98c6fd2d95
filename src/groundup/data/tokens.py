"""From the cleaned corpus to token shards, one shard of text to one shard of tokens, on all cores.

A document becomes begin + ids + end. Each finished shard leaves its line for the index beside it, so that a
killed run goes on with the next one; the index itself is written last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.data.corpus import CLEAN, CleanShard, Corpus, read_shard
from groundup.data.files import cannot_write, check_free_space, readable_json, write_atomic
from groundup.data.shards import INDEX, Shard, TokenSet, token_dtype, write_index, write_shard
from groundup.data.units import batches
from groundup.data.workers import Task, run_tasks, usable_cores
from groundup.errors import GroundupError

if TYPE_CHECKING:
    from groundup.contract import TextEncoder

SMALL = 1 << 23


def tokenize_corpus(
    corpus: Corpus,
    encoder: TextEncoder,
    out: Path,
    *,
    workers: int = 0,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, TokenSet]:
    """Encode every document of a corpus into the token folder `out`.

    Args:
        encoder: must be picklable; its `encode_batch` gives plain ids, `specials` the begin and end tokens.
        workers: processes; 0 takes all cores (small corpora are encoded in this process).

    Returns:
        The opened set of each split.
    """
    if _finished(corpus, encoder, out):
        progress("the tokens are already there and unchanged")
    else:
        check_free_space(out, corpus.num_bytes * token_dtype(encoder.vocabulary).itemsize + (16 << 20))
        _claim(corpus, encoder, out)
        _encode_all(corpus, encoder, out, workers, progress)
    return {
        split: TokenSet.open(out, split, tokenizer_digest=encoder.digest, verify=False)
        for split in corpus.shards
    }


def _identity(corpus: Corpus, encoder: TextEncoder) -> dict[str, object]:
    return {"source": corpus.digest, "tokenizer": encoder.digest, "vocabulary": encoder.vocabulary}


def _finished(corpus: Corpus, encoder: TextEncoder, out: Path) -> bool:
    """Whether `out` holds the whole and unchanged tokens of this corpus by this tokenizer."""
    try:
        index = json.loads((out / INDEX).read_bytes())
        wanted = _identity(corpus, encoder)
        if {name: index[name] for name in wanted} != wanted:
            return False
        for split in corpus.shards:
            TokenSet.open(out, split)
    except (OSError, ValueError, KeyError, TypeError, GroundupError):
        return False
    return True


def _claim(corpus: Corpus, encoder: TextEncoder, out: Path) -> None:
    """Make the folder belong to this corpus and tokenizer; shards of others and their index go."""
    state = out / "state.json"
    try:
        mine = json.loads(state.read_bytes()) == _identity(corpus, encoder)
    except (OSError, ValueError):
        mine = False
    try:
        (out / INDEX).unlink(missing_ok=True)
        stale = ["*.tmp-*"] if mine else ["*.tmp-*", "*.shard.json", "*.tokens", "*.documents"]
        for pattern in stale:
            for path in out.glob(pattern):
                path.unlink()
    except OSError as error:
        raise cannot_write(out, error) from error
    write_atomic(state, readable_json(_identity(corpus, encoder)))


def _encode_all(
    corpus: Corpus, encoder: TextEncoder, out: Path, workers: int, progress: Callable[[str], None]
) -> None:
    if workers <= 0:
        workers = 1 if corpus.num_bytes < SMALL else usable_cores()

    def tasks() -> Iterator[Task]:
        for part in corpus.shards.values():
            for shard in part:
                if _whole_shard(out, shard.name) is None:
                    yield Task(f"shard {shard.name}", shard)

    shared = (corpus.folder / CLEAN, encoder, out)
    for done, (name, _) in enumerate(run_tasks(_encode_shard, shared, tasks(), workers), start=1):
        if done % 16 == 0:
            progress(f"tokenized {name}")
    index: dict[str, list[Shard]] = {split: [] for split in corpus.shards}
    for split, part in corpus.shards.items():
        for clean in part:
            shard = _whole_shard(out, clean.name)
            if shard is None:
                raise AssertionError(f"shard {clean.name} was not written")
            index[split].append(shard)
    write_index(
        out, index, tokenizer_digest=encoder.digest, vocabulary=encoder.vocabulary, source=corpus.digest
    )
    for path in [*out.glob("*.shard.json"), out / "state.json"]:
        path.unlink()


def _whole_shard(out: Path, name: str) -> Shard | None:
    """The line of a shard that an earlier run finished."""
    try:
        return Shard(**json.loads((out / f"{name}.shard.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _encode_shard(shared: tuple[Path, TextEncoder, Path], clean: CleanShard) -> None:
    folder, encoder, out = shared
    split, _, number = clean.name.rpartition("-")

    def documents() -> Iterator[tuple[list[int], int]]:
        for batch in batches(read_shard(folder, clean)):
            for text, ids in zip(batch, encoder.encode_batch(batch)):
                yield encoder.document_ids(ids), len(text.encode())

    shard = write_shard(out, split, int(number), documents(), encoder.vocabulary)
    write_atomic(out / f"{clean.name}.shard.json", readable_json(asdict(shard)))
