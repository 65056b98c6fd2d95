"""What a recipe may hold, read from its types: fields, kinds, ranges and how to say them in words.

The tree of a recipe is made of frozen, strict pydantic models. Where one of several may stand, they form a
union with a discriminator (`kind`, or `family` for models). Loading uses this file to turn faults into
sentences, the reference to print tables. No field of the real recipe is named here.
"""

from __future__ import annotations

import enum
import pathlib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from groundup.recipe.yaml import FieldPath

PLAIN_WORDS: dict[Any, str] = {
    bool: "true or false",
    str: "text",
    pathlib.Path: "a path",
    Any: "any value",
}


class Alternative(NamedTuple):
    """One type that may stand in a place, with its constraints (annotated_types and pydantic's own)."""

    type: Any
    constraints: tuple[Any, ...]


@dataclass(frozen=True)
class Slot:
    """A place in the tree: everything that may stand there.

    Args:
        alternatives: the types, without None.
        optional: whether null may stand there.
        discriminator: the field that chooses among several models, such as `kind`.
        field: the pydantic field, for its default and description; None for items of lists and mappings.
    """

    alternatives: tuple[Alternative, ...]
    optional: bool = False
    discriminator: str | None = None
    field: FieldInfo | None = None

    def models(self) -> list[type[BaseModel]]:
        return [found.type for found in self.alternatives if is_model(found.type)]

    def kinds(self) -> dict[str, type[BaseModel]]:
        """The models by the value of the discriminator; empty where there is nothing to choose."""
        if self.discriminator is None:
            return {}
        tags: dict[str, type[BaseModel]] = {}
        for model in self.models():
            for tag in get_args(model.model_fields[self.discriminator].annotation):
                tags[str(tag)] = model
        return tags

    def item(self, *, mapping: bool) -> Slot | None:
        """What the values of a mapping, or the items of a list, may be; None where neither may stand here."""
        for found in self.alternatives:
            origin, arguments = get_origin(found.type), get_args(found.type)
            if mapping and origin in (dict, Mapping) and len(arguments) == 2:
                return slot_of(arguments[1])
            if not mapping and is_list(found.type) and arguments:
                return slot_of(arguments[0])
        return None

    def choices(self) -> list[str]:
        """The words of a closed list that may stand here."""
        words: list[str] = []
        for found in self.alternatives:
            if get_origin(found.type) is Literal:
                words += [str(choice) for choice in get_args(found.type)]
            elif isinstance(found.type, type) and issubclass(found.type, enum.Enum):
                words += [str(choice.value) for choice in found.type]
        return words

    def describe(self) -> str:
        """What is expected here, in words with the legal range: "a whole number from 1 to 64, or auto"."""
        words: list[str] = []
        if self.kinds():
            words.append(f"a mapping with {self.discriminator}: {spoken(list(self.kinds()))}")
        words += [_describe(found) for found in self.alternatives if not (self.kinds() and is_model(found.type))]
        if self.optional:
            words.append("null")
        return ", or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


NOTHING = Slot(())


@dataclass(frozen=True)
class Found:
    """Where a pydantic error location leads.

    Args:
        path: the location as the user wrote it, without pydantic's names for the branches of a union.
        slot: what may stand there (`NOTHING` for an unknown field).
        owner: the model whose field the last part of the path is, if it is one.
        around: the place of that model, which knows the kinds it was chosen from.
    """

    path: FieldPath
    slot: Slot
    owner: type[BaseModel] | None = None
    around: Slot = NOTHING


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple, Sequence, set, frozenset) or annotation in (list, tuple)


def slot_of(annotation: Any, field: FieldInfo | None = None) -> Slot:
    """Take an annotation apart: unions, `Annotated`, `None` and the discriminator."""
    constraints = tuple(field.metadata) if field is not None else ()
    named = field.discriminator if field is not None else None
    slot = _flatten(annotation, constraints)
    return replace(slot, field=field, discriminator=named if isinstance(named, str) else slot.discriminator)


def field_slot(model: type[BaseModel], name: str) -> Slot:
    field = model.model_fields.get(name)
    return NOTHING if field is None else slot_of(field.annotation, field)


def _flatten(annotation: Any, constraints: tuple[Any, ...]) -> Slot:
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *extra = get_args(annotation)
        discriminator = None
        for note in extra:
            if isinstance(note, FieldInfo):
                constraints = (*constraints, *note.metadata)
                discriminator = note.discriminator if isinstance(note.discriminator, str) else discriminator
            else:
                constraints = (*constraints, note)
        slot = _flatten(base, constraints)
        return replace(slot, discriminator=discriminator or slot.discriminator)
    if origin in (Union, types.UnionType):
        parts = [_flatten(part, constraints) for part in get_args(annotation)]
        return Slot(
            tuple(found for part in parts for found in part.alternatives),
            any(part.optional for part in parts),
            next((part.discriminator for part in parts if part.discriminator), None),
        )
    if annotation is type(None):
        return Slot((), optional=True)
    return Slot((Alternative(annotation, constraints),))


def locate(model: type[BaseModel], location: Sequence[str | int], tree: Any = None) -> Found:
    """Follow a pydantic error location through the types, leaving out the names of union branches.

    With the `tree` it may be a plain path: the kinds are then looked up in the tree's own values.
    """
    found = Found((), Slot((Alternative(model, ()),)))
    for part in location:
        if tree is not None:
            if found.slot.kinds() and isinstance(tree, dict):
                found = _step(found, str(tree.get(found.slot.discriminator)))
            tree = tree[part]
        found = _step(found, part)
    return found


def _step(found: Found, part: str | int) -> Found:
    slot = found.slot
    kinds = slot.kinds()
    if part in kinds and isinstance(part, str):
        chosen = replace(slot, alternatives=(Alternative(kinds[part], ()),), discriminator=None)
        return replace(found, slot=chosen, around=slot)
    if len(slot.alternatives) > 1:
        return replace(found, slot=_branch(slot, str(part)))
    models = slot.models()
    if models:
        around = found.around if found.around.kinds() and models[0] in found.around.models() else slot
        return Found((*found.path, part), field_slot(models[0], str(part)), models[0], around)
    inner = slot.item(mapping=False) if isinstance(part, int) else slot.item(mapping=True)
    if inner is not None and part != "[key]":
        return Found((*found.path, part), inner)
    return found


def _branch(slot: Slot, label: str) -> Slot:
    """The branch of a union that pydantic calls `label`; the whole union where that is a scalar."""
    for alternative in slot.alternatives:
        if is_model(alternative.type) and (alternative.type.__name__ == label or label.startswith("tagged-union")):
            members = tuple(other for other in slot.alternatives if is_model(other.type))
            if label.startswith("tagged-union"):
                return replace(slot, alternatives=members)
            return replace(slot, alternatives=(alternative,), discriminator=None)
        container = label.split("[")[0]
        if (is_list(alternative.type) and container in ("list", "tuple", "set", "frozenset")) or (
            get_origin(alternative.type) is dict and container == "dict"
        ):
            return replace(slot, alternatives=(alternative,))
    return slot


def places_of_field(model: type[BaseModel], name: str) -> list[str]:
    """Every dotted place in the tree that has a field of this name, for a field put in the wrong spot."""
    return sorted({".".join(path) for path, _, field in every_field(model) if field == name})


def every_field(
    model: type[BaseModel], path: tuple[str, ...] = (), inside: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[BaseModel], str]]:
    """All fields of the tree as (dotted path with `*` for items, model, field name), depth first."""
    if model in inside:
        return
    for name in model.model_fields:
        place = (*path, name)
        yield place, model, name
        for below, nested in models_below(field_slot(model, name)):
            yield from every_field(nested, (*place, *below), (*inside, model))


def models_below(slot: Slot) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """The models that may stand in a place or, with `*`, inside the list or mapping there."""
    for model in slot.models():
        yield (), model
    for mapping in (False, True):
        inner = slot.item(mapping=mapping)
        if inner is not None:
            for below, model in models_below(inner):
                yield ("*", *below), model


def spoken(words: Sequence[str], last: str = "or") -> str:
    """`["a", "b", "c"]` as "a, b or c"."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def _describe(found: Alternative) -> str:
    annotation, limits = found.type, _limits(found.constraints)
    choices = Slot((found,)).choices()
    if choices:
        return spoken(choices)
    if annotation in (int, float):
        return ("a whole number" if annotation is int else "a number") + _range(limits)
    if is_model(annotation):
        return f"a mapping with the fields {spoken(list(annotation.model_fields), 'and')}"
    if is_list(annotation):
        inner = Slot((found,)).item(mapping=False)
        exact = get_args(annotation) if get_origin(annotation) is tuple else ()
        count = f"{len(exact)} " if exact and exact[-1] is not Ellipsis else ""
        return "a list" + (f" of {count}{_plural(inner)}" if inner is not None else "") + _length(limits, "item")
    if get_origin(annotation) in (dict, Mapping) or annotation is dict:
        inner = Slot((found,)).item(mapping=True)
        return "a mapping of names" + (f", each to {inner.describe()}" if inner is not None else "")
    word = PLAIN_WORDS.get(annotation) or str(getattr(annotation, "__name__", annotation))
    pattern = limits.get("pattern")
    return word + _length(limits, "character") + (f" that matches {pattern}" if pattern else "")


def _plural(slot: Slot) -> str:
    described = slot.describe()
    for one, many in (("a whole number", "whole numbers"), ("a number", "numbers"), ("a path", "paths")):
        if described.startswith(one):
            return many + described.removeprefix(one)
    return f"values, each {described}" if described.startswith("a ") else described


def _limits(constraints: Sequence[Any]) -> dict[str, Any]:
    """Ranges and lengths by their names in annotated_types, whatever object carries them."""
    limits: dict[str, Any] = {}
    for constraint in constraints:
        for name in ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern"):
            value = getattr(constraint, name, None)
            if value is not None:
                limits[name] = value
    return limits


def _range(limits: dict[str, Any]) -> str:
    low = {name: number(limits[name]) for name in ("ge", "gt") if name in limits}
    high = {name: number(limits[name]) for name in ("le", "lt") if name in limits}
    if "ge" in low and "le" in high:
        text = f" from {low['ge']} to {high['le']}"
    else:
        lower = f"of at least {low['ge']}" if "ge" in low else f"above {low['gt']}" if low else ""
        upper = f"at most {high['le']}" if "le" in high else f"below {high['lt']}" if high else ""
        text = " " + " and ".join(word for word in (lower, upper) if word) if lower or upper else ""
    return text + (f", a multiple of {number(limits['multiple_of'])}" if "multiple_of" in limits else "")


def _length(limits: dict[str, Any], unit: str) -> str:
    low, high = limits.get("min_length"), limits.get("max_length")
    if low is not None and low == high:
        return f", {low} {unit}{'s' if low != 1 else ''}"
    parts = [f"at least {low}"] if low else []
    parts += [f"at most {high}"] if high is not None else []
    last = high if high is not None else low
    return f", {' and '.join(parts)} {unit}{'s' if last != 1 else ''}" if parts else ""


def number(value: Any) -> str:
    """A limit as a person writes it: 1,000,000 and 0.0001 and 1e-12, without a tail of .0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return f"{value:,}" if isinstance(value, int) else repr(value)
