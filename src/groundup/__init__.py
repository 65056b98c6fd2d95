"""groundup: from nothing to a large model of your own.

The two calls of the Python API:

    groundup.train(recipe)  → a Result: run folder, outcome, evaluations
    groundup.load(path)     → a LoadedModel: .generate(), .chat(), .evaluate(); for networks that are no language
                              models one with .predict(), .translate(), .sample() or .play()

Both load what they need when they are called. Importing groundup costs nothing and does two things that
must be done before torch is loaded: it tells OpenMP how long threads wait (machine/waiting.py), and torch to ask for
large pages (machine/pages.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.machine.pages import use_large_pages
from groundup.machine.waiting import wait_briefly

if TYPE_CHECKING:
    from pathlib import Path

    from groundup.api import LoadedModel
    from groundup.run.loaded_network import LoadedNetworkModel
    from groundup.run.train import Result

__version__ = "0.1.0"
__all__ = ["__version__", "load", "train"]

wait_briefly()
use_large_pages()


def train(
    recipe: str | Path | dict[str, Any], *overrides: str, out: str | Path | None = None, resume: bool = False
) -> Result:
    """Train what a recipe says.

    Args:
        recipe: a recipe file, its YAML text, or the same as a dict.
        overrides: `key.sub=value`, applied on top.
        out: the run folder; derived from the recipe's name under `runs/`.
        resume: go on with the run in that folder.

    Raises:
        groundup.errors.GroundupError: any fault of recipe, data, machine or run.
    """
    from groundup.run.entry import train as run

    return run(recipe, list(overrides), out=out, resume=resume)


def load(path: str | Path, *, device: str = "auto") -> LoadedModel | LoadedNetworkModel:
    """The model of a run, checkpoint or model folder, ready to be asked what it was trained for."""
    from groundup.run.opening import load as open_model

    return open_model(path, device=device)
