"""TensorBoard: event files, written by torch's writer. A resume adds a file to the folder, which is one run there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup.tracking.options import TensorBoardOptions
from groundup.tracking.rows import Row


class TensorBoardTracker:
    """Tells a run to TensorBoard; see `groundup.tracking.rows.Tracker`."""

    def __init__(self, options: TensorBoardOptions, folder: Path, name: str) -> None:
        # TensorBoard tells runs apart by their folders, so a shared one has one below for each
        self.folder = folder if options.folder is None else folder / name
        self.writer: Any = None

    def begin(self, config: dict[str, Any], known: str | None) -> str:
        """Open a new event file."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder))
        if known is None:
            shown = "".join(f"    {line}\n" for line in json.dumps(config, indent=2, ensure_ascii=False).splitlines())
            self.writer.add_text("recipe", shown, 0)
        return str(self.folder)

    def tell(self, row: Row) -> None:
        """Write a row."""
        for name, value in row.values.items():
            self.writer.add_scalar(name, value, row.step, walltime=row.time)
        for name, text in row.texts.items():
            self.writer.add_text(name, text, row.step, walltime=row.time)

    def flush(self) -> None:
        """Write it to the disk."""
        self.writer.flush()

    def end(self, row: Row, outcome: str) -> None:
        """Write the outcome."""
        self.tell(row)

    def close(self) -> None:
        """Close the file."""
        self.writer.close()
