"""Running text of which some tokens are hidden: how they are, and how well a model tells them in held-out text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.data.mask import Masking, held_out_batches, held_out_windows
from groundup.data.shards import TokenSet
from groundup.errors import GroundupError
from groundup.evaluation.masked import score_hidden
from groundup.evaluation.metrics import LabelScores
from groundup.objectives.masked_token import MaskedTokenOptions
from groundup.recipe.tree import Recipe
from groundup.run.answers import ROWS_AT_ONCE
from groundup.text.tokenizer import AnyTokenizer

if TYPE_CHECKING:
    from groundup.run.language import LanguageWork


def hides_tokens(recipe: Recipe) -> bool:
    """Whether the recipe pretrains on hidden tokens."""
    return isinstance(recipe.objective, MaskedTokenOptions)


def masking_of(recipe: Recipe, tokenizer: AnyTokenizer) -> Masking | None:
    """How tokens are hidden, as the recipe's objective asks for it; None where none are.

    Raises:
        GroundupError: E-TOKEN-009.
    """
    options = recipe.objective
    if not isinstance(options, MaskedTokenOptions):
        return None
    if tokenizer.mask_id is None:
        raise GroundupError(
            "E-TOKEN-009",
            "the tokenizer has no token that stands for a hidden one",
            where=f"objective.kind: masked_token, a tokenizer of {tokenizer.vocabulary:,} tokens",
            why="what stands where a token is hidden must be something that no text says",
            fix="groundup tokenizer train --mask --files … --vocab N --out DIR, for data that is prepared anew\n"
            "or name data.files without model.init_from: a tokenizer that has one is then trained",
            exit_code=2,
        )
    return Masking.of(options.share, tokenizer.mask_id, tokenizer.vocabulary, list(tokenizer.specials.values()))


def score_masked(model: Any, work: LanguageWork, documents: TokenSet, *, limit: int | None) -> LabelScores:
    """Scores of held-out documents, of the first `limit` tokens if that is given."""
    assert work.texts is not None and work.texts.masking is not None
    context = work.recipe.data.context or work.options.context
    windows = held_out_windows(documents, context=context, limit=limit)
    batches = held_out_batches(windows, work.texts.masking, rows=ROWS_AT_ONCE, pad_id=work.tokenizer.pad_id)
    return score_hidden(model, batches, len(windows), device=work.device, autocast=work.dtype)
