"""Where the assistant speaks in a rendered conversation, and which special tokens the template wrote itself.

Special tokens in messages get a shield, a Unicode noncharacter that occurs in no message; two others stand at
the borders of the assistant's parts. A template either sets the borders with {% generation %}, or they are
found by comparing what it renders: what it writes to make the assistant speak is the beginning of what it
writes once the assistant has spoken. Neither templates nor tokenizers are run here.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from groundup.errors import GroundupError, printable

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Code points that Unicode reserves for use inside a program and never for text."""

NO_TURN = -1


@dataclass
class Piece:
    """A run of the rendered text: a special token, or text to encode by itself."""

    text: str
    special: bool
    turn: int


def free_characters(strings: list[str]) -> list[str]:
    """Three noncharacters that occur in none of them: the shield, and the borders of the assistant's parts."""
    used = {character for text in strings if not text.isascii() for character in text}
    free = [character for character in NONCHARACTERS if character not in used]
    if len(free) < 3:
        raise GroundupError(
            code="E-CHAT-006",
            what=f"the messages use {len(NONCHARACTERS) - len(free)} of the {len(NONCHARACTERS)} "
            "noncharacters U+FDD0 to U+FDEF",
            where="messages[].content",
            why="three of them keep user text and special tokens apart; Unicode reserves them for this",
            fix="remove the characters U+FDD0 to U+FDEF from the text",
        )
    return free[:3]


@lru_cache(maxsize=256)
def shielder(specials: tuple[str, ...], shield: str) -> Callable[[str], str]:
    """Breaks up every special token in a text, and what may become one together with the text after it."""
    whole = {re.escape(name) for name in specials}
    begun = {re.escape(name[:length]) + r"\Z" for name in specials for length in range(1, len(name))}
    pattern = re.compile("|".join(sorted(whole) + sorted(begun, reverse=True)))
    firsts = {name[0] for name in specials}

    def mark(text: str) -> str:
        if not any(first in text for first in firsts):
            return text
        return pattern.sub(lambda match: match[0][0] + shield + match[0][1:], text)

    return mark


def cut(text: str, specials: list[str], shield: str, opened: str, closed: str, turns: list[int]) -> list[Piece]:
    """Cut a rendered text at special tokens and at the borders of the assistant's parts."""
    pieces: list[Piece] = []
    turn, blocks = NO_TURN, 0
    for part in splitter((*specials, opened, closed)).split(text):
        if part == opened:
            if turn != NO_TURN or blocks == len(turns):
                _unmarked(blocks + 1, len(turns))
            turn = turns[blocks]
            blocks += 1
        elif part == closed:
            turn = NO_TURN
        elif part in specials:
            pieces.append(Piece(part, True, turn))
        elif plain := part.replace(shield, ""):
            pieces.append(Piece(plain, False, turn))
    if blocks != len(turns):
        _unmarked(blocks, len(turns))
    return pieces


@lru_cache(maxsize=256)
def splitter(borders: tuple[str, ...]) -> re.Pattern[str]:
    # the longest first, as tokenizers look for them
    return re.compile("(" + "|".join(map(re.escape, sorted(borders, key=len, reverse=True))) + ")")


def _unmarked(blocks: int, turns: int) -> NoReturn:
    raise GroundupError(
        code="E-CHAT-002",
        what=f"the chat template marks {blocks} parts of the assistant where the conversation has {turns}",
        where="the chat template: {% generation %} … {% endgeneration %}",
        why="only marked tokens are learned; without the marks the loss would be over nothing or too much",
        fix="write {% generation %}{{ message.content + '<|end|>' }}{% endgeneration %} where the template "
        "writes an assistant's message",
    )


def mark(text: str, prompts: Sequence[str], said: Sequence[str], ends: Sequence[str], borders: tuple[str, str]) -> str:
    """Put borders around the assistant's parts of a rendering whose template sets none.

    A part begins where the rendering of all before it, with what makes the assistant speak, is at its end. It
    goes up to the first token behind what was said that ends a turn, that token included.

    Args:
        text: the rendered conversation.
        prompts: for each turn of the assistant, the rendering of the messages before it.
        said: what the assistant says in each turn, as it was given to the template.
        ends: the tokens that end a turn.
        borders: the characters to put before and behind each part.
    Raises:
        GroundupError: E-CHAT-002 where a prompt is not how the conversation begins, or nothing ends a part.
    """
    written, done = [], 0
    for number, (prompt, words) in enumerate(zip(prompts, said, strict=True)):
        start = len(prompt)
        if start < done or not text.startswith(prompt):
            unfound(f"its text before turn {number + 1} of the assistant changes once the assistant has spoken")
        limit = len(prompts[number + 1]) if number + 1 < len(prompts) else len(text)
        spoken = text.find(words.strip(), start, limit)
        ending = splitter(tuple(ends)).search(text, start if spoken < 0 else spoken + len(words.strip()), limit)
        if ending is None:
            unfound(f"none of {', '.join(ends)} follows turn {number + 1} of the assistant")
        written += [text[done:start], borders[0], text[start : ending.end()], borders[1]]
        done = ending.end()
    return "".join([*written, text[done:]])


def unfound(what: str) -> NoReturn:
    """Refuse a template, or a conversation, in which the assistant's parts cannot be found (E-CHAT-002)."""
    raise GroundupError(
        code="E-CHAT-002",
        what=f"the chat template does not mark the assistant: {printable(what)}",
        where="the chat template, which has no {% generation %} … {% endgeneration %}",
        why="only what the assistant writes is learned, its end included; where that begins and ends is found by "
        "comparing renderings, and these do not fit together",
        fix="put {% generation %} and {% endgeneration %} around what the template writes as an assistant's "
        "message, the token that ends it included",
    )


def turns_of(
    pieces: Sequence[Piece], ids: Sequence[int], spans: Sequence[tuple[int, int]], controls: frozenset[int]
) -> list[int]:
    """The turn that each token of a whole text belongs to; a token across the border of a part to none.

    Args:
        pieces: what the text is put together from.
        ids: N token ids of the whole text.
        spans: where each token stands in the text, as characters.
        controls: ids of special tokens.
    """
    text = "".join(piece.text for piece in pieces)
    starts, ends, turns = [], [], []
    at = 0
    for piece in pieces:
        starts.append(at)
        ends.append(at := at + len(piece.text))
        turns.append(piece.turn)
    for place in range(len(starts) - 2, -1, -1):  # a part goes on as long as its pieces touch
        if turns[place] == turns[place + 1]:
            ends[place] = ends[place + 1]

    def turn(id: int, start: int, end: int) -> int:
        if id in controls:  # such a token may take white space around it along, and stands where its name does
            end = start = end - len(text[start:end].lstrip())
        place = bisect.bisect_right(starts, start) - 1
        return turns[place] if end <= ends[place] else NO_TURN

    return [turn(id, start, end) for id, (start, end) in zip(ids, spans, strict=True)]
