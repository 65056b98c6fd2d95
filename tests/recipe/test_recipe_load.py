"""Loading: every fault at once, each with its place, the wrong value, what is legal and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from toy_recipe import AdamW, Cosine, Toy

from groundup.errors import CATALOGUE, GroundupError
from groundup.recipe import load, load_with_places

GOOD = "data: {files: [a.txt]}\n"


def faults(text: str | Path, *overrides: str) -> dict[str, GroundupError]:
    """All faults of a recipe by the dotted path at the end of their first `where` line."""
    with pytest.raises(GroundupError) as caught:
        load(text, list(overrides), Toy)
    found = [caught.value, *caught.value.others]
    for fault in found:
        assert fault.code in CATALOGUE and fault.why and fault.fix and fault.exit_code == 2
    return {fault.where.split("\n")[0].split("  ")[-1]: fault for fault in found}


def one(text: str, *overrides: str) -> GroundupError:
    found = faults(text, *overrides)
    assert len(found) == 1, list(found)
    return next(iter(found.values()))


def test_a_whole_recipe_loads_into_typed_frozen_values() -> None:
    recipe = load(
        "model: {depth: 2, dropout: 0}\ndata: {files: [~/a b.txt]}\n"
        "optim: {model: {kind: adamw, lr: 1e-4, schedule: {kind: cosine, warmup: 5}}}\n",
        [],
        Toy,
    )
    assert recipe.data.files == (Path("~/a b.txt"),)
    optimizer = recipe.optim["model"]
    assert isinstance(optimizer, AdamW) and optimizer.lr == 1e-4 and optimizer.schedule == Cosine(warmup=5)
    assert recipe.model.dropout == 0.0 and isinstance(recipe.model.dropout, float)
    with pytest.raises(ValidationError):
        recipe.model.depth = 3  # type: ignore[misc]


def test_all_faults_come_at_once_in_the_order_of_the_file() -> None:
    text = (
        "model: {depth: 0, widht: 64}\n"
        "data: {files: a.txt, clean: yes}\n"
        "optim:\n  model:\n    kind: adamw\n    momentum: 0.9\n  critic: {kind: adam}\n"
        "budget: {steps: 3.0}\nprecision: floot32\n"
    )
    found = faults(text, "budget.minutes=-1", "nonsense")
    assert list(found)[1:] == [
        "model.depth", "model.widht", "data.files", "data.clean", "optim.model.momentum", "optim.critic.kind",
        "budget.steps", "precision", "budget.minutes",
    ]  # fmt: skip
    assert next(iter(found.values())).code == "E-RECIPE-014"


def test_U1_unknown_field_has_line_column_and_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "my recipe.yaml"
    path.write_text(GOOD + "budget:\n  mintues: 3\n")
    fault = faults(path)["budget.mintues"]
    assert fault.code == "E-RECIPE-007" and fault.where == f"{path}:3:3  budget.mintues"
    assert "did you mean minutes?" in fault.fix and "fields here: steps, minutes" in fault.fix


def test_a_field_in_the_wrong_place_is_sent_home() -> None:
    assert "did you mean adapters.*.lr or optim.*.lr?" in one(GOOD + "lr: 3\n").fix


def test_R17_out_of_range_names_field_value_and_legal_range() -> None:
    cases = {
        "model: {depth: 0}": "model.depth is 0, expected a whole number from 1 to 96",
        "model: {depth: 97}": "model.depth is 97, expected a whole number from 1 to 96",
        "model: {heads: 3}": "model.heads is 3, expected a whole number of at least 1, a multiple of 2",
        "model: {dropout: 1.0}": "model.dropout is 1.0, expected auto, or a number of at least 0 and below 1",
        "budget: {steps: 0}": "budget.steps is 0, expected a whole number from 1 to 1,000,000, or null",
        "optim: {a: {kind: adamw, lr: 0}}": "optim.a.lr is 0, expected a number above 0 and at most 10",
        "optim: {a: {kind: adamw, lr: 1e9}}": "optim.a.lr is 1000000000.0, expected a number above 0"
        " and at most 10",
        "optim: {a: {kind: sgd, lr: .nan}}": "optim.a.lr is nan, expected a number above 0",
        "optim: {a: {kind: sgd, lr: .inf}}": "optim.a.lr is inf, expected a number above 0",
        "optim: {a: {kind: adamw, betas: [1]}}": "optim.a.betas is a list of one item,"
        " expected a list of 2 numbers",
        "optim: {a: {kind: adamw, betas: [1, 1, 1]}}": "optim.a.betas is a list of 3 items,"
        " expected a list of 2 numbers",
    }
    for text, what in cases.items():
        fault = one(GOOD + text)
        assert (fault.code, fault.what) == ("E-RECIPE-010", what)
    assert one("data: {files: []}").what.endswith("expected a list of paths, at least 1 item")


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("model: {depth: 3.0}", "model.depth is 3.0, expected a whole number", "write 3"),
        ("model: {depth: true}", "model.depth is true, expected a whole number", "set model.depth"),
        ("model: {depth: '3'}", 'model.depth is "3", expected', "write 3"),
        ("model: {depth: 1_0}", 'model.depth is "1_0", expected', "write 10"),
        ("model: 3", "model is 3, expected a mapping with the fields family, depth", "set model to"),
        ("model: null", "model is null, expected a mapping", "set model to"),
        ("optim: []", "optim is a list of 0 items, expected a mapping of names", "set optim to"),
        ("optim: {a: 3}", "optim.a is 3, expected a mapping with kind: adamw or sgd", "set optim.a"),
        ("adapters: {kind: sgd}", "adapters is a mapping (kind), expected a list", "set adapters to"),
        ("budget: {minutes: 6 min}", 'budget.minutes is "6 min", expected a number above 0', "set budget"),
    ],
)
def test_wrong_types_show_the_value_and_what_is_expected(text: str, what: str, fix: str) -> None:
    fault = one(GOOD + text)
    assert fault.code == "E-RECIPE-009" and fault.what.startswith(what) and fault.fix.startswith(fix)


def test_usual_slips_in_text_and_lists_are_mended() -> None:
    assert one("data: {files: a.txt}").fix == 'put it in brackets: ["a.txt"]'
    assert one("data: {files: [a], clean: on}").fix == "write true"
    assert one("data: {files: [a], name: 3}").fix == 'put it in quotes: "3"'
    assert one("data: {files: [a], columns: {prompt: 3}}").what.startswith("data.columns.prompt is 3")


def test_U1_unknown_choice_has_the_nearest() -> None:
    fault = one(GOOD + "precision: bfloat")
    assert fault.code == "E-RECIPE-011" and fault.fix == "did you mean bfloat16?"
    assert fault.what == 'precision is "bfloat", expected auto, float32 or bfloat16'
    assert one(GOOD + "model: {dropout: aut}").fix == "did you mean auto?"
    assert one(GOOD + "model: {family: lama}").fix == "did you mean llama?"


def test_kinds_are_listed_and_foreign_fields_named() -> None:
    fault = one(GOOD + "optim: {model: {kind: adam}}")
    assert fault.code == "E-RECIPE-012" and fault.what == 'optim.model.kind is "adam", expected adamw or sgd'
    assert fault.where == "recipe:2:17  optim.model.kind" and fault.fix == "did you mean adamw?"
    fault = one(GOOD + "adapters: [{lr: 1}]")
    assert fault.what == "adapters.0.kind is missing, expected adamw or sgd"
    fault = one(GOOD + "adapters: [{kind: adamw, momentum: 0.5}]")
    assert fault.code == "E-RECIPE-013"
    assert fault.what == 'field "momentum" belongs to kind sgd; here kind is adamw'
    assert fault.fix.startswith("set adapters.0.kind=sgd, or remove momentum")
    nested = one(GOOD + "optim: {a: {kind: adamw, schedule: {kind: constant, warmup: 3}}}")
    assert nested.what == 'field "warmup" belongs to kind cosine; here kind is constant'
    assert "unknown field" in one(GOOD + "optim: {a: {kind: adamw, lrr: 1}}").what


def test_missing_fields_and_checks_of_the_types() -> None:
    fault = one("model: {depth: 2}")
    assert fault.code == "E-RECIPE-008"
    assert fault.what.startswith("data is missing, expected a mapping with the fields files")
    assert one("data: {}").where == "recipe:1:1  data.files"
    fault = one(GOOD + "model: {width: 10}")
    assert fault.code == "E-RECIPE-015" and fault.what == "width 10 is not a multiple of heads 4"
    assert fault.where == "recipe:2:1  model"


def test_overrides_are_applied_and_typed() -> None:
    recipe, places = load_with_places(
        GOOD + "optim: {model: {kind: adamw}}\nadapters: [{kind: sgd}]\nbudget: {minutes: 3}\n",
        [
            "optim.model.lr=3e-4",
            "adapters.0.momentum=0.5",
            "budget.minutes=null",
            "budget.steps=7",
            "data.files=[x.txt, 唐诗.txt]",
            "data.columns.prompt=Question: why?",
            "optim.critic={kind: sgd}",
            "model.depth=2",
            "model.depth=3",
        ],
        Toy,
        name="text",
    )
    assert recipe.optim["model"].lr == 3e-4 and recipe.optim["critic"].kind == "sgd"
    assert recipe.adapters[0].model_dump()["momentum"] == 0.5
    assert recipe.budget.minutes is None and recipe.budget.steps == 7
    assert recipe.data.files == (Path("x.txt"), Path("唐诗.txt"))
    assert recipe.data.columns == {"prompt": "Question: why?"}
    assert recipe.model.depth == 3
    assert places.of(("model", "depth")) == 'override "model.depth=3"'
    assert places.of(("data", "clean")) == "text:1:1"
    assert places.gives(("budget",)) and not places.gives(("model", "heads"))


def test_faults_of_overrides_name_the_override() -> None:
    assert one(GOOD, "budget.mintues=3").where == 'override "budget.mintues=3"  budget.mintues'
    assert "did you mean minutes?" in one(GOOD, "budget.mintues=3").fix
    assert one(GOOD + "model: {depth: 0}", "model.depth=-1").where.startswith('override "model.depth=-1"')
    assert one(GOOD, "optim.model.lr=1").where == 'override "optim.model.lr=1"  optim.model.kind'
    assert one(GOOD, "model.depth.x=1").where == 'override "model.depth.x=1"  model.depth'
    assert one(GOOD, "data.files=[*.txt]").code == "E-RECIPE-003"


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("depth", "not of the form"),
        ("=3", "not of the form"),
        ("model..depth=3", "not of the form"),
        ("model.depth=", "has no value"),
        ("data.files.1=b", 'data.files is a list and has no item "1" (items: 0 to 0)'),
        ("data.files.x=b", 'has no item "x"'),
        ("data.files.0.x=b", 'data.files.0 is "a.txt" and has no fields'),
    ],
)
def test_malformed_overrides(override: str, what: str) -> None:
    fault = one(GOOD, override)
    assert fault.code == "E-RECIPE-014" and what in fault.what


def test_hostile_names_are_escaped() -> None:
    fault = one(GOOD + '"\\e[31mred": 1\n')
    assert "\x1b" not in str(fault) and "\\x1b[31mred" in fault.what
