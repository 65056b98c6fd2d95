"""`groundup explain CODE`: what an error code means; without a code, the list of them."""

from __future__ import annotations

import argparse
import json

from groundup.cli.terminal import Painter, table
from groundup.errors import CATALOGUE, GroundupError, nearest, printable


def explain(args: argparse.Namespace) -> int:
    """Print the catalogue's line for `args.code`, or all lines; 0 when done."""
    chosen = {find(args.code): CATALOGUE[find(args.code)]} if args.code else CATALOGUE
    if args.json:
        print(json.dumps(chosen))
        return 0
    painter = Painter()
    painter.print(table(list(chosen.items()), width=painter.width))
    return 0


def find(text: str) -> str:
    """The code that `text` names, in any case and with or without its `E-`."""
    code = text.strip().upper()
    code = code if code.startswith("E-") else f"E-{code}"
    if code in CATALOGUE:
        return code
    meant = nearest(code, list(CATALOGUE))
    raise GroundupError(
        "E-USE-005",
        f'there is no error code "{printable(text)}"',
        where="the command line",
        why="codes are E-, a room and three digits, as the first line of an error shows them",
        fix=f"did you mean {meant}?" if meant else "groundup explain   (lists all codes)",
        exit_code=2,
    )
