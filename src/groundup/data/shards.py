"""Token shards: how prepared documents lie on disk, and how they are mapped back.

A folder holds `index.json` and, for each shard, two raw little-endian files: `train-00000.tokens` (the ids
of all documents one after another, begin and end tokens included) and `train-00000.documents` (for each
document a pair of int64: the offset at which it ends, and the UTF-8 bytes of its cleaned text, which bits
per byte is counted over). The index carries a hash of every file, so that a shard that was changed, lost or
swapped after tokenization is refused instead of trained on.

Nothing that reads text or knows a tokenizer may enter here, and nothing that imports torch: worker processes
import this file and must start fast.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.files import digest_of, file_sha256, write_atomic
from groundup.errors import GroundupError, printable

SCHEMA = 1
INDEX = "index.json"
REBUILD = "prepare the data again (groundup prepare … with the same --out takes up where it can)"


@dataclass(frozen=True)
class Shard:
    """One line of the index: a pair of files and what they must contain."""

    name: str
    documents: int
    tokens: int
    bytes: int
    tokens_sha256: str
    documents_sha256: str


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """The smallest little-endian unsigned type that holds the ids 0 … vocabulary - 1."""
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


def write_shard(
    folder: Path, split: str, number: int, documents: Iterable[tuple[Sequence[int], int]], vocabulary: int
) -> Shard:
    """Write one shard, both files atomically, and return its line for the index.

    Args:
        documents: pairs of ids (begin and end tokens included) and the UTF-8 bytes of the cleaned text.
        vocabulary: the number of ids; decides between two and four bytes a token.
    """
    dtype = token_dtype(vocabulary)
    parts: list[np.ndarray] = []
    table: list[tuple[int, int]] = []
    end = 0
    for ids, text_bytes in documents:
        part = np.asarray(ids, dtype=np.int64)
        if part.size and (int(part.min()) < 0 or int(part.max()) >= vocabulary):
            raise ValueError(f"document {len(table)} holds an id outside 0 … {vocabulary - 1}")
        parts.append(part.astype(dtype))
        end += part.size
        table.append((end, text_bytes))
    tokens = np.concatenate(parts).tobytes() if parts else b""
    pairs = np.asarray(table, dtype="<i8").reshape(-1, 2)
    name = f"{split}-{number:05d}"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{name}.tokens", tokens)
    write_atomic(folder / f"{name}.documents", pairs.tobytes())
    return Shard(
        name=name,
        documents=len(table),
        tokens=end,
        bytes=int(pairs[:, 1].sum()),
        tokens_sha256=hashlib.sha256(tokens).hexdigest(),
        documents_sha256=hashlib.sha256(pairs.tobytes()).hexdigest(),
    )


def write_index(
    folder: Path, splits: dict[str, list[Shard]], *, tokenizer_digest: str, vocabulary: int, source: str = ""
) -> None:
    """Write `index.json`, the last file of a token folder: shards without it are never used.

    Args:
        source: the digest of the corpus that was tokenized, where there is one.
    """
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "tokenizer": tokenizer_digest,
        "source": source,
        "vocabulary": vocabulary,
        "dtype": token_dtype(vocabulary).newbyteorder("=").name,
        "splits": {split: [asdict(shard) for shard in shards] for split, shards in splits.items()},
    }
    content["digest"] = digest_of(content)
    write_atomic(folder / INDEX, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")


def write_token_folder(
    folder: Path,
    splits: dict[str, Iterable[tuple[Sequence[int], int]]],
    *,
    tokenizer_digest: str,
    vocabulary: int,
    tokens_per_shard: int = 1 << 22,
) -> None:
    """Write documents that are already ids into a whole token folder, split by split.

    Args:
        splits: for each split, pairs of ids (begin and end tokens included) and text bytes.
        tokens_per_shard: a shard is closed with the document that reaches this number of tokens.
    """
    index: dict[str, list[Shard]] = {}
    for split, documents in splits.items():
        index[split] = [
            write_shard(folder, split, number, part, vocabulary)
            for number, part in enumerate(_cut_by_tokens(documents, tokens_per_shard))
        ]
    write_index(folder, index, tokenizer_digest=tokenizer_digest, vocabulary=vocabulary)


def _cut_by_tokens(
    documents: Iterable[tuple[Sequence[int], int]], tokens_per_shard: int
) -> Iterator[list[tuple[Sequence[int], int]]]:
    part: list[tuple[Sequence[int], int]] = []
    tokens = 0
    for document in documents:
        part.append(document)
        tokens += len(document[0])
        if tokens >= tokens_per_shard:
            yield part
            part, tokens = [], 0
    if part:
        yield part


@dataclass(frozen=True)
class TokenSet:
    """The documents of one split, memory-mapped. Open one with `TokenSet.open`.

    Attributes:
        lengths: tokens of each document, begin and end included, int64, shape (documents,).
        document_bytes: UTF-8 bytes of each document's cleaned text, int64, shape (documents,).
        vocabulary: the number of ids of the tokenizer that made this set.
        tokenizer_digest: the digest of that tokenizer.
        digest: changes with any token, the order of documents, or the tokenizer.
        changes: what was found changed and accepted because of `trust_changed`.
    """

    folder: Path
    split: str
    vocabulary: int
    tokenizer_digest: str
    digest: str
    lengths: np.ndarray
    document_bytes: np.ndarray
    changes: tuple[str, ...]
    _starts: np.ndarray = field(repr=False)  # first token of each document within its shard
    _shard_of: np.ndarray = field(repr=False)
    _tokens: tuple[np.ndarray, ...] = field(repr=False)

    @property
    def num_documents(self) -> int:
        return int(self.lengths.size)

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the cleaned text of all documents."""
        return int(self.document_bytes.sum())

    def document(self, i: int) -> np.ndarray:
        """The ids of document `i`, uint16 or uint32: a read-only view of the mapped file, not a copy."""
        start = int(self._starts[i])
        return self._tokens[int(self._shard_of[i])][start : start + int(self.lengths[i])]

    @staticmethod
    def open(
        folder: Path,
        split: str,
        *,
        verify: bool = True,
        tokenizer_digest: str | None = None,
        trust_changed: bool = False,
    ) -> TokenSet:
        """Map one split of a token folder.

        Args:
            verify: hash every file and compare with the index. Sizes are compared in any case.
            tokenizer_digest: the digest of the tokenizer in use; another one in the index is refused.
            trust_changed: use what is readable although it changed, and list it in `changes`. Shards that
                are missing or whose content cannot be valid are left out, which `changes` says as well.

        Raises:
            GroundupError: a shard is missing, was changed or renamed, or belongs to another tokenizer.
        """
        changes: list[str] = []
        index = _read_index(folder, trust_changed, changes)
        _check_tokenizer(folder, index, tokenizer_digest)
        if split not in index["splits"]:
            known = ", ".join(printable(name) for name in index["splits"]) or "none"
            raise GroundupError(
                "E-DATA-005",
                f"the prepared data has no split named {printable(split)!r}",
                where=str(folder / INDEX),
                why=f"it has: {known}",
                fix="name one of these, or prepare the data with that split",
            )
        opened = []
        for entry in index["splits"][split]:
            problem, part = _open_shard(folder, Shard(**entry), index["vocabulary"], verify)
            if problem is not None:
                if not trust_changed:
                    raise _changed(folder, problem)
                changes.append(problem + (" (used)" if part is not None else " (left out)"))
            if part is not None:
                opened.append(part)
        return _assemble(folder, split, index, opened, changes)


def _assemble(
    folder: Path,
    split: str,
    index: dict[str, Any],
    opened: list[tuple[np.ndarray, np.ndarray]],
    changes: list[str],
) -> TokenSet:
    tables = [pairs for _, pairs in opened]
    ends = [pairs[:, 0] for pairs in tables]
    starts = [np.concatenate(([0], end[:-1])) if end.size else end for end in ends]
    empty = np.zeros(0, dtype=np.int64)
    identity = [SCHEMA, index["tokenizer"], split, index["splits"][split], changes]
    return TokenSet(
        folder=folder,
        split=split,
        vocabulary=index["vocabulary"],
        tokenizer_digest=index["tokenizer"],
        digest=digest_of(identity),
        lengths=np.concatenate([empty, *(end - start for end, start in zip(ends, starts))]).astype(np.int64),
        document_bytes=np.concatenate([empty, *(pairs[:, 1] for pairs in tables)]).astype(np.int64),
        changes=tuple(changes),
        _starts=np.concatenate([empty, *starts]).astype(np.int64),
        _shard_of=np.repeat(np.arange(len(tables)), [len(pairs) for pairs in tables]).astype(np.int64),
        _tokens=tuple(tokens for tokens, _ in opened),
    )


def _open_shard(
    folder: Path, shard: Shard, vocabulary: int, verify: bool
) -> tuple[str | None, tuple[np.ndarray, np.ndarray] | None]:
    """What is wrong with a shard (None if nothing is), and its ids and table if they can be used at all."""
    dtype = token_dtype(vocabulary)
    sizes = {".tokens": shard.tokens * dtype.itemsize, ".documents": shard.documents * 16}
    hashes = {".tokens": shard.tokens_sha256, ".documents": shard.documents_sha256}
    for suffix, size in sizes.items():
        path = folder / f"{shard.name}{suffix}"
        if not path.is_file():
            return f"{path.name} is missing", None
        if path.stat().st_size != size:
            return f"{path.name} has {path.stat().st_size:,} bytes, expected {size:,}", None
    problem = None
    for suffix, expected in hashes.items():
        path = folder / f"{shard.name}{suffix}"
        if verify and file_sha256(path) != expected:
            problem = problem or f"{path.name} has other content than when it was written (hash mismatch)"
    # A file of no bytes cannot be mapped.
    tokens: np.ndarray = np.zeros(0, dtype=dtype)
    if shard.tokens:
        tokens = np.memmap(folder / f"{shard.name}.tokens", dtype=dtype, mode="r", shape=(shard.tokens,))
        tokens = tokens.view(np.ndarray)  # a memmap's own class makes each slice several times dearer
    pairs = np.fromfile(folder / f"{shard.name}.documents", dtype="<i8").reshape(-1, 2)
    ends = np.concatenate(([0], pairs[:, 0]))
    if int(ends[-1]) != shard.tokens or bool((np.diff(ends) < 0).any()) or bool((pairs[:, 1] < 0).any()):
        return f"{shard.name}.documents holds offsets that cannot be", None
    if problem is not None and tokens.size and int(tokens.max()) >= vocabulary:
        return f"{shard.name}.tokens holds an id outside 0 … {vocabulary - 1}", None
    return problem, (tokens, pairs)


def _read_index(folder: Path, trust_changed: bool, changes: list[str]) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise GroundupError(
            "E-DATA-005",
            "there is no prepared data here",
            where=str(path),
            why="the index is written last, so its absence means that preparation has not finished",
            fix=REBUILD,
        )
    try:
        index = json.loads(path.read_bytes())
        schema = index["schema"]
        if schema == SCHEMA:
            _check_index_types(index)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GroundupError(
            "E-DATA-005",
            "the index of the prepared data cannot be read",
            where=f"{path}: {printable(str(error))}",
            why="without it nothing says which shards belong together",
            fix=REBUILD,
        ) from error
    if schema != SCHEMA:
        raise GroundupError(
            "E-DATA-005",
            f"the prepared data has layout version {printable(str(schema))}, this groundup reads {SCHEMA}",
            where=str(path),
            why="shards of another layout would be read wrongly",
            fix=REBUILD,
        )
    content = {key: value for key, value in index.items() if key != "digest"}
    if digest_of(content) != index["digest"]:
        problem = f"{INDEX} was edited (shards added, removed or reordered)"
        if not trust_changed:
            raise _changed(folder, problem)
        changes.append(problem + " (used)")
    return index


def _check_index_types(index: dict[str, Any]) -> None:
    """Refuse an index whose fields are not what they are said to be, before any is used."""
    if not all(isinstance(index[name], str) for name in ("digest", "tokenizer", "source")):
        raise TypeError("digest, tokenizer and source must be text")
    vocabulary = index["vocabulary"]
    if not isinstance(vocabulary, int) or not 0 < vocabulary <= 1 << 32:
        raise ValueError("vocabulary must be between 1 and 2^32")
    if index["dtype"] != token_dtype(vocabulary).newbyteorder("=").name:
        raise ValueError("dtype does not fit the vocabulary")
    if not isinstance(index["splits"], dict):
        raise TypeError("splits must be an object")
    for split, entries in index["splits"].items():
        for entry in entries:
            shard = Shard(**entry)
            counts = (shard.documents, shard.tokens, shard.bytes)
            if not all(isinstance(count, int) and 0 <= count < 1 << 53 for count in counts):
                raise ValueError(f"split {split}: a count is not a number that can be")
            if not isinstance(shard.name, str) or Path(shard.name).name != shard.name:
                raise ValueError("a shard's name must be a plain file name")


def _check_tokenizer(folder: Path, index: dict[str, Any], expected: str | None) -> None:
    if expected is None or expected == index["tokenizer"]:
        return
    raise GroundupError(
        "E-DATA-016",
        "the prepared data was made with another tokenizer",
        where=f"{folder}: tokenizer {printable(index['tokenizer'])}\ntokenizer in use:  {expected}",
        why="the same ids mean other text, so the model would learn or be measured on nonsense",
        fix="use the tokenizer that the data was prepared with,\n"
        "or tokenize again: groundup prepare … --tokenizer DIR",
    )


def _changed(folder: Path, problem: str) -> GroundupError:
    return GroundupError(
        "E-DATA-004",
        f"the prepared data has changed since it was written: {printable(problem)}",
        where=str(folder),
        why="training on it would not be the training that its data card describes",
        fix=f"{REBUILD},\nor accept the change and have it recorded: TokenSet.open(…, trust_changed=True)",
    )
