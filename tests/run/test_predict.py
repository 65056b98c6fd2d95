"""`groundup predict`: files of every format in, one answer a row out, faults in words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.contract.toy_run import labelled_file, labelled_recipe, quick, text_file, text_recipe

import groundup
from groundup.cli.main import main

TEXTS = ["cat dog", "red blue", "house, tree"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        recipe = labelled_recipe(labelled_file(root, "classify"), "classify", budget__steps=2)
        groundup.train(recipe, out=root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def expected(model: Path) -> list[dict[str, Any]]:
    return groundup.load(model).predict(TEXTS)


def file_of(folder: Path, suffix: str) -> Path:
    path = folder / f"rows{suffix}"
    content = {
        ".csv": "id,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(TEXTS)),
        ".jsonl": "".join(json.dumps({"text": text, "label": None}) + "\n" for text in TEXTS),
        ".json": json.dumps([{"text": text} for text in TEXTS]),
        ".txt": "\ufeff" + "\r\n".join([*TEXTS[:2], "", TEXTS[2], ""]),
    }[suffix.removesuffix(".gz")].encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".txt", ".csv.gz", ".jsonl.gz", ".txt.gz"])
def test_every_format_gives_the_same_answers(
    model: Path, expected: list[dict[str, Any]], tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path, suffix)
    assert main(["predict", str(model), "--files", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 3 and found["set_aside"] == {}
    for row, text, answer in zip(found["predictions"], TEXTS, expected, strict=True):
        assert row["text"] == text and row["label"] == answer["label"]
        assert row["probability"] == pytest.approx(answer["probability"], abs=1e-6)
        assert row["file"].startswith(str(path.parent)) or row["file"].startswith(path.name)
    lines = [row["line"] for row in found["predictions"]]
    assert lines == ([1, 2, 4] if ".txt" in suffix else sorted(lines))


def test_only_a_line_feed_ends_a_line_of_plain_text(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes("one\u2028two\x85three\nfour\n".encode())
    rows, _ = groundup.load(model).predict_files([path])
    assert [row["text"] for row in rows] == ["one\u2028two\x85three", "four"]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["predict", *words, "--json"]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    text = next(part for part in (shown.out, shown.err) if part.strip())
    fault = json.loads(text)
    return fault.get("error", fault)  # type: ignore[no-any-return]


def test_a_wrong_column_is_refused_with_the_nearest(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("phrase,when\nhello,1\n")
    fault = refused(capsys, str(model), "--files", str(path), "--text", "phrases")
    assert fault["code"] == "E-EVAL-020" and "--text phrase" in fault["fix"] and "phrase, when" in fault["where"]
    fault = refused(capsys, str(model), "--files", str(path))
    assert fault["code"] == "E-EVAL-020" and "usual" in fault["what"]
    assert main(["predict", str(model), "--files", str(path), "--text", "phrase"]) == 0


def test_a_model_without_a_head_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        groundup.train(text_recipe(text_file(tmp_path, 60), budget__steps=1), out=tmp_path / "decoder")
    fault = refused(capsys, str(tmp_path / "decoder"), "--files", str(file_of(tmp_path, ".csv")))
    assert fault["code"] == "E-EVAL-022" and "labelled" in fault["fix"]


def test_rows_that_are_set_aside_are_counted(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "cat"}\n{"text": " "}\n{"text": 5}\n{broken\n{"other": "x"}\n{"text": "dog"}\n')
    assert main(["predict", str(model), "--files", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 2 and [row["line"] for row in found["predictions"]] == [1, 6]
    assert sum(found["set_aside"].values()) == 4 and found["set_aside"]["no text in text"] == 2
    assert main(["predict", str(model), "--files", str(path)]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2 and "set aside" in shown.err


def test_out_writes_json_lines_whole_or_not_at_all(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, files = tmp_path / "new" / "said.jsonl", str(file_of(tmp_path, ".csv"))
    assert main(["predict", str(model), "--files", files, "--out", str(out)]) == 0
    assert not capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == TEXTS and all(row["label"] for row in rows)
    assert [path.name for path in out.parent.iterdir()] == ["said.jsonl"]
    before = out.read_bytes()

    def full(*arguments: object, **keywords: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("groundup.cli.predict.json.dumps", full)
    assert main(["predict", str(model), "--files", files, "--out", str(out)]) == 1
    assert out.read_bytes() == before


def test_a_text_longer_than_the_context_is_cut_and_still_closed(model: Path, tmp_path: Path) -> None:
    loaded = groundup.load(model)
    long = "cat dog " * 500
    assert loaded.predict([long])[0]["label"] in ("animal", "colour", "place")
    assert loaded.predict([long]) == loaded.predict([long + "more"])


def test_evaluate_measures_labelled_rows_and_compares_two_heads(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = groundup.load(model).model.labels  # type: ignore[attr-defined]
    rows = [{"text": f"{text} {n}", "label": labels[n % len(labels)]} for n, text in enumerate(TEXTS * 10)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "cat", "label": "unheard of"}]))
    words = ["evaluate", str(model), "--files", str(path)]
    assert main([*words, "--against", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 30 and found["set_aside"] == {"the model has no label unheard of": 1}
    said = groundup.load(model).predict([row["text"] for row in rows])
    right = sum(answer["label"] == row["label"] for answer, row in zip(said, rows, strict=True)) / len(rows)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert found["metrics"]["accuracy"]["low"] <= right <= found["metrics"]["accuracy"]["high"]
    assert {line["verdict"] for line in found["comparison"]} == {"within noise"}
    assert main(words) == 0 and "30 labelled rows" in capsys.readouterr().out
    assert main([*words, "--metric", "perplexity", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E-EVAL-002"


def test_a_model_with_a_head_writes_no_text(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(model), "--prompt", "cat", "--json"]) == 2
    fault = json.loads(capsys.readouterr().out)["error"]
    assert fault["code"] == "E-GEN-008" and "predict" in fault["fix"]
