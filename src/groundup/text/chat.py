"""Conversations to ids: the one path that training, evaluation and serving share.

A chat template (sandboxed Jinja) turns messages into a text with special tokens in it. This file turns that
into ids and says which of them the assistant wrote. Two dangers are dealt with here: what a user writes may
look like a special token and must stay plain text, and a template that never marks the assistant's part
would train on nothing. Reading data files does not enter this file.

How a rendering becomes ids: strings in the messages that spell a special token get a shield, a Unicode
noncharacter that occurs in no message; the template runs; its text is cut at the special tokens that carry
no shield and at the borders of the assistant's parts; shields are taken out; each piece is encoded by itself.
So no token ever straddles the border between what is given and what is learned, and a prompt has the very
ids that the same conversation had in training.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NoReturn, Protocol

import jinja2

from groundup.errors import GroundupError, printable
from groundup.text import messages as conversation
from groundup.text.options import BEGIN, END, PAD, SPECIALS
from groundup.text.sandbox import CLOSE, ERRORS, LARGEST_TEMPLATE, OPEN, TemplateSandbox, render

DEFAULT_TEMPLATE = """\
{{- '<|begin|>' -}}
{%- for message in messages -%}
    {{- '<|' + message.role + '|>' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{- message.content + '<|end|>' -}}{%- endgeneration -%}
    {%- else -%}
        {{- message.content + '<|end|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

Messages = Sequence[dict[str, Any]]
TrainOn = Literal["all", "last"]

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Code points that Unicode reserves for use inside a program and never for text."""

NO_TURN = -1


class Encoder(Protocol):
    """What a rendering asks of a tokenizer."""

    specials: dict[str, int]
    digest: str

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Rendered:
    """A conversation as ids.

    Attributes:
        ids: N token ids.
        trainable: N flags: whether the token is one that the assistant wrote and that is to be learned.
        turn: N numbers: the index of the message whose assistant's part holds the token, else -1.
        text: the rendered text, special tokens included.
    """

    ids: list[int]
    trainable: list[bool]
    turn: list[int]
    text: str


@dataclass
class _Piece:
    """A run of the rendered text: a special token, or text to encode by itself."""

    text: str
    special: bool
    turn: int


@dataclass
class _Draft:
    """One conversation between rendering and encoding."""

    pieces: list[_Piece]
    learned: set[int]
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = "".join(piece.text for piece in self.pieces)


class ChatTemplate:
    """A checked chat template.

    Args:
        source: Jinja text over `messages` and `add_generation_prompt`, with the assistant's part, its
            `<|end|>` included, between `{% generation %}` and `{% endgeneration %}`.
    Raises:
        GroundupError: E-CHAT-001 when it does not compile, escapes, loops or fails on a plain conversation;
            E-CHAT-002 when it marks no assistant's part; E-CHAT-003 when it drops what is said, or when a
            prompt would not be the beginning of the conversation that was trained.
    """

    def __init__(self, source: str = DEFAULT_TEMPLATE) -> None:
        self.source = source
        self.digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        self._template = _compile(source)
        _try_out(self)

    def __reduce__(self) -> tuple[Callable[..., ChatTemplate], tuple[str]]:
        return (ChatTemplate, (self.source,))

    def digest_with(self, tokenizer: Encoder) -> str:
        """Names the whole path from messages to ids: template and tokenizer, as 64 hexadecimal digits."""
        return hashlib.sha256(f"{self.digest}\n{tokenizer.digest}".encode()).hexdigest()

    def render(
        self,
        messages: Messages,
        tokenizer: Encoder,
        *,
        add_generation_prompt: bool = False,
        train_on: TrainOn = "all",
    ) -> Rendered:
        """Ids of one conversation; see `render_batch`."""
        [rendered] = self.render_batch(
            [messages], tokenizer, add_generation_prompt=add_generation_prompt, train_on=train_on
        )
        return rendered

    def render_batch(
        self,
        conversations: Sequence[Messages],
        tokenizer: Encoder,
        *,
        add_generation_prompt: bool = False,
        train_on: TrainOn = "all",
    ) -> list[Rendered]:
        """Ids of many conversations, encoded together.

        Args:
            conversations: each a list of messages {"role", "content"}; an assistant's message with
                "train": false is not learned.
            tokenizer: what encodes the text.
            add_generation_prompt: end with what makes the assistant speak.
            train_on: learn all turns of the assistant, or only the last message of the assistant.
        Raises:
            GroundupError: E-CHAT-004 for a malformed message, with its index; E-CHAT-001, 002 or 005 when the
                template cannot render the conversation.
        """
        drafts = [
            self._draft(
                messages,
                list(tokenizer.specials),
                add_generation_prompt,
                train_on,
                f"conversation {number}, messages" if len(conversations) > 1 else "messages",
            )
            for number, messages in enumerate(conversations)
        ]
        texts = [piece.text for draft in drafts for piece in draft.pieces if not piece.special]
        encoded = iter(tokenizer.encode_batch(texts))
        rendered = []
        for draft in drafts:
            ids: list[int] = []
            turn: list[int] = []
            for piece in draft.pieces:
                new = [tokenizer.specials[piece.text]] if piece.special else next(encoded)
                ids += new
                turn += [piece.turn] * len(new)
            rendered.append(Rendered(ids, [index in draft.learned for index in turn], turn, draft.text))
        return rendered

    def _draft(
        self, messages: Any, specials: list[str], prompt: bool, train_on: TrainOn, where: str = "messages"
    ) -> _Draft:
        strings = conversation.check(messages, where)
        shield, opened, closed = _free_characters([*strings, self.source])
        shielded = conversation.map_strings(messages, _shielder(tuple(specials), shield))
        variables = {
            "messages": shielded,
            "add_generation_prompt": prompt,
            "bos_token": BEGIN,
            "eos_token": END,
            "pad_token": PAD,
            OPEN: opened,
            CLOSE: closed,
        }
        try:
            text = render(self._template, variables, sum(map(len, strings)))
        except ERRORS as error:
            raise _refused(error) from error
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        pieces = _cut(text, specials, shield, opened, closed, turns)
        if not pieces or pieces[0].text != BEGIN or not pieces[0].special:
            pieces.insert(0, _Piece(BEGIN, True, NO_TURN))
        begins = sum(piece.special and piece.text == BEGIN for piece in pieces)
        if begins != 1:
            raise GroundupError(
                code="E-CHAT-005",
                what=f"the chat template writes {BEGIN} {begins} times in one conversation",
                where=where,
                why="a model sees exactly one at the beginning; more of them shift what it has learned",
                fix=f"write {BEGIN} once, before the loop over messages",
            )
        learned = turns[-1:] if train_on == "last" else turns
        return _Draft(pieces, {index for index in learned if messages[index].get("train", True)})


@lru_cache(maxsize=64)
def _compile(source: str) -> jinja2.Template:
    try:
        if len(source) > LARGEST_TEMPLATE:
            raise ValueError(f"it has {len(source)} characters, at most {LARGEST_TEMPLATE} are read")
        return TemplateSandbox().from_string(source)
    except ERRORS as error:
        raise _refused(error) from error


def _refused(error: BaseException) -> GroundupError:
    line = f"line {error.lineno} of the template" if isinstance(error, jinja2.TemplateSyntaxError) else ""
    return GroundupError(
        code="E-CHAT-001",
        what=f"the chat template is refused: {printable(str(error)) or type(error).__name__}",
        where=line or "the chat template",
        why="templates come from outside, so they run in a sandbox: no way out of it, and bounded work",
        fix="use the default template (leave the setting out), or mend the template: it gets messages and "
        "add_generation_prompt",
    )


def _free_characters(strings: list[str]) -> list[str]:
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
def _shielder(specials: tuple[str, ...], shield: str) -> Callable[[str], str]:
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


def _cut(text: str, specials: list[str], shield: str, opened: str, closed: str, turns: list[int]) -> list[_Piece]:
    """Cut a rendered text at special tokens and at the borders of the assistant's parts."""
    pieces: list[_Piece] = []
    turn, blocks = NO_TURN, 0
    for part in _splitter((*specials, opened, closed)).split(text):
        if part == opened:
            if turn != NO_TURN or blocks == len(turns):
                _unmarked(blocks + 1, len(turns))
            turn = turns[blocks]
            blocks += 1
        elif part == closed:
            turn = NO_TURN
        elif part in specials:
            pieces.append(_Piece(part, True, turn))
        elif plain := part.replace(shield, ""):
            pieces.append(_Piece(plain, False, turn))
    if blocks != len(turns):
        _unmarked(blocks, len(turns))
    return pieces


@lru_cache(maxsize=256)
def _splitter(borders: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("(" + "|".join(map(re.escape, borders)) + ")")


def _unmarked(blocks: int, turns: int) -> NoReturn:
    raise GroundupError(
        code="E-CHAT-002",
        what=f"the chat template marks {blocks} parts of the assistant where the conversation has {turns}",
        where="the chat template: {% generation %} … {% endgeneration %}",
        why="only marked tokens are learned; without the marks the loss would be over nothing or too much",
        fix="write {% generation %}{{ message.content + '<|end|>' }}{% endgeneration %} where the template "
        "writes an assistant's message",
    )


def _try_out(template: ChatTemplate) -> None:
    """Render a plain conversation, so that a template that cannot work is refused when it is loaded."""
    said = ["how7many", "seven8", "and9then", "nothing6"]
    roles = ["user", "assistant", "user", "assistant"]
    messages = [{"role": role, "content": content} for role, content in zip(roles, said)]
    specials = list(SPECIALS)
    whole = template._draft(messages, specials, False, "all")
    for number, content in enumerate(said):
        learned = "".join(piece.text for piece in whole.pieces if piece.turn == number)
        if whole.text.count(content) != 1 or (roles[number] == "assistant" and content not in learned):
            raise _misleading(f"message {number} ({roles[number]}) is not rendered once, in its place")
    given = [piece for piece in whole.pieces if piece.turn != 3]
    asked = template._draft(messages[:3], specials, True, "all").pieces
    if [(piece.text, piece.turn) for piece in asked] != [(p.text, p.turn) for p in given[: len(asked)]]:
        shown = "".join(piece.text for piece in asked)
        raise _misleading(f"with add_generation_prompt it ends {shown[-60:]!r}, and no turn of the assistant begins so")


def _misleading(what: str) -> GroundupError:
    return GroundupError(
        code="E-CHAT-003",
        what=f"the chat template does not say what was said: {printable(what)}",
        where="the chat template, tried on two questions and two answers",
        why="what a model is asked when it is used must be the beginning of what it was trained on",
        fix="compare the names in the template with messages[].role and messages[].content, and what it "
        "writes before {% generation %} with what it writes for add_generation_prompt",
    )
