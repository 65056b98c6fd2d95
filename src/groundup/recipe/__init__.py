"""The recipe: typed, strict, resolved. What a run is asked to do, in one tree of frozen options.

    yaml         text to plain values with their places, and back
    shape        what the types allow, in words
    load         text and overrides to a recipe, or every fault at once
    faults       each fault as a sentence with its place and its fix
    difference   digest, comparison, writing
    reference    the Markdown reference, from the types

These know no field; the tree itself, its checks and its derived numbers stand beside them. The tree takes the
option types from the parts that they belong to; no part of groundup imports the recipe.
"""

from groundup.recipe.difference import Change, difference, digest, format_difference, plain, to_yaml
from groundup.recipe.faults import Places, raise_all
from groundup.recipe.load import apply_overrides, load, load_with_places, validate

__all__ = [
    "Change",
    "Places",
    "apply_overrides",
    "difference",
    "digest",
    "format_difference",
    "load",
    "load_with_places",
    "plain",
    "raise_all",
    "to_yaml",
    "validate",
]
