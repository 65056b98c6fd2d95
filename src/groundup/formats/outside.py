"""JSON and texts from outside, read with distrust: bounded in size and depth, every field checked for its type and
for plain limits before anything is made from it.

What the fields mean is not known here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from groundup.errors import GroundupError, printable

MAX_BYTES = 64 * 2**20
"""The largest JSON file that is read; the largest tokenizer.json in use has half of this."""

MAX_DEPTH = 64
"""Brackets within brackets; configurations and tokenizers have fewer than ten."""


def read_text(path: Path) -> str:
    """The text of a small file, UTF-8.

    Raises:
        GroundupError: E-FORMAT-004 for one that is missing, too large or not UTF-8.
    """
    try:
        if not path.is_file():
            _malformed(path, "it does not exist" if not path.exists() else "it is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        _malformed(path, f"it cannot be read: {error.strerror or error}")
    if len(data) > MAX_BYTES:
        _malformed(path, f"it is larger than the {MAX_BYTES // 2**20} MiB that are read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _malformed(path, f"it is not UTF-8 at byte {error.start:,}")


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        GroundupError: E-FORMAT-004 for a file that is missing, too large, too deep, not JSON, not an object, or with a
            text that is none.
    """
    return parse_json(read_text(path), path)


def parse_json(text: str, path: Path) -> dict[str, Any]:
    """The object in `text`; `path` is for the error. See `read_json`."""
    content = _parse(text, path)
    if not isinstance(content, dict):
        _malformed(path, f"it holds {_kind(content)}, expected an object")
    return content


def read_list(path: Path) -> list[Any]:
    """The list that a JSON file holds. See `read_json`."""
    content = _parse(read_text(path), path)
    if not isinstance(content, list):
        _malformed(path, f"it holds {_kind(content)}, expected a list")
    return content


def _parse(text: str, path: Path) -> Any:
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        _malformed(path, f"it is not valid JSON: {printable(str(error))}")
    if _is_deep(content):
        _malformed(path, f"its brackets are nested deeper than {MAX_DEPTH}")
    if "\\ud" in text or "\\uD" in text:  # the file is UTF-8, so that only an escape can spell a surrogate
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            _malformed(path, f"a text in it holds half of a character, U+{ord(error.object[error.start]):04X}")
    return content


class Fields:
    """The fields of a JSON object, read one by one. What is wrong is gathered and raised all at once by `settle`;
    until then a wrong field reads as its default or its lower limit.

    Args:
        content: the object.
        where: the file, for the error.
    """

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self._content = content
        self._where = where
        self._read: set[str] = set()
        self.faults: list[str] = []

    def raw(self, name: str) -> Any:
        """The value of a field as it is, None where there is none; the caller checks it."""
        self._read.add(name)
        return self._content.get(name)

    def fault(self, name: str, value: Any, expected: str) -> None:
        shown = "is missing" if value is None else f"is {printable(json.dumps(value, default=str), 60)}"
        self.faults.append(f"{printable(name, 60)} {shown}, expected {expected}")

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from `low` to `high`."""
        value = self.raw(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or not low <= value <= high:
            self.fault(name, value, f"a whole number from {low:,} to {high:,}")
            return low
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number above `low` and up to `high`."""
        value = self.raw(name)
        if value is None and default is not None:
            return default
        if type(value) not in (int, float) or not math.isfinite(value) or not low < value <= high:
            self.fault(name, value, f"a number above {low:g} and up to {high:g}")
            return high
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(name, value, "true or false")
            return default
        return value

    def text(self, name: str) -> str | None:
        value = self.raw(name)
        if value is not None and not isinstance(value, str):
            self.fault(name, value, "a text")
            return None
        return value

    def only(self, name: str, allowed: Sequence[Any]) -> None:
        """A field that may be left out or have one of a few values: groundup builds nothing else."""
        value = self.raw(name)
        if value is not None and not any(type(value) is type(other) and value == other for other in allowed):
            self.fault(name, value, " or ".join(json.dumps(other) for other in allowed))

    def unread(self, known: Sequence[str]) -> list[str]:
        """Names of the fields that nobody asked for and that are not in `known`, sorted."""
        return sorted(self._content.keys() - self._read - set(known))

    def settle(self) -> None:
        """Raises E-FORMAT-003 with every fault, if there is one."""
        if not self.faults:
            return
        raise GroundupError(
            "E-FORMAT-003",
            f"{len(self.faults)} of the fields cannot be read as a model: {self.faults[0]}",
            where="\n".join([printable(self._where), *(f"    {fault}" for fault in self.faults[:40])]),
            why="a field that was guessed or passed over would give another model than the one that was published",
            fix="fetch the file again if it is damaged; a model that needs what is not built here "
            "cannot be imported by this version",
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f'the name "{printable(twice)}" occurs twice')
    return content


def _is_deep(content: Any) -> bool:
    """Whether lists and objects are nested deeper than `MAX_DEPTH`."""
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(MAX_DEPTH):
        values = (value for part in level for value in (part.values() if isinstance(part, dict) else part))
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            return False
    return True


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")


def _malformed(path: Path, what: str) -> NoReturn:
    raise GroundupError(
        "E-FORMAT-004",
        f"{printable(path.name)} cannot be read: {what}",
        where=printable(str(path)),
        why="the files of a model come from outside and are read only where they are plain and whole",
        fix="fetch the file again, from the same version of the model as the others",
    )
