"""`groundup inspect PATH`: what is in a model of any format. Only headers and small files are read."""

from __future__ import annotations

import argparse
import json
from typing import Any

from groundup.cli.terminal import Painter, format_bytes, format_count, table
from groundup.errors import printable


def inspect(arguments: argparse.Namespace) -> int:
    """Print what was found; 0 when done."""
    from groundup.run.inspection import inspect_model

    found = inspect_model(arguments.path)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    painter = Painter()
    painter.print(painter.paint(printable(str(arguments.path)), "bold") + f"  {found['kind'].replace('_', ' ')}")
    for name in ("family", "architecture", "parameters", "bytes", "types", "tokenizer", "chat", "base", "head"):
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
    if isinstance(value, dict):
        return printable(", ".join(f"{key} {entry}" for key, entry in value.items()), 300)
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value), 300)
