"""A base whose recipe gives it new tokens: what it is then, and where the rows of the new tokens start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from groundup.adapters import AdapterOptions, GrowOptions, Growth
from groundup.run.models import Described
from groundup.text.grow import grow_tokenizer, pieces_of


def grown(said: Described, adapters: Sequence[AdapterOptions]) -> tuple[Described, Growth | None]:
    """What a base is with the new tokens of a recipe, and where they stand; as it was, and None, without any.

    Raises:
        GroundupError: E-TOKEN-010, tokens that cannot be added.
    """
    options = next((adapter for adapter in adapters if isinstance(adapter, GrowOptions)), None)
    if options is None:
        return said, None
    tokenizer = grow_tokenizer(said.tokenizer, options.words, options.controls)
    words = pieces_of(said.tokenizer, options.words) if options.init == "pieces" else [()] * len(options.words)
    growth = Growth(said.tokenizer.vocabulary, (*words, *((),) * len(options.controls)))
    size = max(said.options.vocabulary, tokenizer.vocabulary)  # some models have rows to spare
    sizes = said.options.model_copy(update={"vocabulary": size})
    return replace(said, tokenizer=tokenizer, options=sizes), growth
