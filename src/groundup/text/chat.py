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

A model from elsewhere was trained on whole texts, so with its tokenizer the whole rendering is encoded at once,
special tokens recognised, as transformers does; what is learned is then told by where each token stands, and a
token across a border is not learned. Only a conversation that spells a special token is cut into pieces.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol

import jinja2

from groundup.errors import GroundupError, printable
from groundup.text import messages as conversation
from groundup.text.foreign import ForeignTokenizer
from groundup.text.marks import NO_TURN, Piece, cut, free_characters, mark, shielder, splitter, turns_of, unfound
from groundup.text.options import SPECIALS
from groundup.text.sandbox import CLOSE, ERRORS, LARGEST_TEMPLATE, OPEN, TemplateSandbox, calendar, render
from groundup.text.tokenizer import OWN_ROLES, TokenRoles

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
SpecialText = Literal["plain", "special"]

_MARKED = re.compile(r"\{%[-+]?\s*generation\b")


class Encoder(Protocol):
    """What a rendering asks of a tokenizer."""

    specials: dict[str, int]
    digest: str
    prefix: tuple[int, ...]

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
class _Draft:
    """One conversation between rendering and encoding."""

    pieces: list[Piece]
    learned: set[int]
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = "".join(piece.text for piece in self.pieces)

    def rendered(self, ids: list[int], turn: list[int]) -> Rendered:
        return Rendered(ids, [index in self.learned for index in turn], turn, self.text)


class ChatTemplate:
    """A checked chat template.

    Args:
        source: Jinja text over `messages` and `add_generation_prompt`, with the assistant's part, the token
            that ends it included, between `{% generation %}` and `{% endgeneration %}`. With `names` these
            may be left out: the parts are then found by comparing renderings.
        names: the tokens of a model from elsewhere; without them the template is one for groundup's own, and
            `<|begin|>` is put in front where it writes none. A model from elsewhere gets what its template
            writes and no more, and its messages may be empty.
        date: the day that `strftime_now` tells a template. Without it there is no such function, and a
            template that asks whether there is uses the day that it has itself.
    Raises:
        GroundupError: E-CHAT-001 when it does not compile, escapes, loops or fails on a plain conversation;
            E-CHAT-002 when it marks no assistant's part, and none can be found; E-CHAT-003 when it drops what
            is said, or when a prompt would not be the beginning of the conversation that was trained;
            E-CHAT-005 when it begins twice.
    """

    def __init__(
        self,
        source: str = DEFAULT_TEMPLATE,
        names: TokenRoles | None = None,
        *,
        date: datetime.date | None = None,
    ) -> None:
        self.source, self.names, self.date = source, names, date
        path = source
        if names is not None or date is not None:
            path = json.dumps([source, names and names.to_dict(), date and date.isoformat()])
        self.digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()
        self._template = _compile(source)
        self._roles = names or OWN_ROLES
        self._finds_marks = names is not None and not _MARKED.search(source)
        _try_out(self)

    def __reduce__(self) -> tuple[Callable[..., ChatTemplate], tuple[Any, ...]]:
        return (_again, (self.source, self.names, self.date))

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
        special_text: SpecialText = "plain",
    ) -> Rendered:
        """Ids of one conversation; see `render_batch`."""
        [rendered] = self.render_batch(
            [messages],
            tokenizer,
            add_generation_prompt=add_generation_prompt,
            train_on=train_on,
            special_text=special_text,
        )
        return rendered

    def render_batch(
        self,
        conversations: Sequence[Messages],
        tokenizer: Encoder,
        *,
        add_generation_prompt: bool = False,
        train_on: TrainOn = "all",
        special_text: SpecialText = "plain",
    ) -> list[Rendered]:
        """Ids of many conversations, encoded together.

        Args:
            conversations: each a list of messages {"role", "content"}; an assistant's message with
                "train": false is not learned.
            tokenizer: what encodes the text.
            add_generation_prompt: end with what makes the assistant speak.
            train_on: learn all turns of the assistant, or only the last message of the assistant.
            special_text: what a special token in a message is: plain text, or the token, as in transformers.
                The latter is for conversations whose author is trusted.
        Raises:
            GroundupError: E-CHAT-004 for a malformed message, with its index; E-CHAT-001, 002 or 005 when the
                template cannot render the conversation; E-CHAT-007 when the tokenizer is not the template's.
        """
        if missing := [name for name in self._roles.names() if name not in tokenizer.specials]:
            raise _another_tokenizer(missing)
        shielded = special_text == "plain"
        drafts = [
            self._draft(
                messages,
                list(tokenizer.specials),
                add_generation_prompt,
                train_on,
                f"conversation {number}, messages" if len(conversations) > 1 else "messages",
                shielded=shielded,
            )
            for number, messages in enumerate(conversations)
        ]
        whole: list[Rendered | None] = [None] * len(drafts)
        if isinstance(tokenizer, ForeignTokenizer):
            controls = frozenset(tokenizer.specials.values())
            encoded = tokenizer.encode_whole([draft.text for draft in drafts])
            whole = [
                draft.rendered(ids, turns_of(draft.pieces, ids, spans, controls))
                if not shielded or _writes_its_own(draft, ids, tokenizer)
                else None
                for draft, (ids, spans) in zip(drafts, encoded, strict=True)
            ]
        cut_up = iter(_in_pieces([draft for draft, done in zip(drafts, whole) if done is None], tokenizer))
        return [_behind(tokenizer.prefix, done or next(cut_up)) for done in whole]

    def _draft(
        self,
        messages: Any,
        specials: list[str],
        prompt: bool,
        train_on: TrainOn,
        where: str = "messages",
        *,
        shielded: bool = True,
    ) -> _Draft:
        strings = conversation.check(messages, where, empty=self.names is not None)
        shield, opened, closed = free_characters([*strings, self.source])
        shown = conversation.map_strings(messages, shielder(tuple(specials), shield)) if shielded else list(messages)
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]

        def write(count: int, prompt: bool) -> str:
            return self._write(shown[:count], prompt, (opened, closed), sum(map(len, strings)))

        text = write(len(shown), prompt)
        if self._finds_marks:
            if turns[:1] == [0]:
                unfound("the conversation begins with the assistant, and nothing before it makes it speak")
            prompts = [write(index, True) for index in turns]
            said = [shown[index]["content"] for index in turns]
            text = mark(text, prompts, said, self._roles.ends, (opened, closed))
        pieces = cut(text, specials, shield, opened, closed, turns)
        self._check_begin(pieces, where)
        learned = turns[-1:] if train_on == "last" else turns
        return _Draft(pieces, {index for index in learned if messages[index].get("train", True)})

    def _write(self, messages: list[dict[str, Any]], prompt: bool, borders: tuple[str, str], characters: int) -> str:
        """Run the template."""
        variables: dict[str, Any] = {
            "messages": messages,
            "add_generation_prompt": prompt,
            "eos_token": self._roles.ends[0],
            "pad_token": self._roles.pad,
            OPEN: borders[0],
            CLOSE: borders[1],
        }
        if self._roles.begin is not None:
            variables["bos_token"] = self._roles.begin
        if self.names is not None:  # as transformers calls a template
            variables["messages"] = [
                {name: value for name, value in message.items() if value is not None} for message in messages
            ]
            variables |= {"tools": None, "documents": None}
        if self.date is not None:
            variables["strftime_now"] = calendar(self.date)
        try:
            return render(self._template, variables, characters)
        except ERRORS as error:
            raise _refused(error) from error

    def _check_begin(self, pieces: list[Piece], where: str) -> None:
        """Exactly one beginning for groundup's own models; for others what the template writes, but not twice."""
        begin = self._roles.begin
        first = [piece.special and piece.text == begin for piece in pieces]
        if self.names is not None:
            begins = 2 if first[:2] == [True, True] else 1
        else:
            begins = sum(first) + (first[:1] != [True])
            if first[:1] != [True]:
                pieces.insert(0, Piece(OWN_ROLES.begin or "", True, NO_TURN))
        if begins != 1:
            raise GroundupError(
                code="E-CHAT-005",
                what=f"the chat template writes {begin} {begins} times in one conversation",
                where=where,
                why="a model sees exactly one at the beginning; more of them shift what it has learned",
                fix=f"write {begin} once, before the loop over messages",
            )


def _behind(prefix: tuple[int, ...], rendered: Rendered) -> Rendered:
    """A rendering behind a prompt that was learned, which is no part of the text and no target."""
    if not prefix:
        return rendered
    more = len(prefix)
    return Rendered(
        [*prefix, *rendered.ids], [False] * more + rendered.trainable, [NO_TURN] * more + rendered.turn, rendered.text
    )


def _again(source: str, names: TokenRoles | None, date: datetime.date | None) -> ChatTemplate:
    return ChatTemplate(source, names, date=date)


def _in_pieces(drafts: list[_Draft], tokenizer: Encoder) -> list[Rendered]:
    """Each piece encoded by itself: no token straddles a border, and text spells no special token."""
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
        rendered.append(draft.rendered(ids, turn))
    return rendered


def _writes_its_own(draft: _Draft, ids: list[int], tokenizer: ForeignTokenizer) -> bool:
    """Whether the special tokens in a whole text are those that the template wrote, and none that a message spells.

    They are compared as text and as ids, because a tokenizer may find one where the text is spelled otherwise.
    """
    specials = tokenizer.specials
    written = [piece.text for piece in draft.pieces if piece.special]
    spelled = [part for part in splitter(tuple(specials)).split(draft.text) if part in specials] if specials else []
    controls = set(specials.values()) - {tokenizer.unknown_id}
    expected = [specials[name] for name in written if specials[name] in controls]
    return spelled == written and [id for id in ids if id in controls] == expected


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
        fix="use the default template (leave the setting out), or mend the template: it gets messages, "
        "add_generation_prompt, the model's tokens, and strftime_now where a fixed date is given",
    )


def _another_tokenizer(missing: list[str]) -> GroundupError:
    return GroundupError(
        code="E-CHAT-007",
        what=f"the tokenizer has no {', '.join(printable(name) for name in missing)}, which the chat template writes",
        where="the chat template and the tokenizer",
        why="they belong to different models: what should be one token would be read as plain text",
        fix="use the template and the tokenizer of the same model: ChatTemplate(source, tokenizer.roles)",
    )


def _try_out(template: ChatTemplate) -> None:
    """Render a plain conversation, so that a template that cannot work is refused when it is loaded."""
    said = ["how7many", "seven8", "and9then", "nothing6"]
    roles = ["user", "assistant", "user", "assistant"]
    messages = [{"role": role, "content": content} for role, content in zip(roles, said)]
    specials = list(SPECIALS if template.names is None else template.names.names())
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
