"""A resume is a resume: the recipe given now is compared with the one that the run began with (R9)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from groundup.errors import GroundupError
from groundup.recipe import difference, format_difference, load
from groundup.recipe.difference import Change
from groundup.recipe.tree import Recipe
from groundup.recipe.yaml import dotted
from groundup.run import models
from groundup.run.model_faults import base_missing

SOURCE, RESOLVED = "recipe.source.yaml", "recipe.yaml"
ARCHITECTURE = ("model", "tokenizer", "data", "adapters", "head", "objective", "seed")
"""Sections that decide what the weights are and which rows they have seen: never changed on the way."""


def changes_state(change: Change) -> bool:
    """Whether a checkpoint of before lacks what the run would need after this change."""
    kind = change.path[0] == "optim" and change.path[-1] == "kind" and len(change.path) == 3
    return kind or (change.path == ("events", "average") and None in (change.before, change.after))


def reconcile(recipe: Recipe, folder: Path, *, accept_changes: bool, say: Callable[[str], None]) -> Recipe:
    """The resolved recipe to go on with.

    Raises:
        GroundupError: E-RUN-003 the architecture or data changed; E-RUN-004 something else changed and was
            not accepted.
    """
    began = load(folder / SOURCE, [], Recipe)
    resolved = load(folder / RESOLVED, [], Recipe)
    changes = difference(began, recipe)
    if not changes or not difference(resolved, recipe):
        return resolved
    shown = format_difference(changes)
    fixed = [change for change in changes if change.path[0] in ARCHITECTURE or changes_state(change)]
    if fixed:
        raise GroundupError(
            "E-RUN-003",
            "the recipe changed where a resume cannot follow: " + ", ".join(dotted(change.path) for change in fixed),
            where=shown,
            why="model, data and seed decide what the weights are and which rows come next, and the optimizer's "
            "kind and the average what a checkpoint holds",
            fix="put them back, or start a new run with model.init_from=" + str(folder),
            exit_code=2,
        )
    if not accept_changes:
        raise GroundupError(
            "E-RUN-004",
            "the recipe changed since the run began: " + ", ".join(dotted(change.path) for change in changes),
            where=shown,
            why="a resume with other settings is no longer the same run",
            fix="put them back, or add --accept-changes to go on with the new values",
            exit_code=2,
        )
    say(f"accepted changes:\n{shown}")
    sections = {str(change.path[0]) for change in changes}
    updated = {name: dict(recipe)[name] for name in sections}
    if "budget" in sections and recipe.budget.steps is None:
        updated["budget"] = recipe.budget  # measured again
    return resolved.model_copy(update=updated)


def require_same_base(began: Mapping[str, bytes], now: Mapping[str, bytes], path: Path) -> None:
    """A run on a base goes on only upon the base that it began with.

    Args:
        began: the small files of the checkpoint at `path`.
        now: those that the run would write.

    Raises:
        GroundupError: E-MODEL-005.
    """
    before, here = (json.loads(files[models.MODEL_FILE]).get("base") for files in (began, now))
    if before is not None and before["digest"] != here["digest"]:
        raise base_missing(path, before["path"], before["digest"], there=True)
