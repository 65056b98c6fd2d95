"""`groundup data show RECIPE`: what the model will really see, token by token, and which tokens it learns; of tables,
images and environments the numbers that go in, of games the boards; and with --augment rows before and after their
random changes.

A wrong template or mask is invisible in a loss curve and plain to see here. Only printing lives in this
file; the rows are read, rendered and counted by the same code that feeds the training.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from groundup.cli.arguments import require_fit
from groundup.cli.terminal import Painter, display_width, pad, table
from groundup.errors import GroundupError, printable

if TYPE_CHECKING:
    from groundup.contract import TextEncoder
    from groundup.run.preview_noise import RowsChanged
    from groundup.text.chat import Rendered

AUGMENTED = ("labelled", "table", "images", "pairs")
"""The kinds of data that can be changed at random in training."""

CELL_TEXT = 24
"""Columns at most for the text of one token in the table."""


def show(args: argparse.Namespace) -> int:
    """Print the first `args.rows` rendered rows of `args.recipe` and the ledger; 0 when done."""
    from groundup.run.entry import read_recipe
    from groundup.run.preview import preview_rows
    from groundup.run.preview_networks import NETWORK_KINDS, preview_network, preview_pairs
    from groundup.run.preview_noise import preview_noise

    recipe = read_recipe(Path(args.recipe), args.overrides)
    kind = recipe.data.kind
    if kind != "images":
        require_fit(args, ("out",), f"images, and the recipe's data is {kind}")
    if kind not in AUGMENTED:
        require_fit(args, ("augment",), f"{', '.join(AUGMENTED)}, and the recipe's data is {kind}")
    if kind == "images" and args.augment and not args.out:
        raise GroundupError(
            "E-USE-003",
            "groundup data show --augment needs --out",
            where="the command line",
            why="changed images are for the eye: they are written into a picture",
            fix="groundup data show RECIPE --augment --out FILE.png",
            exit_code=2,
        )
    if kind in NETWORK_KINDS:
        found = preview_network(recipe, args.rows, augment=args.augment, out=args.out)
        if args.json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            show_network(found, Painter(sys.stdout))
        return 0
    if args.augment:
        return _show_changes(preview_noise(args.recipe, args.rows, args.overrides), as_lines=not args.json)
    if kind == "pairs":
        rows, tokenizer, ledger, _ = preview_pairs(recipe, args.rows)
    else:
        rows, tokenizer, ledger, _ = preview_rows(args.recipe, args.rows, args.overrides)
    if args.json:
        print(json.dumps(as_json(rows, tokenizer, ledger), ensure_ascii=False))
        return 0
    painter = Painter(sys.stdout)
    show_rows(rows, tokenizer, sys.stdout, painter.width, painter.colour)
    show_ledger(ledger, painter)
    return 0


def show_rows(
    rendered_rows: Sequence[Rendered], tokenizer: TextEncoder, stream: TextIO, width: int, colour: bool
) -> None:
    """Print each row twice: as running text with the learned spans marked, and as a table of its tokens.

    With colour, learned tokens are green and underlined and the others dim; without, learned spans stand
    in [[double brackets]] and learned tokens have mask 1. Control characters of the data are shown, not
    sent to the terminal.
    """
    painter = Painter(stream, colour=colour, width=width)
    for number, row in enumerate(rendered_rows, start=1):
        learned = sum(map(bool, row.trainable))
        share = f" ({learned / len(row.ids):.1%})" if row.ids else ""
        heading = f"row {number}: {len(row.ids)} tokens, {learned} learned{share}"
        painter.print(painter.paint(heading, "bold"))
        if "→" in row.text and not learned:  # a labelled row: the answer is no part of what is read
            painter.print(f"answer: {printable(row.text.rpartition('→')[2].strip())}")
        painter.print(_running_text(row, tokenizer, painter))
        painter.print()
        for line in _token_lines(row, tokenizer, painter):
            painter.print(line)
        painter.print()


def _show_changes(shown: RowsChanged, *, as_lines: bool) -> int:
    if as_lines:
        show_changes(shown, Painter(sys.stdout))
        return 0
    rows = [
        {
            "answer": row.answer,
            "before": {"ids": row.before, "text": shown.tokenizer.decode(row.before, skip_specials=False)},
            "after": {"ids": row.after, "text": shown.tokenizer.decode(row.after, skip_specials=False)},
        }
        for row in shown.rows
    ]
    print(json.dumps({"augment": shown.changes, "rows": rows}, ensure_ascii=False))
    return 0


def show_changes(shown: RowsChanged, painter: Painter) -> None:
    """Print each row before and after its noise: what goes stands in [-these-], what comes in {+these+}, with colour
    or without."""
    said = ", ".join(f"{name} {value:g}" for name, value in shown.changes.items())
    painter.print(f"data.augment: {said or 'nothing is changed'}")
    for number, row in enumerate(shown.rows, start=1):
        painter.print()
        painter.print(painter.paint(f"row {number}", "bold") + f"  answer {printable(row.answer, 80)}")
        before, after = list[str](), list[str]()
        for kind, a, b, c, d in difflib.SequenceMatcher(None, row.before, row.after, autojunk=False).get_opcodes():
            for line, ids, marks, colour in (
                (before, row.before[a:b], ("[-", "-]"), "red"), (after, row.after[c:d], ("{+", "+}"), "green")
            ):  # fmt: skip
                text = printable(shown.tokenizer.decode(ids, skip_specials=False), limit=sys.maxsize) if ids else ""
                line.append(text if kind == "equal" or not ids else painter.paint(text.join(marks), colour))
        painter.print(f"  before  {''.join(before)}")
        painter.print(f"  after   {''.join(after)}")


def show_network(found: Mapping[str, Any], painter: Painter) -> None:
    """Print rows of a table, images, or steps in an environment, with what is known of them."""
    painter.print(painter.paint(found["title"], "bold"))
    for name, value in found["facts"].items():
        painter.print(f"  {name:14} {printable(str(value), 400)}")
    for row in found["rows"]:
        painter.print()
        answer = f"  {found['answer']} {printable(row['answer'], 80)}" if row["answer"] else ""
        painter.print(painter.paint(printable(row["place"], 200), "bold") + answer)
        if row["cells"]:
            cells = [
                [printable(str(cell), 60) if isinstance(cell, str) else f"{cell:.4g}" for cell in line]
                for line in row["cells"]
            ]
            painter.print(table(cells, found["headers"], width=painter.width, indent=2))
    if found["ledger"]:
        painter.print()
        show_ledger(found["ledger"], painter)
    if found["sheet"]:
        painter.print(f"sheet of training images: {printable(found['sheet'])}")


def show_ledger(ledger: Mapping[str, Any], painter: Painter) -> None:
    """Print the counts of the ledger, nested ones under dotted names."""
    painter.print(painter.paint("ledger", "bold"))
    painter.print(table(list(_flat(ledger)), width=painter.width, indent=2))


def as_json(rendered_rows: Sequence[Rendered], tokenizer: TextEncoder, ledger: Mapping[str, Any]) -> dict[str, Any]:
    """The same rows and ledger for `--json`."""
    rows = [
        {
            "text": row.text,
            "ids": list(row.ids),
            "tokens": [tokenizer.decode([token], skip_specials=False) for token in row.ids],
            "trainable": [bool(value) for value in row.trainable],
        }
        for row in rendered_rows
    ]
    return {"rows": rows, "ledger": dict(ledger)}


def _running_text(row: Rendered, tokenizer: TextEncoder, painter: Painter) -> str:
    """The whole row as text. Spans are decoded whole, since one character may take several tokens."""
    pieces = []
    for learned, group in itertools.groupby(zip(row.ids, row.trainable), key=lambda pair: bool(pair[1])):
        text = tokenizer.decode([token for token, _ in group], skip_specials=False)
        shown = "\n".join(printable(line, limit=sys.maxsize) for line in text.split("\n"))
        if painter.colour:
            pieces.append(painter.paint(shown, *(("green", "underline") if learned else ("dim",))))
        else:
            pieces.append(f"[[{shown}]]" if learned else shown)
    return "".join(pieces)


def _token_lines(row: Rendered, tokenizer: TextEncoder, painter: Painter) -> Iterator[str]:
    """A table of token text, id and mask that reads down its columns, as many of them as fit."""
    if not row.ids:
        return
    texts = [
        printable(tokenizer.decode([token], skip_specials=False), limit=CELL_TEXT).replace(" ", "·")
        for token in row.ids
    ]
    if not painter.unicode:
        texts = [text.replace("·", "_") for text in texts]
    text_width = max(5, *map(display_width, texts))
    id_width = max(2, *(len(str(token)) for token in row.ids))
    cell_width = text_width + id_width + 7
    columns = max(1, (painter.width + 3) // (cell_width + 3))
    height = -(-len(texts) // columns)
    columns = -(-len(texts) // height)
    head = f"{pad('token', text_width)} {pad('id', id_width, '>')}  mask"
    yield "   ".join([painter.paint(head, "bold")] * columns)
    for line in range(height):
        cells = []
        for index in range(line, len(texts), height):
            learned = bool(row.trainable[index])
            cell = f"{pad(texts[index], text_width)} {row.ids[index]:>{id_width}}  {int(learned):<4}"
            cells.append(painter.paint(cell, "green") if learned else painter.paint(cell, "dim"))
        yield "   ".join(cells).rstrip()


def _flat(ledger: Mapping[str, Any], prefix: str = "") -> Iterator[list[object]]:
    for name, value in ledger.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}: ")
        elif isinstance(value, float | int) and not isinstance(value, bool):
            yield [printable(path), value]
        else:
            yield [printable(path), printable(str(value))]
