"""What the Python API and the command line call: a recipe in any form to a run, a path to a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from groundup.api import LoadedModel
from groundup.engine.events import Listener
from groundup.machine.ceiling import choose_precision, resolve_device
from groundup.recipe.check import BUDGETS, check
from groundup.recipe.load import load_with_places
from groundup.recipe.tree import Recipe
from groundup.recipe.yaml import dump
from groundup.run import models
from groundup.run.loaded_network import (
    LoadedAutoencoder,
    LoadedGenerator,
    LoadedNetworkModel,
    LoadedPolicy,
    family_of,
)
from groundup.run.loaded_player import LoadedPlayer
from groundup.run.loaded_rows import LoadedImagePredictor, LoadedTablePredictor
from groundup.run.loaded_translator import LoadedTranslator
from groundup.run.networks import load_network
from groundup.run.train import Result, train_recipe
from groundup.run.translation import load_translator


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


def load(path: str | Path, *, device: str = "auto") -> LoadedModel | LoadedNetworkModel:
    """The model that `path` names, ready to use."""
    place = resolve_device(device)
    if family_of(models.find_model(Path(path))) is not None:
        return _load_network(Path(path), place)
    loaded = models.load(Path(path), place)
    return LoadedModel(
        model=loaded.model,  # type: ignore[arg-type]
        tokenizer=loaded.said.tokenizer,
        chat_template=loaded.said.chat,
        device=place,
        name=str(path),
        said=loaded.said,
        autocast=_autocast(place),
    )


def _load_network(path: Path, place: torch.device) -> LoadedNetworkModel:
    """A network that is no language model, by what it was trained for."""
    how: dict[str, Any] = {"device": place, "name": str(path)}
    if family_of(models.find_model(path)) == "transformer":
        return LoadedTranslator(load_translator(path, place), **how, autocast=_autocast(place))
    loaded = load_network(path, place)
    if loaded.said.kind == "actions":
        return LoadedPolicy(loaded, **how)
    if loaded.said.kind == "moves":
        return LoadedPlayer(loaded, **how)
    if loaded.said.family == "autoencoder":
        return LoadedAutoencoder(loaded.model, **how)
    if loaded.said.kind == "images":
        return LoadedGenerator(loaded, **how)
    kind = LoadedImagePredictor if loaded.said.preparation.get("kind") == "images" else LoadedTablePredictor
    return kind(loaded, **how, autocast=_autocast(place))


def _autocast(place: torch.device) -> torch.dtype | None:
    return torch.bfloat16 if choose_precision("auto", place).name == "bfloat16" else None
