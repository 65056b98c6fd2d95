"""Where a step's time goes: parts that add up, kinds of operations, words, one picture, nothing else left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.contract.toy_run import quick, text_file, text_recipe

from groundup.cli.main import main
from groundup.recipe.yaml import dump
from groundup.run.entry import read_recipe
from groundup.run.profile import ADVICE, ADVICE_OF_ROWS, KINDS, REST, kind_of, profile_recipe


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


def test_parts_and_operations_add_up(tmp_path: Path) -> None:
    found = profile_recipe(read_recipe(text_recipe(text_file(tmp_path, 60))), steps=2)
    assert found.steps == 2 and found.seconds > 0 and found.units_per_second > 0
    assert list(found.parts) == ["data", "forward", "backward", "optimizer"]
    assert sum(found.parts.values()) == pytest.approx(found.seconds, rel=0.3)
    assert "matrix products" in [cost.kind for cost in found.costs]
    assert sum(found.share(cost) for cost in found.costs) == pytest.approx(1.0)
    assert [cost.seconds for cost in found.costs] == sorted((cost.seconds for cost in found.costs), reverse=True)
    assert 0 < found.ceiling_share < 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mm", "matrix products"),
        ("aten::addmm_", "matrix products"),
        ("aten::mkldnn_convolution", "matrix products"),
        ("_AttentionBackward", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("_ChunkedCrossEntropy", "the loss"),
        ("_NormBackward", "norms"),
        ("aten::_fused_adamw_", "the optimizer"),
        ("aten::embedding_dense_backward", "embeddings"),
        ("aten::lstm", "recurrence"),
        ("aten::copy_", "copies"),
        ("aten::mul", REST),
        ("_SwiGLU", REST),
    ],
)
def test_operations_have_a_kind_and_every_kind_has_advice(name: str, kind: str) -> None:
    assert kind_of(name) == kind
    assert set(ADVICE) == {*KINDS, REST} and set(ADVICE_OF_ROWS) < set(ADVICE)


def test_the_command_writes_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(text_recipe(text_file(tmp_path, 60))))
    before = set(tmp_path.iterdir())
    assert main(["profile", str(path), "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert "The largest costs" in said and "1. " in said and "s a step" in said
    (picture,) = set(tmp_path.iterdir()) - before
    page = picture.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "<script" not in page and "matrix products" in page
    out, trace = tmp_path / "deep" / "p.html", tmp_path / "trace.json"
    assert main(["profile", str(path), "--steps", "1", "--json", "--out", str(out), "--trace", str(trace)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert out.exists() and found["picture"] == str(out) and json.loads(trace.read_text())["traceEvents"]
    assert {"seconds", "parts", "costs", "ceiling_share", "units_per_second"} <= set(found)


def test_rows_are_given_no_advice_that_their_recipe_would_refuse() -> None:
    recipe = read_recipe(Path(__file__).parents[2] / "recipes" / "iris_linear.yaml")
    found = profile_recipe(recipe, steps=2)
    words = " ".join(found.words(cost) for cost in found.costs)
    assert not any(field in words for field in ("hardware.kernels", "tokens_per_step", "data.context", "tokenizer."))
    assert "attention" not in words


def test_a_picture_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(text_recipe(text_file(tmp_path, 60))))
    monkeypatch.setattr("groundup.run.profile.gather", lambda *_, **__: pytest.fail("it was worked for nothing"))
    assert main(["profile", str(path), "--out", str(tmp_path / "file" / "p.html")]) == 1
    assert "E-MACHINE-900" in capsys.readouterr().err


def test_a_missing_recipe_is_an_error_of_five_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "nowhere.yaml"]) == 2
    assert "Traceback" not in capsys.readouterr().err
