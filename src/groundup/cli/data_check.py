"""`groundup data check FILE…`: what is in data files, and what is wrong with it. Only printing lives here."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from groundup.cli.terminal import Painter
from groundup.errors import printable

if TYPE_CHECKING:
    from groundup.data.check import FileReport


def check(args: argparse.Namespace) -> int:
    """Read `args.files` as preparation would; 0 if all are fit, 1 if one is damaged or over the limit."""
    from groundup.data.check import check_files
    from groundup.data.options import PrepareOptions

    options = PrepareOptions(files=args.files)
    reports = check_files(options)
    limit = options.malformed_limit
    fit = all(report.within(limit) for report in reports)
    if args.json:
        print(json.dumps({"fit": fit, "limit": limit, "files": [report.as_dict() for report in reports]}))
        return 0 if fit else 1
    painter = Painter(sys.stdout)
    for report in reports:
        _show(report, painter, limit)
    return 0 if fit else 1


def _show(report: FileReport, painter: Painter, limit: float) -> None:
    ledger = report.ledger
    mark = painter.paint(painter.symbol("pass"), "green")
    if not report.within(limit):
        mark = painter.paint(painter.symbol("fail"), "red")
    painter.print(f"{mark} {painter.paint(printable(report.file), 'bold')}  {report.format}, {report.layout}")
    if report.columns:
        painter.print(f"    columns: {', '.join(printable(name, 40) for name in report.columns)}")
    malformed = f", {ledger.malformed:,} malformed (limit {limit:.3g} of all)" if ledger.malformed else ""
    painter.print(f"    {ledger.documents:,} rows, {ledger.kept_documents:,} kept{malformed}")
    for reason, (documents, _) in sorted(ledger.set_aside.items()):
        painter.print(f"    set aside {documents:,}: {reason}")
        for place in report.first.get(reason, []):
            painter.print(f"        {place}")
    for reason, places in report.first.items():
        if reason not in ledger.set_aside:
            painter.print(f"    {reason}, first at {places[0]}")
    if report.fault is not None:
        painter.print(str(report.fault))
