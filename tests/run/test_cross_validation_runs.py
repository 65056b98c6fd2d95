"""Cross-validation from a recipe: what each fold trains on, what they say together, and wrong labels found."""

from __future__ import annotations

import csv
import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.contract.toy_rows import image_file, image_recipe, table_file, table_recipe, table_rows, write_csv
from tests.contract.toy_run import labelled_file, labelled_recipe, quick

from groundup.data.labelled_options import Fold
from groundup.data.table_options import TableOptions
from groundup.data.table_set import TableSet, read_table
from groundup.errors import GroundupError
from groundup.recipe import load
from groundup.recipe.tree import Recipe
from groundup.report.cross_validation import render_cross_validation
from groundup.report.write import write_report
from groundup.run import cross_validation as studies
from groundup.run.cross_validation import Asked, cross_validate, read_settings
from groundup.run.prediction import PredictionWork
from groundup.run.train import Result

SPARSE = {"log_every": 100, "save_every": 1000, "evaluate_every": 1000}


def fast(patch: pytest.MonkeyPatch) -> None:
    """As `quick`; nothing is collected between these many small runs, and their reports show no curves of labels."""
    quick(patch)
    patch.setattr(gc, "collect", lambda *arguments: 0)
    patch.setattr(PredictionWork, "results", lambda self, model: {})


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)
    monkeypatch.setattr(studies, "write_report", lambda folder: None)


def refused(code: str, *arguments: Any, **keywords: Any) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        cross_validate(*arguments, **keywords)
    assert caught.value.code == code and caught.value.exit_code == 2
    return caught.value


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test_answers.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        fast(patch)
        patch.setattr(studies, "write_report", lambda folder: folder.name != "fold-2" or write_report(folder))
        recipe = table_recipe(table_file(root), steps=12, events=SPARSE)
        asked = Asked(folds=2, repeats=2, sizes=(0.3,))
        return root / "out", cross_validate(recipe, out=root / "out", asked=asked)


def test_every_row_is_tested_once_in_each_division(study: tuple[Path, dict[str, Any]]) -> None:
    folder, found = study
    for names in (found["runs"][:2], found["runs"][2:]):
        lines = [line["line"] for name in names for line in answers(folder / name)]
        assert sorted(lines) == list(range(2, 92))  # line 1 is the head
    assert answers(folder / "fold-1") != answers(folder / "fold-1-repeat-2")


def test_a_fold_is_an_ordinary_run_that_says_its_division(study: tuple[Path, dict[str, Any]]) -> None:
    folder, found = study
    recipe = load(folder / "fold-2" / "recipe.yaml", [], Recipe)
    assert recipe.data.split.folds == [Fold(of=2, number=1)]  # type: ignore[union-attr]
    assert (folder / "fold-2" / "report.html").exists()
    for name in found["runs"]:
        assert (folder / name / "model").is_dir()
        results = json.loads((folder / name / "results.json").read_text())
        (line,) = (one for one in results["evaluations"] if one["metric"] == "accuracy")
        kept = json.loads((folder / name / "fold.json").read_text())
        assert line["data"] == "test" and line["after"] == pytest.approx(kept["metrics"]["accuracy"])


def test_means_intervals_and_baselines_are_those_of_the_folds(study: tuple[Path, dict[str, Any]]) -> None:
    folder, found = study
    each = [json.loads((folder / name / "fold.json").read_text()) for name in found["runs"]]
    values = np.array([one["metrics"]["accuracy"] for one in each])
    share = np.mean([one["rows"]["test"] for one in each]) / np.mean([one["rows"]["train"] for one in each])
    reach = 3.182446 * values.std(ddof=1) * np.sqrt(1 / 4 + share)  # Student, 3 degrees of freedom
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx(values.mean())
    assert accuracy["high"] - accuracy["value"] == pytest.approx(reach, abs=1e-6)
    guess = found["baselines"]["majority label"]["metrics"]["accuracy"]["value"]
    assert guess == pytest.approx(1 / 3, abs=0.02)
    assert found["baselines"]["logistic regression"]["metrics"]["accuracy"]["value"] > 0.85
    assert found["baselines"]["majority label"]["verdict"]["accuracy"] == "better"


def test_fewer_rows_make_a_learning_curve_on_the_same_test_rows(study: tuple[Path, dict[str, Any]]) -> None:
    folder, found = study
    small, whole = found["learning_curve"]
    assert small["share"] == 0.3 and whole["share"] == 1.0
    assert whole["metrics"] == found["metrics"]
    for few, all_ in zip(small["rows"]["train"], whole["rows"]["train"], strict=True):
        assert few == pytest.approx(0.3 * all_, abs=3)
    assert small["rows"]["validation"] == whole["rows"]["validation"]
    assert [x["place"] for x in answers(folder / "fold-1")] == [x["place"] for x in answers(folder / "fold-1-size-0.3")]


def test_preprocessing_is_that_of_the_rows_to_train_on(study: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = study
    recipe = load(folder / "fold-1-repeat-2" / "recipe.yaml", [], Recipe)
    options = TableOptions(**{name: dict(recipe.data)[name] for name in TableOptions.model_fields})
    made = read_table(options, [])
    sizes = np.array([row.cells["size"] for row in made.rows if row.side == "train"])
    kept = json.loads((folder / "fold-1-repeat-2" / "model" / "preparation.json").read_text())["columns"]
    assert str(float(np.float64(sizes.mean())))[:10] in json.dumps(kept)
    everything = np.array([row["size"] for row in table_rows()])
    assert abs(sizes.mean() - everything.mean()) > 1e-6


def test_the_page_and_the_numbers_are_written(study: tuple[Path, dict[str, Any]]) -> None:
    folder, found = study
    assert json.loads((folder / "cross_validation.json").read_text()) == found
    page = (folder / "report.html").read_text()
    for word in ("logistic regression", "fold-2-repeat-2/report.html", "Fewer rows to train on", "corrected"):
        assert word in page
    evil = render_cross_validation(found | {"name": "<script>alert(1)</script>"})
    assert "<script" not in evil and "&lt;script&gt;" in evil


def test_given_again_nothing_is_trained_anew(
    study: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = study
    source = load(folder / "fold-1" / "recipe.source.yaml", [], Recipe)
    recipe = source.model_copy(
        update={"data": source.data.model_copy(update={"split": source.data.split.model_copy(update={"folds": []})})}  # type: ignore[union-attr]
    )
    monkeypatch.setattr(studies, "read_recipe", lambda *arguments: recipe)
    monkeypatch.setattr(studies, "train_recipe", None)
    asked = Asked(folds=2, repeats=2, sizes=(0.3,))
    assert cross_validate({}, out=folder, asked=asked) == found
    fault = refused("E-RUN-071", {}, out=folder, asked=Asked(folds=4))
    assert "data.split.folds" in fault.where


def test_a_stopped_fold_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, asked = table_recipe(table_file(tmp_path, "regress"), "regress", steps=4), Asked(folds=2)
    whole = cross_validate(recipe, out=tmp_path / "whole", asked=asked)
    real = studies.train_recipe

    def interrupted(recipe: Recipe, folder: Path, **how: Any) -> Result:
        if folder.name == "fold-2":
            real(recipe, folder, **how | {"finished": lambda work, model: None})
            return Result(folder, "stopped", 2, 0.1, exit_code=130)
        return real(recipe, folder, **how)

    monkeypatch.setattr(studies, "train_recipe", interrupted)
    stopped = cross_validate(recipe, out=tmp_path / "cut", asked=asked)
    assert stopped["exit_code"] == 130 and not (tmp_path / "cut" / "cross_validation.json").exists()
    monkeypatch.setattr(studies, "train_recipe", real)
    again = cross_validate(recipe, out=tmp_path / "cut", asked=asked)
    assert again["per_fold"] == whole["per_fold"]


def test_nested_folds_choose_without_the_rows_they_are_tested_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "INNER_FOLDS", 2)
    file = tmp_path / "settings.yaml"
    file.write_text('# two ways\n- ["optim.model.learning_rate=0.0000001"]\n- []\n')
    settings = read_settings(file)
    assert settings == (("optim.model.learning_rate=0.0000001",), ())
    recipe = table_recipe(table_file(tmp_path, "regress"), "regress", steps=12, events=SPARSE)
    recipe["data"]["preprocessing"] = {"unseen": "zeros"}
    found = cross_validate(recipe, out=tmp_path / "out", asked=Asked(folds=2, settings=settings))
    assert found["nested"]["chosen"] == ["as it is", "as it is"] and len(found["nested"]["means"][0]) == 2
    for means in found["nested"]["means"]:
        assert means["as it is"] < means["optim.model.learning_rate=0.0000001"]
    for number in (1, 2):
        tested = {line["place"] for line in answers(tmp_path / "out" / f"fold-{number}")}
        inner = [answers(path) for path in sorted((tmp_path / "out").glob(f"fold-{number}-setting-2-inner-*"))]
        places = [line["place"] for part in inner for line in part]
        assert len(places) == len(set(places)) == 90 - len(tested) and not tested & set(places)


def test_time_goes_forward(tmp_path: Path) -> None:
    rows = [row | {"date": f"2026-{1 + i % 12:02d}-{1 + i % 28:02d}"} for i, row in enumerate(table_rows())]
    file = write_csv(
        tmp_path / "dated.csv", [{k: v for k, v in r.items() if k not in ("labels", "batch")} for r in rows]
    )
    recipe = table_recipe(file, "regress", steps=4)
    recipe["data"]["columns"] = {"ignore": ["label"]}
    recipe["data"]["split"] |= {"kind": "time"}
    found = cross_validate(recipe, out=tmp_path / "out", asked=Asked(folds=3))
    when = {number + 2: row["date"] for number, row in enumerate(rows)}
    last = ""
    for number in range(3):
        options = load(tmp_path / "out" / f"fold-{number + 1}" / "recipe.yaml", [], Recipe).data
        made = read_table(TableOptions(**{name: dict(options)[name] for name in TableOptions.model_fields}), [])
        dates = {
            side: [when[row.line] for row in made.rows if row.side == side] for side in ("train", "validation", "test")
        }
        assert max(dates["train"]) < min(dates["validation"]) <= max(dates["validation"]) < min(dates["test"])
        assert last < min(dates["test"])
        last = max(dates["test"])
        assert "date" not in made.columns.features
    assert last == max(when.values()) and found["rows"]["train"] == sorted(found["rows"]["train"])
    assert set(found["metrics"]) == {"mae", "rmse", "r2"} and "ridge regression" in found["baselines"]
    refused("E-RUN-074", recipe, out=tmp_path / "two", asked=Asked(folds=3, repeats=2))


def test_errors_of_numbers_are_in_the_unit_of_the_table(tmp_path: Path) -> None:
    found = cross_validate(table_recipe(table_file(tmp_path, "regress"), "regress", steps=4), out=tmp_path / "out",
                           asked=Asked(folds=2))  # fmt: skip
    score = np.array([row["score"] for row in table_rows()])
    baseline = found["baselines"]["mean value"]["metrics"]
    assert baseline["rmse"]["value"] == pytest.approx(score.std(), rel=0.05)
    assert found["baselines"]["ridge regression"]["metrics"]["r2"]["value"] > 0.95
    for line in answers(tmp_path / "out" / "fold-1"):
        assert line["value"] == table_rows()[line["line"] - 2]["score"]


def test_texts_and_images(tmp_path: Path) -> None:
    texts = labelled_recipe(labelled_file(tmp_path, "classify"), "classify", budget__steps=2)
    texts["data"].pop("test_files", None)
    found = cross_validate(texts, out=tmp_path / "texts", asked=Asked(folds=2))
    assert list(found["baselines"]) == ["majority label", "TF-IDF and SVM"]
    images = cross_validate(image_recipe(image_file(tmp_path), steps=2), out=tmp_path / "images", asked=Asked(folds=2))
    assert images["baselines"]["nearest neighbours"]["metrics"]["accuracy"]["value"] > 0.95
    assert sum(images["rows"]["test"]) == 60


def flipped_digits(folder: Path, share: float = 0.1) -> tuple[Path, set[int]]:
    """The digits of scikit-learn as a table, and the rows (from 1) whose label was made wrong."""
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, label = datasets.load_digits(return_X_y=True)
    chance = np.random.default_rng(5)
    wrong = chance.choice(len(label), round(share * len(label)), replace=False)
    label = label.copy()
    label[wrong] = (label[wrong] + chance.integers(1, 10, len(wrong))) % 10
    path = folder / "digits.csv"
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([*(f"p{number}" for number in range(64)), "label"])
        lines.writerows([*row.astype(int).tolist(), int(answer)] for row, answer in zip(pixels, label, strict=True))
    return path, {int(row) + 1 for row in wrong}


def test_label_noise_is_found_in_digits(tmp_path: Path) -> None:
    path, wrong = flipped_digits(tmp_path)
    recipe = {
        "model": {"family": "mlp", "hidden": [64], "dropout": 0.2},
        "data": {"kind": "table", "files": [str(path)], "split": {"validation": 0.0}},
        "optim": {"model": {"kind": "adamw", "learning_rate": 0.003}},
        "budget": {"epochs": 8, "rows_per_step": 96},
        "events": SPARSE,
        "hardware": {"precision": "float32", "compile": "off"},
    }
    found = cross_validate(recipe, out=tmp_path / "out", asked=Asked(folds=3, find_label_noise=True))
    with (tmp_path / "out" / "suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    suspects = {int(row["row"]) for row in rows}
    right = len(suspects & wrong)
    precision, recall = right / len(suspects), right / len(wrong)
    assert precision >= 0.8 and recall >= 0.8, (precision, recall)
    assert found["label_noise"]["share"] == pytest.approx(0.1, abs=0.04)
    first = rows[0]
    assert first["place"] == f"digits.csv:{int(first['row']) + 1}" or first["place"].endswith(
        f"digits.csv:{int(first['row']) + 1}"
    )
    assert first["given"] != first["suggested"]


def test_what_cannot_be_done_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = table_recipe(table_file(tmp_path, "regress"), "regress")
    refused("E-RUN-073", recipe, out=tmp_path / "a", asked=Asked(find_label_noise=True))
    fault = refused("E-RUN-072", recipe, out=tmp_path / "a", asked=Asked(settings=((), ("data.split.seed=3",))))
    assert "data.split.seed" in fault.where
    texts = {"model": {"depth": 2}, "data": {"kind": "text", "files": ["a.txt"]}, "budget": {"steps": 1}}
    refused("E-RUN-070", texts, out=tmp_path / "a")
    one = table_recipe(table_file(tmp_path), data__split={"folds": [{"of": 3, "number": 0}]})
    refused("E-RUN-070", one, out=tmp_path / "a")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("")
    refused("E-RUN-071", recipe, out=tmp_path / "run")
    refused("E-DATA-104", recipe, out=tmp_path / "b", asked=Asked(folds=91))
    for text in ("a: 1\n", "- []\n", "- [[]]\n- []\n", "", "- [a=1]\n- [a=1]\n"):
        (tmp_path / "settings.yaml").write_text(text)
        with pytest.raises(GroundupError) as caught:
            read_settings(tmp_path / "settings.yaml")
        assert caught.value.code == "E-RUN-072"


def test_a_fold_in_a_recipe_contradicts_test_files(tmp_path: Path) -> None:
    file = table_file(tmp_path)

    def read(**split: Any) -> TableSet:
        return read_table(TableOptions(files=[str(file)], test_files=[str(file)], split=split), [])  # type: ignore[arg-type]

    with pytest.raises(GroundupError) as caught:
        read(folds=[Fold(of=3, number=3)])
    assert caught.value.code == "E-DATA-015" and "count from 0" in caught.value.where
