"""`groundup prepare`: files, or the data of a recipe, into a cleaned corpus and token shards."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.cli.terminal import Painter, format_bytes, table
from groundup.errors import GroundupError, printable

if TYPE_CHECKING:
    from groundup.data.corpus import Corpus
    from groundup.data.options import PrepareOptions
    from groundup.data.shards import TokenSet
    from groundup.run.texts import PreparedTexts


def prepare(args: argparse.Namespace) -> int:
    """Prepare what a recipe names, or `args.files` into `args.out`; 0 when done."""
    if args.recipe is not None and "=" not in args.recipe:
        return prepare_recipe(args)
    if not args.files or args.out is None:
        raise GroundupError(
            "E-USE-003",
            "groundup prepare needs a recipe, or --files and --out",
            where="the command line",
            why="it must be known what to read and where to put it",
            fix="groundup prepare RECIPE\ngroundup prepare --files FILE … --out DIR",
            exit_code=2,
        )
    return prepare_files(args)


def prepare_recipe(args: argparse.Namespace) -> int:
    """Prepare the data of a recipe, tokenizer included, into `--out`, for `data.prepared`."""
    from groundup.data.prepare import silent
    from groundup.run.preview import prepare_recipe_data

    out = Path(args.out or "prepared").expanduser()
    say = silent if args.json else _print_progress
    texts = prepare_recipe_data(args.recipe, args.overrides, out, args.workers or 0, say)
    splits = {
        name: {split: tokens.num_tokens for split, tokens in (("train", texts.train[name]), *_held_out(texts, name))}
        for name in texts.train
    }
    if args.json:
        said = {"folder": str(out), "tokenizer": texts.tokenizer.digest, "tokens": splits, "cards": texts.cards}
        print(json.dumps(said, ensure_ascii=False))
        return 0
    painter = Painter(sys.stdout)
    rows = [[name, split, f"{count:,}"] for name, counts in splits.items() for split, count in counts.items()]
    painter.print(table(rows, ["source", "split", "tokens"], align="<<>"))
    painter.print(f"prepared in {out}; use it with data.prepared={out}")
    return 0


def _held_out(texts: PreparedTexts, name: str) -> list[tuple[str, TokenSet]]:
    return [("held_out", texts.held_out[name])] if name in texts.held_out else []


def prepare_files(args: argparse.Namespace) -> int:
    """Prepare `args.files`; overrides such as `split.kind=tail` may follow. Tokenized only with --tokenizer."""
    from groundup.data import prepare as preparation

    overrides = [*([args.recipe] if args.recipe else []), *args.overrides]
    options = options_from(args.files, overrides)
    progress = preparation.silent if args.json else _print_progress
    encoder = None
    if vars(args).get("tokenizer"):
        from groundup.text.tokenizer import Tokenizer

        encoder = Tokenizer.load(Path(args.tokenizer))
    corpus, sets = preparation.prepare(
        options, encoder, Path(args.out).expanduser(), workers=args.workers or 0, progress=progress
    )
    if args.json:
        print(json.dumps(_as_json(corpus, sets), ensure_ascii=False))
    else:
        _show(corpus, sets, Painter(sys.stdout))
    return 0


def options_from(files: list[str], overrides: list[str]) -> PrepareOptions:
    """Options from `field.sub=value` words; the value is JSON, or else plain text. `data.` in front may stand."""
    from pydantic import ValidationError

    from groundup.data.options import PrepareOptions

    tree: dict[str, Any] = {"files": list(files)}
    for word in overrides:
        path, _, text = word.partition("=")
        *parents, leaf = path.removeprefix("data.").split(".")
        place = tree
        for name in parents:
            place = place.setdefault(name, {})
        try:
            place[leaf] = json.loads(text)
        except ValueError:
            place[leaf] = text
    try:
        return PrepareOptions.model_validate(tree)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise GroundupError(
            "E-DATA-015",
            f"{len(faults)} option{'s' if len(faults) > 1 else ''} of data preparation cannot be used",
            where=printable("\n".join(faults), 2000) if len(faults) == 1 else "\n".join(map(printable, faults)),
            why="an option that is not understood would silently not be used",
            fix=f"the options are: {', '.join(PrepareOptions.model_fields)}",
            exit_code=2,
        ) from error


def _print_progress(message: str) -> None:
    print(printable(message), file=sys.stderr)


def _as_json(corpus: Corpus, sets: dict[str, TokenSet]) -> dict[str, Any]:
    tokens = {name: {"documents": s.num_documents, "tokens": s.num_tokens} for name, s in sets.items()}
    return {"folder": str(corpus.folder), "digest": corpus.digest, "tokens": tokens, "card": corpus.card}


def _show(corpus: Corpus, sets: dict[str, TokenSet], painter: Painter) -> None:
    ledger = corpus.card["ledger"]
    rows: list[list[Any]] = [["read", f"{ledger['documents']:,}", format_bytes(ledger["bytes"])]]
    for reason, entry in ledger["set_aside"].items():
        rows.append([f"- {reason}", f"{entry['documents']:,}", format_bytes(entry["bytes"])])
    if ledger["cleaned_bytes"]:
        rows.append(["- cleaned away", "", format_bytes(ledger["cleaned_bytes"])])
    rows.append(["= kept", f"{ledger['kept']['documents']:,}", format_bytes(ledger["kept"]["bytes"])])
    for name, split in corpus.card["splits"].items():
        rows.append([f"  {name}", f"{split['documents']:,}", format_bytes(split["bytes"])])
    painter.print(table(rows, ["", "documents", "text"], width=painter.width))
    for name, tokens in sets.items():
        painter.print(f"{name}: {tokens.num_tokens:,} tokens")
    painter.print(f"{painter.symbol('pass')} {printable(str(corpus.folder))}  (card.json, quarantine.jsonl, clean/)")
