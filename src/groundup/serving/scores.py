"""Log-probabilities in the two shapes of OpenAI: of chats (a list of tokens with their bytes) and of plain completions
(four lists side by side, with the place of each token in the text)."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from typing import Any

from groundup.serving.served import Candidate, Language, Scored

LEAST = -9999.0
"""JSON has no minus infinity; OpenAI writes this for it."""


def _number(logprob: float | None) -> float | None:
    if logprob is None:
        return None
    return max(logprob, LEAST) if math.isfinite(logprob) else LEAST


def _text(raw: bytes) -> str:
    """A token as a text: bytes that are no character alone are written `\\xNN`."""
    return raw.decode("utf-8", "backslashreplace")


def _entry(language: Language, token: Scored | Candidate) -> dict[str, Any]:
    raw = language.token_bytes(token.id)
    return {"token": _text(raw), "logprob": _number(token.logprob), "bytes": list(raw)}


def chat(language: Language, token: Scored) -> dict[str, Any]:
    """One token of an answer, as `choices[].logprobs.content[]` has it."""
    tops = [_entry(language, candidate) for candidate in token.top]
    return {**_entry(language, token), "top_logprobs": tops}


class Columns:
    """The `logprobs` of a plain completion, as its tokens come.

    Args:
        offset: where in the returned text the first token stands, in characters.
    """

    def __init__(self, language: Language, offset: int = 0) -> None:
        self._language, self._offset = language, offset
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, tokens: Sequence[Scored], *, unseen: int = 0, shift: int = 0) -> dict[str, Any]:
        """The four lists for some more tokens.

        Args:
            unseen: how many tokens at the front write nothing into the text, as a begin token does not.
            shift: how many characters the tokens write before the text begins, such as the space that some
                tokenizers put first.
        """
        texts, places = [], []
        for index, token in enumerate(tokens):
            raw = self._language.token_bytes(token.id)
            texts.append(_text(raw))
            places.append(self._offset)
            if index >= unseen:
                written = len(self._decoder.decode(raw))
                skipped = min(shift, written)
                shift -= skipped
                self._offset += written - skipped
        return {
            "tokens": texts,
            "token_logprobs": [_number(token.logprob) for token in tokens],
            "top_logprobs": [self._top(token) for token in tokens],
            "text_offset": places,
        }

    def _top(self, token: Scored) -> dict[str, float | None] | None:
        if token.logprob is None:
            return None
        found: dict[str, float | None] = {}
        for candidate in token.top:
            # two tokens may write the same text; the likelier came first
            found.setdefault(_text(self._language.token_bytes(candidate.id)), _number(candidate.logprob))
        return found


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several such lists after one another."""
    return {
        name: [item for part in parts for item in part[name]]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    }
