"""The cleaned corpus on disk: one JSON line a document, in shards by set, with an index that hashes them.

It is what a tokenizer is trained on and what is tokenized; anybody can read it with any tool.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup.data.files import digest_of, readable_json, write_atomic
from groundup.errors import GroundupError, printable

SCHEMA = 1
CLEAN = "clean"
CARD = "card.json"
QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True)
class CleanShard:
    """One file of cleaned documents."""

    name: str
    documents: int
    bytes: int
    characters: int
    sha256: str


@dataclass(frozen=True)
class Corpus:
    """Cleaned documents of all sets. Made by `clean_corpus`, opened again with `Corpus.open`.

    Attributes:
        folder: holds `clean/`, `card.json` and `quarantine.jsonl`.
        card: the data card (see `groundup.data.card`).
        digest: changes with any character of any document, and with their order.
    """

    folder: Path
    card: dict[str, Any]
    digest: str
    shards: dict[str, list[CleanShard]]

    def texts(self, split: str) -> Iterator[str]:
        """The cleaned documents of one set, in the order of the files."""
        if split not in self.shards:
            raise GroundupError(
                "E-DATA-005",
                f"the corpus has no set named {printable(split)!r}",
                where=str(self.folder),
                why=f"it has: {', '.join(self.shards)}",
                fix="name one of these",
            )
        for shard in self.shards[split]:
            yield from read_shard(self.folder / CLEAN, shard)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of all cleaned documents."""
        return sum(shard.bytes for shards in self.shards.values() for shard in shards)

    @staticmethod
    def open(folder: Path) -> Corpus:
        """Open a finished corpus. Its shards are checked against their hashes when they are read."""
        try:
            index = json.loads((folder / CLEAN / "index.json").read_bytes())
            card = json.loads((folder / CARD).read_bytes())
            shards = {
                split: [CleanShard(**entry) for entry in part] for split, part in index["splits"].items()
            }
            if index["schema"] != SCHEMA or index["digest"] != digest_of(index["splits"]):
                raise ValueError("the index was edited or has another layout")
            return Corpus(folder, card, index["digest"], shards)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise GroundupError(
                "E-DATA-005",
                "there is no finished corpus here",
                where=f"{folder}: {printable(str(error))}",
                why="the card is written last, so without it preparation has not finished",
                fix="groundup prepare … with the same --out goes on where it stopped",
            ) from error


def write_shard(folder: Path, name: str, texts: list[str]) -> CleanShard:
    """Write one file of cleaned documents atomically."""
    content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    write_atomic(folder / f"{name}.jsonl", content)
    sizes = [len(text.encode()) for text in texts]
    return CleanShard(name, len(texts), sum(sizes), sum(map(len, texts)), hashlib.sha256(content).hexdigest())


def read_shard(folder: Path, shard: CleanShard) -> list[str]:
    """The documents of one file, which must be as it was written.

    Raises:
        GroundupError: E-DATA-004, the file is missing or was changed.
    """
    path = folder / f"{shard.name}.jsonl"
    content = path.read_bytes() if path.is_file() else None
    if content is None or hashlib.sha256(content).hexdigest() != shard.sha256:
        raise GroundupError(
            "E-DATA-004",
            f"the cleaned corpus has changed: {path.name} {'is missing' if content is None else 'has other content'}",
            where=str(path),
            why="what is trained on would not be what the data card describes",
            fix="delete the folder and prepare the data again",
        )
    return [json.loads(line)["text"] for line in content.splitlines()]


def write_index(folder: Path, shards: dict[str, list[CleanShard]]) -> str:
    """Write the index of a corpus folder and return the corpus digest."""
    splits = {split: [asdict(shard) for shard in part] for split, part in shards.items()}
    digest = digest_of(splits)
    write_atomic(folder / "index.json", readable_json({"schema": SCHEMA, "splits": splits, "digest": digest}))
    return digest
