"""`groundup new KIND`: a commented recipe to start from."""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from groundup.errors import GroundupError, nearest


def new(arguments: argparse.Namespace) -> int:
    """Write it; an existing file is never overwritten."""
    folder = resources.files("groundup.recipe") / "templates"
    kinds = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if arguments.kind not in kinds:
        near = nearest(arguments.kind, kinds)
        raise GroundupError(
            "E-USE-030",
            f"there is no kind of recipe called {arguments.kind!r}",
            where="groundup new KIND",
            why=f"there are: {', '.join(kinds)}",
            fix=f"groundup new {near or kinds[0]}",
            exit_code=2,
        )
    path = Path(arguments.out or f"{arguments.kind}.yaml").expanduser()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write((folder / f"{arguments.kind}.yaml").read_text(encoding="utf-8"))
    except FileExistsError as error:
        raise GroundupError(
            "E-USE-031",
            f"{path} is there already",
            where=str(path),
            why="a recipe that somebody wrote is never overwritten",
            fix=f"choose another name: groundup new {arguments.kind} --out FILE",
            exit_code=2,
        ) from error
    print(f"wrote {path}\n  check it   groundup plan {path}\n  run it     groundup train {path}")
    return 0
