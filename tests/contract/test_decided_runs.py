"""What decided a few answers of a run: it is there for texts, tables and images, it is what explaining the written
model gives, and the run without it is the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.toy_rows import image_file, image_recipe, table_file, table_recipe
from tests.contract.toy_run import (
    Options,
    assert_same,
    at,
    labelled_file,
    labelled_recipe,
    outcome,
    quick,
    run,
    run_once,
    terminate,
)

import groundup
from groundup.report import collect, render, write_report
from groundup.run import measuring, prediction
from groundup.run.explained import Explanation
from groundup.run.explaining import explain_prediction

KINDS: dict[str, Callable[[Path], Options]] = {
    "text": lambda root: labelled_recipe(labelled_file(root, "classify"), "classify"),
    "decoded": lambda root: labelled_recipe(labelled_file(root, "classify"), "classify", "llama"),
    "recurrent": lambda root: labelled_recipe(
        labelled_file(root, "classify"), "classify", model={"family": "recurrent_text", "width": 16, "layers": 1}
    ),
    "scored": lambda root: labelled_recipe(labelled_file(root, "regress"), "regress"),
    "table": lambda root: table_recipe(table_file(root)),
    "numbers": lambda root: table_recipe(table_file(root, "regress"), "regress"),
    "embedded": lambda root: table_recipe(
        table_file(root), data__preprocessing={"categories": "embed", "unseen": "zeros"}
    ),
    "images": lambda root: image_recipe(image_file(root)),
    "colour": lambda root: image_recipe(image_file(root, channels=3)),
}


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        yield


@pytest.fixture(scope="module")
def recipe_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Options]:
    root = tmp_path_factory.mktemp("rows")
    return lambda kind: KINDS[kind](root)


@pytest.fixture(scope="module")
def straight(recipe_of: Callable[[str], Options], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_once(recipe_of, tmp_path_factory.mktemp)


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def again(folder: Path, row: dict[str, Any]) -> Explanation:
    """The same row, explained by the model that the run has written."""
    loaded = groundup.load(folder, device="cpu")
    how: dict[str, Any] = {"label": row["label"], "steps": row["steps"]}
    place = row["place"]
    if row["kind"] == "image":
        file, _, number = place.partition(", image ")
        return explain_prediction(loaded, files=[file.removesuffix(":images")], row=int(number), **how)
    file, _, line = place.rpartition(":")
    if row["kind"] == "text":
        text = json.loads(Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1])["text"]
        return explain_prediction(loaded, text=text, **how)
    return explain_prediction(loaded, files=[file], row=int(line) - 1, **how)


@pytest.mark.parametrize("kind", KINDS)
def test_the_section_is_what_explaining_the_written_model_gives(straight: Any, kind: str) -> None:
    folder = straight(kind)
    found = results(folder)["explanations"]
    assert found["data"] == "test" and found["left_out"] == 0
    rows = found["rows"]
    assert 2 <= len(rows) <= 4 and [row["right"] for row in rows] == sorted(row["right"] for row in rows)
    for row in rows:
        own = again(folder, row)
        assert (row["score"], row["sum"]) == pytest.approx((own.found.score, float(own.found.values.sum())), abs=1e-3)
        assert [part["name"] for part in row["parts"]] == [part.name for part in own.parts]
        amounts = [part.amount for part in own.parts]
        assert [part["amount"] for part in row["parts"]] == pytest.approx(amounts, abs=1e-3, rel=1e-3)
        assert row["gap"] == pytest.approx(row["sum"] - (row["score"] - row["baseline_score"]), abs=1e-9)
        assert row["label"] is None or row["right"] == (row["label"] == row["truth"])
        assert len(row["pictures"]) == (2 if row["kind"] == "image" else 0)


@pytest.mark.parametrize("kind", ["text", "table", "images"])
def test_the_page_says_the_gap_that_was_computed(straight: Any, kind: str) -> None:
    folder = straight(kind)
    write_report(folder)  # from the files of the run alone
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="decided"' in page
    for row in results(folder)["explanations"]["rows"]:
        assert f"add up to {row['sum']:+.6g}: gap {row['gap']:+.2g}".replace("-", "−") in page


@pytest.mark.parametrize("kind", ["text", "decoded", "recurrent", "table", "images"])
def test_a_run_without_the_section_is_the_same_run(
    recipe_of: Callable[[str], Options], straight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with_it = straight(kind)
    for room in (measuring, prediction):
        monkeypatch.setattr(room, "decided", lambda *given: {})
    run(recipe_of(kind), tmp_path / "run")
    assert "explanations" not in results(tmp_path / "run")
    assert_same(outcome(tmp_path / "run"), outcome(with_it))
    own = ("explanations", "seconds", "measured", "hardware")
    before, after = (
        {name: value for name, value in results(folder).items() if name not in own}
        for folder in (with_it, tmp_path / "run")
    )
    assert before == after


@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_resumed_run_says_the_same(
    recipe_of: Callable[[str], Options], straight: Any, tmp_path: Path, kind: str
) -> None:
    run(recipe_of(kind), tmp_path / "run", listeners=(at("step", 3, terminate),))
    assert "explanations" not in results(tmp_path / "run")
    run(recipe_of(kind), tmp_path / "run", resume=True)
    assert results(tmp_path / "run")["explanations"] == results(straight(kind))["explanations"]


@pytest.mark.parametrize("kind", ["text", "table", "images"])
def test_the_model_and_the_random_states_are_left_as_they_were(
    recipe_of: Callable[[str], Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    seen: list[bool] = []
    real = measuring.decided

    def state(model: torch.nn.Module) -> Any:
        tensors = [tensor.clone() for tensor in model.state_dict().values()]
        hooks = [len(module._forward_hooks) for module in model.modules()]
        gradients = [parameter.grad is None for parameter in model.parameters()]
        modes = [module.training for module in model.modules()]
        asked = [parameter.requires_grad for parameter in model.parameters()]
        return tensors, (hooks, gradients, modes, asked), torch.get_rng_state()

    def watched(model: torch.nn.Module, *given: Any) -> dict[str, Any]:
        model.train()
        before = state(model)
        found = real(model, *given)
        after = state(model)
        seen.append(bool(found["explanations"]["rows"]))
        assert before[1] == after[1] and torch.equal(before[2], after[2])
        assert all(torch.equal(one, other) for one, other in zip(before[0], after[0], strict=True))
        return found

    for room in (measuring, prediction):
        monkeypatch.setattr(room, "decided", watched)
    run(recipe_of(kind), tmp_path / "run")
    assert seen == [True]


def test_whatever_an_explanation_raises_the_run_is_finished(
    recipe_of: Callable[[str], Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **more: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr("groundup.run.deciding.explained", broken)
    assert run(recipe_of("table"), tmp_path / "row").outcome == "finished"
    monkeypatch.setattr("groundup.run.deciding.chosen", broken)
    assert run(recipe_of("table"), tmp_path / "all").outcome == "finished"
    for name in ("row", "all"):
        assert "explanations" not in results(tmp_path / name)
        assert 'id="decided"' not in render(collect(tmp_path / name))


def test_a_model_too_large_says_how_to_explain_a_row(
    recipe_of: Callable[[str], Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.run.deciding.MOST_OPERATIONS", 1.0)
    run(recipe_of("text"), tmp_path / "run")
    found = results(tmp_path / "run")["explanations"]
    assert found["rows"] == [] and found["left_out"] >= 2
    page = render(collect(tmp_path / "run"))
    assert "would have taken too long here" in page and "groundup explain-prediction RUN" in page
