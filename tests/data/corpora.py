"""Small corpora and an encoder that the tests of preparation share; importable by worker processes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from groundup.data.corpus import Corpus
from groundup.data.options import PrepareOptions
from groundup.data.prepare import clean_corpus


class ByteEncoder:
    """The simplest encoder that could be: bytes shifted past three special tokens."""

    vocabulary = 259
    digest = "bytes"

    def __init__(self) -> None:
        self.specials = {"<|pad|>": 0, "<|begin|>": 1, "<|end|>": 2}

    def encode(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode()]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def document_ids(self, ids: list[int]) -> list[int]:
        return [1, *ids, 2]

    def decode(self, ids: list[int], *, skip_specials: bool = True) -> str:
        return bytes(number - 3 for number in ids if number >= 3).decode()


def sentence(number: int, words: int = 40) -> str:
    """A text that is like no other number's, and the same in every run."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return " ".join(f"w{digest[(i * 7) % 60 : (i * 7) % 60 + 4]}{i}" for i in range(words)) + "."


def options(*files: Path | str, **rest: Any) -> PrepareOptions:
    """Options for `files`, nothing held out unless asked for."""
    rest.setdefault("split", {"kind": "none"})
    return PrepareOptions(files=[str(file) for file in files], **rest)


def corpus_of(out: Path, *files: Path | str, workers: int = 1, **rest: Any) -> Corpus:
    """Clean `files` into `out`."""
    return clean_corpus(options(*files, **rest), out, workers=workers)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
