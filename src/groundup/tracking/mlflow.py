"""MLflow: its files in a folder, or, if the recipe names one, a server or database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from groundup.tracking.options import MlflowOptions
from groundup.tracking.rows import Row, flat

STATUS = {"failed": "FAILED", "stopped": "KILLED"}
"""What MLflow calls an outcome; any other is FINISHED."""
PARAMETERS_AT_ONCE, LONGEST_PARAMETER = 100, 500
"""What every version and store of MLflow takes."""


class MlflowTracker:
    """Tells a run to MLflow; see `groundup.tracking.rows.Tracker`."""

    def __init__(self, options: MlflowOptions, folder: Path, name: str) -> None:
        self.options, self.folder, self.name = options, folder.absolute(), name
        self.id = ""
        self.client: Any = None

    def begin(self, config: dict[str, Any], known: str | None) -> str:
        """Open the run in its experiment."""
        # Read by the package: it would tell its makers of its use, and new versions want to be told that files will do.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.metric = Metric
        self.client = MlflowClient(tracking_uri=self.options.uri or self.folder.as_uri())
        if known is not None:
            self.client.update_run(known, status="RUNNING")
            self.id = known
            return known
        found = self.client.get_experiment_by_name(self.options.experiment)
        experiment = self.client.create_experiment(self.options.experiment) if found is None else found.experiment_id
        self.id = str(self.client.create_run(experiment, run_name=self.name).info.run_id)
        parameters = [Param(name, text[:LONGEST_PARAMETER]) for name, text in flat(config).items()]
        for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
            self.client.log_batch(self.id, params=parameters[start : start + PARAMETERS_AT_ONCE])
        return self.id

    def tell(self, row: Row) -> None:
        """Write a row; texts become files."""
        time = round(row.time * 1000)
        if row.values:
            metrics = [self.metric(name, value, time, row.step) for name, value in row.values.items()]
            self.client.log_batch(self.id, metrics=metrics)
        for name, text in row.texts.items():
            self.client.log_text(self.id, text, f"{name}/step-{row.step:06d}.txt")

    def flush(self) -> None:
        """Nothing: each call writes."""

    def end(self, row: Row, outcome: str) -> None:
        """Write the outcome."""
        self.client.set_tag(self.id, "outcome", row.texts["outcome"])
        self.client.set_terminated(self.id, STATUS.get(outcome, "FINISHED"))

    def close(self) -> None:
        """Nothing stays open."""
