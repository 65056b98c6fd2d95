"""Text and overrides to one typed, frozen recipe, or to every fault in it at once.

Nothing here knows a field of the recipe: the types say what is legal (`shape`), the text says where each
value stands (`yaml`), pydantic finds the faults, and `faults` says each of them so that it can be mended.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from groundup.errors import GroundupError, nearest, printable
from groundup.recipe.faults import Places, fault_of, raise_all, show
from groundup.recipe.shape import Found, locate
from groundup.recipe.yaml import LARGEST_TEXT, FieldPath, dotted, parse, parse_value

M = TypeVar("M", bound=BaseModel)


def load(source: Path | str, overrides: Sequence[str], model: type[M]) -> M:
    """The recipe in a file (`Path`) or a text (`str`), with `key.sub=value` overrides put on top.

    Raises:
        GroundupError: the first fault; all others found in the same pass are its `others`.
    """
    recipe, _ = load_with_places(source, overrides, model)
    return recipe


def load_with_places(
    source: Path | str, overrides: Sequence[str], model: type[M], *, name: str = "recipe"
) -> tuple[M, Places]:
    """As `load`, with the place that each value came from. `name` is what a text is called in errors."""
    if isinstance(source, Path):
        name, source = str(source), read(source)
    tree, positions = parse(source, name)
    tree, given, faults = apply_overrides(tree, overrides)
    places = Places(name, positions, given)
    return validate(tree, places, model, faults), places


def validate(tree: Mapping[str, Any], places: Places, model: type[M], faults: Sequence[GroundupError] = ()) -> M:
    """`tree` as an instance of `model`; raises all `faults` and those of the tree as one error."""
    endless = list(_endless(tree, ()))
    errors: list[Any] = []
    instance: M | None = None
    try:
        # From JSON, because strict pydantic then takes a list for a tuple and a text for a path.
        instance = model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        errors = error.errors(include_url=False)
    groups: dict[FieldPath, list[tuple[Found, Any]]] = {}
    for path in endless:
        groups[path] = [(locate(model, path, tree), {"type": "finite_number", "input": _at(tree, path)})]
    for problem in errors:
        found = locate(model, problem["loc"])
        if problem["type"] == "missing" and isinstance(found.path[-1], int):
            # An item cannot be missing: the list is too short.
            list_path = found.path[:-1]
            found = locate(model, list_path, tree)
            problem = {"type": "too_short", "input": _at(tree, list_path)}
        if found.path not in endless:
            groups.setdefault(found.path, []).append((found, problem))
    for path in list(groups):
        # A union reports each branch: the one that got further is the one that was meant.
        if any(len(other) > len(path) and other[: len(path)] == path for other in groups):
            del groups[path]
    ordered = sorted(groups, key=places.order)
    raise_all([*faults, *(fault_of(groups[path], places, model) for path in ordered)])
    assert instance is not None
    return instance


def read(path: Path) -> str:
    """The text of a recipe file: UTF-8, with or without a byte-order mark.

    Raises:
        GroundupError: E-RECIPE-001 if it cannot be read, E-RECIPE-002 if it is not UTF-8 text.
    """
    try:
        # A file that grows without end (a device, a pipe) must not fill the memory.
        with path.open("rb") as file:
            raw = file.read(4 * LARGEST_TEXT + 1)
    except (OSError, ValueError) as error:
        detail = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise GroundupError(
            "E-RECIPE-001",
            f"cannot read the recipe: {printable(detail)}",
            where=printable(str(path)),
            why="a recipe is a YAML file that this user may read",
            fix=_other_recipes(path),
            exit_code=2,
        ) from error
    return decode(raw, str(path))


def _other_recipes(path: Path) -> str:
    """What to try instead of a recipe that cannot be read."""
    beside = sorted(found.name for found in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    meant = nearest(path.name, beside)
    if meant is not None and meant != path.name:
        return f"did you mean {printable(str(path.parent / meant))}?"
    if beside:
        return f"recipes in that folder: {printable(', '.join(beside[:8]))}"
    return "groundup new text --out recipe.yaml   (writes a recipe to start from)"


def decode(raw: bytes, name: str) -> str:
    """`raw` as text, or E-RECIPE-002 with the line of the first byte that is not UTF-8."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        line, detail = 1, "the file is in UTF-16"
    else:
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            detail = f"byte 0x{raw[error.start]:02x} at offset {error.start} is not UTF-8"
    raise GroundupError(
        "E-RECIPE-002",
        f"the recipe is not UTF-8 text: {detail}",
        where=f"{printable(name)}:{line}",
        why="a guessed encoding would change names and paths without a word",
        fix="save the file as UTF-8, or: iconv -f OLD-ENCODING -t UTF-8 recipe.yaml > recipe.utf8.yaml",
        exit_code=2,
    )


def apply_overrides(
    tree: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], tuple[tuple[FieldPath, str], ...], list[GroundupError]]:
    """A new tree with each `a.b.c=value` put in, the paths that were set, and the faults.

    `a.0.b` reaches into a list, `a.b=null` unsets, `a.b=[1, 2]` and `a.b={kind: x}` set whole values.
    """
    changed = copy.deepcopy(dict(tree))
    given: list[tuple[FieldPath, str]] = []
    faults: list[GroundupError] = []
    for text in overrides:
        try:
            given.append((_override(changed, text), text))
        except GroundupError as fault:
            faults.append(fault)
    return changed, tuple(given), faults


def _override(tree: dict[str, Any], text: str) -> FieldPath:
    """Put one override into `tree`, in place."""
    key, equals, value_text = text.partition("=")
    names = key.strip().split(".")
    name = f'override "{printable(text)}"'
    if not equals or not all(names):
        raise _bad_override(text, "it is not of the form key.sub=value", "budget.minutes=10")
    if not value_text.strip():
        raise _bad_override(
            text,
            "it has no value",
            f"{key.strip()}=null to unset it, or {key.strip()}='\"\"' for an empty text",
        )
    value = parse_value(value_text, name)
    here: Any = tree
    path: list[str | int] = []
    for index, part in enumerate(names):
        last = index == len(names) - 1
        if isinstance(here, list):
            position = int(part) if part.isascii() and part.isdigit() and len(part) < 9 else -1
            if not 0 <= position < len(here):
                legal = f"0 to {len(here) - 1}" if here else "none: the list is empty"
                raise _bad_override(
                    text,
                    f'{dotted(tuple(path))} is a list and has no item "{printable(part)}" (items: {legal})',
                    f"{dotted(tuple(path))}=[…] to give the whole list",
                )
            path.append(position)
            if last:
                here[position] = value
            elif not isinstance(here[position], dict | list):
                here[position] = _container(here[position], path, text)
            here = here[position]
            continue
        path.append(part)
        if last:
            here[part] = value
        elif not isinstance(here.get(part), dict | list):
            here[part] = _container(here.get(part), path, text)
        here = here[part]
    return tuple(path)


def _container(old: Any, path: Sequence[str | int], text: str) -> dict[str, Any]:
    """A new mapping where an override reaches inside an absent value; a scalar has no inside."""
    if old is None:
        return {}
    raise _bad_override(
        text,
        f"{dotted(tuple(path))} is {show(old)} and has no fields",
        f"{dotted(tuple(path))}={{…}} to replace it by a mapping",
    )


def _bad_override(text: str, what: str, instead: str) -> GroundupError:
    return GroundupError(
        "E-RECIPE-014",
        f"an override cannot be used: {what}",
        where=f'override "{printable(text)}"',
        why="overrides are dotted field names, an equals sign and a value, without spaces around it",
        fix=f"write {instead}",
        exit_code=2,
    )


def _endless(value: Any, path: FieldPath) -> Iterator[FieldPath]:
    """The paths of all numbers that are not finite: none is a setting, and none has a place in JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _endless(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _endless(item, (*path, index))


def _at(tree: Any, path: FieldPath) -> Any:
    for part in path:
        tree = tree[part]
    return tree
