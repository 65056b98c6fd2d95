"""`groundup evaluate MODEL --files …`: held-out metrics with intervals, alone or against another model.

Only parsing and printing; the measuring is `LoadedModel.evaluate`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from groundup.cli.terminal import Painter, format_bytes, table
from groundup.errors import printable

COLOURS = {"better": "green", "worse": "red", "within noise": "dim"}


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when done."""
    from groundup import load

    loaded = load(arguments.model)
    against = load(arguments.against) if arguments.against else None
    found = loaded.evaluate(arguments.files, arguments.metric or (), against)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        show(found, Painter())
    return 0


def show(found: dict[str, Any], painter: Painter) -> None:
    """Print what was measured, the metrics, and the comparison if there is one."""
    data = []
    if found["documents"]:
        data.append(f"{found['documents']} documents, {format_bytes(found['bytes'])}")
    if found["examples"]:
        data.append(f"{found['examples']} questions with answers")
    if found.get("rows"):
        data.append(f"{found['rows']} labelled rows")
    painter.print(painter.paint(printable(found["model"]), "bold") + "  on " + " and ".join(data))
    for reason, count in found["set_aside"].items():
        painter.print(f"  set aside: {count} rows: {printable(reason)}")
    painter.print()
    rows: list[list[object]] = [
        [name, _number(m["value"]), _range(m), m["unit"]] for name, m in found["metrics"].items()
    ]
    painter.print(table(rows, ["metric", "value", "95 % interval", "unit"], width=painter.width))
    if found["against"] is None:
        return
    painter.print()
    painter.print(painter.paint(f"against {printable(found['against'])}", "bold"))
    rows = [
        [
            c["metric"], _number(c["before"]["value"]), _number(c["after"]["value"]),
            f"{_number(c['difference']['value'], '+')} {_range(c['difference'], '+')}",
            painter.paint(c["verdict"], COLOURS[c["verdict"]]),
        ]
        for c in found["comparison"]
    ]  # fmt: skip
    painter.print(table(rows, ["metric", "before", "after", "difference", "verdict"], width=painter.width))
    if found["not_compared"]:
        names = ", ".join(found["not_compared"])
        painter.print(f"not compared: {names} (counted in tokens, and the tokenizers differ)")


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4f}"


def _range(interval: dict[str, Any], sign: str = "") -> str:
    return f"[{_number(interval['low'], sign)}, {_number(interval['high'], sign)}]"
