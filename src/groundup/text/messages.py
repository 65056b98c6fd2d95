"""What a conversation is: the check of messages from outside, and walks over the strings in them.

No template and no tokenizer enters this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from groundup.errors import GroundupError, nearest, printable

ROLES = ("system", "user", "assistant")
DEEPEST = 20  # nesting of further fields in a message


def check(messages: Any, where: str = "messages", *, empty: bool = False) -> list[str]:
    """Refuse what is not a conversation: a list of {"role": …, "content": text}.

    An assistant's message may carry "train": true or false. Other fields are handed to the template.

    Args:
        empty: whether a message may say nothing.

    Returns:
        every string in the messages, names of fields included.
    Raises:
        GroundupError: E-CHAT-004 with the path of the first fault, such as `messages[2].role`.
    """
    if not isinstance(messages, (list, tuple)):
        _fault(where, f"is {_name(messages)}, not a list of messages")
    if not messages:
        _fault(where, "is empty")
    strings: list[str] = []
    for index, message in enumerate(messages):
        place = f"{where}[{index}]"
        if not isinstance(message, dict):
            _fault(place, f"is {_name(message)}, not an object with role and content")
        _check_role(message, place)
        strings += _check_content(message, place, empty)
        train = message.get("train", True)
        if not isinstance(train, bool):
            _fault(f"{place}.train", f"is {_name(train)}, not true or false")
        if train and "train" in message and message["role"] != "assistant":
            _fault(f"{place}.train", f"is true, but the role is {message['role']}: only assistants learn")
    return strings


def _check_role(message: dict[str, Any], place: str) -> None:
    role = message.get("role")
    if not isinstance(role, str):
        _fault(f"{place}.role", f"is {_name(role)}" if "role" in message else "is missing")
    if role not in ROLES:
        meant = nearest(role, ROLES)
        hint = f", did you mean {meant}?" if meant else ""
        _fault(f"{place}.role", f"is {printable(role, 40)!r}, none of {', '.join(ROLES)}{hint}")


def _check_content(message: dict[str, Any], place: str, empty: bool) -> list[str]:
    content = message.get("content")
    if not isinstance(content, str):
        _fault(f"{place}.content", f"is {_name(content)}, not text" if "content" in message else "is missing")
    if not content and not empty:
        _fault(f"{place}.content", "is empty")
    strings = _strings(message, place, 0)
    for path, text in strings:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            _fault(path, f"holds a lone surrogate at character {error.start}, which is no text in UTF-8")
    return [text for _, text in strings]


def map_strings(messages: Any, change: Callable[[str], str]) -> list[dict[str, Any]]:
    """A copy of the messages with `change` applied to every string in them but the roles."""
    return [
        {key: value if key == "role" else _changed(value, change) for key, value in message.items()}
        for message in messages
    ]


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _changed(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_changed(item, change) for item in value]
    return value


def _strings(value: Any, path: str, depth: int) -> list[tuple[str, str]]:
    """Every string in a value with its path, keys included."""
    if depth > DEEPEST:
        _fault(path, f"is nested deeper than {DEEPEST}")
    if isinstance(value, str):
        return [(path, value)]
    found: list[tuple[str, str]] = []
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                _fault(path, f"has {_name(key)} as a name, not text")
            found.append((path, key))
            found += _strings(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            found += _strings(item, f"{path}[{index}]", depth + 1)
    return found


_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def _name(value: Any) -> str:
    if value is None:
        return "null"
    return _NAMES.get(type(value), type(value).__name__)


def _fault(path: str, what: str) -> NoReturn:
    raise GroundupError(
        code="E-CHAT-004",
        what=f"{printable(path)} {what}",
        where=printable(path),
        why="a conversation is a list of messages, each with a role and a text",
        fix='write it as [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]',
    )
