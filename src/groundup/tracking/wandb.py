"""Weights & Biases: files for a later `wandb sync`, or, if the recipe asks for it, a connection to its server. What
its library would collect beside the run (terminal, source code, hardware, errors of its own) is switched off."""

from __future__ import annotations

import html
import os
import uuid
from pathlib import Path
from typing import Any

from groundup.tracking.options import WandbOptions
from groundup.tracking.rows import Row


class WandbTracker:
    """Tells a run to Weights & Biases; see `groundup.tracking.rows.Tracker`."""

    def __init__(self, options: WandbOptions, folder: Path, name: str) -> None:
        self.options, self.folder, self.name = options, folder, name
        self.run: Any = None
        self.exit_code = 0

    def begin(self, config: dict[str, Any], known: str | None) -> str:
        """Open the run; a resume makes a second folder with the same id, which `wandb sync` joins."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when the package is imported
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)  # it would take the system's folder for temporary files
        id = known or uuid.uuid4().hex[:12]
        self.html = wandb.Html
        self.run = wandb.init(
            project=self.options.project,
            entity=self.options.entity,
            name=self.name,
            id=id,
            resume="allow",
            mode=self.options.mode,
            dir=str(self.folder),
            config=config,
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, save_code=False, disable_git=True, disable_code=True,
                disable_job_creation=True, x_disable_stats=True, x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )  # fmt: skip
        return id

    def tell(self, row: Row) -> None:
        """Write a row."""
        texts = {name: self.html(f"<pre>{html.escape(text)}</pre>", inject=False) for name, text in row.texts.items()}
        self.run.log(row.values | texts, step=row.step)

    def flush(self) -> None:
        """Nothing: a process of its own writes what was told."""

    def end(self, row: Row, outcome: str) -> None:
        """Write the outcome into the summary."""
        self.run.summary.update(row.texts)
        self.exit_code = 1 if outcome == "failed" else 0

    def close(self) -> None:
        """End the run; a resume opens it again."""
        self.run.finish(exit_code=self.exit_code)
