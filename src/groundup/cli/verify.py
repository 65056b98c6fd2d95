"""`groundup verify PATH`: whether a run, a checkpoint, a model or prepared data is whole, file by file.

Only finding out what PATH is, and printing, live here; the checking is the checkpoint room's and the data
room's. Exit 0 when what counts is whole (of a run: the newest checkpoint, the model and the data), else 1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TypedDict

from groundup.cli.terminal import Painter, format_bytes
from groundup.errors import GroundupError, printable


class Found(TypedDict):
    """One folder that was looked at, as `--json` prints it."""

    path: str
    kind: str  # "checkpoint", "model" or "data"
    step: int | None
    bytes: int
    whole: bool
    problems: list[dict[str, str]]


def verify(args: argparse.Namespace) -> int:
    """Check `args.path`, print what was found (as one JSON object with `args.json`), and return 0 or 1."""
    path = Path(args.path).expanduser()
    if not path.is_dir():
        raise GroundupError(
            "E-USE-020",
            f"{printable(path.name or str(path))} is {'not a folder' if path.exists() else 'not there'}",
            where=printable(str(path)),
            why="verify works on the folder of a run, a checkpoint, a model or prepared data",
            fix="groundup verify PATH, with the path of such a folder; groundup runs lists the runs",
            exit_code=2,
        )
    checkpoints, others = _look(path)
    if not checkpoints and not others:
        raise GroundupError(
            "E-CKPT-011",
            f"nothing to verify in {printable(path.name or str(path))}",
            where=printable(str(path)),
            why="it holds no checkpoint, no model and no prepared data",
            fix="groundup verify PATH, with the path of a run, a checkpoint, a model or prepared data",
        )
    whole = all(part["whole"] for part in [*checkpoints[:1], *others])
    if args.json:
        print(json.dumps({"path": str(path), "whole": whole, "found": [*checkpoints, *others]}))
    else:
        _show(checkpoints, others, Painter())
    return 0 if whole else 1


def _look(path: Path) -> tuple[list[Found], list[Found]]:
    """The checkpoints under `path`, newest first, and everything else that can be verified there."""
    from groundup.checkpoint import checkpoint_folders, refuse_only_pickles

    if (path / "manifest.json").exists() or path.name.startswith("step-"):
        return [_folder(path)], []
    refuse_only_pickles(path)
    root = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    checkpoints = [_folder(folder) for folder in checkpoint_folders(root)]
    others = [_folder(path / "model")] if (path / "model").is_dir() else []
    for pattern in ("index.json", "*/index.json", "data/*/index.json"):
        # the cleaned texts have an index of their own, which is not one of shards
        others += [_data(index.parent) for index in sorted(path.glob(pattern)) if index.parent.name != "clean"]
    return checkpoints, others


def _folder(folder: Path) -> Found:
    """Verify a checkpoint or model folder."""
    from groundup.checkpoint import read_manifest, verify

    problems = verify(folder)
    try:
        manifest = read_manifest(folder)
    except GroundupError:  # one of the problems already
        kind, step, total = ("model" if folder.name == "model" else "checkpoint"), None, 0
    else:
        kind, step, total = manifest.kind, manifest.step, manifest.total
    listed = [{"file": problem.file, "what": problem.what} for problem in problems]
    return Found(path=str(folder), kind=kind, step=step, bytes=total, whole=not problems, problems=listed)


def _data(folder: Path) -> Found:
    """Verify every split of a prepared data folder."""
    from groundup.data.shards import TokenSet

    try:
        splits = sorted(json.loads((folder / "index.json").read_bytes())["splits"])
    except (ValueError, KeyError, TypeError, RecursionError):
        splits = ["train"]  # opening it says what is wrong with the index
    problems: list[dict[str, str]] = []
    for split in splits:
        try:
            TokenSet.open(folder, split, verify=True)
        except GroundupError as fault:
            problems.append({"file": split, "what": fault.what})
    total = sum(entry.stat().st_size for entry in folder.iterdir() if entry.is_file())
    return Found(path=str(folder), kind="data", step=None, bytes=total, whole=not problems, problems=problems)


def _show(checkpoints: list[Found], others: list[Found], painter: Painter) -> None:
    for part in [*checkpoints, *others]:
        symbol = painter.symbol("pass" if part["whole"] else "fail")
        verdict = f"whole, {format_bytes(part['bytes'])}" if part["whole"] else "not whole"
        line = f"{symbol} {printable(part['path'])}  {part['kind']}: {verdict}"
        painter.print(painter.paint(line, "green" if part["whole"] else "red"))
        for problem in part["problems"]:
            painter.print(f"    {printable(problem['file'])}: {printable(problem['what'], 400)}")
    if len(checkpoints) > 1 and not checkpoints[0]["whole"]:
        resumed = next((part["path"] for part in checkpoints if part["whole"]), None)
        ending = f"would go on from {printable(resumed)}" if resumed else "would find no whole checkpoint"
        painter.print(f"resuming {ending}")
