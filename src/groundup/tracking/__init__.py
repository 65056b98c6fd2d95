"""Tracking: what a run writes down, told as well to TensorBoard, Trackio, Weights & Biases or MLflow.

One file for each of them, imported with its library only when a recipe names it. None can stop a run, hold it up or
change a number of it; none opens a connection unless the recipe asks for one. What a run writes, and when, is
decided elsewhere: lines of events.jsonl come in, and no model, data or recipe.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.errors import GroundupError
from groundup.tracking.follow import Follower
from groundup.tracking.mlflow import MlflowTracker
from groundup.tracking.options import TrackerOptions
from groundup.tracking.rows import Row, Tracker
from groundup.tracking.tensorboard import TensorBoardTracker
from groundup.tracking.trackio import TrackioTracker
from groundup.tracking.wandb import WandbTracker

__all__ = ["TRACKERS", "Follower", "Row", "Tracker", "TrackerOptions", "open_tracker", "require_installed"]

TRACKERS: dict[str, Callable[[Any, Path, str], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "trackio": TrackioTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}
"""Kind of tracker → what makes one of its options, the folder for its files, and the run's name. The kind is also the
name of the extra and of the package."""


def open_tracker(options: TrackerOptions, folder: Path, name: str) -> Tracker:
    """A tracker that has done nothing yet.

    Args:
        folder: the run's, below which it keeps its files unless the options name another place.
        name: of the run, as it is shown.
    """
    place = folder / "tracking" / options.kind if options.folder is None else Path(options.folder).expanduser()
    return TRACKERS[options.kind](options, place, name)


def require_installed(options: list[TrackerOptions]) -> None:
    """Tell before a run begins which extras it lacks.

    Raises:
        GroundupError: E-TRACK-001.
    """
    found = {one.kind: importlib.util.find_spec(one.kind) for one in options}
    # a folder of that name, such as wandb leaves behind, looks like a package without an origin
    missing = [kind for kind, package in found.items() if package is None or package.origin is None]
    if missing:
        raise GroundupError(
            "E-TRACK-001",
            f"the run is to be tracked by {', '.join(missing)}, which is not installed",
            where="events.track",
            why="trackers are optional extras",
            fix=f'pip install "groundup[{",".join(missing)}]"   (or leave it out of events.track)',
            exit_code=2,
        )
