"""`groundup export MODEL --to FORMAT --out PATH`: a model for other tools, loaded again before it counts."""

from __future__ import annotations

import argparse
import json
from typing import Any

from groundup.cli.terminal import Painter, format_bytes
from groundup.errors import printable


def export(arguments: argparse.Namespace) -> int:
    """Write, load again, compare, print; 0 when done."""
    from groundup.run.exchange import export_model
    from groundup.run.loaded_network import require_language

    require_language(arguments.model, "export")
    found = export_model(arguments.model, arguments.out, to=arguments.to, dtype=arguments.dtype)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    painter = Painter()
    painter.print(
        painter.paint(printable(found["path"]), "bold")
        + f"  {found['to']}, {found['dtype']}, {format_bytes(found['bytes'])}"
    )
    for line in found["oddities"]:
        painter.print(f"  note      {printable(line, 400)}")
    show_proof(painter, found["proof"])
    return 0


def show_proof(painter: Painter, proof: dict[str, Any]) -> None:
    """The comparison with the source, one line."""
    line = f"largest difference {proof['largest_difference']:.2g}"
    if proof["largest_difference"] != proof["unexplained"]:
        line += f", {proof['unexplained']:.2g} beside the rounding of {proof['dtype']}"
    line += f" (limit {proof['limit']:.2g})"
    if proof.get("tokens"):
        line += f", {proof['agreed']} of {proof['tokens']} greedy tokens agree"
    if proof["tensors"]:
        line += f", {proof['exact']} of {proof['tensors']} tensors exact"
    painter.print(f"  proof     {line}")
