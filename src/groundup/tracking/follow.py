"""A run followed by one tracker: a bounded queue, and a thread of its own that may fail or hang as it likes.

The run's thread only puts lines into the queue, and never waits before the end. A fault, a full queue and a tracker
that does not come to its end are each told in one warning. What was told is remembered beside the run, so that a
resume goes on with the same tracker run: the lines that events.jsonl holds by then are gone through again, and those
that the tracker has are left out.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from groundup.errors import printable
from groundup.tracking.rows import Row, Tracker, row_of

WAITING_LINES = 1024
CLOSING_SECONDS = 20.0
"""How long the end of a run waits for a tracker."""

Line = dict[str, Any]


class Follower:
    """Hears the lines of a run as a listener of its log, and tells them to a tracker.

    Args:
        tracker: not opened yet.
        kind: its name, for warnings.
        config: the resolved recipe.
        memory: a file for what the tracker was told.
        history: events.jsonl, whose first `length` bytes were written before this session.
        warn: writes a warning of a step into the run's log.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        kind: str,
        config: dict[str, Any],
        memory: Path,
        history: Path,
        length: int,
        warn: Callable[[int, str], None],
    ) -> None:
        self.tracker, self.kind, self.config, self.warn = tracker, kind, config, warn
        self.memory, self.history, self.length = memory, history, length
        self.dropped, self.step, self.on = 0, 0, True
        self.fault = ""
        self._told: dict[str, int] = {}
        self._name: str | None = None
        self._lines: queue.Queue[Line | None] = queue.Queue(WAITING_LINES)
        self._thread = threading.Thread(target=self._work, name=f"tracking-{kind}", daemon=True)
        self._thread.start()

    def __call__(self, line: Line) -> None:
        """Hear a line; returns at once."""
        self.step = line["step"]
        if self.on and not self._thread.is_alive():
            self._switch_off(self.fault)
        if self.on:
            try:
                self._lines.put_nowait(line)
            except queue.Full:
                self.dropped += 1

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Wait for the tracker to take what is left, for so many seconds at the most."""
        if not self.on:
            return
        with suppress(queue.Full):
            self._lines.put(None, timeout=seconds / 2)
        self._thread.join(seconds / 2)
        if self._thread.is_alive():
            self._switch_off(f"it did not finish within {seconds:g} seconds")
        elif self.fault or self.dropped:
            self._switch_off(self.fault)
        self.on = False

    def _switch_off(self, reason: str) -> None:
        self.on = False
        lost = f"; it was too slow for {self.dropped} lines, which it does not have" if self.dropped else ""
        with suppress(OSError):  # a full disk is told by whoever needs it
            self.warn(self.step, f"tracking by {self.kind} is off: {printable(reason or 'it ended', 300)}{lost}")

    def _work(self) -> None:
        try:
            self._begin()
            for earlier in self._before():
                self._tell(earlier)
            self._remember()
            while (line := self._lines.get()) is not None:
                self._tell(line)
                if self._lines.empty():
                    self._remember()
            self._remember()
            self.tracker.close()
        except (Exception, SystemExit) as fault:  # noqa: BLE001 - the edge of this thread: no tracker ends a run
            self.fault = f"{type(fault).__name__}: {fault}"

    def _begin(self) -> None:
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = json.loads(self.memory.read_text(encoding="utf-8"))
            self._name, self._told = str(found["name"]), {str(key): int(step) for key, step in found["told"].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            self._name, self._told = None, {}  # a new run, or one whose memory was lost: told from its beginning
        self._name = self.tracker.begin(self.config, self._name)

    def _before(self) -> Iterator[Line]:
        """The lines of earlier sessions, as the log holds them after the cut of a resume."""
        if not self.length:
            return
        with self.history.open("rb") as file:
            for line in file.read(self.length).splitlines():
                found = json.loads(line)
                if found["event"] != "end":
                    yield found

    def _tell(self, line: Line) -> None:
        row: Row | None = row_of(line)
        if row is None:
            return
        if row.key == "end":
            self.tracker.end(row, line["outcome"])
        elif row.step > self._told.get(row.key, -1):  # a rewind repeats steps, a resume lines
            self.tracker.tell(row)
            self._told[row.key] = row.step

    def _remember(self) -> None:
        self.tracker.flush()
        text = json.dumps({"name": self._name, "told": self._told})
        temporary = self.memory.with_name(f"{self.memory.name}.tmp-{os.getpid()}")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(self.memory)
