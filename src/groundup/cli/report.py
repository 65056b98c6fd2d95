"""`groundup report RUN`: write the report of a run, or of a folder of runs, and say where it lies.

Only parsing and printing; the report is made by `groundup.report`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from groundup.cli.terminal import Painter
from groundup.errors import printable


def report(arguments: argparse.Namespace) -> int:
    """Write report.json and report.html; 0 when done."""
    from groundup.report import require_run, stages_of, write_report

    folder = Path(arguments.run).expanduser()
    require_run(folder)
    page = write_report(folder, title=arguments.title, stages=stages_of(folder))
    written = (folder / "report.json").read_text(encoding="utf-8")
    if arguments.json:
        print(json.dumps(json.loads(written)))  # ASCII alone, whatever the locale can show
        return 0
    from groundup.report.sections import OUTCOMES, sentence

    summary = json.loads(written)
    painter = Painter()
    painter.print(f"{OUTCOMES[summary['outcome']][1]}: {printable(sentence(summary), 400)}")
    if summary["unreadable"]:
        painter.print(f"{len(summary['unreadable'])} part(s) could not be read; the report lists them")
    painter.print(f"report  {printable(str(page.resolve()), 1000)}")
    return 0
