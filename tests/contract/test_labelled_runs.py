"""Labelled runs: every task on both kinds of body, from nothing and from a model; what is measured, kept, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.toy_run import (
    TASKS,
    Options,
    assert_same,
    at,
    changed,
    events,
    labelled_file,
    labelled_recipe,
    labelled_rows,
    outcome,
    parts_of,
    run,
    saved,
    terminate,
    text_file,
    text_recipe,
    write_rows,
)
from torch import Tensor

import groundup
from groundup.cli.main import main
from groundup.data.labelled_stream import collate
from groundup.errors import GroundupError
from groundup.models.heads import Headed
from groundup.recipe.check import check
from groundup.recipe.load import load as load_recipe
from groundup.recipe.tree import Recipe
from groundup.recipe.yaml import dump
from groundup.run.rehearse import rehearse

FAST = {"model": {"kind": "adamw", "learning_rate": 0.02}}
MEASURED = {
    "classify": ("label_loss", "accuracy"),
    "choice": ("label_loss", "accuracy"),
    "multilabel": ("label_loss", "accuracy"),
    "tag": ("label_loss", "accuracy"),
    "regress": ("squared_error",),
    "embed": ("reciprocal_rank",),
}
NOISE = {"drop": 0.2, "move": 2, "mask": 0.1, "replace": 0.1}
# with a mask token in so small a vocabulary the bias of task choice, which cancels out, has a gradient of exactly zero
FITTING = {"tag": ("mask", "replace"), "choice": ("drop", "move", "replace")}
SECTIONS = {
    "classify": "classification", "multilabel": "multilabel", "tag": "tagging", "regress": "regression",
    "embed": "retrieval", "choice": None,
}  # fmt: skip
FIELDS = {
    "classify": {"label", "probability", "probabilities"},
    "multilabel": {"labels", "probabilities"},
    "tag": {"words", "tags"},
    "regress": {"value"},
    "embed": {"embedding"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("labelled")
    return {task: labelled_file(root, task) for task in TASKS}


@pytest.fixture(scope="module")
def trained(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of forty steps for each task and family, made once, with its report."""
    known: dict[tuple[str, str], tuple[Options, Path]] = {}

    def of(task: str, family: str) -> tuple[Options, Path]:
        if (task, family) not in known:
            recipe = labelled_recipe(
                files[task], task, family, budget__steps=40, optim=FAST,
                events={"log_every": 1, "save_every": 17, "evaluate_every": 10},
            )  # fmt: skip
            folder = tmp_path_factory.mktemp(f"{task}-{family}") / "run"
            groundup.train(recipe, out=folder)
            known[task, family] = recipe, folder
        return known[task, family]

    return of


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("task", TASKS)
def test_a_run_learns_and_reports(trained: Any, task: str, family: str) -> None:
    _, folder = trained(task, family)
    losses = [line["loss"] for line in events(folder, "step")]
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5]), losses
    assert not events(folder, "warning")
    report = json.loads((folder / "report.json").read_text())
    lines = {line["metric"]: line for line in report["evaluations"]}
    assert tuple(lines) == MEASURED[task]
    assert all(line["data"] == "test" and line["verdict"] for line in lines.values())
    falls = {"label_loss", "squared_error"}
    assert all((line["after"] < line["before"]) == (name in falls) for name, line in lines.items())
    while_training = events(folder, "evaluate")
    assert len(while_training) == 4 and {line["data"] for line in while_training} == {"validation"}
    shown = {"loss", *MEASURED[task]} - falls if task != "embed" else {"reciprocal_rank"}
    assert set(while_training[0]["metrics"]) == set(while_training[0]["intervals"]) == shown
    results = json.loads((folder / "results.json").read_text())
    assert {name for name in SECTIONS.values() if name in results} == {SECTIONS[task]} - {None}
    if SECTIONS[task]:
        assert results[SECTIONS[task]]["data"] == "test"
    page = (folder / "report.html").read_text()
    assert "</html>" in page and results["outcome"] == "finished"
    ledger = results["ledger"]["tokens"]
    assert ledger["seen"] == ledger["trained"] + ledger["masked"] + ledger["padded"]


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("task", TASKS)
def test_predictions_carry_the_names_of_the_labels(
    trained: Any, files: dict[str, Path], tmp_path: Path, task: str, family: str
) -> None:
    _, folder = trained(task, family)
    loaded = groundup.load(folder)
    assert isinstance(loaded.model, Headed)
    named = {"classify", "multilabel", "tag"}
    assert list(loaded.model.labels) == (["animal", "colour", "place"] if task in named else [])
    texts = ["cat dog horse fox cat", "red blue green", "", "house tree " * 40]
    if task == "choice":
        with pytest.raises(GroundupError) as caught:
            loaded.predict(texts)
        assert caught.value.code == "E-EVAL-021"
        return
    said = loaded.predict(texts)
    assert len(said) == 4 and all(set(one) == FIELDS[task] for one in said)
    assert said[0] == loaded.predict(texts[:1])[0] or task in ("regress", "embed", "classify", "multilabel")
    if task == "classify":
        assert [one["label"] for one in said[:2]] == ["animal", "colour"]
        assert sum(said[0]["probabilities"].values()) == pytest.approx(1.0)
        assert said[0]["probability"] == said[0]["probabilities"]["animal"] == max(said[0]["probabilities"].values())
    elif task == "multilabel":
        assert set(said[0]["probabilities"]) == {"animal", "colour", "place"} and "animal" in said[0]["labels"]
    elif task == "tag":
        assert said[1]["words"] == ["red", "blue", "green"] and said[1]["tags"] == ["colour"] * 3
        assert len(said[3]["tags"]) == 80 and said[3]["tags"][0] == "place" and said[3]["tags"][-1] is None
    elif task == "regress":
        assert said[0]["value"] < -0.4 < said[1]["value"] < 0.6
    else:
        lengths = torch.tensor([one["embedding"] for one in said]).norm(dim=1)
        assert torch.allclose(lengths, torch.ones(4), atol=1e-5)


def in_turn(task: str, family: str) -> Any:
    """Each task with one family here; the others are left to the long tests."""
    first = ("bert", "llama")[list(TASKS).index(task) % 2]
    return pytest.param(task, family, marks=[] if family == first else [pytest.mark.slow])


@pytest.mark.parametrize(("task", "family"), [in_turn(task, family) for task in TASKS for family in ("bert", "llama")])
def test_stopped_and_resumed_is_bitwise_equal(files: dict[str, Path], tmp_path: Path, task: str, family: str) -> None:
    recipe = labelled_recipe(
        files[task], task, family, budget__steps=5, head={"dropout": 0.1},
        data__augment={name: NOISE[name] for name in FITTING.get(task, NOISE)},
        events={"log_every": 1, "save_every": 2, "evaluate_every": 2},
    )  # fmt: skip
    run(recipe, tmp_path / "straight")
    assert run(recipe, tmp_path / "run", listeners=(at("step", 3, terminate),)).outcome == "stopped"
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "straight"))
    # the recipe as it was settled is a recipe too
    resolved = load_recipe(tmp_path / "run" / "recipe.yaml", [], Recipe)
    check(resolved)


def test_noise_is_put_on_training_rows_alone(files: dict[str, Path], tmp_path: Path) -> None:
    given = {"tokenizer": {"kind": "bpe", "vocabulary": 300, "mask": True}}
    recipe = labelled_recipe(files["classify"], "classify", **given)
    plain, noise = (
        parts_of(one, tmp_path / str(number))
        for number, one in enumerate((recipe, changed(recipe, data__augment=NOISE)))
    )
    assert plain.labels is not None and noise.labels is not None
    for side in ("train", "validation", "test"):
        pairs = zip(plain.labels.rows(side).examples, noise.labels.rows(side).examples, strict=True)  # type: ignore[arg-type]
        assert all(one.pieces[0].ids.tolist() == other.pieces[0].ids.tolist() for one, other in pairs)
    model = plain.network()
    assert plain.evaluate(model) == noise.evaluate(model)
    assert plain.score(model, final=True).as_dict() == noise.score(model, final=True).as_dict()
    first = [parts.source().next("model") for parts in (plain, noise)]
    assert first[0]["tokens_BT"].tolist() != first[1]["tokens_BT"].tolist()
    assert first[0]["label_B"].tolist() == first[1]["label_B"].tolist()


@pytest.mark.parametrize(
    ("task", "changes", "code"),
    [
        ("tag", {"data__augment": {"move": 1}}, "E-RECIPE-015"),
        ("tag", {"data__augment": {"drop": 0.1}}, "E-RECIPE-015"),
        ("classify", {"data__augment": {"mask": 0.1}, "tokenizer": {"kind": "byte", "mask": False}}, "E-TOKEN-009"),
        ("classify", {"data__augment": {"mask": 0.7, "replace": 0.7}}, "E-RECIPE-015"),
    ],
)
def test_noise_that_does_not_fit_is_refused_before_training(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, changes: Any, code: str
) -> None:
    exit_code, shown = write_and_train(tmp_path, labelled_recipe(files[task], task, **changes), capsys)
    assert exit_code == 2 and code in shown and "data.augment" in shown and "Traceback" not in shown
    assert not (tmp_path / "run" / "events.jsonl").exists(), "nothing was trained"


@pytest.fixture(scope="module")
def decoder(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("decoder")
    groundup.train(text_recipe(text_file(root, 60), budget__steps=1), out=root / "run")
    return root / "run"


@pytest.mark.parametrize(
    "task", [task if task in ("classify", "embed") else pytest.param(task, marks=pytest.mark.slow) for task in TASKS]
)
def test_a_head_goes_onto_a_model_that_exists(
    trained: Any, decoder: Path, files: dict[str, Path], tmp_path: Path, task: str
) -> None:
    encoder = trained("classify", "bert")[1]
    for number, base in enumerate((decoder, encoder)):
        recipe = labelled_recipe(files[task], task, model={"init_from": str(base)}, tokenizer=None, budget__steps=2)
        assert run(recipe, tmp_path / str(number)).outcome == "finished"
        model = groundup.load(tmp_path / str(number)).model
        assert isinstance(model, Headed) and model.kind == task
        assert (model.options.pooling, model.causal) == (
            (None if task == "tag" else ["last", "mean"][number]),
            not number,
        )


def test_a_head_of_the_same_kind_and_labels_is_kept(trained: Any, files: dict[str, Path], tmp_path: Path) -> None:
    encoder = trained("classify", "bert")[1]
    recipe = labelled_recipe(files["classify"], "classify", model={"init_from": str(encoder)}, tokenizer=None)
    parts = parts_of(recipe, tmp_path / "run")
    own = groundup.load(encoder).model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in parts.network().state_dict().items())


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "moe"])
@pytest.mark.parametrize("task", [task for task in TASKS if task != "embed"])
def test_K_accumulation_is_exact(files: dict[str, Path], tmp_path: Path, task: str, family: str) -> None:
    weights: dict[str, Any] = {"objective": {"kind": task, "class_weights": "balanced", "label_smoothing": 0.1}}
    recipe = labelled_recipe(files[task], task, family, **(weights if task in ("classify", "tag") else {}))
    parts = parts_of(recipe, tmp_path / "run")
    assert parts.labels is not None
    examples = parts.labels.parts["train"].examples[:8]
    found: list[dict[str, Tensor]] = []
    for size in (8, 4, 1):
        model = parts.network()
        model.eval()
        objective = parts.objective(model)
        micros = [collate(examples[i : i + size], task, parts.labels.pad_id) for i in range(0, 8, size)]  # type: ignore[arg-type]
        weight = float(sum(objective.weight("model", micro) for micro in micros))
        for micro in micros:
            (objective.loss("model", micro).total / weight).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for other in found[1:]:
        assert set(other) == set(found[0])
        for name, gradient in found[0].items():
            assert torch.allclose(other[name], gradient, atol=1e-6, rtol=1e-4), name


def test_balanced_weights_count_the_training_targets(tmp_path: Path) -> None:
    rows = [row for n, row in enumerate(labelled_rows("classify", 90)) if row["label"] != "place" or n % 4 == 2]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    recipe = labelled_recipe(file, "classify", objective={"kind": "classify", "class_weights": "balanced"})
    parts = parts_of(recipe, tmp_path / "parts")
    assert parts.labels is not None
    counts = parts.labels.counts
    assert sum(counts.values()) == len(parts.labels.parts["train"].examples) and counts["place"] < counts["animal"]
    rehearse(parts, seconds=0.0)
    weight = parts.objective(parts.network()).weight_L  # type: ignore[attr-defined]
    total = sum(counts.values())
    assert weight.tolist() == pytest.approx([total / (3 * counts[name]) for name in ("animal", "colour", "place")])
    assert run(recipe, tmp_path / "run").outcome == "finished"


def write_and_train(tmp_path: Path, recipe: Options, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe))
    code = main(["train", str(path), "--out", str(tmp_path / "run")])
    return code, capsys.readouterr().err


D8 = {
    "one label": ("classify", [{"text": f"t {n}", "label": "same"} for n in range(20)], {}, "E-DATA-103"),
    "unseen label": (
        "classify",
        [{"text": f"t {n}", "label": "ab"[n % 2]} for n in range(20)],
        {"data__validation_files": "OTHER", "data__split": {"test": 0.0}},
        "E-DATA-102",
    ),
    "not finite": ("regress", [{"text": f"t {n}", "score": n if n > 4 else "nan"} for n in range(9)], {}, "E-DATA-003"),
    "no such column": ("classify", [{"phrase": "a", "mood": "b"}], {}, "E-DATA-100"),
    "all rows too long": (
        "classify", [{"text": f"word {n} " * 20, "label": "ab"[n % 2]} for n in range(40)],
        {"data__over_long": "drop", "data__context": 4}, "E-DATA-001",
    ),
    "unknown weight": (
        "classify", [{"text": f"t {n}", "label": "ab"[n % 2]} for n in range(40)],
        {"objective": {"kind": "classify", "class_weights": {"c": 2.0}}}, "E-RECIPE-051",
    ),
    "balanced and a label without rows": (
        "classify", [{"text": f"t {n}", "label": "ab"[n % 2]} for n in range(40)],
        {"data__labels": ["a", "b", "c"], "objective": {"kind": "classify", "class_weights": "balanced"}},
        "E-RECIPE-052",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", D8)
def test_D8_bad_labels_are_refused_before_training(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, rows, changes, code = D8[case]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    other = write_rows(tmp_path / "other.jsonl", [{"text": "new", "label": "c"}])
    changes = {name: [str(other)] if value == "OTHER" else value for name, value in changes.items()}
    recipe = labelled_recipe(file, task, tokenizer={"kind": "byte"}, **changes)
    exit_code, shown = write_and_train(tmp_path, recipe, capsys)
    assert exit_code in (1, 2) and code in shown and "Traceback" not in shown and "fix" in shown
    assert not (tmp_path / "run" / "events.jsonl").exists(), "nothing was trained"


def test_early_stopping_on_accuracy_keeps_the_best_weights(files: dict[str, Path], tmp_path: Path) -> None:
    recipe = labelled_recipe(
        files["classify"], "classify", budget__steps=40, optim={"model": {"kind": "sgd", "learning_rate": 2.0}},
        events={"log_every": 1, "evaluate_every": 1, "save_every": 5,
                "early_stopping": {"metric": "accuracy", "patience": 4}},
    )  # fmt: skip
    result = run(recipe, tmp_path / "run")
    assert result.outcome == "early_stopped" and result.steps < 40
    seen = [line["metrics"]["accuracy"] for line in events(tmp_path / "run", "evaluate")]
    best = seen.index(max(seen))
    assert len(seen) - 1 - best == 4, "it stopped four evaluations after the best"
    held = saved(tmp_path / "run")
    state = groundup.load(tmp_path / "run" / "model").model.state_dict()
    for name, tensor in held.tensors["best"].items():
        assert torch.equal(state[name], tensor), name
    from groundup.run.measuring import evaluate_labels

    parts = parts_of(recipe, tmp_path / "again")
    found = evaluate_labels(groundup.load(tmp_path / "run").model, parts, limit=10**6)
    assert found["validation"]["metrics"]["accuracy"] == pytest.approx(max(seen))


def test_tags_that_are_spans_are_scored_as_spans(tmp_path: Path) -> None:
    rows = [
        {"tokens": row["tokens"], "ner_tags": ["B-ANIMAL" if tag == "animal" else "O" for tag in row["ner_tags"]]}
        for row in labelled_rows("tag")
    ]
    run(labelled_recipe(write_rows(tmp_path / "rows.jsonl", rows), "tag"), tmp_path / "run")
    tagging = json.loads((tmp_path / "run" / "results.json").read_text())["tagging"]
    assert [one["type"] for one in tagging["per_type"]] == ["ANIMAL"]


def test_changing_the_head_is_no_resume(files: dict[str, Path], tmp_path: Path) -> None:
    recipe = labelled_recipe(files["classify"], "classify", budget__steps=4)
    run(recipe, tmp_path / "run", listeners=(at("step", 2, terminate),))
    with pytest.raises(GroundupError) as caught:
        run(changed(recipe, head={"pooling": "first"}), tmp_path / "run", resume=True, accept_changes=True)
    assert caught.value.code == "E-RUN-003" and "head.pooling" in caught.value.what
