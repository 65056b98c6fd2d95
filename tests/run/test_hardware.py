"""Compiled or plain: settled once, written down, the same model either way, and never changed in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from tests.contract.toy_run import at, changed, events, kill, killed_run, quick, run, saved, text_file, text_recipe

from groundup.compiled import training
from groundup.errors import GroundupError

pytestmark = pytest.mark.skipif(training.why_not() is not None, reason=str(training.why_not()))
WIDE = {"width": 64, "layers": 2, "heads": 2}  # heads of 32, which the compiled attention knows


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


def kernels_of(folder: Path) -> str:
    said = str(yaml.safe_load((folder / "recipe.yaml").read_text())["hardware"]["kernels"])
    assert events(folder, "start")[0]["kernels"] == said
    return said


def test_auto_is_compiled_here_and_learns_what_the_plain_functions_learn(tmp_path: Path) -> None:
    recipe = text_recipe(text_file(tmp_path, 60), model=WIDE)
    for name, asked in (("auto", "auto"), ("again", "compiled"), ("plain", "plain")):
        run(changed(recipe, hardware__kernels=asked), tmp_path / name)
    assert [kernels_of(tmp_path / name) for name in ("auto", "again", "plain")] == ["compiled", "compiled", "plain"]
    auto, again, plain = (saved(tmp_path / name).tensors["model"] for name in ("auto", "again", "plain"))
    assert all(torch.equal(auto[name], again[name]) for name in auto)
    assert not all(torch.equal(auto[name], plain[name]) for name in auto)
    for name in auto:
        assert torch.allclose(auto[name], plain[name], atol=2e-3), name
    assert not training.in_use(torch.ones(1))  # what a run turned on ends with it


def test_a_resume_goes_on_with_what_the_run_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = text_recipe(text_file(tmp_path, 60), model=WIDE)
    run(recipe, tmp_path / "straight")
    for name in ("killed", "moved"):
        killed_run(recipe, tmp_path / name, at("step", 4, kill))
    run(recipe, tmp_path / "killed", resume=True)
    straight, killed = (saved(tmp_path / name).tensors["model"] for name in ("straight", "killed"))
    assert all(torch.equal(straight[name], killed[name]) for name in straight)
    monkeypatch.setattr(training, "why_not", lambda: "no C compiler is installed")
    with pytest.raises(GroundupError) as refused:
        run(recipe, tmp_path / "moved", resume=True)
    assert refused.value.code == "E-RUN-032" and "no C compiler" in refused.value.what
    run(changed(recipe, hardware__kernels="plain"), tmp_path / "moved", resume=True, accept_changes=True)


@pytest.mark.parametrize("other", [{"compile": "on"}, {"precision": "bfloat16"}])
def test_what_they_are_not_made_for_is_refused(tmp_path: Path, other: dict[str, str]) -> None:
    recipe = text_recipe(text_file(tmp_path, 60), hardware={"kernels": "compiled", **other})
    with pytest.raises(GroundupError) as refused:
        run(recipe, tmp_path / "run")
    assert refused.value.code == "E-RUN-032" and refused.value.exit_code == 2


def test_bfloat16_is_left_plain(tmp_path: Path) -> None:
    run(text_recipe(text_file(tmp_path, 60), hardware={"precision": "bfloat16"}), tmp_path / "run")
    assert kernels_of(tmp_path / "run") == "plain"
