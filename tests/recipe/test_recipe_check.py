"""The rules between fields for adapters, heads, families and labelled data: by code, path and words."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.errors import CATALOGUE, GroundupError
from groundup.recipe.check import check
from groundup.recipe.load import load_with_places
from groundup.recipe.tree import Recipe
from groundup.recipe.yaml import dump

TEXT: dict[str, Any] = {
    "model": {"depth": 1}, "data": {"kind": "text", "files": ["a.txt"]}, "budget": {"steps": 10}
}  # fmt: skip
LABELLED: dict[str, Any] = {**TEXT, "data": {"kind": "labelled", "files": ["a.csv"]}}
TUNED: dict[str, Any] = {**TEXT, "model": {"init_from": "base"}}


def faults(recipe: dict[str, Any], **sections: Any) -> dict[str, GroundupError]:
    """All faults by their path; sections are merged into those of the recipe."""
    whole = dict(recipe)
    for name, section in sections.items():
        known = whole.get(name)
        whole[name] = {**known, **section} if isinstance(section, dict) and isinstance(known, dict) else section
    loaded, places = load_with_places(dump(whole), [], Recipe)
    try:
        check(loaded, places)
    except GroundupError as error:
        found = [error, *error.others]
        for fault in found:
            assert fault.code in CATALOGUE and fault.why and fault.fix and fault.exit_code == 2
        return {fault.where.split(" ")[0]: fault for fault in found}
    return {}


def one(recipe: dict[str, Any], code: str, path: str, **sections: Any) -> GroundupError:
    found = faults(recipe, **sections)
    assert list(found) == [path], found
    assert found[path].code == code
    return found[path]


def test_the_plain_recipes_have_no_fault() -> None:
    assert not faults(TEXT) and not faults(LABELLED) and not faults(TUNED)
    assert not faults(TUNED, adapters=[{"kind": "quantize"}, {"kind": "lora"}])
    assert not faults(TEXT, model={"family": "moe", "experts": 4, "experts_per_token": 4})
    assert not faults(LABELLED, model={"family": "bert"}, head={"pooler": True, "dropout": 0.1})


def test_an_encoder_cannot_write() -> None:
    fault = one(TEXT, "E-RECIPE-043", "model.family", model={"family": "bert"})
    assert "data.kind=labelled" in fault.fix
    chat = {"kind": "chat", "files": ["a.jsonl"]}
    one({**TEXT, "data": chat}, "E-RECIPE-043", "model.family", model={"family": "bert"})
    assert not faults(LABELLED, model={"family": "bert"})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"experts_per_token": 9}, "9 > model.experts 8"),
        ({"experts": 2, "experts_per_token": 3}, "3 > model.experts 2"),
    ],
)
def test_no_more_experts_per_token_than_there_are(model: dict[str, Any], said: str) -> None:
    fault = one(TEXT, "E-RECIPE-044", "model.experts_per_token", model={"family": "moe", **model})
    assert said in fault.what


def test_adapters_need_a_model_that_exists() -> None:
    fault = one(TEXT, "E-RECIPE-045", "adapters", adapters=[{"kind": "lora"}])
    assert "model.init_from" in fault.fix
    one(LABELLED, "E-RECIPE-045", "adapters", adapters=[{"kind": "freeze", "embeddings": True}])


def test_quantize_comes_first_and_not_alone() -> None:
    fault = one(TUNED, "E-RECIPE-046", "adapters", adapters=[{"kind": "lora"}, {"kind": "quantize"}])
    assert "to the front" in fault.fix
    fault = one(TUNED, "E-RECIPE-046", "adapters", adapters=[{"kind": "quantize"}])
    assert "kind: lora" in fault.fix
    labelled = {**LABELLED, "model": {"init_from": "base"}}
    assert not faults(labelled, adapters=[{"kind": "quantize"}]), "there the head is trained"


@pytest.mark.parametrize(
    ("task", "kind"),
    [("classify", "classify"), ("multilabel", "multilabel"), ("tag", "tag"), ("regress", "regress"),
     ("embed", "contrast"), ("choice", "choice")],
)  # fmt: skip
def test_the_objective_is_that_of_the_data(task: str, kind: str) -> None:
    assert not faults(LABELLED, data={"task": task}, objective={"kind": kind})
    fault = one(LABELLED, "E-RECIPE-047", "objective.kind", data={"task": task}, objective={"kind": "next_token"})
    assert f"objective.kind={kind}" in fault.fix
    one(TEXT, "E-RECIPE-047", "objective.kind", objective={"kind": kind})


UNUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("model.experts", TEXT, {"model": {"experts": 4}}),
    ("model.experts_per_token", TEXT, {"model": {"experts_per_token": 1}}),
    ("model.sliding_window", TEXT, {"model": {"family": "gpt2", "sliding_window": 8}}),
    ("model.rotary_base", LABELLED, {"model": {"family": "bert", "rotary_base": 500.0}}),
    ("model.family", TUNED, {"model": {"family": "gpt2"}}),
    ("model.experts", TUNED, {"model": {"experts": 4}}),
    ("head.pooling", TEXT, {"head": {"pooling": "mean"}}),
    ("head.pooler", TEXT, {"head": {"pooler": True}}),
    ("head.dropout", TEXT, {"head": {"dropout": 0.1}}),
    ("head.normalise", TEXT, {"head": {"normalise": False}}),
    ("head.normalise", LABELLED, {"head": {"normalise": False}}),
    ("head.pooling", LABELLED, {"data": {"task": "tag"}, "head": {"pooling": "mean"}}),
    ("head.pooler", LABELLED, {"data": {"task": "tag"}, "head": {"pooler": True}}),
    ("data.balanced", LABELLED, {"data": {"task": "regress", "balanced": True}}),
    ("data.max_length", LABELLED, {"data": {"max_length": 200}}),
    ("data.max_length", LABELLED, {"data": {"max_length": 65, "context": 64}}),
    ("events.prompts", LABELLED, {"events": {"prompts": ["a"]}}),
    ("events.sample_every", LABELLED, {"events": {"sample_every": 3}}),
    ("events.sample_tokens", LABELLED, {"events": {"sample_tokens": 3}}),
    ("events.early_stopping", LABELLED, {"events": {"early_stopping": {}}, "data": {"split": {"validation": 0.0}}}),
    ("adapters.0.unfreeze", TUNED,
     {"adapters": [{"kind": "freeze", "all_but_last": 0, "unfreeze": [{"step": 10, "last_layers": 1}]}]}),
    ("adapters.0.group", TUNED, {"adapters": [{"kind": "quantize", "bits": "int8", "group": 32}, {"kind": "lora"}]}),
    ("adapters.0.double", TUNED,
     {"adapters": [{"kind": "quantize", "bits": "int8", "double": False}, {"kind": "lora"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "recipe", "sections"), UNUSED)
def test_a_field_that_does_nothing_is_a_fault(path: str, recipe: dict[str, Any], sections: dict[str, Any]) -> None:
    fault = one(recipe, "E-RECIPE-030", path, **sections)
    assert fault.what.startswith(f"{path} has no effect")


def test_what_early_stopping_may_watch_depends_on_the_task() -> None:
    for task, metric, right in (
        ("classify", "f1", "loss"),
        ("embed", "loss", "reciprocal_rank"),
        ("regress", "accuracy", "loss"),
    ):
        fault = one(
            LABELLED, "E-RECIPE-040", "events.early_stopping.metric",
            data={"task": task}, events={"early_stopping": {"metric": metric}},
        )  # fmt: skip
        assert right in fault.fix + fault.why
        assert not faults(LABELLED, data={"task": task}, events={"early_stopping": {"metric": right}})


def test_a_step_of_labelled_rows_is_a_multiple_of_their_own_usual_context() -> None:
    assert not faults(LABELLED, budget={"tokens_per_step": 128})
    assert list(faults(TEXT, budget={"tokens_per_step": 128})) == ["budget.tokens_per_step"]


def test_all_faults_come_at_once() -> None:
    found = faults(
        LABELLED,
        model={"family": "gpt2", "experts": 4},
        adapters=[{"kind": "lora"}, {"kind": "quantize"}],
        head={"normalise": True},
        objective={"kind": "tag"},
        data={"task": "regress", "balanced": True},
        events={"prompts": ["a"]},
    )
    assert set(found) == {
        "model.experts", "adapters", "head.normalise", "objective.kind", "data.balanced", "events.prompts",
    }  # fmt: skip
