"""Listing and comparing runs, and the two verbs on narrow and ASCII terminals."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import example_run as example
import pytest

from groundup.cli import report as report_verb
from groundup.cli import runs as runs_verb
from groundup.errors import GroundupError
from groundup.report import compare, find_runs, run_line, write_report


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a quickstart of two runs, a checkpoint, and folders that are no runs."""
    root = tmp_path_factory.mktemp("house")
    example.example_run(root / "alone", steps=100)
    example.example_stages(root / "quick")
    checkpoint = root / "alone" / "checkpoints" / "step-000100"
    checkpoint.mkdir(parents=True)
    for name in ("manifest.json", "recipe.yaml"):
        (checkpoint / name).write_text("{}")
    shutil.copytree(checkpoint, root / "lent checkpoint")
    (root / ".hidden" / "run").mkdir(parents=True)
    (root / ".hidden" / "run" / "events.jsonl").write_text("")
    (root / "诗 <b>\x1b[31m").mkdir()
    (root / "诗 <b>\x1b[31m" / "events.jsonl").write_text('{"event": "sta')
    return root


def arguments(**values: Any) -> argparse.Namespace:
    defaults = {"folder": ".", "compare": None, "json": False, "run": "", "title": "", "debug": False}
    return argparse.Namespace(**{**defaults, **values})


def test_finds_runs_and_nothing_else(house: Path) -> None:
    found = [path.relative_to(house).as_posix() for path in find_runs(house)]
    assert found == ["alone", "quick/finetune", "quick/pretrain", "诗 <b>\x1b[31m"]
    with pytest.raises(GroundupError) as missing:
        find_runs(house / "absent")
    assert missing.value.code == "E-REPORT-003"


def test_line_of_a_run_is_the_same_with_and_without_its_report(house: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(house / "alone", tmp_path / "alone"))
    before = run_line(run, tmp_path)
    write_report(run)
    assert run_line(run, tmp_path) == before
    assert before["outcome"] == "finished" and before["metric"] == "bits_per_byte"
    assert before["low"] < before["value"] < before["high"]
    (run / "report.json").write_text('{"outcome": "fini')
    assert run_line(run, tmp_path) == before


@pytest.mark.parametrize("columns", [40, 200])
def test_U2_listing_fits_narrow_and_ascii_terminals(house: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert runs_verb.runs(arguments(folder=str(house))) == 0
    stream.flush()
    shown = stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    lines = shown.splitlines()
    assert max(map(len, lines)) <= columns
    assert "alone" in shown and "finished" in shown and "unfinished" not in shown and "\x1b" not in shown
    if columns == 200:
        assert len(lines) == 2 + 4 and lines[0].startswith("run ")


def test_json_is_one_object(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs_verb.runs(arguments(folder=str(house), json=True)) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in listed["runs"]][:3] == ["alone", "quick/finetune", "quick/pretrain"]
    assert listed["runs"][0]["steps"] == 100


def test_compare_names_recipe_differences_and_judges_metrics(house: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(house / "alone", tmp_path / "first"))
    second = Path(shutil.copytree(house / "alone", tmp_path / "second"))
    recipe = (second / "recipe.yaml").read_text().replace("depth: 4", "depth: 6")
    (second / "recipe.yaml").write_text(recipe)
    results = json.loads((second / "results.json").read_text())
    bits, loss, perplexity = results["evaluations"]
    bits.update(after=bits["after"] - 1, low=bits["low"] - 1, high=bits["high"] - 1)
    loss.update(after=loss["after"] + 0.001)
    perplexity.update(low=None)
    (second / "results.json").write_text(json.dumps(results))
    found = compare(first, second)
    assert found.recipe == [{"field": "model.depth", "first": "4", "second": "6"}]
    verdicts = {row["metric"]: row["verdict"] for row in found.metrics}
    assert verdicts == {"bits_per_byte": "better", "loss": "within noise", "perplexity": ""}
    assert {row["metric"]: row["verdict"] for row in compare(second, first).metrics}["bits_per_byte"] == "worse"
    for folder, content in ((first, "a"), (second, "b")):
        (folder / "model" / "tokenizer.json").write_text(content)
    judged = {row["metric"]: row["verdict"] for row in compare(first, second).metrics}
    assert judged["loss"] == "not comparable" and judged["bits_per_byte"] == "better"


def test_compare_verb_prints_both_tables(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = [str(house / "quick" / "pretrain"), str(house / "alone")]
    assert runs_verb.runs(arguments(compare=pair)) == 0
    assert "the recipes are equal" in capsys.readouterr().out
    assert runs_verb.runs(arguments(compare=pair, json=True)) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]


def test_report_verb_writes_and_prints(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(house / "quick", tmp_path / "my quick 🚀"))
    assert report_verb.report(arguments(run=str(folder), json=True)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in summary["stages"]] == ["pretrain", "finetune"]
    assert report_verb.report(arguments(run=str(folder / "pretrain"))) == 0
    said = capsys.readouterr().out
    assert "Finished" in said and "report.html" in said and (folder / "pretrain" / "report.html").exists()


def test_report_verb_writes_nothing_into_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(GroundupError) as refused:
        report_verb.report(arguments(run=str(tmp_path)))
    assert refused.value.code == "E-REPORT-004" and refused.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
