"""`groundup import SOURCE`: a model from elsewhere as a groundup model folder."""

from __future__ import annotations

import argparse
import json
import time

from groundup.cli.terminal import Painter, format_bytes, format_count, format_duration
from groundup.errors import printable


def import_model(arguments: argparse.Namespace) -> int:
    """Read, write, verify and print; 0 when done."""
    from groundup.run.exchange import import_foreign

    began = time.perf_counter()
    found = import_foreign(arguments.source, arguments.out, base=arguments.base)
    found["seconds"] = round(time.perf_counter() - began, 2)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    painter = Painter()
    size = f"{format_count(found['parameters'])} parameters, {format_bytes(found['bytes'])}"
    took = format_duration(found["seconds"])
    painter.print(f"{painter.paint(printable(found['folder']), 'bold')}  {found['family']}, {size}, in {took}")
    for line in found["oddities"]:
        painter.print(f"  note  {printable(line, 400)}")
    verb = "chat" if found["chat"] else "generate" if found["generates"] else "predict"
    more = {"chat": "", "generate": " --prompt TEXT", "predict": " --files FILE"}[verb]
    painter.print(f"  try it    groundup {verb} {printable(found['folder'])}{more}")
    painter.print(f"  tune it   model: {{init_from: {printable(found['folder'])}}} in a recipe")
    return 0
