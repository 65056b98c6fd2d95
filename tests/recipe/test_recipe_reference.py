"""The reference is complete and made of what the types say."""

from __future__ import annotations

from toy_recipe import Toy

from groundup.recipe.reference import reference
from groundup.recipe.shape import every_field, number, spoken


def test_reference_has_every_field_kind_default_and_range() -> None:
    text = reference(Toy)
    for _, _, name in every_field(Toy):
        assert f"| `{name}` |" in text
    assert "## `optim.*`, kind: adamw" in text and "## `optim.*`, kind: sgd" in text
    assert "The same fields as `optim.*`." in text  # adapters take the same kinds
    assert "| `depth` | a whole number from 1 to 96 | `6` |" in text
    assert "| `files` | a list of paths, at least 1 item | *required* | Files or patterns. |" in text
    assert "| `width` | a whole number of at least 8, or null | `null` |" in text
    assert "Adam with decoupled weight decay." in text
    assert "## `optim.*.schedule`, kind: cosine" in text
    assert text == reference(Toy)


def test_words() -> None:
    assert spoken(["a"]) == "a" and spoken(["a", "b", "c"]) == "a, b or c"
    assert number(1e6) == "1,000,000" and number(1e-12) == "1e-12" and number(3) == "3"
