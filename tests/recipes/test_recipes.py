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
    "smollm2_lora": "instruct/identity.json",
    "smollm2_full": "instruct/identity.json",
    "smollm2_qlora": "instruct/identity.json",
    "continue_pretraining": "text/lunyu_zh.txt",
    "bert_classify": "classify/sentences_en_yelp.txt",
    "bert_freeze_then_unfreeze": "classify/sentences_en_yelp.txt",
    "decoder_classify": "classify/sentences_en_yelp.txt",
    "embed": "instruct/identity.json",
}
QUICK = (
    "budget={steps: 2, tokens_per_step: 256}",
    "data.context=64",
    "events.evaluate_tokens=256",
)
MORE = {
    "bert_classify": ["data.test_files=[]"],
    "bert_freeze_then_unfreeze": [
        "data.test_files=[]",
        "adapters=[{kind: freeze, patterns: ['body.*'], unfreeze: [{step: 1, last_layers: 2}]}]",
    ],
    "embed": ["data.split.leaks=allow"],
}
ENCODERS = ("bert_classify", "bert_freeze_then_unfreeze", "embed")


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


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with a head, to fine-tune."""
    folder = tmp_path_factory.mktemp("encoder")
    rows = [f"{'good' if n % 2 else 'bad'} thing number {n}\t{n % 2}" for n in range(60)]
    (folder / "rows.txt").write_text("\n".join(rows) + "\n")
    recipe = {
        "name": "encoder",
        "model": {"family": "bert", "width": 16, "layers": 6, "heads": 2, "context": 64},
        "tokenizer": {"kind": "byte"},
        "data": {"kind": "labelled", "files": [str(folder / "rows.txt")]},
        "budget": {"steps": 1},
    }
    return groundup.train(recipe, *QUICK[1:], out=folder / "run").folder


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_built_and_stepped_twice(path: Path, base: Path, encoder: Path, tmp_path: Path) -> None:
    assert path.stem in DATA, f"say in this test which data {path.name} is for"
    text = path.read_text(encoding="utf-8")
    files = [f"data.files=['{shared(DATA[path.stem])}']"]
    if "init_from" in text:
        files.append(f"model.init_from='{encoder if path.stem in ENCODERS else base}'")
    if "kind: chat" in text:
        files.append("data.held_out=0.05" if "identity" in DATA[path.stem] else "data.held_out=0.005")
    if "kind: labelled" not in text:
        files.append("events.sample_tokens=4")
    result = groundup.train(path, *files, *QUICK, *MORE.get(path.stem, []), out=tmp_path / "run")
    assert (result.outcome, result.steps) == ("finished", 2)
    report = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
    counts = report["ledger"]["tokens"]
    assert counts["seen"] == counts["trained"] + counts["masked"] + counts["padded"]
    loaded = groundup.load(result.folder)
    if "kind: labelled" in text:
        [said] = loaded.predict(["a fine place"])
        assert ("embedding" in said) if path.stem == "embed" else said["label"] in ("0", "1")
    else:
        assert counts["seen"] == 2 * 256
        assert loaded.generate("春", max_tokens=4) is not None


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_templates_of_new_are_whole_recipes(kind: str) -> None:
    path = Path(groundup.__file__).parent / "recipe" / "templates" / f"{kind}.yaml"
    recipe, places = load_with_places(path, [], Recipe)
    check(recipe, places)
