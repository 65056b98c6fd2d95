"""Noise on the tokens of training texts: dropped, moved, hidden and replaced tokens (Lample et al. 2018,
arXiv:1711.00043, section 2.3, where words are dropped and moved).

All that is random is drawn from a generator that is handed in. Text, batches and models do not enter here.

Shapes: T tokens of a text, N of them after the noise, V ids of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from groundup.errors import GroundupError

Ids = NDArray[np.int64]


class TextNoiseOptions(BaseModel):
    """Random changes of the training texts, drawn anew in each epoch. Special tokens stay where they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    drop: float = Field(
        0.0, ge=0.0, lt=1.0, description="share of the tokens that is dropped; one of each text stays at least"
    )
    move: int = Field(
        0, ge=0, le=1000, description="places that a token may be away from its own, in an order drawn at random"
    )
    mask: float = Field(
        0.0, ge=0.0, lt=1.0, description="share of the tokens that the tokenizer's mask token stands for, or, where it "
        "has none, its token for what is unknown",
    )  # fmt: skip
    replace: float = Field(
        0.0, ge=0.0, lt=1.0, description="share of the tokens that another token of the vocabulary stands for"
    )

    @model_validator(mode="after")
    def _shares_have_room(self) -> Self:
        if self.mask + self.replace > 1.0:
            raise ValueError(f"mask {self.mask:g} and replace {self.replace:g} are together more than all tokens")
        return self

    @property
    def chosen(self) -> dict[str, float]:
        """The changes that are not off."""
        return {name: value for name, value in self if value}


@dataclass(frozen=True)
class TextNoise:
    """Noise for the ids of one tokenizer.

    Attributes:
        options: which.
        ordinary: whether a token may be changed, and stand in for another, by id: no special token may. bool (V,).
        mask_id: what stands for a hidden token; None if no token is hidden.
    """

    options: TextNoiseOptions
    ordinary: NDArray[np.bool_]
    mask_id: int | None

    @classmethod
    def of(
        cls, options: TextNoiseOptions, vocabulary: int, specials: Sequence[int], mask_id: int | None
    ) -> TextNoise | None:
        """All tokens of the vocabulary are ordinary but the special ones; None where nothing is to be changed.

        Raises:
            GroundupError: E-TOKEN-009 if tokens are to be hidden, and there is no token to stand for them.
        """
        if not options.chosen:
            return None
        if options.mask and mask_id is None:
            raise GroundupError(
                "E-TOKEN-009",
                "the tokenizer has no token that stands for a hidden one",
                where=f"data.augment.mask: {options.mask:g}",
                why="what stands where a token is hidden must be something that no text says",
                fix="set data.augment.mask=0, or data.augment.replace instead\n"
                "or train a tokenizer that has one: tokenizer.mask=true, without model.init_from",
                exit_code=2,
            )
        ordinary = np.ones(vocabulary, dtype=np.bool_)
        ordinary[[id for id in specials if id < vocabulary]] = False
        return cls(options, ordinary, mask_id)

    def apply(self, ids: Ids, random: np.random.Generator, segments: Ids | None = None) -> tuple[Ids, Ids]:
        """Change a text, or several with special tokens or the borders of segments between them.

        Args:
            ids: int64 (T,); never written to.
            random: what is drawn depends on its state, the options and the ids alone.
            segments: of each token, int64 (T,); no token leaves its own.

        Returns:
            What becomes of it, int64 (N,), and the place in `ids` that each token comes from, int64 (N,).
        """
        options, free = self.options, self._free(ids)
        text = _texts(free, segments)
        places = np.arange(len(ids))
        if options.drop:
            places = places[_kept(free, text, options.drop, random)]
        if options.move:
            # Lample et al., section 2.3: sorting by i + U(0, k + 1) takes no token further than k places
            ahead = random.uniform(0.0, options.move + 1.0, len(places))
            order = np.lexsort((np.arange(len(places)) + np.where(free[places], ahead, 0.0), text[places]))
            places = places[order]
        changed = ids[places]
        if options.mask or options.replace:
            fate = np.where(free[places], random.random(len(places)), 1.0)
            if self.mask_id is not None:
                changed[fate < options.mask] = self.mask_id
            chosen = (fate >= options.mask) & (fate < options.mask + options.replace)
            changed[chosen] = random.choice(np.flatnonzero(self.ordinary), size=int(chosen.sum()))
        return changed, places

    def _free(self, ids: Ids) -> NDArray[np.bool_]:
        """Whether each token may be changed. A learned prompt has ids above the vocabulary."""
        known = ids < len(self.ordinary)
        free: NDArray[np.bool_] = known & self.ordinary[np.where(known, ids, 0)]
        return free


def _texts(free: NDArray[np.bool_], segments: Ids | None) -> Ids:
    """For each token the number of its text: texts are divided by special tokens and borders of segments."""
    border = np.ones(len(free), dtype=np.bool_)
    border[1:] = free[1:] != free[:-1]
    if segments is not None:
        border[1:] |= segments[1:] != segments[:-1]
    return np.cumsum(border)


def _kept(free: NDArray[np.bool_], text: Ids, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which tokens stay: special ones all, of each text one at least."""
    draw = random.random(len(free))
    kept = ~free | (draw >= share)
    gone = np.setdiff1d(text, text[kept])
    for number in gone:
        members = np.flatnonzero(text == number)
        kept[members[np.argmax(draw[members])]] = True
    return kept
