"""Noise on training texts as a recipe asks for it and a tokenizer allows it."""

from __future__ import annotations

from groundup.data.text_noise import TextNoise, TextNoiseOptions
from groundup.recipe.tree import LabelledData, PairData, Recipe
from groundup.text.tokenizer import AnyTokenizer


def noise_of(options: TextNoiseOptions, tokenizer: AnyTokenizer) -> TextNoise | None:
    """Noise for the ids of a tokenizer; None where nothing is to be changed. Raises E-TOKEN-009."""
    hidden = tokenizer.mask_id if tokenizer.mask_id is not None else tokenizer.unknown_id
    return TextNoise.of(options, tokenizer.vocabulary, list(tokenizer.specials.values()), hidden)


def masks_rows(recipe: Recipe) -> bool:
    """Whether noise hides tokens, so that a tokenizer that is trained for it needs one to stand for them."""
    return isinstance(recipe.data, LabelledData | PairData) and recipe.data.augment.mask > 0
