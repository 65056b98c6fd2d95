"""A recipe compared, named by a digest, and written down.

All three go through one canonical form: plain values in the order of the types, paths and choices as text.
So equal recipes have equal digests, whatever their files looked like. Nothing here knows a field.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel

from groundup.errors import printable
from groundup.recipe.yaml import FieldPath, dotted, dump


class Absent(enum.Enum):
    """The value of a field that only the other recipe has (null is a value)."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


class Change(NamedTuple):
    """One field that differs. `before` or `after` is `ABSENT` where that recipe has no such field."""

    path: FieldPath
    before: Any
    after: Any


def plain(recipe: BaseModel) -> dict[str, Any]:
    """The canonical form: dicts, lists and scalars only, as `to_yaml` writes and `load` reads them."""
    tree = recipe.model_dump(mode="json")
    # model_dump leaves tuples and non-string keys to JSON, so JSON has the last word.
    result: dict[str, Any] = json.loads(json.dumps(tree, allow_nan=False))
    return result


def digest(recipe: BaseModel) -> str:
    """SHA-256 of the canonical form, 64 hexadecimal digits. The order of the fields does not matter."""
    text = json.dumps(plain(recipe), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def difference(before: BaseModel | Mapping[str, Any], after: BaseModel | Mapping[str, Any]) -> list[Change]:
    """Every field that differs, in the order of `before`, then those that only `after` has.

    Either side may be a plain tree, since the recipe of an old run need not fit the types of today.
    """
    return list(_changes(_tree(before), _tree(after), ()))


def format_difference(changes: Sequence[Change]) -> str:
    """One line a field, `optim.model.lr  0.001 → 0.0003`, aligned; an empty text if nothing differs."""
    names = [dotted(change.path) for change in changes]
    width = max((len(name) for name in names), default=0)
    return "\n".join(
        f"{name:{width}}  {_shown(change.before)} → {_shown(change.after)}" for name, change in zip(names, changes)
    )


def to_yaml(recipe: BaseModel, comments: Mapping[FieldPath, str] | None = None) -> str:
    """The recipe as YAML that loads back to an equal one, with a remark beside some fields."""
    return dump(plain(recipe), comments)


def _tree(recipe: BaseModel | Mapping[str, Any]) -> Mapping[str, Any]:
    return plain(recipe) if isinstance(recipe, BaseModel) else recipe


def _changes(before: Any, after: Any, path: FieldPath) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = [*before, *(key for key in after if key not in before)]
        for key in keys:
            yield from _changes(before.get(key, ABSENT), after.get(key, ABSENT), (*path, key))
    elif _has_mappings(before) and _has_mappings(after) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after)):
            yield from _changes(one, other, (*path, index))
    elif type(before) is not type(after) or before != after:
        yield Change(path, before, after)


def _has_mappings(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def _shown(value: Any | Literal[Absent.ABSENT]) -> str:
    if value is ABSENT:
        return "(absent)"
    return printable(json.dumps(value, ensure_ascii=False), 120) if isinstance(value, dict | list) else _scalar(value)


def _scalar(value: Any) -> str:
    return printable(dump(value).strip(), 120)
