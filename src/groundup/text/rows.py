"""Texts as the rows that a model sees: with the tokens around them that its tokenizer wants.

A prompt to go on from opens like a document and does not end. A text to classify is framed as the model's own
post-processor frames it (BERT: [CLS] text [SEP]), or, for a decoder that has none, as a document.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

import tokenizers

from groundup.text.tokenizer import AnyTokenizer

Row = tuple[list[int], list[int] | None]
"""Ids, and the segment of each id where there are two segments."""


def opening_ids(tokenizer: AnyTokenizer, ids: Sequence[int]) -> list[int]:
    """A prompt: what a document begins with, its end left open. Where the tokenizer has nothing to begin with and
    there is no text, the token that ends documents stands for the border between two."""
    opened = tokenizer.document_ids(list(ids))[:-1]
    return opened or [tokenizer.end_id]


class RowEncoder:
    """Encodes the rows of labelled data.

    Attributes:
        closing: tokens at the end of a row that cutting must spare.
    """

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self.tokenizer = tokenizer
        self.frame = _frame(tokenizer.to_json(), tuple(tokenizer.roles.names()))
        self.closing = len(self.frame[1]) if self.frame is not None else 1

    def encode(self, text: str, other: str | None = None) -> Row:
        """Ids of one text or of two; special tokens that a text spells are plain text."""
        first = self.tokenizer.encode(text)
        second = self.tokenizer.encode(other) if other is not None else None
        if self.frame is None:
            joined = first if second is None else [*first, self.tokenizer.end_id, *second]
            return self.tokenizer.document_ids(joined), None
        opening, closing = [*self.tokenizer.prefix, *self.frame[0]], self.frame[1]
        ids = [*opening, *first, *closing]
        if second is None:
            return ids, None
        return [*ids, *second, *closing], [0] * len(ids) + [1] * (len(second) + len(closing))

    def encode_words(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Ids of a text that is given as words, and for each id the number of its word, -1 around the text."""
        pieces = [self.tokenizer.encode(f" {word}" if number else word) for number, word in enumerate(words)]
        inner = [id for piece in pieces for id in piece]
        number_of = [number for number, piece in enumerate(pieces) for _ in piece]
        if self.frame is None:
            ids = self.tokenizer.document_ids(inner)
            opening, closing = len(ids) - len(inner) - 1, 1
        else:
            ids = [*self.tokenizer.prefix, *self.frame[0], *inner, *self.frame[1]]
            opening, closing = len(self.tokenizer.prefix) + len(self.frame[0]), len(self.frame[1])
        return ids, [-1] * opening + number_of + [-1] * closing


@lru_cache(maxsize=16)
def _frame(text: str, roles: tuple[str, ...]) -> tuple[list[int], list[int]] | None:
    """What the tokenizer's own post-processor puts in front of a text and behind it; None if it ends no text."""
    if json.loads(text).get("post_processor") is None:
        return None
    library = tokenizers.Tokenizer.from_str(text)
    bare = library.encode("a", add_special_tokens=False).ids
    whole = library.encode("a", add_special_tokens=True).ids
    if len(bare) == 0 or bare not in [whole[i : i + len(bare)] for i in range(len(whole))]:
        return None
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    opening, closing = whole[:start], whole[start + len(bare) :]
    return (opening, closing) if closing else None
