"""Model folders of groundup's own that lie, their hashes and seal made to fit: refused as malformed, or shown as they
are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoint.test_checkpoint_corruption import reseal
from tests.small_models import small_tokenizer, table_model, writing_model

import groundup
from groundup import checkpoint
from groundup.cli.main import main
from groundup.errors import GroundupError


def changed(folder: Path, name: str, field: str, value: Any) -> Path:
    """The folder with one field of a file changed; `value` is JSON, which need not be valid."""
    content = json.loads((folder / name).read_bytes())
    place = content["network"] if field in content.get("network", {}) else content
    place[field] = "@"
    (folder / name).write_text(json.dumps(content).replace('"@"', value))
    reseal(folder)
    return folder


@pytest.mark.parametrize(
    ("field", "value"),
    [("shape", "[1e999]"), ("low", '{"content": "s"}'), ("high", "[[1]]"), ("family", '["mlp"]'), ("outputs", "null")],
)
def test_a_network_that_is_described_wrongly_is_refused(field: str, value: str, tmp_path: Path) -> None:
    folder = changed(table_model(tmp_path / "table"), "model.json", field, value)
    for call in (lambda: groundup.load(folder, device="cpu"), lambda: main(["inspect", str(folder)])):
        try:
            assert call() == 1
        except GroundupError as error:
            assert error.code == "E-MODEL-001"


def test_brackets_without_end_are_refused(tmp_path: Path) -> None:
    folder = changed(table_model(tmp_path / "table"), "model.json", "family", "[" * 3000)
    with pytest.raises(GroundupError) as caught:
        groundup.load(folder, device="cpu")
    assert caught.value.code == "E-MODEL-001"


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = changed(writing_model(tmp_path / "m", small_tokenizer()), "chat.json", "template", "0")
    with pytest.raises(GroundupError) as caught:
        groundup.load(folder, device="cpu")
    assert caught.value.code == "E-MODEL-001" and "chat.json" in caught.value.what


def test_a_preparation_that_is_no_object_is_refused_and_odd_names_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = table_model(tmp_path / "table")
    path = folder / "preparation.json"
    content = json.loads(path.read_bytes())
    content["columns"]["numbers"][0]["name"] = 0.5
    path.write_text(json.dumps(content))
    reseal(folder)
    assert main(["inspect", str(folder)]) == 0
    assert "(0.5, weight)" in capsys.readouterr().out
    path.write_text("[]")
    reseal(folder)
    assert main(["inspect", str(folder)]) == 1
    assert "E-MODEL-001" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["10" * 14, str(2**40), "50"])
def test_sizes_that_no_network_has_are_refused_before_memory_is_taken(value: str, tmp_path: Path) -> None:
    text = writing_model(tmp_path / "text", small_tokenizer())
    said = json.loads((text / "model.json").read_bytes())
    said["options"]["hidden"] = int(value)
    (text / "model.json").write_text(json.dumps(said))
    reseal(text)
    table = changed(table_model(tmp_path / "table"), "model.json", "shape", f"[{value}]")
    for folder in (text, table):
        with pytest.raises(GroundupError) as caught:
            groundup.load(folder, device="cpu")
        assert caught.value.code in ("E-MODEL-001", "E-CKPT-010")


def test_a_second_matrix_that_would_be_lost_is_refused(tmp_path: Path) -> None:
    folder = writing_model(tmp_path / "m", small_tokenizer())
    tensors, files = checkpoint.load_model(folder)
    said = json.loads(files["model.json"])
    said["options"]["tied"] = True
    two = {**tensors, "head.weight": tensors["embedding.weight"] + 1.0}
    checkpoint.save_model(tmp_path / "two", tensors=two, files={**files, "model.json": json.dumps(said).encode()})
    with pytest.raises(GroundupError) as caught:
        groundup.load(tmp_path / "two", device="cpu")
    assert caught.value.code == "E-MODEL-003" and "head.weight" in caught.value.where
