"""Adapted runs on a tiny base: what stands still, what is kept, what a resume and a reload give back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.toy_run import (
    Options,
    adapted_recipe,
    assert_same,
    at,
    changed,
    events,
    kill,
    killed_run,
    labelled_file,
    labelled_recipe,
    outcome,
    parts_of,
    run,
    saved,
    terminate,
    text_file,
    text_recipe,
)
from torch import Tensor, nn

import groundup
from groundup.adapters import base_bytes
from groundup.engine.loop import update
from groundup.engine.stop import Stop
from groundup.errors import GroundupError
from groundup.run import models
from groundup.run.assemble import assemble
from groundup.run.language import LanguageWork

LORA = {"kind": "lora", "rank": 2}
KINDS: dict[str, list[dict[str, Any]]] = {
    "lora": [LORA | {"dropout": 0.1}],
    "dora": [LORA | {"variant": "dora"}],
    "quantize and lora": [{"kind": "quantize", "group": 8}, LORA],
    "scale": [{"kind": "scale"}],
    "lora and a norm": [LORA | {"train": ["norm.weight"]}],
    "lora on the embedding": [LORA | {"targets": ["embedding", "*.q_proj"]}],
    "grow and lora": [{"kind": "grow", "words": ["house", "cat"], "controls": ["<|tool|>"]}, LORA],
    "freeze": [{"kind": "freeze", "first_layers": 1, "embeddings": True}],
    "unfreeze": [
        {
            "kind": "freeze",
            "all_but_last": 0,
            "unfreeze": [{"step": 3, "last_layers": 1}, {"step": 5, "last_layers": 2}],
        }
    ],
}
ON_BASE = [name for name in KINDS if not name.endswith("freeze")]
EVENTS = {"log_every": 1, "save_every": 2, "evaluate_every": 4, "evaluate_tokens": 300, "sample_every": 0}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_file(tmp_path_factory.mktemp("texts"), 60)


@pytest.fixture(scope="module")
def base(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained for two steps."""
    folder = tmp_path_factory.mktemp("base") / "run"
    groundup.train(text_recipe(texts, budget__steps=2, model={"width": 16, "layers": 2, "heads": 2}), out=folder)
    return folder


@pytest.fixture(scope="module")
def straight(texts: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recipe of a kind and its uninterrupted run, made once."""
    known: dict[str, tuple[Options, Path]] = {}

    def of(kind: str) -> tuple[Options, Path]:
        if kind not in known:
            recipe = adapted_recipe(texts, base, *KINDS[kind], budget__steps=6, events=EVENTS)
            folder = tmp_path_factory.mktemp("straight") / "run"
            run(recipe, folder)
            known[kind] = recipe, folder
        return known[kind]

    return of


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def old_rows(parts: LanguageWork, tensor: Tensor) -> Tensor:
    """Without the rows of new tokens: a frozen table holds a copy of them, as they were last used."""
    return tensor if parts.growth is None or not tensor.dim() else tensor[: parts.growth.first]


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}


def assembled(recipe: Options, folder: Path) -> tuple[Any, LanguageWork]:
    parts = parts_of(recipe, folder)
    made, _, _ = assemble(parts, folder, listeners=(), stop=Stop())
    return made, parts


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen_stands_still_and_only_the_rest_costs_memory(straight: Any, tmp_path: Path, kind: str) -> None:
    recipe, _ = straight(kind)
    made, parts = assembled(recipe, tmp_path / "run")
    state = made.state
    first, free = tensors_of(state.module), trainable(state.module)
    update(made, "model")  # the first leaves a low-rank factor without a gradient: the other one is zero
    optimizer = state.optimizers["model"]
    made.guard.accepts = lambda *arguments: False  # measures the gradients, and moves nothing
    kept: dict[str, Tensor] = {}
    optimizer.zero_grad = lambda: kept.update(
        {n: p.grad for n, p in state.module.named_parameters() if p.grad is not None}
    )
    update(made, "model")
    moving = {name: p for name, p in state.module.named_parameters() if p.requires_grad}
    assert set(kept) == set(moving), "a gradient for each trainable parameter, and for no other"
    total = sum(p.nbytes for p in moving.values())
    counters = 4 * len(moving)  # AdamW's own step counters
    assert sum(gradient.nbytes for gradient in kept.values()) == total
    assert optimizer.bytes_of_state() == 2 * total + counters
    last = tensors_of(state.module)
    for name in first:
        if name not in free:
            assert torch.equal(*(old_rows(parts, tensors[name]) for tensors in (first, last))), name
    if kind != "unfreeze":
        assert total < sum(t.nbytes for t in first.values()) / (2 if parts.on_base else 1)
        assert any(not torch.equal(first[name], last[name]) for name in free)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_run_leaves_the_frozen_part_of_the_base_as_it_was(straight: Any, base: Path, kind: str) -> None:
    _, folder = straight(kind)
    before = tensors_of(models.load(base, torch.device("cpu")).model)
    model = models.load(folder, torch.device("cpu")).model
    after = tensors_of(model)
    if kind == "unfreeze":
        still = {name for name in before if "layers." not in name and name != "norm.weight"}
    elif kind == "freeze":
        still = {name for name in before if name.startswith(("layers.0.", "embedding", "head"))}
    else:
        still = {name for name in before if name in after and not (kind == "lora and a norm" and name == "norm.weight")}
    assert still and all(torch.equal(before[name], after[name][: len(before[name])]) for name in still)
    moved = [name for name in before if name in after and name not in still]
    assert all(not torch.equal(before[name], after[name]) for name in moved), moved


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_what_is_trained_and_the_model_loads_as_it_was_trained(
    straight: Any, tmp_path: Path, kind: str
) -> None:
    recipe, folder = straight(kind)
    made, parts = assembled(recipe, tmp_path / "run")
    whole, free = set(made.state.module.state_dict()), trainable(made.state.module)
    held = saved(folder)
    assert parts.on_base == (kind in ON_BASE)
    assert set(held.tensors["model"]) == (free if parts.on_base else whole)
    owners = {name.removeprefix("model/").rpartition("/")[0] for name in held.tensors["optimizer"]}
    if kind != "unfreeze":  # there the trainable part grows
        assert owners == {name for name, p in made.state.module.named_parameters() if p.requires_grad}
    made.state.load_tensors(held.tensors)
    tokens = torch.randint(0, parts.options.vocabulary, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = made.state.module.eval()(tokens)
        for where in (folder, folder / "model", folder / "checkpoints" / "step-000006"):
            assert torch.equal(groundup.load(where).model(tokens), expected), where
    assert groundup.load(folder).generate("the cat", max_tokens=3, temperature=0.0) is not None


def test_a_quantized_base_is_small(straight: Any, base: Path, tmp_path: Path) -> None:
    recipe, folder = straight("quantize and lora")
    made, _ = assembled(recipe, tmp_path / "run")
    dense = models.load(base, torch.device("cpu")).model
    plain = sum(p.nbytes for p in dense.parameters())
    assert base_bytes(made.state.module) < plain / 2
    size = (folder / "model" / "model.safetensors").stat().st_size
    assert size < (base / "model" / "model.safetensors").stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_is_bitwise_equal(straight: Any, tmp_path: Path, kind: str) -> None:
    recipe, folder = straight(kind)
    assert run(recipe, tmp_path / "run", listeners=(at("step", 3, terminate),)).outcome == "stopped"
    assert run(recipe, tmp_path / "run", resume=True).outcome == "finished"
    assert_same(outcome(tmp_path / "run"), outcome(folder))


@pytest.mark.parametrize(("event", "step"), [("save", 2), ("step", 3), ("save", 4), ("step", 5)])
def test_a_resume_across_an_unfreezing_step_is_bitwise_equal(
    straight: Any, tmp_path: Path, event: str, step: int
) -> None:
    recipe, folder = straight("unfreeze")
    killed_run(recipe, tmp_path / "run", at(event, step, kill))
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(folder))


def test_the_schedule_unfreezes_when_it_says(straight: Any) -> None:
    _, folder = straight("unfreeze")
    lines = events(folder, "unfreeze")
    assert [line["step"] for line in lines] == [3, 5] and lines[0]["trainable"] < lines[1]["trainable"]
    one, two = (saved(folder, step).tensors["model"] for step in (4, 6))
    assert any(name.startswith("layers.0.") and not torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_a_tensor_before_its_unfreezing_step_has_neither_moved_nor_state(
    texts: Path, base: Path, tmp_path: Path, optimizer: str
) -> None:
    optim = {"model": {"kind": optimizer, "learning_rate": 0.01}}
    recipe = adapted_recipe(
        texts, base, *KINDS["unfreeze"], budget__steps=6, events=EVENTS | {"keep_every": 2}, optim=optim
    )
    run(recipe, tmp_path / "run")
    before = tensors_of(models.load(base, torch.device("cpu")).model)
    early, late = saved(tmp_path / "run", 2), saved(tmp_path / "run", 4)
    lowest = [name for name in before if name.startswith("layers.0.")]
    upper = [name for name in before if name.startswith("layers.1.")]
    assert all(torch.equal(before[name], late.tensors["model"][name]) for name in lowest)
    assert all(torch.equal(before[name], early.tensors["model"][name]) for name in upper)
    assert all(not torch.equal(before[name], late.tensors["model"][name]) for name in upper)
    owners = {name.removeprefix("model/").rpartition("/")[0] for name in early.tensors["optimizer"]}
    assert not owners & {*lowest, *upper}
    owners = {name.removeprefix("model/").rpartition("/")[0] for name in late.tensors["optimizer"]}
    assert set(upper) <= owners and not owners & set(lowest)


def test_a_base_that_changed_is_refused_everywhere(texts: Path, base: Path, tmp_path: Path) -> None:
    mine = tmp_path / "base"
    shutil.copytree(base / "model", mine)
    recipe = adapted_recipe(texts, mine, LORA, budget__steps=4, events=EVENTS)
    folder = tmp_path / "run"
    run(recipe, folder, listeners=(at("step", 3, terminate),))
    groundup.load(folder)
    other = tmp_path / "other"
    groundup.train(text_recipe(texts, budget__steps=1, seed=5), out=other)
    shutil.rmtree(mine)
    for there in (False, True):
        if there:
            shutil.copytree(other / "model", mine)
        with pytest.raises(GroundupError) as caught:
            groundup.load(folder)
        assert caught.value.code == "E-MODEL-005" and str(mine) in caught.value.where
        assert ("has changed" if there else "is not there") in caught.value.what
        with pytest.raises(GroundupError) as caught:
            run(recipe, folder, resume=True)
        assert caught.value.code == ("E-MODEL-005" if there else "E-MODEL-004")


def test_init_from_an_adapter_run_merges_and_goes_on(straight: Any, texts: Path, tmp_path: Path) -> None:
    _, first = straight("lora")
    recipe = adapted_recipe(texts, first, LORA, budget__steps=2, events=EVENTS)
    made, parts = assembled(recipe, tmp_path / "look")
    tokens = torch.arange(10)[None] % parts.options.vocabulary
    with torch.inference_mode():
        before = groundup.load(first).model(tokens)
        assert torch.allclose(made.state.module.eval()(tokens), before, atol=1e-5), "it begins as the model answers"
    run(recipe, tmp_path / "run")
    made.state.load_tensors(saved(tmp_path / "run").tensors)
    with torch.inference_mode():
        assert torch.equal(groundup.load(tmp_path / "run").model(tokens), made.state.module.eval()(tokens))
    run(adapted_recipe(texts, tmp_path / "run", budget__steps=1, events=EVENTS), tmp_path / "full")
    whole = models.load(tmp_path / "full", torch.device("cpu"))
    assert whole.said.base is None and not whole.said.adapters


def test_a_run_that_begins_with_an_adapted_head_is_loaded_as_it_was_trained(
    texts: Path, base: Path, tmp_path: Path
) -> None:
    """A tied head is tied no more once its adapter is folded in, and the model must say so."""
    head = LORA | {"targets": ["head"]}
    run(adapted_recipe(texts, base, head, budget__steps=2, events=EVENTS), tmp_path / "head")
    recipe = adapted_recipe(texts, tmp_path / "head", budget__steps=2, events=EVENTS)
    made, _ = assembled(recipe, tmp_path / "look")
    run(recipe, tmp_path / "full")
    made.state.load_tensors(saved(tmp_path / "full").tensors)
    tokens = torch.arange(10)[None]
    with torch.inference_mode():
        trained = made.state.module.eval()(tokens)
        assert torch.equal(groundup.load(tmp_path / "full").model(tokens), trained)


def test_changing_the_adapters_is_no_resume(texts: Path, base: Path, tmp_path: Path) -> None:
    recipe = adapted_recipe(texts, base, LORA, budget__steps=4, events=EVENTS)
    run(recipe, tmp_path / "run", listeners=(at("step", 3, terminate),))
    with pytest.raises(GroundupError) as caught:
        run(changed(recipe, adapters=[LORA | {"rank": 3}]), tmp_path / "run", resume=True, accept_changes=True)
    assert caught.value.code == "E-RUN-003" and "adapters" in caught.value.what


@pytest.mark.parametrize("average", [None, 0.5])
def test_early_stopping_returns_the_best_of_an_adapter_run(
    texts: Path, base: Path, tmp_path: Path, average: float | None
) -> None:
    recipe = adapted_recipe(
        texts, base, LORA, budget__steps=12, optim={"model": {"kind": "adamw", "learning_rate": 0.1}},
        events={**EVENTS, "evaluate_every": 1, "average": average,
                "early_stopping": {"patience": 2, "minimum_change": 0.5}},
    )  # fmt: skip
    result = run(recipe, tmp_path / "run")
    assert result.outcome == "early_stopped" and result.steps < 12
    losses = [line["metrics"]["loss"] for line in events(tmp_path / "run", "evaluate")]
    _, parts = assembled(recipe, tmp_path / "again")
    loaded = groundup.load(tmp_path / "run")
    from groundup.run.measuring import evaluate_texts

    found = evaluate_texts(loaded.model, parts, limit=300)
    assert result.steps == len(losses) == 3, "no evaluation was half a nat better than the first"
    assert found["held_out"]["metrics"]["loss"] == pytest.approx(losses[0], abs=1e-6)
    assert abs(losses[-1] - losses[0]) > 1e-4


def test_adapters_on_a_headed_model_keep_the_head_trainable(tmp_path: Path) -> None:
    file = labelled_file(tmp_path, "classify")
    groundup.train(labelled_recipe(file, "classify", "bert", budget__steps=2), out=tmp_path / "base")
    recipe = labelled_recipe(
        file, "classify", model={"init_from": str(tmp_path / "base")}, tokenizer=None, adapters=[LORA], budget__steps=4
    )
    run(recipe, tmp_path / "run", listeners=(at("step", 2, terminate),))
    run(recipe, tmp_path / "run", resume=True)
    run(recipe, tmp_path / "straight")
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "straight"))
    names = set(saved(tmp_path / "run").tensors["model"])
    assert {"head.output.weight", "head.output.bias"} < names
    assert all("lora_" in name or name.startswith("head.") for name in names)
    assert groundup.load(tmp_path / "run").predict(["cat dog"])[0]["label"] in ("animal", "colour", "place")


def test_a_task_head_may_have_an_adapter_itself(tmp_path: Path) -> None:
    file = labelled_file(tmp_path, "classify")
    groundup.train(labelled_recipe(file, "classify", "bert", budget__steps=2), out=tmp_path / "base")
    adapter = LORA | {"targets": ["*layers.*_proj", "head.output"]}
    recipe = labelled_recipe(
        file, "classify", model={"init_from": str(tmp_path / "base")}, tokenizer=None, adapters=[adapter],
        budget__steps=2,
    )  # fmt: skip
    run(recipe, tmp_path / "run")
    trained = set(saved(tmp_path / "run").tensors["model"])
    assert "head.output.lora_b.default" in trained and "head.output.weight" not in trained


def test_patterns_may_name_the_head(tmp_path: Path) -> None:
    file = labelled_file(tmp_path, "classify")
    groundup.train(labelled_recipe(file, "classify", "bert", budget__steps=1), out=tmp_path / "base")
    adapter = {"kind": "freeze", "patterns": ["body.*"], "train": ["head.output.*"]}
    recipe = labelled_recipe(
        file,
        "classify",
        model={"init_from": str(tmp_path / "base")},
        tokenizer=None,
        adapters=[adapter],
        budget__steps=2,
    )
    run(recipe, tmp_path / "run")
    from groundup.run.entry import read_recipe
    from groundup.run.plan import foresee_plan

    assert foresee_plan(read_recipe(recipe)).numbers["memory_bytes"] > 0
    assert (
        foresee_plan(read_recipe(changed(recipe, adapters=[LORA | {"train": ["head.*"]}]))).numbers["memory_bytes"] > 0
    )


def test_a_learned_prompt_is_trained_kept_resumed_and_loaded(base: Path, tmp_path: Path) -> None:
    file = labelled_file(tmp_path, "classify")
    recipe = labelled_recipe(
        file, "classify", model={"init_from": str(base)}, tokenizer=None, budget__steps=4,
        adapters=[{"kind": "prompt", "tokens": 3}],
    )  # fmt: skip
    made, _ = assembled(recipe, tmp_path / "look")
    run(recipe, tmp_path / "straight")
    run(recipe, tmp_path / "run", listeners=(at("step", 2, terminate),))
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "straight"))
    held = saved(tmp_path / "run").tensors["model"]
    assert {name.rpartition(".")[2] for name in held if not name.startswith("head.")} == {"prompt"}
    first = made.state.module.state_dict()
    assert all(not torch.equal(first[name], tensor) for name, tensor in held.items())
    made.state.load_tensors(saved(tmp_path / "run").tensors)
    loaded = groundup.load(tmp_path / "run" / "model")
    assert all(torch.equal(loaded.model.state_dict()[n], t) for n, t in made.state.module.state_dict().items())
    assert loaded.predict(["cat dog"])[0]["label"] in ("animal", "colour", "place")
