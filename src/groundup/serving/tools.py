"""Calls of tools, for models whose chat template knows none.

The tools go into the system message, and the model is told to call one by writing

    <tool_call>
    {"name": "the tool", "arguments": {…}}
    </tool_call>

as models trained on the Hermes format do (NousResearch, Hermes-Function-Calling). Where a call is demanded
(`tool_choice` "required" or a name), the answer is bound to that JSON by its schema, without the tags. `CallReader`
finds calls in a text that comes in pieces.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter

from groundup.serving.errors import Refused
from groundup.serving.schema import AssistantMessage, Message, NamedTool, RefusalPart, TextPart, Tool, ToolMessage
from groundup.serving.served import Structure

OPEN, CLOSE = "<tool_call>", "</tool_call>"
ANY_OBJECT = {"type": "object"}
ANY: TypeAdapter[Any] = TypeAdapter(Any)


class Said(NamedTuple):
    """A step in an answer: some content, the beginning of a call (text is the tool's name), or more of its
    arguments."""

    kind: Literal["content", "name", "arguments"]
    text: str
    call: int = 0


def instructions(tools: Sequence[Tool]) -> str:
    """What the model is told of its tools."""
    lines = [json.dumps(tool.model_dump(exclude_none=True), ensure_ascii=False) for tool in tools]
    return (
        "You may call one or more functions to help with the user's request. The functions are described by their "
        "JSON schemas within <tools></tools>:\n<tools>\n" + "\n".join(lines) + "\n</tools>\n"
        "For each call write a JSON object with the function's name and arguments within "
        f'{OPEN}{CLOSE}:\n{OPEN}\n{{"name": <name>, "arguments": <object>}}\n{CLOSE}'
    )


def _content(content: str | list[TextPart] | list[TextPart | RefusalPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def rendered(messages: Sequence[Message], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Messages of the three roles that every chat template knows: calls and their results become text."""
    found: list[dict[str, Any]] = []
    after_tool = False
    for message in messages:
        text = _content(message.content)
        role: str = message.role
        if isinstance(message, ToolMessage):
            text = f"<tool_response>\n{text}\n</tool_response>"
            if after_tool:
                found[-1]["content"] += f"\n{text}"
                continue
            role = "user"
        elif isinstance(message, AssistantMessage) and message.tool_calls:
            calls = [
                f'{OPEN}\n{{"name": {json.dumps(call.function.name)}, "arguments": {call.function.arguments}}}\n{CLOSE}'
                for call in message.tool_calls
            ]
            text = "\n".join([*([text] if text else []), *calls])
        after_tool = isinstance(message, ToolMessage)
        found.append({"role": "system" if role == "developer" else role, "content": text})
    if tools:
        if found[0]["role"] == "system":
            found[0]["content"] += "\n\n" + instructions(tools)
        else:
            found.insert(0, {"role": "system", "content": instructions(tools)})
    return found


def demanded(tools: Sequence[Tool], choice: Literal["none", "auto", "required"] | NamedTool | None) -> Structure | None:
    """What the whole answer must be, if a call is demanded.

    Raises:
        Refused: 400, a call is demanded of a tool that is not there.
    """
    if isinstance(choice, NamedTool):
        named = [tool for tool in tools if tool.function.name == choice.function.name]
        if not named:
            raise Refused(400, f"tool_choice names {choice.function.name}, which is none of the tools",
                          "invalid_value", "tool_choice.function.name")  # fmt: skip
    elif choice == "required":
        if not tools:
            raise Refused(400, "tool_choice demands a call, and there are no tools", "invalid_value", "tool_choice")
        named = list(tools)
    else:
        return None
    schemas = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": tool.function.parameters or ANY_OBJECT},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in named
    ]
    return Structure("json_schema", json.dumps(schemas[0] if len(schemas) == 1 else {"anyOf": schemas}))


class _Scanner:
    """Finds `name` and `arguments` in one JSON object that comes in pieces; does not check it."""

    def __init__(self) -> None:
        self.raw = ""
        self.done = False
        self.arguments: tuple[int, int | None] | None = None
        """Where in `raw` the arguments begin and end; the end is None while they go on."""
        self._depth, self._quoted, self._escaped = 0, False, False
        self._key_start, self._key, self._in_value = 0, "", False

    def feed(self, text: str) -> str:
        """Take characters up to the end of the object, and return the rest."""
        for index, character in enumerate(text):
            place = len(self.raw) + index
            if self._quoted:
                self._in_string(text, index, place, character)
            elif character == '"':
                self._begin_value(place)
                self._quoted, self._key_start = True, place + 1
            elif character in "{[":
                self._begin_value(place)
                self._depth += 1
            elif character in "}],":
                if self._depth == 1:
                    self._end_value(place)
                if character != ",":
                    self._depth -= 1
                    if self._depth <= 0:
                        self.raw += text[: index + 1]
                        self.done = True
                        return text[index + 1 :]
            elif character == ":" and self._depth == 1 and not self._in_value:
                self._in_value = True
            elif not character.isspace():
                self._begin_value(place)
        self.raw += text
        return ""

    def _in_string(self, text: str, index: int, place: int, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._quoted = False
            if self._depth == 1 and not self._in_value:
                self._key = (self.raw + text[:index])[self._key_start : place]

    def _begin_value(self, place: int) -> None:
        if self._depth == 1 and self._in_value and self._key == "arguments" and self.arguments is None:
            self.arguments = (place, None)

    def _end_value(self, place: int) -> None:
        if self._key == "arguments" and self.arguments is not None and self.arguments[1] is None:
            self.arguments = (self.arguments[0], place)
        self._key, self._in_value = "", False


class CallReader:
    """Tells the calls in an answer from its content, piece by piece.

    What is no call of a known tool stays content, tags and all. The name comes before the first of the arguments,
    whose pieces join to one JSON object.

    Args:
        names: of the tools.
        bare: the whole answer is the object of one call, without tags.
        single: only the first call counts.
    """

    def __init__(self, names: Sequence[str], *, bare: bool = False, single: bool = False) -> None:
        self._names, self._bare, self._single = frozenset(names), bare, single
        self._held = ""
        self._scanner: _Scanner | None = _Scanner() if bare else None
        self._closing, self._just_closed = False, False
        self._named = False
        self._sent = 0
        self.calls = 0
        """How many calls have begun."""

    @property
    def finished(self) -> bool:
        """Whether the rest of the answer does not matter."""
        return (self._bare or self._single) and self.calls > 0 and self._scanner is None

    def feed(self, text: str) -> list[Said]:
        """What some more text says."""
        said: list[Said] = []
        while text and not self.finished:
            if self._scanner is not None:
                text = self._in_call(text, said)
            elif self._closing:
                text = self._after_call(text)
            else:
                text = self._outside(text, said)
        return said

    def close(self) -> list[Said]:
        """What is left at the end."""
        rest = self._held
        if self._scanner is not None and not self._named:
            rest = ("" if self._bare else OPEN) + self._scanner.raw
        self._held, self._scanner = "", None
        return [Said("content", rest)] if rest and not self._closing else []

    def _outside(self, text: str, said: list[Said]) -> str:
        if self._just_closed:  # the breaks between calls are no content
            text = text.lstrip()
            self._just_closed = not text
        text, self._held = self._held + text, ""
        before, found, after = text.partition(OPEN)
        if not found:
            keep = next((size for size in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:size])), 0)
            before, self._held = text[: len(text) - keep], text[len(text) - keep :]
        else:
            self._scanner, self._named, self._sent = _Scanner(), False, 0
        if before:
            said.append(Said("content", before))
        return after

    def _after_call(self, text: str) -> str:
        text, self._held = self._held + text, ""
        if CLOSE.startswith(text.lstrip()) and text.lstrip() != CLOSE:
            self._held = text
            return ""
        self._closing, self._just_closed = False, True
        return text.lstrip().removeprefix(CLOSE)

    def _in_call(self, text: str, said: list[Said]) -> str:
        scanner = self._scanner
        assert scanner is not None
        rest = scanner.feed(text)
        try:
            value = ANY.validate_json(scanner.raw, experimental_allow_partial=not scanner.done)
        except ValueError:
            value = None
        if not isinstance(value, dict) and (scanner.done or scanner.raw.strip()):
            return self._no_call(rest, said)
        found = value or {}
        name, arguments = found.get("name"), found.get("arguments")
        if not self._named and name is not None and (scanner.done or scanner.arguments is not None):
            if name not in self._names:
                return self._no_call(rest, said)
            self._named = True
            said.append(Said("name", name, self.calls))
            self.calls += 1
        if self._named:
            self._argue(scanner, arguments, said)
        if scanner.done:
            if not self._named:
                return self._no_call(rest, said)
            self._scanner, self._closing = None, not self._bare
        return rest

    def _argue(self, scanner: _Scanner, arguments: object, said: list[Said]) -> None:
        """Send what is new of the arguments; some models write them as a text that holds the JSON."""
        if scanner.arguments is None:
            text = "{}" if scanner.done else ""
        elif scanner.raw[scanner.arguments[0]] == "{":
            start, end = scanner.arguments
            text = scanner.raw[start:end][self._sent :]
        else:
            whole = arguments if isinstance(arguments, str) and _is_object(arguments) else "{}"
            text = whole if scanner.done else ""
        self._sent += len(text)
        if text:
            said.append(Said("arguments", text, self.calls - 1))

    def _no_call(self, rest: str, said: list[Said]) -> str:
        """What looked like a call is none: its text is content, unless its name has been told already."""
        assert self._scanner is not None
        if not self._named:
            said.append(Said("content", ("" if self._bare else OPEN) + self._scanner.raw))
        self._scanner, self._closing = None, self._named and not self._bare
        return rest


def _is_object(text: str) -> bool:
    try:
        return isinstance(ANY.validate_json(text), dict)
    except ValueError:
        return False
