"""Trackio: a local SQLite database. Its storage is written to directly, since `trackio.init` prints to the terminal,
watches the hardware in threads of its own, and tells nobody of its faults; nothing here starts a page or a browser."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from groundup.tracking.options import TrackioOptions
from groundup.tracking.rows import Row

_ONE_FOLDER = threading.Lock()
"""The package knows one folder for the process; two runs at a time may have different ones."""


class TrackioTracker:
    """Tells a run to Trackio; see `groundup.tracking.rows.Tracker`."""

    def __init__(self, options: TrackioOptions, folder: Path, name: str) -> None:
        self.options, self.folder, self.run = options, folder.absolute(), name
        self.id = ""
        self.config: dict[str, Any] = {}
        self.rows: list[Row] = []

    def begin(self, config: dict[str, Any], known: str | None) -> str:
        """Take a name for the run; nothing is written before the first rows."""
        import trackio.sqlite_storage

        self.id, self.storage = known or uuid.uuid4().hex, trackio.sqlite_storage
        self.config = config | {"_Created": datetime.now(UTC).isoformat()} if known is None else {}
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.id

    def tell(self, row: Row) -> None:
        """Keep a row for the next flush."""
        self.rows.append(row)

    def flush(self) -> None:
        """Write what was told. A row that is there already is left as it is, which its name sees to."""
        if not self.rows:
            return
        texts = [{name: {"_type": "trackio.markdown", "_value": text} for name, text in row.texts.items()}
                 for row in self.rows]  # fmt: skip
        with _ONE_FOLDER:
            self.storage.TRACKIO_DIR = self.folder
            self.storage.SQLiteStorage.bulk_log(
                self.options.project,
                self.run,
                [row.values | shown for row, shown in zip(self.rows, texts)],
                steps=[row.step for row in self.rows],
                timestamps=[datetime.fromtimestamp(row.time, UTC).isoformat() for row in self.rows],
                config=self.config or None,
                log_ids=[f"{self.id}-{row.key}-{row.step}" for row in self.rows],
                run_id=self.id,
            )
        self.rows, self.config = [], {}

    def end(self, row: Row, outcome: str) -> None:
        """Write the outcome."""
        self.tell(row)

    def close(self) -> None:
        """Write what is left."""
        self.flush()
