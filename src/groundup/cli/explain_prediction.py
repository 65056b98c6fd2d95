"""`groundup explain-prediction MODEL`: what the answer to one row, image or text rests on. Parsing and printing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.cli.arguments import require_fit
from groundup.cli.terminal import Painter, table
from groundup.errors import GroundupError, printable

SHOWN, BAR = 10, 16


def explain_prediction(arguments: argparse.Namespace) -> int:
    """Print what counts most, or JSON, and write the page; 0 when done."""
    _require_one_input(arguments)
    if arguments.method != "integrated_gradients":
        require_fit(arguments, ("steps",), "integrated gradients")
    place = _page_place(arguments.out)

    from groundup import load
    from groundup.evaluation.attribution import STEPS
    from groundup.run.explaining import explain_prediction as explain
    from groundup.run.explaining_page import write_page

    found = explain(
        load(arguments.model),
        text=arguments.text,
        files=[arguments.image or arguments.input] if arguments.text is None else [],
        row=arguments.row or 1,
        column=arguments.column,
        label=arguments.label,
        method=arguments.method,
        steps=arguments.steps or STEPS,
    )
    if place is not None:
        write_page(found, place)
    said = found.as_dict()
    if arguments.json:
        print(json.dumps(said | {"out": arguments.out}, ensure_ascii=False))
        return 0
    show(said, Painter())
    if place is not None:
        print(f"page  {printable(arguments.out)}", file=sys.stderr)
    return 0


def show(found: Mapping[str, Any], painter: Painter) -> None:
    """The answer, what counts most, and whether the attributions add up."""
    label, answer = found["label"], found["answer"]
    explained = "the number" if label is None else f"log-odds of {printable(label)}"
    steps = f", {found['steps']} steps" if found["steps"] else ""
    painter.print(f"{painter.paint(printable(found['model']), 'bold')}  {printable(found['place'], 300)}")
    painter.print(f"answer     {_answer(answer)}")
    painter.print(f"explained  {explained}: {found['score']:.4f}, and {found['baseline_score']:.4f} for the baseline")
    painter.print(f"baseline   {found['baseline']}")
    painter.print(f"method     {found['method'].replace('_', ' ')}{steps}\n")
    parts = sorted(found["parts"], key=lambda part: -abs(part["amount"]))
    most = abs(parts[0]["amount"]) if parts else 0.0
    saliency, cells = found["method"] == "saliency", found["kind"] == "table"
    shown = [part for part in parts[:SHOWN] if part["amount"]]
    rows = [
        [
            printable(part["name"].strip(), 40) or repr(part["name"]),
            *([printable(part["cell"], 24)] if cells else []),
            f"{part['amount']:.4f}" if saliency else f"{part['amount']:+.4f}",
            painter.symbol("full") * round(BAR * abs(part["amount"]) / most) if most else "",
        ]
        for part in shown
    ]
    name = {"table": "column", "image": "region", "text": "word"}[found["kind"]]
    heads = [name, *(["cell"] if cells else []), "moves" if saliency else "adds", ""]
    painter.print(table(rows, heads, align="<>><" if cells else "<><", width=painter.width))
    if left := parts[len(shown) :]:
        rest = sum(part["amount"] for part in left)
        together = (
            ""
            if found["method"] == "occlusion"
            else f", together {rest:.4f}"
            if saliency
            else f", together {rest:+.4f}"
        )
        painter.print(f"{len(left)} more{together}")
    _show_sum(found, painter)


def _show_sum(found: Mapping[str, Any], painter: Painter) -> None:
    if found["gap"] is not None:
        difference = found["score"] - found["baseline_score"]
        share = f", {found['relative_gap']:.2g} of it" if found["relative_gap"] is not None else ""
        painter.print(
            f"\nsum {found['sum']:+.6f}, difference of the scores {difference:+.6f}: gap {found['gap']:+.2g}{share}"
        )
    if found["rough"]:
        warning = f"{painter.symbol('warn')} the attributions do not add up to the difference: take more, --steps"
        painter.print(f"{painter.paint(warning, 'yellow')} {4 * found['steps']}")
    if found["cut_tokens"]:
        painter.print(f"{found['cut_tokens']:,} tokens at the end did not fit into the context and were not read")


def _answer(answer: Mapping[str, Any]) -> str:
    if "value" in answer:
        return f"{answer['value']:.6g}"
    if "labels" in answer:
        return printable(", ".join(answer["labels"]), 300) or "no label"
    return f"{printable(answer['label'])} ({answer['probability']:.2%})"


def _require_one_input(arguments: argparse.Namespace) -> None:
    given = [name for name in ("input", "text", "image") if vars(arguments)[name] is not None]
    if not given:
        raise GroundupError(
            "E-USE-003",
            "groundup explain-prediction needs --input, --text or --image",
            where="the command line",
            why="what a model's answer rests on can only be said of one input",
            fix="--input FILE --row N   (a row of a table, a text or image of several)\n--text TEXT\n--image FILE",
            exit_code=2,
        )
    if len(given) > 1:
        require_fit(arguments, given[1:], f"one input alone, and --{given[0]} names one")
    if arguments.text is not None:
        require_fit(arguments, ("row", "column"), "rows of --input")


def _page_place(out: str | None) -> Path | None:
    """Where the page goes. Raises E-USE-020 for a file that is no page."""
    if out is None:
        return None
    place = Path(out).expanduser()
    if place.suffix.lower() in (".html", ".htm") and not place.is_dir():
        return place
    raise GroundupError(
        "E-USE-020",
        f"{printable(out)} is no place for a page",
        where="--out",
        why="what is written is one HTML file",
        fix="--out explanation.html",
        exit_code=2,
    )
