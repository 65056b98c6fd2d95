"""Tokenizers that come with a model from elsewhere, used as they are: byte-level, sentencepiece-like, WordPiece.

A model only understands the ids of its own tokenizer, so encoding equals what the `tokenizers` library makes
of the same file, token for token. Two things differ, and on purpose: text never spells a control token unless
the caller asks for it, and the file's own cutting off, padding and adding of begins and ends do nothing, since
those belong to whoever builds rows. Reading the formats that bring such a file does not enter this room.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from groundup.text.tokenizer import FILE, AnyTokenizer, TokenRoles, read_file, refuse_surrogates
from groundup.text.vetting import LARGEST_FOREIGN_FILE, Vetted, plain_document, spelling, unusable, vet

__all__ = ["ForeignTokenizer", "Span", "TokenRoles"]

Span = tuple[int, int]
"""Where a token stands in a text: the first character and the one behind the last."""


class ForeignTokenizer(AnyTokenizer):
    """A tokenizer from elsewhere.

    `specials` are all added tokens but runs of white space and `words`, those included that the file does not call
    special (such as `<think>`): a model may take them for a command, so text does not spell them. Only what
    the file calls special, or has a role, is left out of decoded text.

    Args:
        text: the content of its tokenizer.json.
        roles: its tokens at which text begins and ends.
        where: the file's name, for errors.
    Raises:
        GroundupError: E-TOKEN-006 where the file is malformed, could run without end, or lacks a token of
            `roles`.
    """

    def __init__(self, text: str, roles: TokenRoles, where: str = FILE) -> None:
        vetted = vet(text, roles.names(), where)
        self.roles = roles
        self._whole = _build(vetted.document, where)  # which knows all added tokens
        self._library = _build(plain_document(vetted), where)
        for name, id in (vetted.controls | vetted.plain).items():
            if self._whole.token_to_id(name) != id or (name in vetted.plain and self._library.token_to_id(name) != id):
                raise unusable(where, f"the added token {name!r} cannot keep its id {id}")
        self._document = vetted.found
        self.vocabulary = len(vetted.tokens)
        self.specials, self.words = vetted.controls, vetted.words
        self.kind = {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece"}[vetted.found["model"]["type"]]
        special = {entry["content"] for entry in vetted.document["added_tokens"] if entry["special"]}
        self._hidden = frozenset(id for name, id in self.specials.items() if name in special or name in roles.names())
        self.exact, self.dropped, self._bytes = _bytes(vetted)
        self.unknown_id = _unknown(vetted.found["model"])

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """Made when it is asked for: writing the whole vocabulary down takes a moment."""
        named = _compact([self._document, self.roles.to_dict()], sort=True)
        return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def load(cls, path: Path, roles: TokenRoles) -> ForeignTokenizer:
        """Read a tokenizer.json, or the one in a folder.

        Raises:
            GroundupError: E-TOKEN-005 where there is none to read, E-TOKEN-006 where it is malformed.
        """
        text, where = read_file(path, LARGEST_FOREIGN_FILE)
        return cls(text, roles, where)

    def __reduce__(self) -> tuple[Callable[..., ForeignTokenizer], tuple[str, TokenRoles]]:
        return (ForeignTokenizer, (self.to_json(), self.roles))

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of `text`; nothing is added in front or behind.

        Args:
            allow_special: recognise special tokens that the text spells, as the `tokenizers` library does.
        Raises:
            GroundupError: E-TOKEN-004 for a lone surrogate, which has no bytes in UTF-8.
        """
        if not allow_special:
            return super().encode(text)
        [(ids, _)] = self.encode_whole([text])
        return ids

    def encode_whole(self, texts: list[str]) -> list[tuple[list[int], list[Span]]]:
        """Ids of texts in which special tokens are recognised, and where each token stands."""
        try:
            found = self._whole.encode_batch(texts, add_special_tokens=False)
        except TypeError as error:
            refuse_surrogates(texts)
            raise error
        return [(encoding.ids, encoding.offsets) for encoding in found]

    def decode(self, ids: Iterable[int], *, skip_specials: bool = True) -> str:
        """The text of `ids`; a character whose bytes are cut off by the end is left out.

        A tokenizer that changes text (lower case, spaces) gives the changed one: as its own decoder does.
        """
        if self.exact:
            return super().decode(ids, skip_specials=skip_specials)
        kept = [id for id in ids if self.token_bytes(id) is not None and not (skip_specials and id in self._hidden)]
        text: str = self._whole.decode(kept, skip_special_tokens=False)
        return text


def _build(document: dict[str, Any], where: str) -> tokenizers.Tokenizer:
    try:
        # from_buffer tells a bad file by ValueError, from_str by the bare Exception
        return tokenizers.Tokenizer.from_buffer(json.dumps(document).encode("utf-8"))
    except ValueError as error:
        raise unusable(where, str(error)) from error


def _compact(value: Any, *, sort: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort)


def _bytes(vetted: Vetted) -> tuple[bool, str, list[bytes]]:
    """Whether tokens spell bytes, what is dropped from the beginning of a text, and the bytes of each id."""
    spell, drops = spelling(vetted)
    added = vetted.controls | vetted.plain
    said = spell or _word(vetted.document["model"])
    table = [token.encode("utf-8") if token in added else said(token) for token in vetted.tokens]
    return spell is not None, " " if drops else "", table


def _word(model: dict[str, Any]) -> Callable[[str], bytes]:
    """About what a token adds to a text, where only the decoder as a whole knows: used for counting bytes."""
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""

    def spell(token: str) -> bytes:
        if prefix and token.startswith(prefix):
            return token.removeprefix(prefix).encode("utf-8")
        if suffix and token.endswith(suffix):
            return (token.removesuffix(suffix) + " ").encode("utf-8")
        # scripts before U+2E80 write spaces between words, ideographs do not
        spaced = model["type"] == "WordPiece" and token[:1].isalnum() and token < "\u2e80"
        return (" " * spaced + token.replace("▁", " ")).encode("utf-8")

    return spell


def _unknown(model: dict[str, Any]) -> int | None:
    """The id of what has no token, if there is one."""
    if model["type"] == "Unigram":
        id: int | None = model.get("unk_id")
        return id
    name = model.get("unk_token")
    return None if name is None else model["vocab"][name]
