"""`groundup runs [DIR]`: the runs below a folder as a table, or two of them side by side.

Only parsing and printing; the runs are read by `groundup.report`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from groundup.cli.terminal import Painter, display_width, table
from groundup.errors import printable

COLOURS = {"better": "green", "worse": "red", "finished": "green", "failed": "red"}


def runs(arguments: argparse.Namespace) -> int:
    """List the runs below a folder, or compare two; 0 when done."""
    if arguments.compare:
        return show_comparison(arguments)
    from groundup.report import find_runs, run_line

    folder = Path(arguments.folder).expanduser()
    lines = [run_line(path, folder) for path in find_runs(folder)]
    if arguments.json:
        print(json.dumps({"folder": str(folder), "runs": lines}))
        return 0
    painter = Painter()
    if not lines:
        painter.print(f"no runs below {printable(str(folder))}; groundup quickstart makes the first one")
        return 0
    painter.print(listing(lines, painter.width))
    return 0


def listing(lines: list[dict[str, Any]], width: int) -> str:
    """The runs as a table, without intervals and hours where room is short; else a few lines for each run."""
    heads = ["run", "outcome", "steps", "trained", "metric", "value", "time", "started"]
    for detailed in (True, False):
        whole = table([cells(line, detailed) for line in lines], heads, align="<<>><>><")
        if max(display_width(line) for line in whole.splitlines()) <= width:
            return whole
    rows = [cells(line, True) for line in lines]
    blocks = []
    for row in rows:
        facts = [[head, cell] for head, cell in zip(heads[1:], row[1:]) if cell != "-"]
        blocks.append(f"{row[0]}\n{table(facts, width=width, indent=2)}")
    return "\n\n".join(blocks)


def cells(line: dict[str, Any], detailed: bool) -> list[str]:
    """One run as text; `detailed` with the interval of its metric and the hour of its start."""
    from groundup.report import figures

    interval = figures.between(line["low"], line["high"])
    value = figures.metric(line["value"]) + (f" ({interval})" if interval and detailed else "")
    started = figures.moment(line["started"]).removesuffix(" UTC")
    shown = [
        printable(line["name"]),
        line["outcome"].replace("_", " "),
        figures.count(line["steps"]),
        figures.count(line["tokens"]) + (printable(f" {line['unit']}") if line["tokens"] is not None else ""),
        printable(figures.words(line["metric"] or ("training loss" if line["value"] is not None else "-"))),
        value,
        figures.duration(line["seconds"]),
        printable(started if detailed else started[:10]),
    ]
    return [cell.replace(figures.MISSING, "-").replace("−", "-") for cell in shown]


def show_comparison(arguments: argparse.Namespace) -> int:
    """Two runs side by side."""
    from groundup.report import compare, figures

    first, second = (Path(name).expanduser() for name in arguments.compare)
    found = compare(first, second)
    if arguments.json:
        print(json.dumps(found.as_dict()))
        return 0
    painter = Painter()
    names = [printable(str(first)), printable(str(second))]
    recipe = [[printable(row[key]) for key in ("field", "first", "second")] for row in found.recipe]
    if recipe:
        painter.print(table(recipe, ["recipe", *names], width=painter.width))
    else:
        painter.print("the recipes are equal")
    painter.print()
    rows = []
    for row in found.metrics:
        values = []
        for side in ("first", "second"):
            interval = figures.between(row[f"{side}_low"], row[f"{side}_high"])
            values.append(figures.metric(row[side]) + (f" ({interval})" if interval else ""))
        name = printable(figures.words(f"{row['data']} {row['metric']}"))
        mark = painter.paint(row["verdict"], *([COLOURS[row["verdict"]]] if row["verdict"] in COLOURS else []))
        rows.append([name, *values, mark or "no interval"])
    if rows:
        painter.print(table(rows, ["metric", *names, "the second is"], width=painter.width))
    else:
        painter.print("no evaluation that both runs have")
    for note in found.notes:
        painter.print(f"note: {note}")
    return 0
