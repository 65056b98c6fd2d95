"""Layouts of fine-tuning records: one record in, one conversation out.

Alpaca, ShareGPT, OpenAI messages and prompt/response columns all become the same list of messages with
the roles system, user and assistant. A record that does not fit raises its reason and is never
repaired by guessing. Files, counts, templates and tokens belong elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from groundup.errors import printable

Format = Literal["alpaca", "sharegpt", "messages", "columns"]
Record = Mapping[str, Any]

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "function_call": "assistant", "tool_call": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "ipython": "tool",
}  # fmt: skip
"""The names that data sets give to the roles. What a tool answers is checked as its own role and then read
as a user's turn, since the model knows three speakers."""

KNOWN_PAIRS = (
    ("prompt", "response"), ("prompt", "completion"), ("question", "answer"), ("query", "response"),
)  # fmt: skip
"""Pairs of columns that are recognised without a mapping."""

FIELDS: dict[Format, frozenset[str]] = {
    "alpaca": frozenset(["instruction", "input", "output", "system", "history"]),
    "sharegpt": frozenset(["conversations", "system", "tools"]),
    "messages": frozenset(["messages", "system", "tools"]),
    "columns": frozenset(),
}
"""The fields that each layout reads; others are reported as not used."""


class Message(TypedDict):
    """One turn. `train` is False on an assistant's turn that the row asks not to learn."""

    role: str
    content: str
    train: NotRequired[bool]


class ColumnMapping(BaseModel):
    """Which columns hold what, for rows of one prompt and one response."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str = Field(description="column with the question or the instruction")
    response: str = Field(description="column with the answer to learn")
    input: str | None = Field(default=None, description="column appended to the prompt on a new line")
    system: str | None = Field(default=None, description="column with the system message")


class RowFault(Exception):
    """A row that cannot be learned from: the reason in one line, and the field at fault.

    `malformed` is False where the row is well formed but not meant to be learned.
    """

    def __init__(self, reason: str, field: str = "", *, malformed: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.malformed = malformed


class Layout(NamedTuple):
    """How one file is laid out."""

    format: Format
    columns: ColumnMapping | None

    def __str__(self) -> str:
        if self.columns is None:
            return self.format
        named = self.columns.model_dump(exclude_none=True)
        return f"columns ({', '.join(f'{part}: {printable(name)}' for part, name in named.items())})"

    @property
    def fields(self) -> frozenset[str]:
        named = self.columns.model_dump(exclude_none=True).values() if self.columns else ()
        return FIELDS[self.format].union(named)


def detect(records: Iterable[Record]) -> Layout | None:
    """The layout of a file by the fields of its first records, or None where none is known.

    The layout that most records fit wins; the order below decides between equals.
    """
    layouts = [
        (Layout("messages", None), {"messages"}),
        (Layout("sharegpt", None), {"conversations"}),
        (Layout("alpaca", None), {"instruction", "output"}),
        *(
            (Layout("columns", ColumnMapping(prompt=prompt, response=response)), {prompt, response})
            for prompt, response in KNOWN_PAIRS
        ),
    ]
    seen = list(records)
    votes = [sum(fields <= record.keys() for record in seen) for _, fields in layouts]
    best = max(votes)
    return layouts[votes.index(best)][0] if best else None


def normalize(record: Record, format: Format, columns: ColumnMapping | None = None) -> list[Message]:
    """The conversation that a record holds.

    Args:
        record: field names to values.
        format: the layout to read it by.
        columns: which columns to read, for the layout `columns`.

    Returns:
        Messages that start with an optional system turn, alternate, and end with the assistant.

    Raises:
        RowFault: if the record does not hold such a conversation.
    """
    if record.get("label") is False:
        raise RowFault("the answer is marked as a bad one (label: false)", "label", malformed=False)
    if format == "alpaca":
        messages = _from_alpaca(record)
    elif format == "columns":
        if columns is None:
            raise ValueError("the layout `columns` needs a mapping")
        messages = _from_columns(record, columns)
    else:
        field = "conversations" if format == "sharegpt" else "messages"
        messages = _from_turns(record, field)
    return _checked(messages)


def _from_alpaca(record: Record) -> list[Message]:
    messages = _system(record)
    for index, pair in enumerate(_list(record, "history", required=False)):
        place = f"history[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowFault(f'field "{place}" is {_kind(pair)}, expected [question, answer]', place)
        for role, text in zip(("user", "assistant"), pair):
            messages.append({"role": role, "content": _as_text(text, place)})
    prompt = _joined(_text(record, "instruction"), _text(record, "input", required=False))
    return [*messages, *_exchange(prompt, _text(record, "output"))]


def _from_columns(record: Record, columns: ColumnMapping) -> list[Message]:
    further = _text(record, columns.input, required=False) if columns.input else ""
    prompt = _joined(_text(record, columns.prompt), further)
    system = _system(record, columns.system) if columns.system else []
    return [*system, *_exchange(prompt, _text(record, columns.response))]


def _from_turns(record: Record, field: str) -> list[Message]:
    turns = [_turn(turn, f"{field}[{index}]") for index, turn in enumerate(_list(record, field))]
    chosen = record.get("chosen")
    # a preference pair keeps its answers apart; the good one is what imitation can learn from
    if chosen is not None and turns and turns[-1]["role"] != "assistant":
        if isinstance(chosen, str):
            turns.append({"role": "assistant", "content": chosen})
        elif isinstance(chosen, dict):
            turns.append(_turn(chosen, "chosen"))
    return _with_tools(_system(record), record, turns)


def _turn(turn: Any, place: str) -> Message:
    """One turn, in the words of ShareGPT (from, value) or of OpenAI (role, content)."""
    if not isinstance(turn, dict):
        raise RowFault(f'field "{place}" is {_kind(turn)}, expected an object', place)
    role_field, text_field = ("from", "value") if "from" in turn else ("role", "content")
    name = _text(turn, role_field, place)
    role = ROLES.get(name)
    if role is None:
        expected = "system, user, assistant or tool"
        raise RowFault(f'unknown role "{printable(name, 40)}", expected {expected}', f"{place}.{role_field}")
    content = turn.get(text_field)
    if isinstance(content, list):
        text = "".join(_part(part, f"{place}.{text_field}") for part in content)
    elif content is None and turn.get("tool_calls"):
        text = ""
    else:
        text = _text(turn, text_field, place)
    calls = _list(turn, "tool_calls", place, required=False)
    message: Message = {"role": role, "content": "\n".join(filter(None, [text, *map(_call, calls)]))}
    if "weight" in turn:
        weight = turn["weight"]
        if weight not in (0, 1):
            raise RowFault(f'field "{place}.weight" is {printable(repr(weight), 40)}, expected 0 or 1', place)
        message["train"] = bool(weight)
    return message


def _part(part: Any, place: str) -> str:
    """A piece of a message whose content is a list, as the OpenAI API writes it."""
    if not isinstance(part, dict) or part.get("type") != "text":
        kind = part.get("type") if isinstance(part, dict) else _kind(part)
        raise RowFault(f'field "{place}" holds {printable(str(kind), 40)}, expected parts of text', place)
    return _text(part, "text", place)


def _call(call: Any) -> str:
    """A tool call of the OpenAI API as the JSON text that the model has to write."""
    called = call.get("function", call) if isinstance(call, dict) else call
    return json.dumps(called, ensure_ascii=False)


def _with_tools(system: list[Message], record: Record, turns: list[Message]) -> list[Message]:
    """Tools that a row offers stand in its system message: what is learned is what is served."""
    if turns and turns[0]["role"] == "system" and system:
        raise RowFault("two system messages: a field and a turn", "system")
    tools = record.get("tools")
    if isinstance(tools, list):
        tools = json.dumps(tools, ensure_ascii=False) if tools else ""
    if not tools:
        return system + turns
    offered = _as_text(tools, "tools").strip()
    if offered in ("[]", "{}", ""):
        return system + turns
    if turns and turns[0]["role"] == "system":
        system, turns = turns[:1], turns[1:]
    before = system[0]["content"] if system else ""
    return [{"role": "system", "content": _joined(before, f"Tools, as JSON: {offered}")}, *turns]


def _checked(messages: list[Message]) -> list[Message]:
    """The conversation, if it is one: who speaks first, in turn, and last."""
    if not any(message["role"] == "assistant" for message in messages):
        raise RowFault("no assistant turn: nothing to learn")
    previous = ""
    for message in messages:
        role = message["role"]
        if not message["content"].strip():
            raise RowFault(f"empty {'answer' if role == 'assistant' else f'{role} turn'}")
        if role == "system" and previous:
            raise RowFault(f"a system turn after a {previous} turn, expected it first")
        if role == "assistant" and previous in ("", "system"):
            raise RowFault("the conversation starts with the assistant, expected user")
        if role == "tool" and previous not in ("assistant", "tool"):
            raise RowFault(f"a tool turn after {previous or 'nothing'}, expected it after assistant")
        if role == previous and role != "tool":
            raise RowFault(f"roles do not alternate: two {role} turns in a row")
        if role == "user" and previous == "tool":
            raise RowFault("roles do not alternate: a user turn after a tool turn, expected assistant")
        previous = role
    if previous != "assistant":
        raise RowFault(f"the conversation ends with a {previous} turn that nothing answers")
    if all(message.get("train") is False for message in messages if message["role"] == "assistant"):
        raise RowFault("every assistant turn has weight 0: nothing to learn", malformed=False)
    return _three_speakers(messages)


def _three_speakers(messages: list[Message]) -> list[Message]:
    """Answers of tools as a user's turn, several of them in a row as one."""
    spoken: list[Message] = []
    for message in messages:
        if message["role"] != "tool":
            spoken.append(message)
        elif spoken[-1]["role"] == "user":
            spoken[-1] = {"role": "user", "content": _joined(spoken[-1]["content"], message["content"])}
        else:
            spoken.append({"role": "user", "content": message["content"]})
    return spoken


def has_tool_turns(record: Record) -> bool:
    """Whether some turn of a well-formed record is a tool's answer."""
    turns = [*(record.get("conversations") or []), *(record.get("messages") or [])]
    return any(ROLES.get(turn.get("from") or turn.get("role")) == "tool" for turn in turns)


def _system(record: Record, field: str = "system") -> list[Message]:
    text = _text(record, field, required=False)
    return [{"role": "system", "content": text}] if text.strip() else []


def _exchange(prompt: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _joined(first: str, second: str) -> str:
    return "\n".join(text for text in (first, second) if text.strip())


def _text(record: Record, field: str, place: str = "", *, required: bool = True) -> str:
    path = f"{place}.{field}" if place else field
    value = record.get(field)
    if value is None and not required:
        return ""
    if field not in record:
        raise RowFault(f'field "{printable(path)}" is missing', path)
    return _as_text(value, path)


def _as_text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise RowFault(f'field "{printable(path)}" is {_kind(value)}, expected text', path)
    return value


def _list(record: Record, field: str, place: str = "", *, required: bool = True) -> list[Any]:
    path = f"{place}.{field}" if place else field
    value = record.get(field)
    if value is None and not required:
        return []
    if field not in record:
        raise RowFault(f'field "{path}" is missing', path)
    if not isinstance(value, list):
        raise RowFault(f'field "{path}" is {_kind(value)}, expected a list', path)
    if not value and required:
        raise RowFault(f'field "{path}" is an empty list', path)
    return value


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names: dict[type, str] = {
        bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list",
        dict: "an object", type(None): "null",
    }  # fmt: skip
    return names.get(type(value), type(value).__name__)
