"""The contract of runs on tables, images and translations: a resume is exact, accumulation is exact, the ledger adds
up, early stopping keeps the best, what is frozen stands still, and what cannot be right is refused before anything."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.toy_rows import (
    EVENTS,
    gradients,
    image_file,
    image_folder,
    image_recipe,
    pair_file,
    pair_recipe,
    pixels,
    quick_rows,
    refused,
    row_recipes,
    table_file,
    table_recipe,
    table_rows,
    work_of,
    write_csv,
)
from tests.contract.toy_run import (
    Options,
    assert_same,
    at,
    changed,
    events,
    kill,
    killed_run,
    outcome,
    run,
    run_once,
    saved,
    terminate,
)
from torch import Tensor

from groundup import checkpoint
from groundup.errors import GroundupError
from groundup.recipe.check import check
from groundup.recipe.load import load
from groundup.recipe.tree import Recipe
from groundup.run.prediction import PredictionWork

KINDS = (
    "classify", "multilabel", "regress", "embedded", "images", "image values", "autoencoder", "vae", "gan", "pairs",
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_rows(monkeypatch)


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Options]:
    found = row_recipes(tmp_path_factory.mktemp("rows"))
    assert set(found) == set(KINDS)
    return found


@pytest.fixture(scope="module")
def straight(recipes: dict[str, Options], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The uninterrupted run of a kind, made once."""
    return run_once(recipes.__getitem__, tmp_path_factory.mktemp)


# ---------------------------------------------------------------- resume


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_is_bitwise_equal(
    recipes: dict[str, Options], straight: Any, tmp_path: Path, kind: str
) -> None:
    stopped = run(recipes[kind], tmp_path / "run", listeners=(at("step", 3, terminate),))
    assert (stopped.outcome, stopped.steps) == ("stopped", 3)
    assert run(recipes[kind], tmp_path / "run", resume=True).outcome == "finished"
    once = outcome(straight(kind))
    assert any(name.startswith("optimizer/") for name in once.tensors)
    assert_same(outcome(tmp_path / "run"), once)


@pytest.mark.parametrize("kind", ["images", "gan"])
@pytest.mark.parametrize(("event", "step"), [("save", 2), ("step", 5)])
def test_killed_and_resumed_is_bitwise_equal(
    recipes: dict[str, Options], straight: Any, tmp_path: Path, kind: str, event: str, step: int
) -> None:
    killed_run(recipes[kind], tmp_path / "run", at(event, step, kill))
    run(recipes[kind], tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(straight(kind)))


def test_a_resume_knows_the_average_and_the_best(recipes: dict[str, Options], tmp_path: Path) -> None:
    recipe = changed(recipes["vae"], events=EVENTS | {"average": 0.7, "early_stopping": {"patience": 9}})
    run(recipe, tmp_path / "straight")
    run(recipe, tmp_path / "run", listeners=(at("step", 4, terminate),))
    run(recipe, tmp_path / "run", resume=True)
    assert {"average", "best"} <= set(saved(tmp_path / "run").tensors)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "straight"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipe_as_it_was_settled_is_a_recipe_too(straight: Any, tmp_path: Path, kind: str) -> None:
    """It is what the terminal names to go on with a stopped run."""
    settled = load(straight(kind) / "recipe.yaml", [], Recipe)
    check(settled)
    again = work_of(settled.model_dump(exclude_unset=True), tmp_path / "run").recipe
    assert again.model_dump() == settled.model_dump()


def test_another_seed_is_another_run(recipes: dict[str, Options], straight: Any, tmp_path: Path) -> None:
    run(changed(recipes["classify"], seed=2), tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_same(outcome(tmp_path / "run"), outcome(straight("classify")))


# ---------------------------------------------------------------- accumulation

EXACT: dict[str, dict[str, Any]] = {
    # without statistics of a batch, and with draws that do not depend on where a batch is cut
    "classify": {"objective": {"kind": "classify", "class_weights": "balanced", "label_smoothing": 0.1}},
    "multilabel": {"objective": {"kind": "multilabel", "positive_weights": {"a": 3.0}}},
    "regress": {"objective": {"kind": "regress", "huber_delta": 0.5}},
    "embedded": {},
    "images": {},
    "image values": {},
    "autoencoder": {"objective": {"kind": "reconstruct", "loss": "binary_cross_entropy"}},
    "vae": {"objective": {"kind": "elbo", "binarise": "none"}},
    "gan": {"objective": {"kind": "adversarial", "loss": "hinge", "r1": 1.0, "collapse_spread": 0.0}},
    "pairs": {},
}


def compare(whole: dict[str, Tensor], split: dict[str, Tensor]) -> None:
    assert whole and list(whole) == list(split)
    assert any(gradient.abs().max() > 1e-5 for gradient in whole.values())
    for name, gradient in whole.items():
        assert torch.allclose(split[name], gradient, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_accumulation_is_exact(recipes: dict[str, Options], tmp_path: Path, kind: str) -> None:
    recipe = changed(recipes[kind], budget={"steps": 1, "rows_per_step": 32, "micro_batch": 32}, **EXACT[kind])
    work = work_of(recipe, tmp_path / "run")
    for turn in dict.fromkeys(work.objective(work.network()).turns):
        draws = kind == "vae"  # in evaluation mode it draws the same for each micro-batch
        whole = gradients(work, tmp_path, turn, 1, training=draws)
        for parts in (2, 4) if kind in ("vae", "gan") else (2, 8, 32):
            compare(whole, gradients(work, tmp_path, turn, parts, training=draws))


def test_accumulation_of_ragged_targets_weighs_tokens(recipes: dict[str, Options], tmp_path: Path) -> None:
    recipe = changed(recipes["pairs"], budget={"steps": 1, "rows_per_step": 8, "micro_batch": 8})
    work = work_of(recipe, tmp_path / "run")
    batch = work.source().next("model")
    counts = (batch["target_BT"] >= 0).sum(dim=1)
    assert counts.min() < counts.max(), "the rows differ in length, or the test shows nothing"
    compare(gradients(work, tmp_path, "model", 1), gradients(work, tmp_path, "model", 8))


# ---------------------------------------------------------------- what a run says


@pytest.mark.parametrize("kind", KINDS)
def test_the_ledger_adds_up(recipes: dict[str, Options], straight: Any, kind: str) -> None:
    results = json.loads((straight(kind) / "results.json").read_text())
    ledger = results["ledger"]["tokens"]
    assert ledger["seen"] == ledger["trained"] + ledger["masked"] + ledger["padded"] > 0
    steps = events(straight(kind), "step")
    assert (steps[-1]["seen"], steps[-1]["tokens"]) == (ledger["seen"], ledger["trained"])
    assert all(early["seen"] < late["seen"] for early, late in itertools.pairwise(steps))
    assert not events(straight(kind), "warning")
    turns = 3 if kind == "gan" else 1
    if kind != "pairs":
        assert 6 * 16 * turns * 0.8 < ledger["seen"] <= 6 * 16 * turns, "six steps of sixteen rows for each turn"
    data = results["ledger"]["data"]
    rows = data.get("rows") or data.get("images") or data.get("pairs")
    there = rows["kept"] if isinstance(rows, dict) else None
    assert there == sum(data["sides"].values())


def test_the_card_counts_what_was_set_aside(tmp_path: Path) -> None:
    rows = [{**row, "size": "" if number < 4 else row["size"]} for number, row in enumerate(table_rows())]
    keep = ("size", "weight", "label")
    file = write_csv(tmp_path / "rows.csv", [{name: row[name] for name in keep} for row in rows])
    recipe = table_recipe(file, data__preprocessing={"missing": "drop"})
    run(recipe, tmp_path / "run")
    data = json.loads((tmp_path / "run" / "results.json").read_text())["ledger"]["data"]
    counts = data["rows"]
    assert counts["rows"] == 90 == counts["kept"] + counts["malformed"] + sum(counts["set_aside"].values())
    assert counts["kept"] == 86 == sum(data["sides"].values())
    lines = (tmp_path / "run" / "data" / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) == 4


# ---------------------------------------------------------------- early stopping


@pytest.mark.parametrize("kind", ["classify", "regress", "images", "autoencoder", "vae", "pairs"])
def test_early_stopping_returns_the_best_weights(recipes: dict[str, Options], tmp_path: Path, kind: str) -> None:
    """The first evaluation, after step 2, stays the best: the run ends with the third, after step 6."""
    given = {"log_every": 1, "save_every": 2, "keep_every": 1, "evaluate_every": 2}
    stopping = {"metric": "loss", "patience": 2, "minimum_change": 1e9}
    recipe = changed(recipes[kind], budget__steps=20, events=given | {"early_stopping": stopping})
    result = run(recipe, tmp_path / "run")
    assert (result.outcome, result.steps) == ("early_stopped", 6)
    then, now = saved(tmp_path / "run", step=2).tensors["model"], outcome(tmp_path / "run").tensors
    last = saved(tmp_path / "run", step=6).tensors["model"]
    for name, tensor in then.items():
        assert torch.equal(now[f"final/{name}"], tensor), name
    assert any(not torch.equal(then[name], last[name]) for name in then), "it went on learning after the best"


@pytest.mark.parametrize("kind", ["table", "images", "pairs"])
def test_training_and_early_stopping_never_look_at_test(tmp_path: Path, kind: str) -> None:
    """Two runs whose test sets alone differ, in their features and answers, are bitwise the same."""
    test = tmp_path / "test"
    events_given = {"log_every": 1, "save_every": 3, "evaluate_every": 1, "early_stopping": {"patience": 2}}
    split = {"test": 0.0, "validation": 0.2}
    finals, verdicts = [], []
    for version in (0, 1):
        if kind == "table":
            rows = table_rows(40, seed=8 + version)
            made = [
                {name: row[name] for name in ("weight", "colour", "label")} | {"size": row["size"] + 50 * version}
                for row in rows
            ]
            held = write_csv(test / "test.csv", made)
            recipe = table_recipe(table_file(tmp_path), optim={"model": {"kind": "sgd", "learning_rate": 3.0}})
        elif kind == "images":
            made_file = image_file(test, 30, seed=8 + version)
            held = made_file.rename(test / "test.npz")
            recipe = image_recipe(image_file(tmp_path), optim={"model": {"kind": "sgd", "learning_rate": 3.0}})
        else:
            held = pair_file(test, 30, seed=0)
            held.write_text("".join(f"x{n} {version}\ty{version} {n}\n" for n in range(20)), encoding="utf-8")
            recipe = pair_recipe(pair_file(tmp_path), tokenizer={"kind": "byte"})
        recipe = changed(recipe, data__test_files=[str(held)], data__split=split, events=events_given, budget__steps=12)
        folder = tmp_path / f"run{version}"
        run(recipe, folder)
        finals.append(outcome(folder))
        report = json.loads((folder / "results.json").read_text())["evaluations"]
        assert {line["data"] for line in report} == {"test"}
        verdicts.append([line["after"] for line in report])
    assert_same(*finals)
    assert verdicts[0] != verdicts[1], "what was measured in the end did differ"


# ---------------------------------------------------------------- going on with a model


@pytest.fixture(scope="module")
def image_base(recipes: dict[str, Options], straight: Any) -> Path:
    return straight("images")


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return dict(checkpoint.load_model(folder / "model")[0])


FROZEN = {"kind": "freeze", "patterns": ["body.layers.*"]}


def test_what_is_frozen_stands_still_with_its_statistics(
    image_base: Path, recipes: dict[str, Options], tmp_path: Path
) -> None:
    recipe = changed(recipes["images"], model={"init_from": str(image_base)}, adapters=[FROZEN])
    run(recipe, tmp_path / "run")
    before, after = tensors_of(image_base), tensors_of(tmp_path / "run")
    still = [name for name in before if name.startswith("body.layers.")]
    assert any(name.endswith("running_mean") for name in still) and list(before) == list(after)
    for name in still:
        assert torch.equal(before[name], after[name]), name
    moved = [name for name in before if name not in still]
    assert any(name.endswith("running_var") for name in moved)
    assert all(not torch.equal(before[name], after[name]) for name in moved)
    owners = {name.removeprefix("model/").rpartition("/")[0] for name in saved(tmp_path / "run").tensors["optimizer"]}
    assert owners == {name for name in moved if name.endswith(("weight", "bias"))}
    shares = json.loads((tmp_path / "run" / "results.json").read_text())["trainable"]
    trained = sum(before[name].numel() for name in owners)
    assert (shares["trained"], shares["trained_bytes"]) == (trained, 4 * trained)


def test_a_frozen_run_resumes_bitwise(image_base: Path, recipes: dict[str, Options], tmp_path: Path) -> None:
    recipe = changed(recipes["images"], model={"init_from": str(image_base)}, adapters=[FROZEN])
    run(recipe, tmp_path / "straight")
    run(recipe, tmp_path / "run", listeners=(at("step", 3, terminate),))
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "straight"))


def test_unfreezing_begins_at_its_step(image_base: Path, recipes: dict[str, Options], tmp_path: Path) -> None:
    adapter = FROZEN | {"unfreeze": [{"step": 3, "patterns": ["body.layers.1.*"]}]}
    given = EVENTS | {"keep_every": 1, "save_every": 1}
    recipe = changed(recipes["images"], model={"init_from": str(image_base)}, adapters=[adapter], events=given)
    run(recipe, tmp_path / "run")
    base = tensors_of(image_base)
    early, late = (saved(tmp_path / "run", step).tensors["model"] for step in (3, 4))
    for name in base:
        if name.startswith("body.layers."):
            assert torch.equal(early[name], base[name]), name
            counted = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
            assert counted or torch.equal(late[name], base[name]) == name.startswith("body.layers.0."), name


def test_statistics_of_what_was_unfrozen_move_again(
    image_base: Path, recipes: dict[str, Options], tmp_path: Path
) -> None:
    adapter = FROZEN | {"unfreeze": [{"step": 3, "patterns": ["body.layers.1.*"]}]}
    run(changed(recipes["images"], model={"init_from": str(image_base)}, adapters=[adapter]), tmp_path / "run")
    before, after = tensors_of(image_base), tensors_of(tmp_path / "run")
    for quantity in ("running_mean", "num_batches_tracked"):
        assert torch.equal(before[f"body.layers.0.norm.{quantity}"], after[f"body.layers.0.norm.{quantity}"])
        assert not torch.equal(before[f"body.layers.1.norm.{quantity}"], after[f"body.layers.1.norm.{quantity}"])


def test_a_head_of_the_same_labels_is_kept(image_base: Path, recipes: dict[str, Options], tmp_path: Path) -> None:
    work = work_of(changed(recipes["images"], model={"init_from": str(image_base)}), tmp_path / "run")
    own = tensors_of(image_base)
    assert all(torch.equal(own[name], tensor) for name, tensor in work.network().state_dict().items())


def test_other_labels_get_a_new_head(image_base: Path, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "png")
    recipe = changed(image_recipe(folder), model={"init_from": str(image_base)})
    work = work_of(recipe, tmp_path / "look")
    assert isinstance(work, PredictionWork) and work.said.labels == ["a", "b", "c"]
    own, new = tensors_of(image_base), work.network().state_dict()
    for name, tensor in new.items():
        drawn = name.startswith("body.head.")
        assert torch.equal(own[name], tensor) != drawn or name == "body.head.bias", name
    run(
        changed(recipe, adapters=[{"kind": "freeze", "patterns": ["body.*"], "train": ["body.head.*"]}]),
        tmp_path / "run",
    )
    after = tensors_of(tmp_path / "run")
    assert {name for name in own if not torch.equal(own[name], after[name])} == {"body.head.weight", "body.head.bias"}
    owners = {name.split("/")[1] for name in saved(tmp_path / "run").tensors["optimizer"]}
    assert owners == {"body.head.weight", "body.head.bias"}


@pytest.mark.parametrize("kind", ["classify", "regress", "autoencoder", "vae", "gan", "pairs"])
def test_a_finished_run_can_be_gone_on_with(
    recipes: dict[str, Options], straight: Any, tmp_path: Path, kind: str
) -> None:
    tokenizer = {"tokenizer": None} if kind == "pairs" else {}
    recipe = changed(recipes[kind], model={"init_from": str(straight(kind))}, budget__steps=2, **tokenizer)
    run(recipe, tmp_path / "run")
    before, after = tensors_of(straight(kind)), tensors_of(tmp_path / "run")
    assert list(before) == list(after)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    first = work_of(recipe, tmp_path / "look").network().state_dict()
    assert all(torch.equal(before[name], first[name]) for name in before), "it begins where the other ended"


# ---------------------------------------------------------------- what is refused


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    # case: (kind of work, changes, code)
    "a convolution on a table": ("classify", {"model": {"family": "convnet"}}, "E-RECIPE-065"),
    "a language model on a table": ("classify", {"model": {"family": "llama", "depth": 1}}, "E-RECIPE-065"),
    "an actor on images": ("images", {"model": {"family": "q_network"}}, "E-RECIPE-065"),
    "a classifier without labels": ("autoencoder", {"model": {"family": "mlp"}}, "E-RECIPE-065"),
    "an autoencoder with labels": ("images", {"model": {"family": "autoencoder"}}, "E-RECIPE-065"),
    "a table's network on pairs": ("pairs", {"model": {"family": "mlp"}}, "E-RECIPE-065"),
    "the objective of another task": ("classify", {"objective": {"kind": "regress"}}, "E-RECIPE-047"),
    "the objective of another network": ("vae", {"objective": {"kind": "reconstruct"}}, "E-RECIPE-047"),
    "an objective of tokens": ("images", {"objective": {"kind": "next_token"}}, "E-RECIPE-047"),
    "an objective of environments": ("classify", {"objective": {"kind": "ppo"}}, "E-RECIPE-047"),
    "one player is missing": ("gan", {"optim__generator": None}, "E-RECIPE-038"),
    "a player too many": ("classify", {"optim__critic": {"kind": "adamw"}}, "E-RECIPE-038"),
    "a budget of tokens": ("classify", {"budget": {"tokens": 1000}}, "E-RECIPE-030"),
    "steps of no environment": ("classify", {"budget": {"environment_steps": 1000}}, "E-RECIPE-030"),
    "micro-batches that do not divide": ("classify", {"budget__micro_batch": 7}, "E-RECIPE-037"),
    "a tokenizer for images": ("images", {"tokenizer": {"kind": "byte"}}, "E-RECIPE-030"),
    "a head section": ("classify", {"head": {"dropout": 0.5}}, "E-RECIPE-030"),
    "low-rank adapters": ("classify", {"adapters": [{"kind": "lora"}]}, "E-RECIPE-030"),
    "frozen weights of a new network": ("images", {"adapters": [FROZEN]}, "E-RECIPE-045"),
    "a metric that nobody measures": (
        "classify", {"events__early_stopping": {"metric": "bits_per_byte"}}, "E-RECIPE-040",
    ),
    "nothing to stop two players by": ("gan", {"events__early_stopping": {}}, "E-RECIPE-040"),
    "nothing to measure on": (
        "classify", {"data__split": {"validation": 0.0}, "events__early_stopping": {}}, "E-RECIPE-030",
    ),
    "prompts for a table": ("classify", {"events__prompts": ["hello"]}, "E-RECIPE-030"),
    "samples of a table": ("classify", {"events__sample_every": 2}, "E-RECIPE-030"),
    "samples of images": ("vae", {"events__sample_every": 2}, "E-RECIPE-030"),
    "recomputation without blocks": ("classify", {"hardware__recompute": True}, "E-RECIPE-030"),
    "a column that is not there": ("classify", {"data__columns": {"target": "mood"}}, "E-DATA-"),
    "a file that is not there": ("images", {"data__files": ["/nowhere/at/all.npz"]}, "E-DATA-"),
    "a patch that does not divide": ("images", {"model": {"family": "vit", "patch": 3}}, "E-MODEL-"),
    "convolutions deeper than the image": ("images", {"model": {"family": "convnet", "channels": [4] * 6}}, "E-MODEL-"),
    "more rows in a batch than there are": (
        "classify", {"budget": {"steps": 2, "rows_per_step": 128, "micro_batch": 128}}, "E-DATA-117",
    ),
    "a pattern that names nothing": (
        "images", {"model": "BASE", "adapters": [{"kind": "freeze", "patterns": ["layers.*"]}]}, "E-ADAPT-001",
    ),
    "images of another size": ("images", {"model": "BASE", "data__size": 12}, "E-MODEL-007"),
    "a model of images for a table": ("classify", {"model": "BASE"}, "E-RECIPE-065"),
    "a model of images for pairs": ("pairs", {"model": "BASE", "tokenizer": None}, "E-MODEL-006"),
    "an image model with another objective": (
        "images", {"model": "BASE", "objective": {"kind": "ppo"}}, "E-RECIPE-047",
    ),
    "a classifier to generate with": ("vae", {"model": "BASE"}, "E-RECIPE-065"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused(
    case: str, recipes: dict[str, Options], request: pytest.FixtureRequest, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    kind, changes, code = REFUSED[case]
    if changes.get("model") == "BASE":
        changes = changes | {"model": {"init_from": str(request.getfixturevalue("image_base"))}}
    exit_code, shown = refused(changed(recipes[kind], **changes), tmp_path, capsys)
    assert all(one in shown for one in code.split()), shown
    assert exit_code == 2 or (exit_code == 1 and code.startswith("E-DATA-")), shown


def test_rows_that_cannot_be_read_are_refused_with_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"size": "much" if number % 3 == 0 else row["size"]} for number, row in enumerate(table_rows(30))]
    file = write_csv(tmp_path / "rows.csv", rows)
    recipe = table_recipe(file, data__columns={"target": "label", "numeric": ["size"]})
    code, shown = refused(recipe, tmp_path, capsys)
    assert code in (1, 2) and "rows.csv" in shown and "size" in shown, shown


def test_changing_the_network_is_no_resume(recipes: dict[str, Options], tmp_path: Path) -> None:
    run(recipes["classify"], tmp_path / "run", listeners=(at("step", 2, terminate),))
    other = changed(recipes["classify"], model__hidden=[9])
    with pytest.raises(GroundupError) as caught:
        run(other, tmp_path / "run", resume=True, accept_changes=True)
    assert caught.value.code == "E-RUN-003" and "model.hidden" in caught.value.what


def test_images_from_a_folder_are_those_of_an_array(tmp_path: Path) -> None:
    """The same pixels and labels as PNG files or as one array give batches of the same images."""
    folder = image_folder(tmp_path / "png", 30, seed=1)
    images, _ = pixels(30, 1)
    work = work_of(image_recipe(folder), tmp_path / "run")
    assert isinstance(work, PredictionWork) and work.images is not None
    found = {image.tobytes() for side in ("train", "validation", "test") for image in
             work.images.part(side).images[work.images.part(side).index]}  # type: ignore[arg-type]  # fmt: skip
    assert found == {image.tobytes() for image in images}
