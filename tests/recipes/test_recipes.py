"""Every shipped recipe is built and stepped twice, and the templates of `groundup new` are recipes too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.shared import shared

import groundup
from groundup.recipe.check import check
from groundup.recipe.load import load_with_places
from groundup.recipe.tree import Recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
DATA = {
    "shakespeare_char": "text/tinyshakespeare.txt",
    "tang_poems": "text/tang_poems_zh.txt",
    "chinese_answers": "instruct/alpaca_zh_demo.json",
}
QUICK = (
    "budget={steps: 2, tokens_per_step: 256}",
    "data.context=64",
    "events.evaluate_tokens=256",
    "events.sample_tokens=4",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Chinese model to fine-tune."""
    folder = tmp_path_factory.mktemp("base")
    text = folder / "base.txt"
    text.write_text("\n\n".join(f"第{n}首\n春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。{n}" for n in range(80)))
    recipe = {
        "name": "base",
        "model": {"depth": 1, "context": 64},
        "tokenizer": {"kind": "bpe", "vocabulary": 300},
        "data": {"kind": "text", "files": [str(text)], "documents": "paragraph", "deduplicate": {"near": False}},
        "budget": {"steps": 1},
    }
    return groundup.train(recipe, *QUICK[1:], out=folder / "run").folder


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_built_and_stepped_twice(path: Path, base: Path, tmp_path: Path) -> None:
    assert path.stem in DATA, f"say in this test which data {path.name} is for"
    files = [f"data.files=['{shared(DATA[path.stem])}']"]
    if "init_from" in path.read_text(encoding="utf-8"):
        files += [f"model.init_from='{base}'", "data.held_out=0.005"]
    result = groundup.train(path, *files, *QUICK, out=tmp_path / "run")
    assert (result.outcome, result.steps) == ("finished", 2)
    report = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
    counts = report["ledger"]["tokens"]
    assert counts["seen"] == counts["trained"] + counts["masked"] + counts["padded"] == 2 * 256
    assert groundup.load(result.folder).generate("春", max_tokens=4) is not None


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_templates_of_new_are_whole_recipes(kind: str) -> None:
    path = Path(groundup.__file__).parent / "recipe" / "templates" / f"{kind}.yaml"
    recipe, places = load_with_places(path, [], Recipe)
    check(recipe, places)
