"""What the evaluations while training measure, so that a recipe can name one of these metrics."""

from __future__ import annotations

from groundup.objectives.masked_token import MaskedTokenOptions
from groundup.recipe.tree import ImageData, LabelledData, Recipe, TableData

METRICS = {
    "text": ("loss", "perplexity", "bits_per_byte"),
    "masked_token": ("loss", "masked_accuracy"),
    "chat": ("loss",),
    "classify": ("loss", "accuracy"),
    "choice": ("loss", "accuracy"),
    "multilabel": ("loss", "accuracy"),
    "tag": ("loss", "accuracy"),
    "regress": ("loss",),
    "embed": ("reciprocal_rank",),
    "pairs": ("loss", "token_accuracy"),
    "environment": ("return",),
    "game": ("return",),
    "autoencoder": ("loss",),
    "vae": ("loss", "pixel_error"),
    "gan": (),
}
"""What the evaluations while training measure, by the kind of data, by the task of labelled rows, by
the objective of hidden tokens, or by the family of a
network that makes images."""


def measured_as(recipe: Recipe) -> str:
    """The key of METRICS that a recipe has."""
    data = recipe.data
    if recipe.model.family in ("autoencoder", "vae", "gan"):
        return recipe.model.family
    if isinstance(data, LabelledData | TableData | ImageData):
        return "autoencoder" if data.task == "none" else data.task
    if isinstance(recipe.objective, MaskedTokenOptions):
        return recipe.objective.kind
    return data.kind
