"""From a checked recipe to its work: which kind of data is served by which file. Only that file is loaded."""

from __future__ import annotations

from pathlib import Path

import torch

from groundup.recipe.check_rows import GENERATIVE
from groundup.recipe.tree import EnvironmentData, GameData, ImageData, PairData, Recipe, TableData
from groundup.run.models import family_of, find_model
from groundup.run.work import Say, Work


def gather(recipe: Recipe, folder: Path, *, say: Say) -> Work:
    """Prepare the data and fill in every number that does not need a measurement of speed.

    Args:
        recipe: checked.
        folder: of the run; prepared data goes to its `data`.
        say: receives lines of progress.
    """
    if recipe.hardware.threads is not None:
        torch.set_num_threads(recipe.hardware.threads)
    if isinstance(recipe.data, EnvironmentData):
        from groundup.run.acting import acting_work

        return acting_work(recipe, folder, say=say)
    if isinstance(recipe.data, GameData):
        from groundup.run.playing import playing_work

        return playing_work(recipe, folder, say=say)
    if isinstance(recipe.data, PairData):
        from groundup.run.translation import translation_work

        return translation_work(recipe, folder, say=say)
    if isinstance(recipe.data, ImageData) and _generates(recipe):
        from groundup.run.generation import generation_work

        return generation_work(recipe, folder, say=say)
    if isinstance(recipe.data, TableData | ImageData):
        from groundup.run.prediction import prediction_work

        return prediction_work(recipe, folder, say=say)
    from groundup.run.language import language_work

    return language_work(recipe, folder, say=say)


def _generates(recipe: Recipe) -> bool:
    """Whether the network of an image recipe makes images rather than labels."""
    assert isinstance(recipe.data, ImageData)
    family = recipe.model.family if recipe.init_from is None else family_of(find_model(Path(recipe.init_from)))
    return family in GENERATIVE or recipe.data.task == "none"
