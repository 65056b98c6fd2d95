"""`groundup verify PATH` on runs, checkpoints, models and prepared data, whole and broken."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from groundup.checkpoint import save, save_model
from groundup.cli.verify import verify
from groundup.data.shards import write_token_folder
from groundup.errors import GroundupError


def call(path: Path | str, *, as_json: bool = False) -> int:
    return verify(argparse.Namespace(path=str(path), json=as_json))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "a run 🙂"
    weights = {"w": torch.ones(4)}
    for step in (1, 2):
        save(run / "checkpoints", step=step, tensors={"model": weights}, state={}, files={})
    save_model(run / "model", tensors=weights, files={"model.json": b"{}"})
    documents = [([1, 5, 2], 1), ([1, 6, 7, 2], 2)]
    splits = {"train": documents, "held_out": documents[:1]}
    write_token_folder(run / "data" / "shards", splits, tokenizer_digest="0" * 64, vocabulary=300)
    return run


def test_a_whole_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(": whole" in line for line in lines)
    assert "step-000002" in lines[0]


@pytest.mark.parametrize(
    "part", ["", "checkpoints", "checkpoints/step-000001", "model", "data", "data/shards"]
)
def test_every_kind_of_folder_is_recognised(run: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(run / part, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["whole"] is True
    assert report["found"]
    assert all(found["bytes"] > 0 for found in report["found"])


def test_a_broken_newest_checkpoint_fails_and_says_what_resuming_would_do(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints" / "step-000002" / "state.json").write_bytes(b"xx")
    (run / "checkpoints" / "step-000002" / "\x1b[31mred").write_bytes(b"")
    assert call(run) == 1
    out = capsys.readouterr().out
    assert "state.json: its content changed" in out
    assert "would go on from" in out and "step-000001" in out
    assert "\x1b" not in out
    assert call(run / "checkpoints" / "step-000001") == 0


def test_a_broken_older_checkpoint_is_shown_but_does_not_fail(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints" / "step-000001" / "state.json").unlink()
    assert call(run, as_json=True) == 0
    older = json.loads(capsys.readouterr().out)["found"][1]
    assert older["whole"] is False
    assert older["problems"] == [{"file": "state.json", "what": "is missing"}]


def test_broken_model_and_data_fail(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "model" / "model.json").write_bytes(b"[]")
    assert call(run) == 1
    assert call(run / "model") == 1
    (run / "data" / "shards" / "train-00000.tokens").write_bytes(b"")
    assert call(run / "data" / "shards", as_json=True) == 1
    assert '"train"' in capsys.readouterr().out
    (run / "data" / "shards" / "index.json").write_bytes(b"{")
    assert call(run / "data") == 1


def test_paths_that_cannot_be_verified(tmp_path: Path, run: Path) -> None:
    for path in (tmp_path / "missing", run / "model" / "model.json"):
        with pytest.raises(GroundupError) as caught:
            call(path)
        assert (caught.value.code, caught.value.exit_code) == ("E-USE-020", 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GroundupError) as caught:
        call(tmp_path / "empty")
    assert (caught.value.code, caught.value.exit_code) == ("E-CKPT-011", 1)


def test_K7_a_folder_of_pickles(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(GroundupError) as caught:
        call(tmp_path)
    assert caught.value.code == "E-CKPT-009"


def test_U6_the_home_folder_may_be_written_as_a_tilde(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run.parent))
    assert call(f"~/{run.name}") == 0
