"""Rules about models that read texts and write none, and about learning which tokens were hidden."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from groundup.errors import GroundupError
from groundup.models import READERS
from groundup.objectives.masked_token import MaskedTokenOptions
from groundup.recipe.tree import LabelledData, Recipe, TextData

if TYPE_CHECKING:
    from groundup.recipe.check import Check


def learned_by(recipe: Recipe) -> str:
    """The objective that the data needs; running text leaves a choice between two."""
    data = recipe.data
    if isinstance(data, LabelledData):
        return "contrast" if data.task == "embed" else data.task
    return "masked_token" if isinstance(data, TextData) and _hides(recipe) else "next_token"


def check_reading(check: Check) -> Iterator[GroundupError]:
    """Every fault of this kind in a recipe for a language model."""
    recipe, model, tokenizer = check.recipe, check.recipe.language, check.recipe.tokenizer
    hidden = learned_by(recipe) == "masked_token"
    if hidden and tokenizer is not None and tokenizer.mask is False:
        yield check.fault(
            "E-TOKEN-009", "tokenizer.mask", "tokenizer.mask is false, and masked_token hides tokens",
            "what stands where a token is hidden must be something that no text says", "remove tokenizer.mask",
        )  # fmt: skip
    if model.init_from is not None:
        return
    if hidden and model.family != "bert":
        yield check.fault(
            "E-RECIPE-049", "model.family", f"a model of family {model.family} cannot tell hidden tokens",
            "a decoder sees only what stands before a hidden token",
            "set model.family=bert, or remove the objective to predict the next token",
        )  # fmt: skip
    if model.family in READERS and not hidden and not isinstance(recipe.data, LabelledData):
        yield check.fault(
            "E-RECIPE-043", "model.family", f"a model of family {model.family} reads texts and writes none",
            "an encoder sees the answer in its own input; a recurrent body has no output matrix",
            "set model.family=llama, or data.kind=labelled"
            + (", or objective.kind=masked_token" if model.family == "bert" else ""),
        )  # fmt: skip


def _hides(recipe: Recipe) -> bool:
    return isinstance(recipe.objective, MaskedTokenOptions)
