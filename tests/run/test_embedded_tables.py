"""Tables whose categories are embedded, from the recipe to the loaded model: fitted on training rows alone, the same
numbers in training, from files and in Python, explained by column, counted by the plan, and refused where they do not
fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.toy_rows import (
    image_file,
    image_recipe,
    refused,
    table_file,
    table_recipe,
    table_rows,
    work_of,
    write_csv,
)
from tests.contract.toy_run import Options, changed, quick, run

import groundup
from groundup.cli.main import main
from groundup.errors import GroundupError
from groundup.recipe.yaml import dump
from groundup.run.answers import logits_of
from groundup.run.explaining import explain_prediction
from groundup.run.folds import measure_baselines
from groundup.run.network_work import NetworkWork
from groundup.run.networks import LoadedNetwork
from groundup.run.prediction import PredictionWork
from groundup.run.served_classifier import ServedClassifier

EMBED = {"categories": "embed", "unseen": "zeros"}
NAMES = ("size", "weight", "colour", "label")


def rows_of(number: int, seed: int = 0, **also: Any) -> list[dict[str, Any]]:
    return [{name: row[name] for name in NAMES} | also for row in table_rows(number, seed)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """The test set alone has violet."""
    root = tmp_path_factory.mktemp("table")
    file, test = table_file(root), write_csv(root / "test.csv", rows_of(30, 3, colour="violet"))
    return table_recipe(
        file, data__preprocessing=EMBED, data__test_files=[str(test)], data__split={"test": 0.0, "validation": 0.2}
    )


@pytest.fixture(scope="module")
def trained(recipe: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        assert run(recipe, folder).outcome == "finished"
    return folder


def test_codes_are_those_of_the_training_part_alone(recipe: Options, tmp_path: Path) -> None:
    work = work_of(recipe, tmp_path)
    assert isinstance(work, PredictionWork) and work.table is not None
    colours = [row.cells["colour"] for row in work.table.parts["train"].rows]
    [fitted] = work.table.preprocessor.categories
    assert fitted.categories == sorted(set(colours)) == ["amber", "green", "red"]
    codes = {side: part.category_NK for side, part in work.table.parts.items()}
    assert codes["test"] is not None and not codes["test"].any(), "violet is unknown"
    assert codes["train"] is not None and codes["train"][:, 0].tolist() == [
        fitted.categories.index(str(colour)) + 1 for colour in colours
    ]
    assert work.said.embeddings == [(4, 2)] and work.said.shape == (2,)
    assert work.table.card["features"] == 2 and work.table.card["embedded"] == ["colour"]


def test_the_plan_counts_the_embeddings(recipe: Options, tmp_path: Path) -> None:
    work = work_of(recipe, tmp_path)
    assert isinstance(work, NetworkWork)
    assert {"name": "embedding", "parameters": 8} in work.parameter_parts()
    plain = work_of(changed(recipe, data__preprocessing={"unseen": "zeros"}), tmp_path)
    weights = [sum(p.numel() for p in one.network().parameters()) for one in (work, plain)]
    assert weights[0] - weights[1] == 8 + 12 * (2 - 3), "4 vectors of 2 numbers; 2 inputs of 12 units instead of 3"
    assert work.memory(0).weights == 4 * weights[0]


def test_training_files_python_and_the_server_see_the_same(recipe: Options, trained: Path, tmp_path: Path) -> None:
    loaded = groundup.load(str(trained), device="cpu")
    work = work_of(recipe, tmp_path)
    side = work.rows("test")  # type: ignore[attr-defined]
    expected = logits_of(loaded.predictor, side, device=torch.device("cpu"), autocast=None)
    said = [row["probabilities"] for row in loaded.predict(recipe["data"]["test_files"])]
    for row, logits in zip(said, expected, strict=True):
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert [row[label] for label in loaded.labels] == pytest.approx(shares.tolist(), abs=1e-9)
    cells = [dict(row.cells) for row in side.part.rows]
    assert [row["probabilities"] for row in loaded.predict(cells)] == said and loaded.predict([]) == []
    known = {"size": 1.0, "weight": 0.5, "colour": "red"}
    served = ServedClassifier(loaded)
    assert served.predict([known]) == loaded.predict([known]) != loaded.predict([known | {"colour": "amber"}])
    assert {piece["text"] for piece in served.explain(known)["pieces"]} == {
        "size = 1", "weight = 0.5", "colour = red"
    }  # fmt: skip


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion", "saliency"])
def test_a_category_is_explained_as_one_column(trained: Path, tmp_path: Path, method: str) -> None:
    loaded = groundup.load(str(trained), device="cpu")
    files = [str(write_csv(tmp_path / "two.csv", [{"size": 1.0, "weight": 0.5, "colour": c} for c in ("red", "pink")]))]
    known, unknown = (explain_prediction(loaded, files=files, row=row, method=method) for row in (1, 2))
    assert [part.name for part in known.parts] == ["size", "weight", "colour"] and known.parts[2].cell == "red"
    assert known.baseline == "every number at its training mean, no category anywhere"
    if method != "saliency":
        assert known.parts[2].amount != 0.0 and unknown.parts[2].amount == 0.0, "what is unknown is the baseline"
    if method == "occlusion":
        scores = [one.found.score for one in (known, explain_prediction(loaded, files=files, row=2, label=known.label))]
        assert known.parts[2].amount == pytest.approx(scores[0] - scores[1], abs=1e-5)
    if method == "integrated_gradients":
        assert abs(explain_prediction(loaded, files=files, method=method, steps=1000).found.gap or 0.0) < 1e-3


def test_a_folder_whose_codes_are_others_is_refused(trained: Path, tmp_path: Path) -> None:
    loaded = groundup.load(str(trained), device="cpu")
    told = json.loads(json.dumps(loaded.said.preparation))
    told["columns"]["categories"][0]["categories"].append("white")
    other = type(loaded.said)(**vars(loaded.said) | {"preparation": told})
    with pytest.raises(GroundupError) as caught:
        type(loaded)(
            LoadedNetwork(other, loaded.model, trained), device=torch.device("cpu"), name="x", autocast=None
        )
    assert caught.value.code == "E-EVAL-060" and "[5] codes" in caught.value.what


def test_other_categories_do_not_fit_the_vectors_of_a_model(
    recipe: Options, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onward = changed(recipe, model={"init_from": str(trained)})
    assert work_of(onward, tmp_path / "same").said == work_of(recipe, tmp_path / "new").said  # type: ignore[attr-defined]
    rows = [row | {"colour": {"red": "rose"}.get(row["colour"], row["colour"])} for row in rows_of(90)]
    other = changed(onward, data__files=[str(write_csv(tmp_path / "rose.csv", rows))])
    code, shown = refused(other, tmp_path / "other", capsys)
    assert code == 2 and "E-MODEL-007" in shown and "colour=red (embedded) → colour=rose (embedded)" in shown
    code, shown = refused(changed(onward, data__preprocessing={"unseen": "zeros"}), tmp_path / "one-hot", capsys)
    assert code == 2 and "E-MODEL-007" in shown


def test_what_cannot_be_embedded_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = [{name: row[name] for name in ("size", "weight", "label")} for row in table_rows()]
    file = write_csv(tmp_path / "numbers.csv", numbers)
    code, shown = refused(table_recipe(file, data__preprocessing=EMBED), tmp_path / "numbers", capsys)
    assert code == 2 and "E-DATA-015" in shown and "no categorical feature" in shown
    convnet = table_recipe(table_file(tmp_path), data__preprocessing=EMBED)
    convnet["model"] = {"family": "convnet", "channels": [4]}
    code, shown = refused(convnet, tmp_path / "convnet", capsys)
    assert code == 2 and "E-RECIPE-065" in shown
    images = image_recipe(image_file(tmp_path), data__preprocessing=EMBED)
    code, shown = refused(images, tmp_path / "images", capsys)
    assert code == 2 and "preprocessing" in shown


@pytest.mark.parametrize("family", ["linear", "mlp"])
def test_a_table_of_categories_alone_is_learned(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    rows = [
        {"colour": row["colour"], "batch": f"b{row['batch']}", "label": "stop" if row["colour"] == "red" else "go"}
        for row in table_rows(200)
    ]
    recipe = table_recipe(
        write_csv(tmp_path / "rows.csv", rows), data__preprocessing=EMBED, data__split={"leaks": "allow"}
    )
    recipe |= {"model": {"family": family}, "budget": {"steps": 200, "rows_per_step": 16}}
    run(recipe, tmp_path / "run")
    said = groundup.load(str(tmp_path / "run"), device="cpu").predict(rows[:50])
    assert [row["label"] for row in said] == [row["label"] for row in rows[:50]]


def test_the_baselines_of_a_fold_see_ones_and_zeros(recipe: Options, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    embedded = work_of(recipe, tmp_path / "a")
    plain = work_of(changed(recipe, data__preprocessing={"unseen": "zeros"}), tmp_path / "b")
    assert measure_baselines(embedded) == measure_baselines(plain)


def test_data_show_names_the_codes(recipe: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(dump(recipe), encoding="utf-8")
    assert main(["data", "show", str(tmp_path / "recipe.yaml"), "--rows", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    name, cell, code = found["rows"][0]["cells"][-1]
    assert name == "colour" and ["amber", "green", "red"].index(cell) + 1 == code
    assert found["facts"]["embedded"] == "colour (4 codes)"
