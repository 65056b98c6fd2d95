"""What the Python API and the command line call: a recipe in any form to a run. What opens models is opening.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from groundup.engine.events import Listener
from groundup.recipe.check import BUDGETS, check
from groundup.recipe.load import load_with_places
from groundup.recipe.tree import Recipe
from groundup.recipe.yaml import dump
from groundup.run.train import Result, train_recipe


def read_recipe(recipe: str | Path | dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A checked recipe from a file, a YAML text or a dict.

    Raises:
        GroundupError: every fault of the recipe at once.
    """
    if isinstance(recipe, dict):
        recipe = dump(recipe)
    elif isinstance(recipe, Path) or "\n" not in recipe:
        recipe = Path(recipe).expanduser()
    loaded, places = load_with_places(recipe, with_one_budget(overrides), Recipe)
    check(loaded, places)
    return loaded


def with_one_budget(overrides: Sequence[str]) -> list[str]:
    """A budget given as an override takes the place of the file's, whatever that one is counted in."""
    given = [word.partition("=")[0].removeprefix("budget.") for word in overrides if word.startswith("budget.")]
    if not set(given) & set(BUDGETS):
        return list(overrides)
    return [*(f"budget.{name}=null" for name in BUDGETS if name not in given), *overrides]


def run_folder(recipe: Recipe, out: str | Path | None) -> Path:
    """Where a run goes: `out`, or `runs/` and the recipe's name."""
    return Path(out).expanduser() if out is not None else Path("runs") / recipe.name


def train(
    recipe: str | Path | dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    command: Sequence[str] = (),
    listeners: tuple[Listener, ...] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Train what a recipe says, and write the report."""
    from groundup.report import write_report

    checked = read_recipe(recipe, overrides)
    folder = run_folder(checked, out)
    try:
        return train_recipe(
            checked,
            folder,
            resume=resume,
            accept_changes=accept_changes,
            command=command,
            listeners=listeners,
            say=say,
        )
    finally:
        if (folder / "events.jsonl").exists():
            write_report(folder)
