"""`groundup tokenizer` from the command line: made, measured, and found in the folder of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.cli.main import main


def test_a_tokenizer_is_made_measured_and_found_in_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "poem.txt"
    text.write_text("國破山河在\n城春草木深\n" * 20, encoding="utf-8")
    run = tmp_path / "run"
    words = ["tokenizer", "train", "--files", str(text), "--vocab", "280", "--out", str(run / "model")]
    assert main(words) == 0
    capsys.readouterr()
    found = []
    for folder in (run / "model", run):
        assert main(["tokenizer", "inspect", str(folder), "--files", str(text), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] and found[0]["round_trip_failures"] == []
    assert main(["tokenizer", "inspect", str(tmp_path), "--files", str(text)]) == 1
    assert "E-TOKEN-005" in capsys.readouterr().err
