"""`groundup tokenizer train` and `groundup tokenizer inspect`: only parsing, calling and printing.

The texts are read and cleaned as `groundup prepare` does it, with nothing filtered or held out, so that a
tokenizer is trained and measured on the text that a model would see.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from groundup.errors import GroundupError, printable


def train(args: argparse.Namespace) -> int:
    """Train a tokenizer on `args.files` and save it in `args.out`; 0 when done."""
    from groundup.text.options import TokenizerOptions
    from groundup.text.tokenizer import FILE
    from groundup.text.train import train_tokenizer

    folder = Path(args.out).expanduser()
    if (folder / FILE).exists():
        raise GroundupError(
            code="E-TOKEN-008",
            what="there is a tokenizer in this folder already",
            where=printable(str(folder / FILE)),
            why="what was encoded with it could not be read any more if it were overwritten",
            fix="name another folder with --out, or delete that file first",
            exit_code=2,
        )
    options = TokenizerOptions(kind=args.kind, vocabulary=args.vocab, mask=args.mask or None)
    tokenizer = train_tokenizer(texts_of(args.files), options)
    path = tokenizer.save(folder)
    if args.json:
        made = {"path": str(path), "kind": tokenizer.kind, "vocabulary": tokenizer.vocabulary}
        print(json.dumps(made | {"digest": tokenizer.digest, "specials": tokenizer.specials}))
        return 0
    print(f"{tokenizer.kind} tokenizer with {tokenizer.vocabulary} tokens: {printable(str(path))}")
    print(f"digest {tokenizer.digest}")
    return 0


def inspect(args: argparse.Namespace) -> int:
    """Measure the tokenizer in `args.folder` on `args.files`; 0 when done, 1 if a text does not come back."""
    from groundup.cli.terminal import Painter
    from groundup.text.inspect import describe
    from groundup.text.inspect import inspect as measure
    from groundup.text.tokenizer import FILE, Tokenizer

    folder = Path(args.folder).expanduser()
    finished = folder / "model"  # of a run
    if (finished / FILE).exists() and not (folder / FILE).exists():
        folder = finished
    found = measure(Tokenizer.load(folder), texts_of(args.files))
    if args.json:
        print(json.dumps(found))
    else:
        Painter().print(describe(found))
    return 1 if found["round_trip_failures"] else 0


def texts_of(files: list[str]) -> Iterator[str]:
    """The cleaned documents of files, folders and globs, in the order of the files."""
    import tempfile

    from groundup.data.deduplicate import DeduplicateOptions
    from groundup.data.options import PrepareOptions
    from groundup.data.prepare import clean_corpus
    from groundup.data.split import SplitOptions

    options = PrepareOptions(
        files=files,
        deduplicate=DeduplicateOptions(exact=False, near=False),
        split=SplitOptions(kind="none"),
    )
    with tempfile.TemporaryDirectory(prefix="groundup-") as scratch:
        yield from clean_corpus(options, Path(scratch)).texts(options.split.train)
