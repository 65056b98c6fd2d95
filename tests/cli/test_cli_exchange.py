"""import, inspect, merge and export as they are typed: what is printed, the exit code, and errors in five parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.formats.toy_models import save_toy

from groundup import checkpoint
from groundup.adapters import LoraOptions, apply
from groundup.cli.main import main
from groundup.run import models


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy of transformers (`hf`), imported (`base`), and adapted (`lora`)."""
    room = tmp_path_factory.mktemp("room")
    save_toy("llama_tied", room / "hf")
    assert main(["import", str(room / "hf"), "--out", str(room / "base")]) == 0
    loaded = models.load(room / "base", torch.device("cpu"))
    options = LoraOptions(kind="lora", rank=2)
    apply(loaded.model, [options], seed=0)
    base = models.Base(str(room / "base"), models.digest_of(room / "base"))
    said = models.Described(
        loaded.said.family, loaded.said.options, loaded.said.tokenizer, loaded.said.chat, None, [options], base
    )
    kept = {name: torch.full_like(tensor, 0.02) for name, tensor in models.trained_tensors(loaded.model).items()}
    checkpoint.save_model(room / "lora", tensors=kept, files=models.model_files(said))
    return room


def test_import_says_what_it_made_and_what_to_do_next(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(room / "hf"), "--out", str(tmp_path / "new")]) == 0
    shown = capsys.readouterr().out
    assert "llama" in shown and "groundup chat" in shown and "init_from" in shown
    assert main(["import", str(room / "hf"), "--out", str(tmp_path / "two"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"] == "llama" and found["parameters"] > 0 and found["bytes"] > 0


def test_inspect_prints_every_kind(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, kind in (("hf", "hugging face"), ("base", "groundup"), ("lora", "groundup")):
        assert main(["inspect", str(room / name)]) == 0
        shown = capsys.readouterr().out
        assert kind in shown and "parameters" in shown and "shape" in shown
        assert main(["inspect", str(room / name), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["tensors"][0]["shape"]


def test_export_and_merge_print_their_proof(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gguf = str(tmp_path / "m.gguf")
    assert main(["export", str(room / "base"), "--to", "gguf", "--dtype", "q8_0", "--out", gguf]) == 0
    shown = capsys.readouterr().out
    assert "q8_0" in shown and "tensors exact" in shown and "greedy tokens agree" in shown
    assert main(["inspect", gguf]) == 0 and "Q8_0" in capsys.readouterr().out
    assert main(["merge", str(room / "lora"), "--out", str(tmp_path / "whole"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["proof"]["exact"] == found["proof"]["tensors"] > 0
    assert main(["merge", str(room / "base"), str(room / "base"), "--out", str(tmp_path / "mean")]) == 0
    assert "average of 2 models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("import {room}/absent --out {out}", "E-FORMAT-092"),
        ("import {room}/hf --out {room}/base", "E-FORMAT-096"),
        ("inspect {room}/absent", "E-FORMAT-092"),
        ("merge {room}/base --out {out}", "E-ADAPT-020"),
        ("merge {room}/base {room}/base --weights 1 --out {out}", "E-ADAPT-023"),
        ("export {room}/base --to gguf --dtype q5_0 --out {out}", "E-USE-004"),
        ("export {room}/base --to safetensors --dtype f16 --out {out}", "E-FORMAT-094"),
        ("export {room}/base --to peft --out {out}", "E-ADAPT-021"),
        ("export {room}/base --to gguf", "E-USE-003"),
    ],
)
def test_wrong_use_ends_with_two_and_leaves_nothing(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, code: str
) -> None:
    line = words.format(room=room, out=tmp_path / "out").split()
    assert main(line) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(code) and all(part in shown for part in ("\n  where", "\n  why", "\n  fix"))
    assert main([*line, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert not list(tmp_path.iterdir())
