"""`groundup cross-validate`: the table beside its baselines, JSON, and faults in words."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
from tests.contract.toy_rows import table_file, table_recipe
from tests.contract.toy_run import quick

from groundup.cli.main import main
from groundup.recipe.yaml import dump
from groundup.run import cross_validation as studies


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    quick(monkeypatch)
    monkeypatch.setattr(gc, "collect", lambda *arguments: 0)
    monkeypatch.setattr(studies, "write_report", lambda folder: None)
    path = tmp_path / "toy.yaml"
    path.write_text(dump(table_recipe(table_file(tmp_path, "regress"), "regress", steps=2)))
    return path


def test_the_table_has_the_baselines_beside_it(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    out = str(tmp_path / "out")
    words = ["cross-validate", str(recipe), "budget.steps=3", "--folds", "2", "--sizes", "0.5,1.0", "--out", out]
    assert main(words) == 0
    shown = capsys.readouterr().out
    heads = next(line for line in shown.splitlines() if line.startswith("metric"))
    assert heads.split() == ["metric", "mean", "95", "%", "interval", "mean", "value", "ridge", "regression", "folds"]
    assert [line.split()[0] for line in shown.splitlines() if line.startswith(("mae", "rmse ", "r2"))] == [
        "mae", "rmse", "r2", "rmse", "rmse"
    ]  # fmt: skip
    assert "rows to train on" in shown and "rmse against ridge regression:" in shown and "report.html" in shown
    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found == json.loads((tmp_path / "out" / "cross_validation.json").read_text())
    assert len(found["per_fold"]) == 2 and "training" not in printed.err


def test_a_stop_says_how_to_go_on(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(recipe: object, folder: Path, **how: object) -> studies.Result:
        return studies.Result(folder, "stopped", 1, 0.1, exit_code=130)

    monkeypatch.setattr(studies, "train_recipe", stopped)
    assert main(["cross-validate", str(recipe), "--out", str(tmp_path / "out")]) == 130
    assert "the same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--folds", "1"], "E-USE-004"),
        (["--sizes", "0.5,2"], "E-USE-004"),
        (["--sizes", "0.5,0.5"], "E-USE-004"),
        (["--settings", "nowhere.yaml"], "E-RECIPE-001"),
        (["--find-label-noise"], "E-RUN-073"),
        (["--fold", "3"], "E-USE-002"),
    ],
)
def test_wrong_use_is_said_in_words(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str
) -> None:
    assert main(["cross-validate", str(recipe), "--out", str(tmp_path / "out"), *words, "--json"]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["code"] == code
    assert not (tmp_path / "out").exists()
