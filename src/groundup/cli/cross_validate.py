"""`groundup cross-validate RECIPE`: how well a recipe does on rows that it has not seen, over several folds.

Only parsing and printing; the runs are made by `groundup.run.cross_validation`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from groundup.cli.terminal import VERDICTS, Painter, format_interval, format_metric, table
from groundup.errors import printable

MOST_FOLDS = 10
"""Values of single folds that are printed; all are in the files."""


def cross_validate(arguments: argparse.Namespace) -> int:
    """Train every fold and print what they measured; 0 when done, 130 or 143 when stopped."""
    from groundup.run.cross_validation import Asked, read_settings
    from groundup.run.cross_validation import cross_validate as run

    painter = Painter(sys.stderr) if arguments.json else Painter()
    found = run(
        arguments.recipe,
        arguments.overrides,
        out=arguments.out,
        asked=Asked(
            folds=arguments.folds,
            repeats=arguments.repeats,
            sizes=tuple(share for share in arguments.sizes if share < 1),
            settings=read_settings(arguments.settings) if arguments.settings else (),
            find_label_noise=arguments.find_label_noise,
        ),
        command=["groundup", *sys.argv[1:]],
        say=lambda line: painter.print(printable(line)),
    )
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    elif found["outcome"] == "finished":
        painter.print()
        show(found, painter)
    if found["outcome"] == "stopped":
        painter.print("stopped; the same command goes on from here")
        return int(found["exit_code"])
    return 0


def show(found: Mapping[str, Any], painter: Painter) -> None:
    """Print the tables: metrics beside the baselines, the learning curve, the choices, the labels in question."""
    folder = printable(found["folder"])
    painter.print(table(*metrics(found), width=painter.width))
    for name, other in found["baselines"].items():
        change, verdict = other["difference"].get(found["main"]), other["verdict"].get(found["main"])
        if change is not None:
            marked = painter.paint(verdict, VERDICTS[verdict])
            by = f"{format_metric(change['value'], '+')} {format_interval(change, '+')}"
            painter.print(f"{found['main']} against {name}: {by} {marked}")
    if "nested" in found:
        painter.print()
        rows: list[list[object]] = [
            [run, printable(chosen)] for run, chosen in zip(found["runs"], found["nested"]["chosen"], strict=True)
        ]
        painter.print(table(rows, ["fold", "chosen setting"], width=painter.width))
    if "learning_curve" in found:
        painter.print()
        painter.print(table(*curve(found), width=painter.width))
    if "label_noise" in found:
        noise = found["label_noise"]
        painter.print()
        painter.print(
            f"{noise['suspects']} of {noise['rows']} labels are probably wrong (estimated share {noise['share']:.1%})"
        )
    painter.print()
    painter.print(f"  report    {folder}/report.html")
    painter.print(f"  numbers   {folder}/cross_validation.json")
    if "label_noise" in found:
        painter.print(f"  suspects  {folder}/{noise['file']}")


def metrics(found: Mapping[str, Any]) -> tuple[list[list[object]], list[str]]:
    """A row for each metric, and the headings."""
    baselines = found["baselines"]
    rows: list[list[object]] = []
    for name, measured in found["metrics"].items():
        theirs = [other["metrics"].get(name) for other in baselines.values()]
        values = [format_metric(scores[name], digits=3) for scores in found["per_fold"]]
        more = ["…"] if len(values) > MOST_FOLDS else []
        shown = ["-" if one is None else format_metric(one["value"]) for one in theirs]
        own = [format_metric(measured["value"]), format_interval(measured)]
        rows.append([name, *own, *shown, " ".join(values[:MOST_FOLDS] + more)])
    return rows, ["metric", "mean", "95 % interval", *baselines, "folds"]


def curve(found: Mapping[str, Any]) -> tuple[list[list[object]], list[str]]:
    """A row for each number of rows to train on, and the headings."""
    rows: list[list[object]] = []
    for point in found["learning_curve"]:
        sizes, measured = point["rows"]["train"], point["metrics"][found["main"]]
        rows.append([f"{sum(sizes) / len(sizes):.0f}", format_metric(measured["value"]), format_interval(measured)])
    return rows, ["rows to train on", found["main"], "95 % interval"]
