"""A run's events in bounded pieces, for a page that follows a run while it trains.

A piece begins at a byte and ends at the end of a line. Steps become columns; of a long file, each piece keeps only as
many steps as can be seen. Nothing is computed from the numbers here.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import BinaryIO

from groundup.report.charts import thin
from groundup.report.collect import CLOCKED, MEASURED
from groundup.report.reading import mapping, number, parse_json
from groundup.report.summary import plain
from groundup.serving.library import EventsPiece, Json

PIECE = 4 << 20
"""Bytes read for one answer."""
LONG = 2 * PIECE
"""From this size of the file on, steps are thinned."""
MOST_STEPS = 600
"""Steps of a piece of a long file."""
MARKED = 256
"""Bytes before a place by which it is known again."""


def read_piece(path: Path, after: int, mark: str) -> EventsPiece:
    """The lines of a file of events from byte `after` on, at most PIECE bytes of them.

    A last line without its end is left for the next time. If the file is shorter than `after`, or what stands before
    it is not what `mark` says, the piece begins at byte 0.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            reset = after > 0 and (after > size or _mark(file, after) != mark)
            start = 0 if reset else after
            file.seek(start)
            content = file.read(PIECE)
            whole = content.rfind(b"\n") + 1
            if not whole and len(content) == PIECE:  # one line that is longer than a piece: pass over it
                whole = PIECE
            found = _parse(content[:whole], thinned=size > LONG)
            return EventsPiece(**found, next=start + whole, size=size, mark=_mark(file, start + whole), reset=reset)
    except OSError:
        return EventsPiece(steps={}, events=[], next=0, size=0, mark="", reset=after > 0)


def _mark(file: BinaryIO, place: int) -> str:
    start = max(0, place - MARKED)
    file.seek(start)
    return hashlib.sha256(file.read(place - start)).hexdigest()[:16] if place else ""


def _parse(content: bytes, *, thinned: bool) -> Json:
    """steps, events, unreadable and thinned of a piece."""
    rows: list[list[float]] = []
    events: list[Json] = []
    unreadable = 0
    for line in content.splitlines():
        value, _ = parse_json(line.decode("utf-8", errors="replace"))
        if not isinstance(value, dict):
            unreadable += bool(line.strip())
        elif value.get("event") == "step":
            clock = mapping(value.get("clock"))
            row = [*(number(value.get(name)) for name in MEASURED), *(number(clock.get(name)) for name in CLOCKED)]
            if math.isfinite(row[0]):
                rows.append(row)
        else:
            events.append(plain(value))
    if thinned and len(rows) > MOST_STEPS:
        loss = MEASURED.index("loss")
        rows = [rows[index] for index in thin([row[0] for row in rows], [row[loss] for row in rows], MOST_STEPS)]
    columns = {
        name: [row[index] if math.isfinite(row[index]) else None for row in rows]
        for index, name in enumerate((*MEASURED, *CLOCKED))
    }
    return {"steps": columns, "events": events, "unreadable": unreadable, "thinned": thinned}
