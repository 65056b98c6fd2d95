"""Digest, comparison and writing: equal recipes are equal, and what is written loads back."""

from __future__ import annotations

from toy_recipe import Toy

from groundup.recipe import difference, digest, format_difference, load, plain, to_yaml

TEXT = """
data: {files: [a.txt, 唐诗/*.txt]}
optim: {model: {kind: adamw, lr: 1e-3}, critic: {kind: sgd}}
adapters: [{kind: sgd, momentum: 0.5}]
"""


def test_digest_sees_values_and_not_their_form() -> None:
    one = load(TEXT, [], Toy)
    other = load(
        "adapters:\n- momentum: 5e-1\n  kind: sgd\noptim:\n  critic:\n    kind: sgd\n  model:\n"
        "    lr: 0.001\n    kind: adamw\ndata:\n  files:\n  - a.txt\n  - '唐诗/*.txt'\n",
        [],
        Toy,
    )
    assert digest(one) == digest(other) and len(digest(one)) == 64
    assert digest(load(TEXT, ["optim.model.lr=1"], Toy)) == digest(load(TEXT, ["optim.model.lr=1.0"], Toy))
    assert digest(load(TEXT, ["model.depth=5"], Toy)) != digest(one)


def test_written_recipe_loads_to_an_equal_one() -> None:
    recipe = load(TEXT, [], Toy)
    text = to_yaml(recipe, {("model", "depth"): "one dial"})
    assert "  depth: 6  # one dial\n" in text
    again = load(text, [], Toy)
    assert again == recipe and digest(again) == digest(recipe) and plain(again) == plain(recipe)


def test_difference_lists_each_field() -> None:
    before = load(TEXT, [], Toy)
    after = load(
        TEXT,
        ["optim.model.lr=3e-4", "optim.critic={kind: adamw}", "adapters.0.momentum=0.9", "data.files=[b]"],
        Toy,
    )
    changes = {".".join(map(str, c.path)): (c.before, c.after) for c in difference(before, after)}
    assert changes["optim.model.lr"] == (1e-3, 3e-4)
    assert changes["adapters.0.momentum"] == (0.5, 0.9)
    assert changes["data.files"] == (["a.txt", "唐诗/*.txt"], ["b"])
    assert changes["optim.critic.kind"] == ("sgd", "adamw")
    shown = format_difference(difference(before, after))
    assert "optim.model.lr         0.001 → 0.0003" in shown
    assert "optim.critic.momentum  0.9 → (absent)" in shown
    assert difference(before, before) == [] and format_difference([]) == ""


def test_difference_takes_plain_trees_and_tells_types_apart() -> None:
    changes = difference({"a": 1, "b": None}, {"a": True, "c": None})
    assert [change.path for change in changes] == [("a",), ("b",), ("c",)]
