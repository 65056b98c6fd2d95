"""New tokens for a tokenizer that exists: words that any text may spell, and controls that none can.

Old ids stay what they are; new ones stand behind them, words first. A word is found in a text before all else is
looked at, wherever it stands, also inside other words; what is left and right of it is encoded as before. The rows
of a model that the new ids need are no business of this room.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from groundup.errors import GroundupError, printable
from groundup.text.alphabet import unspell
from groundup.text.foreign import ForeignTokenizer
from groundup.text.layout import add_tokens
from groundup.text.options import LARGEST_VOCABULARY
from groundup.text.tokenizer import AnyTokenizer, Tokenizer
from groundup.text.vetting import LONGEST_NAME


def grow_tokenizer(tokenizer: AnyTokenizer, words: Sequence[str], controls: Sequence[str]) -> AnyTokenizer:
    """The tokenizer with new tokens behind its own; the one that is given stays as it is.

    Args:
        words: ordinary text: whoever writes one gets its token, and decoding gives it back.
        controls: special tokens, which text never spells.
    Raises:
        GroundupError: E-TOKEN-010, every new token that cannot be added.
    """
    found = json.loads(tokenizer.to_json())
    held = {entry["content"] for entry in found["added_tokens"]}
    held |= {piece if isinstance(piece, str) else piece[0] for piece in found["model"]["vocab"]}
    special = [*tokenizer.specials, *controls]
    seen: set[str] = set()
    faults = []
    for number, name in enumerate([*words, *controls]):
        place = f"words.{number}" if number < len(words) else f"controls.{number - len(words)}"
        what = _unfit(name) or ("it is named twice" if name in seen else _clash(name, held, tokenizer))
        if what is None and number < len(words) and any(other in name for other in special):
            what = "it holds a special token, which no text can spell"
        if what is not None:
            faults.append(_fault(place, name, what))
        seen.add(name)
    size = tokenizer.vocabulary + len(words) + len(controls)
    if size > LARGEST_VOCABULARY:
        faults.append(_fault("words and controls", "", f"there would be {size:,} of {LARGEST_VOCABULARY:,} tokens"))
    _raise(faults)
    grown = _built(json.dumps(add_tokens(found, words, controls), ensure_ascii=False), tokenizer)
    _raise([_fault(f"words.{n}", word, NOT_BACK) for n, word in enumerate(words) if _is_lost(word, tokenizer, grown)])
    return grown


def pieces_of(tokenizer: AnyTokenizer, words: Sequence[str]) -> list[tuple[int, ...]]:
    """The ids that spell each word in a tokenizer that does not have it yet: what its row may start from."""
    return [tuple(ids) for ids in tokenizer.encode_batch(list(words))]


NOT_BACK = "this tokenizer puts a space behind every added token, so that the text would not come back as it was"


def _unfit(name: str) -> str | None:
    """Why nothing could be called so."""
    if not name.strip():
        return "it is empty" if not name else "it is nothing but white space"
    if len(name) > LONGEST_NAME:
        return f"it has {len(name):,} characters, at most {LONGEST_NAME:,} are read"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "it holds half of a UTF-16 pair, which is no text"
    return None


def _clash(name: str, held: set[str], tokenizer: AnyTokenizer) -> str | None:
    """Why this tokenizer cannot take the name."""
    ids = tokenizer.encode(name)
    if len(ids) == 1 and tokenizer.decode(ids) == name:
        return f"it is a token already, id {ids[0]}"
    if name in held:
        return "a token is already written so in tokenizer.json"
    spelled = unspell(name) if tokenizer.exact else None
    if spelled not in (None, name.encode("utf-8")) and "\ufffd" not in spelled.decode("utf-8", errors="replace"):
        return f'tokenizer.json would read it as the bytes of "{printable(spelled.decode("utf-8"), 40)}"'
    return None


def _built(text: str, tokenizer: AnyTokenizer) -> AnyTokenizer:
    """A tokenizer of the same kind; what it refuses can only be for the new tokens."""
    try:
        if isinstance(tokenizer, ForeignTokenizer):
            return ForeignTokenizer(text, tokenizer.roles)
        return Tokenizer(text)
    except GroundupError as error:
        raise _fault("words and controls", "", error.what) from error


def _is_lost(word: str, tokenizer: AnyTokenizer, grown: AnyTokenizer) -> bool:
    """Whether a text with the word does not come back, in a tokenizer that gives other texts back."""
    plain, *texts = "a b", f"a{word}b", f"a {word} b", word
    return tokenizer.exact and tokenizer.decode(tokenizer.encode(plain)) == plain and any(
        grown.decode(grown.encode(text)) != text for text in texts
    )  # fmt: skip


def _raise(faults: list[GroundupError]) -> None:
    if faults:
        faults[0].others = faults[1:]
        raise faults[0]


def _fault(place: str, name: str, what: str) -> GroundupError:
    return GroundupError(
        "E-TOKEN-010",
        f'"{printable(name, 60)}" cannot become a token: {what}' if "." in place else f"no token can be added: {what}",
        where=f"grow.{place}",
        why="each token needs a text of its own that no other token has, and text must come back as it was",
        fix="leave it out of the grow entry, or write another name, such as <|tool|> for a control",
        exit_code=2,
    )
