"""The recipe reference, written from the types: every field with its type, default, range and meaning.

    python -m groundup.recipe.reference docs/recipe.md      # without a path: to the screen

A table for each mapping of the recipe and for each kind that may stand in it. No text about a field is kept
here: what a field means is said once, in its own description.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from groundup.recipe.shape import Slot, field_slot, models_below, spoken
from groundup.recipe.yaml import dump

LONGEST_DEFAULT = 40  # characters of a default value in a table


def reference(model: type[BaseModel]) -> str:
    """The Markdown reference of a tree of models: a section for each place that has fields."""
    lines = [
        "# The recipe",
        "",
        "<!-- Written by `make docs` from the types in groundup.recipe: edit those, not this file. -->",
        "",
        *_paragraph(model),
        "A field is named by its dotted path; on the command line `path=value` overrides it"
        " (`groundup train recipe.yaml budget.minutes=10`). An unknown field is an error, and so is a value"
        " of another type or outside the range that is given here.",
        "",
    ]
    documented: dict[type[BaseModel], str] = {}
    lines += _section(model, (), documented)
    return "\n".join(lines).rstrip() + "\n"


def _section(model: type[BaseModel], path: tuple[str, ...], documented: dict[Any, str]) -> Iterator[str]:
    """The table of one model's fields, then the sections of what is inside them."""
    documented[model] = ".".join(path) or "the top level"
    yield from _table(model)
    for name in model.model_fields:
        slot = field_slot(model, name)
        for below, nested in models_below(slot):
            place = (*path, name, *below)
            tag = _tag(slot, nested)
            yield f"## `{'.'.join(place)}`" + (f", {tag}" if tag else "")
            yield ""
            if nested in documented:
                yield f"The same fields as `{documented[nested]}`."
                yield ""
                continue
            yield from _paragraph(nested)
            yield from _section(nested, place, documented)


def _tag(slot: Slot | None, model: type[BaseModel]) -> str:
    """`kind: adamw` where the model is one of several kinds."""
    while slot is not None:
        own = [tag for tag, member in slot.kinds().items() if member is model]
        if own:
            return f"{slot.discriminator}: {spoken(own)}"
        slot = slot.item(mapping=False) or slot.item(mapping=True)
    return ""


def _paragraph(model: type[BaseModel]) -> Iterator[str]:
    """The first paragraph of the model's docstring."""
    first = (model.__doc__ or "").strip().split("\n\n")[0]
    # Pydantic's own docstring is inherited by models that have none.
    if first and model.__doc__ != BaseModel.__doc__:
        yield " ".join(first.split())
        yield ""


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "| field | value | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name in model.model_fields:
        slot = field_slot(model, name)
        described = slot.describe() if not _is_plain_mapping(slot) else "a mapping (see below)"
        meaning = (slot.field.description if slot.field is not None else None) or ""
        yield f"| `{name}` | {_cell(described)} | {_cell(_default(slot))} | {_cell(meaning)} |"
    yield ""


def _is_plain_mapping(slot: Slot) -> bool:
    """Whether nothing but one model stands here: its fields have a table of their own."""
    return len(slot.alternatives) == 1 and bool(slot.models()) and not slot.kinds() and not slot.optional


def _default(slot: Slot) -> str:
    field = slot.field
    if field is None or field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see below"
    plain = list(value) if isinstance(value, list | tuple) else value
    if isinstance(plain, list | dict) and plain:
        items = plain.values() if isinstance(plain, dict) else plain
        if any(isinstance(item, BaseModel | dict | list | tuple) for item in items):
            return "see below"
    text = dump(str(plain) if isinstance(plain, Path) else plain).strip()
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else "see below"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the reference of groundup's recipe to the path in `arguments`, or print it."""
    from groundup.recipe.tree import Recipe

    text = reference(Recipe)
    if arguments:
        Path(arguments[0]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
