"""Writing report.json and report.html beside a run, each whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

from groundup.errors import GroundupError, printable
from groundup.report.collect import collect
from groundup.report.page import render
from groundup.report.summary import summarize


def write_report(folder: Path | str, *, title: str = "", stages: list[Path] | None = None) -> Path:
    """Read a run folder and write its `report.json` and `report.html`.

    Args:
        folder: the run folder; whatever state it is in, a report is written.
        title: what the report is called; the folder's name by default.
        stages: run folders that this report sums up, in the order in which they ran.

    Returns:
        The path of `report.html`.

    Raises:
        GroundupError: the folder does not exist or cannot be written.
    """
    folder = Path(folder)
    for path in (folder, *(stages or [])):
        if not path.is_dir():
            raise GroundupError(
                code="E-REPORT-001",
                what="no such run folder",
                where=printable(str(path)),
                why="a report is made from the files of a run, and there is no folder at this path",
                fix="groundup runs   (lists the runs below this folder)",
                exit_code=2,
            )
    record = collect(folder, title=title, stages=stages)
    content = json.dumps(summarize(record), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    write_whole(folder / "report.json", content)
    write_whole(folder / "report.html", render(record))
    return folder / "report.html"


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that `path` holds all of it or what it held before.

    Raises:
        GroundupError: the folder is read-only or the disk is full; nothing was changed.
    """
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise GroundupError(
            code="E-REPORT-002",
            what=f"{path.name} could not be written ({error.strerror})",
            where=printable(str(path)),
            why="the report lies beside the run; the run itself was only read and is unchanged",
            fix="make the folder writable or free some disk space, then: "
            f"groundup report {printable(str(path.parent))}",
        ) from error
