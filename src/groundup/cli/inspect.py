"""`groundup inspect PATH`: what is in a model of any format. Only headers and small files are read."""

from __future__ import annotations

import argparse
import json
from typing import Any

from groundup.cli.terminal import Painter, format_bytes, format_count, table
from groundup.errors import printable

SHOWN = (
    "family", "architecture", "parameters", "bytes", "types", "tokenizer", "chat", "base", "head",
    "inputs", "outputs", "labels", "preparation",
)  # fmt: skip
"""What is said of a model, in this order, where it has it; the last four are those of networks that are no language
models."""


def inspect(arguments: argparse.Namespace) -> int:
    """Print what was found; 0 when done."""
    from groundup.run.inspection import inspect_model

    found = inspect_model(arguments.path)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    painter = Painter()
    painter.print(painter.paint(printable(str(arguments.path)), "bold") + f"  {found['kind'].replace('_', ' ')}")
    for name in SHOWN:
        if found.get(name) not in (None, "", {}, []):
            painter.print(f"  {name:12} {_shown(name, found[name])}")
    if found["options"]:
        sizes = ", ".join(f"{key} {value}" for key, value in found["options"].items() if value not in (None, False))
        painter.print(f"  {'options':12} {printable(sizes, 400)}")
    for line in found["oddities"]:
        painter.print(f"  {'note':12} {printable(line, 400)}")
    rows = [[t["name"], "×".join(map(str, t["shape"])) or "scalar", t["type"]] for t in found["tensors"]]
    if rows:
        shown = rows if len(rows) <= 24 else [*rows[:12], ["…", f"{len(rows) - 20} more", ""], *rows[-8:]]
        painter.print()
        painter.print(table(shown, ["tensor", "shape", "type"], width=painter.width))
    return 0


def _shown(name: str, value: Any) -> str:
    if name == "parameters":
        return format_count(value)
    if name == "bytes":
        return format_bytes(value)
    if name == "preparation":
        value = _preparation(value)
    if isinstance(value, dict):
        return printable(", ".join(f"{key} {entry}" for key, entry in value.items()), 300)
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value), 300)


def _preparation(said: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to know of how rows are prepared; --json has all of it."""
    if said.get("kind") == "table":
        columns = said["columns"]
        names = {kind: [one["name"] for one in columns[kind]] for kind in ("numbers", "categories") if columns[kind]}
        counted = {
            kind: f"{len(some)} ({', '.join(map(str, some[:6]))}{' ...' if len(some) > 6 else ''})"
            for kind, some in names.items()
        }
        target = ", ".join(said["target"])
        return {
            "kind": "table",
            **counted,
            "target": target,
            "missing": columns["missing"],
            "unseen": columns["unseen"],
        }
    return {name: value for name, value in said.items() if value not in (None, {}, []) and name != "labels"}
