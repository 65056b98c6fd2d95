"""Faults in a recipe as sentences: where the value came from, what was expected there, how to mend it.

`load` finds the faults (with pydantic), this file says them. The tree's own checks between fields use
`Places` and `raise_all` as well. No field of the real recipe is named here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from groundup.errors import GroundupError, nearest, printable
from groundup.recipe.shape import Found, places_of_field, spoken
from groundup.recipe.yaml import FieldPath, Position, dotted, parse_value

STRICT = "fields and types are strict, so that a slip of the pen never changes a run in silence"
OUT_OF_RANGE = (
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "finite_number",
    "too_short", "too_long", "string_too_short", "string_too_long", "string_pattern_mismatch",
)  # fmt: skip
YES_AND_NO = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@dataclass(frozen=True)
class Places:
    """Where each value of a recipe came from: a line of the file, or an override.

    Args:
        name: the file, as error messages call it.
        positions: line and column of each path that the file gives.
        overrides: the path and the text of each override, in order; a later one covers an earlier one.
    """

    name: str
    positions: Mapping[FieldPath, Position] = field(default_factory=dict)
    overrides: tuple[tuple[FieldPath, str], ...] = ()

    def of(self, path: FieldPath) -> str:
        """`recipe.yaml:3:5` or `override "budget.minutes=3"`: what gave this value, or its parent."""
        override = self._override(path)
        if override is not None:
            return f'override "{printable(self.overrides[override][1])}"'
        line, column = self._position(path)
        return f"{printable(self.name)}:{line}:{column}"

    def order(self, path: FieldPath) -> tuple[int, int, int]:
        """A sort key: the order of the file, then that of the overrides."""
        override = self._override(path)
        return (1, override, 0) if override is not None else (0, *self._position(path))

    def gives(self, path: FieldPath) -> bool:
        """Whether the user set this value (or one inside it), in the file or by an override."""
        return path in self.positions or any(given[: len(path)] == path for given, _ in self.overrides)

    def _override(self, path: FieldPath) -> int | None:
        exact = [i for i, (given, _) in enumerate(self.overrides) if given == path[: len(given)]]
        if exact:
            return exact[-1]
        # A mapping that only overrides made, and a field that is missing from it, are due to one of them.
        for made in (path, path[:-1]):
            inside = [i for i, (given, _) in enumerate(self.overrides) if given[: len(made)] == made]
            if made and made not in self.positions and inside:
                return inside[0]
        return None

    def _position(self, path: FieldPath) -> Position:
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, (1, 1))


def raise_all(faults: Sequence[GroundupError]) -> None:
    """Raise the first fault with the rest as its `others`; return if there are none."""
    if faults:
        first, *others = faults
        first.others = [*first.others, *others]
        raise first


def fault_of(group: list[tuple[Found, Any]], places: Places, model: type[BaseModel]) -> GroundupError:
    """One fault from all that pydantic says about one path (a union speaks once for each branch)."""
    found, problem = _most_telling(group)
    kind = problem["type"]
    if kind == "missing":
        return _missing(found, places)
    if kind == "extra_forbidden":
        return _unknown_field(found, places, model)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _unknown_kind(found, problem, places)
    if kind in ("value_error", "assertion_error"):
        return GroundupError(
            "E-RECIPE-015",
            printable(str(problem["ctx"]["error"]), 500),
            where=_where(places, found.path),
            why=_meaning(found) or "these values cannot go together",
            fix=f"change {dotted(found.path)} as said above",
            exit_code=2,
        )
    expected = found.slot.describe() if found.slot.alternatives else printable(problem.get("msg", ""))
    value = problem["input"]
    if kind in ("literal_error", "enum") and isinstance(value, str):
        meant = nearest(value, found.slot.choices())
        return GroundupError(
            "E-RECIPE-011",
            f"{dotted(found.path)} is {show(value)}, expected {expected}",
            where=_where(places, found.path),
            why=_meaning(found) or STRICT,
            fix=f"did you mean {meant}?" if meant else f"set {dotted(found.path)} to one of those",
            exit_code=2,
        )
    return GroundupError(
        "E-RECIPE-010" if kind in OUT_OF_RANGE else "E-RECIPE-009",
        f"{dotted(found.path)} is {show(value)}, expected {expected}",
        where=_where(places, found.path),
        why=_meaning(found) or STRICT,
        fix=_mend(value, expected) or f"set {dotted(found.path)} to {expected}",
        exit_code=2,
    )


def _most_telling(group: list[tuple[Found, Any]]) -> tuple[Found, Any]:
    """A text was meant as one of the words; a number in the wrong range says more than "not a word"."""
    if isinstance(group[0][1].get("input"), str):
        wanted: tuple[str, ...] = ("literal_error", "enum")
    else:
        wanted = OUT_OF_RANGE
    return next((entry for entry in group if entry[1]["type"] in wanted), group[0])


def _missing(found: Found, places: Places) -> GroundupError:
    return GroundupError(
        "E-RECIPE-008",
        f"{dotted(found.path)} is missing, expected {found.slot.describe()}",
        where=_where(places, found.path),
        why=_meaning(found) or "it has no default: no value would suit most runs",
        fix=f"add {dotted(found.path)}",
        exit_code=2,
    )


def _unknown_field(found: Found, places: Places, model: type[BaseModel]) -> GroundupError:
    *parent, last = found.path
    name = str(last)
    here = dotted(tuple(parent))
    known = list(found.owner.model_fields) if found.owner is not None else []
    discriminator = found.around.discriminator
    kinds = found.around.kinds()
    own = [tag for tag, member in kinds.items() if member is found.owner]
    others = [tag for tag, member in kinds.items() if name in member.model_fields]
    if others and discriminator:
        instead = f"set {here}.{discriminator}={others[0]}, or remove {printable(name)}"
        if name == "init_from":  # the model that it names brings its family
            instead = f"give it in place of the whole section: {here}={{init_from: …}}"
        return GroundupError(
            "E-RECIPE-013",
            f'field "{printable(name)}" belongs to {discriminator} {spoken(others)};'
            f" here {discriminator} is {spoken(own)}",
            where=_where(places, found.path),
            why="a field that the chosen part does not have would be ignored in silence",
            fix=f"{instead}\nfields of {spoken(own)}: {', '.join(known)}",
            exit_code=2,
        )
    meant = nearest(name, known)
    elsewhere = places_of_field(model, name)
    fix = f"did you mean {meant}?\n" if meant else ""
    if not meant and elsewhere:
        fix = f"did you mean {spoken(elsewhere[:3])}?\n"
    return GroundupError(
        "E-RECIPE-007",
        f'unknown field "{printable(name)}" in {here}',
        where=_where(places, found.path),
        why="an unknown field would be ignored in silence, and the run would not be the one that was meant",
        fix=f"{fix}fields here: {', '.join(known)}",
        exit_code=2,
    )


def _unknown_kind(found: Found, problem: Any, places: Places) -> GroundupError:
    discriminator = found.slot.discriminator or "kind"
    kinds = list(found.slot.kinds())
    given = problem["input"].get(discriminator) if isinstance(problem["input"], dict) else None
    path = (*found.path, discriminator)
    if given is None:
        what, fix = f"{dotted(path)} is missing", f"add {dotted(path)}, such as {kinds[0]}"
    else:
        meant = nearest(str(given), kinds)
        what = f"{dotted(path)} is {show(given)}"
        fix = f"did you mean {meant}?" if meant else f"set {dotted(path)} to one of those"
    return GroundupError(
        "E-RECIPE-012",
        f"{what}, expected {spoken(kinds)}",
        where=_where(places, path),
        why=_meaning(found) or f"{discriminator} chooses the part, and with it the fields that it takes",
        fix=fix,
        exit_code=2,
    )


def _where(places: Places, path: FieldPath) -> str:
    return f"{places.of(path)}  {dotted(path)}"


def _meaning(found: Found) -> str:
    """What the field is for, from its description in the types."""
    described = found.slot.field.description if found.slot.field is not None else None
    return described or ""


def _mend(value: Any, expected: str) -> str:
    """The usual slips: a number written as text, yes for true, 3.0 for 3, one value where a list stands."""
    if isinstance(value, str):
        plain = value.strip().replace("_", "").replace(",", "")
        if "true or false" in expected and value.lower() in YES_AND_NO:
            return f"write {YES_AND_NO[value.lower()]}"
        if "number" in expected and plain[:1] in "+-.0123456789" and plain:
            try:
                number = parse_value(plain, "value")
            except GroundupError:
                return ""
            if isinstance(number, int | float):
                return f"write {plain}" + ("" if plain != value else " without quotes")
    elif isinstance(value, float) and value.is_integer() and "whole number" in expected and abs(value) < 1e15:
        if not isinstance(value, bool):
            return f"write {int(value)}"
    elif isinstance(value, int | float) and expected.startswith("text"):
        return f'put it in quotes: "{value}"'
    if not isinstance(value, dict | list) and expected.startswith("a list"):
        return f"put it in brackets: [{show(value)}]" if isinstance(value, str) else f"write [{value}]"
    return ""


def show(value: Any) -> str:
    """A wrong value as the error message shows it; `"3"` is a text and `3` is a number."""
    if isinstance(value, dict):
        names = printable(", ".join(map(str, value)), 60)
        return f"a mapping ({names})" if value else "a mapping without fields"
    if isinstance(value, list):
        return f"a list of {len(value)} items" if len(value) != 1 else "a list of one item"
    if isinstance(value, str):
        return f'"{printable(value, 80)}"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)
