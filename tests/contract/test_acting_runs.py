"""The contract of runs that learn to act: a resume is exact, accumulation is exact, the ledger adds up, a policy can be
gone on with, and environments and recipes that cannot be right are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from tests.contract.toy_rows import (
    EVENTS,
    METHODS,
    acting_recipe,
    gradients,
    quick_rows,
    refused,
    table_file,
    table_recipe,
    work_of,
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
from tests.data import toy_environments
from torch import Tensor

from groundup import checkpoint
from groundup.errors import GroundupError
from groundup.recipe.check import check
from groundup.recipe.load import load
from groundup.recipe.tree import Recipe
from groundup.run.acting import ActingWork

RECIPES = {method: acting_recipe(method) for method in METHODS}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_rows(monkeypatch)


@pytest.fixture(scope="module", autouse=True)
def chain() -> None:
    """An environment that misbehaves when it is told to."""
    if "Toy/Chain-v0" not in gymnasium.registry:
        gymnasium.register("Toy/Chain-v0", entry_point=toy_environments.Chain)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The uninterrupted run of a method, made once."""
    return run_once(RECIPES.__getitem__, tmp_path_factory.mktemp)


# ---------------------------------------------------------------- resume


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_resumed_is_bitwise_equal(straight: Any, tmp_path: Path, method: str) -> None:
    stopped = run(RECIPES[method], tmp_path / "run", listeners=(at("step", 3, terminate),))
    assert (stopped.outcome, stopped.steps) == ("stopped", 3)
    assert run(RECIPES[method], tmp_path / "run", resume=True).outcome == "finished"
    once = outcome(straight(method))
    assert {"source", "optimizer"} <= {name.partition("/")[0] for name in once.tensors}
    assert_same(outcome(tmp_path / "run"), once)


@pytest.mark.parametrize("method", ["dqn", "ppo"])
@pytest.mark.parametrize(("event", "step"), [("start", 0), ("save", 2), ("step", 5)])
def test_killed_and_resumed_is_bitwise_equal(straight: Any, tmp_path: Path, method: str, event: str, step: int) -> None:
    killed_run(RECIPES[method], tmp_path / "run", at(event, step, kill))
    run(RECIPES[method], tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(straight(method)))


@pytest.mark.parametrize("method", METHODS)
def test_filming_changes_nothing(
    straight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    found = json.loads((straight(method) / "results.json").read_text(encoding="utf-8"))["episode"]
    assert found["environment"] == RECIPES[method]["data"]["environment"]["id"] and found["greedy"] is True
    steps = [frame["step"] for frame in found["frames"]]
    assert 1 <= len(steps) <= 12 and steps[0] == 1 and steps == sorted(set(steps))
    monkeypatch.setattr(ActingWork, "results", lambda self, model: {})
    run(RECIPES[method], tmp_path / "run")
    assert_same(outcome(tmp_path / "run"), outcome(straight(method)))


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "evenly drawn, slowly followed": (
        "dqn", {"data__collect": {"kind": "replay", "capacity": 60, "warm_up_steps": 20},
                "objective": {"kind": "dqn", "target_every": 1, "target_rate": 0.1, "double": False, "huber": False}},
    ),
    "dueling": ("dqn", {"model__dueling": True, "data__environment__count": 1}),
    "a rollout that is given up early": ("ppo", {"objective": {"kind": "ppo", "target_kl": 1e-6, "value_clip": 0.1}}),
    "scaled rewards": ("a2c", {"data__collect__normalise_rewards": True}),
    "continuous actions on policy": (
        "ppo", {"data__environment": {"id": "Pendulum-v1", "count": 2, "time_limit": 20}, "model__shared": True},
    ),
    "episodes of one step": (
        "dqn", {"data__environment": {"id": "Toy/Chain-v0", "options": {"length": 1}, "time_limit": 9}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_resume_bitwise_too(tmp_path: Path, variant: str) -> None:
    method, changes = VARIANTS[variant]
    recipe = changed(RECIPES[method], budget__steps=4, **changes)
    run(recipe, tmp_path / "straight")
    run(recipe, tmp_path / "run", listeners=(at("step", 3, terminate),))
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "straight"))


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_as_it_was_settled_is_a_recipe_too(straight: Any, tmp_path: Path, method: str) -> None:
    """It is what the terminal names to go on with a stopped run."""
    settled = load(straight(method) / "recipe.yaml", [], Recipe)
    check(settled)
    again = work_of(settled.model_dump(exclude_unset=True), tmp_path / "run").recipe
    assert again.model_dump() == settled.model_dump()


@pytest.mark.parametrize("method", METHODS)
def test_what_is_derived_fits_the_method(tmp_path: Path, method: str) -> None:
    """A recipe that names environment and network alone is filled in so that the method is what its paper says."""
    data = {"kind": "environment", "environment": RECIPES[method]["data"]["environment"]}
    recipe = changed(RECIPES[method], data=data, budget={"steps": 1}, optim=None)
    work = work_of(recipe, tmp_path / "run")
    collect = work.recipe.data.collect  # type: ignore[union-attr]
    assert collect is not None and collect.kind == ("replay" if method in ("dqn", "sac") else "rollout")
    if method in ("a2c", "reinforce"):
        assert (collect.epochs, collect.minibatches) == (1, 1)
        assert collect.gae_lambda == 1.0 or method == "a2c"
    check(work.recipe)


def test_another_seed_is_another_run(straight: Any, tmp_path: Path) -> None:
    run(changed(RECIPES["dqn"], seed=2), tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_same(outcome(tmp_path / "run"), outcome(straight("dqn")))


# ---------------------------------------------------------------- accumulation and ledger


@pytest.mark.parametrize("method", METHODS)
def test_accumulation_is_exact(tmp_path: Path, method: str) -> None:
    budget: Options = {"steps": 1, "rows_per_step": 64, "micro_batch": 64}
    recipe = RECIPES[method]
    if method in ("dqn", "sac"):
        recipe = changed(recipe, budget=budget, data__collect__warm_up_steps=100)
    else:
        recipe = changed(recipe, data__collect__horizon=64)
    work = work_of(recipe, tmp_path / "run")
    turns = ("critic", "actor", "temperature") if method == "sac" else ("model",)
    for turn in turns:
        whole = gradients(work, tmp_path, turn, 1)
        assert whole and any(gradient.abs().max() > 1e-5 for gradient in whole.values())
        for parts in (2, 4):  # sixteen rows at least: of fewer, torch draws other normal numbers
            split = gradients(work, tmp_path, turn, parts)
            assert list(split) == list(whole)
            for name, gradient in whole.items():
                assert torch.allclose(split[name], gradient, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("method", METHODS)
def test_the_ledger_adds_up(straight: Any, method: str) -> None:
    results = json.loads((straight(method) / "results.json").read_text())
    ledger = results["ledger"]["tokens"]
    assert ledger["seen"] == ledger["trained"] + ledger["masked"] + ledger["padded"]
    turns = 3 if method == "sac" else 1
    assert ledger["seen"] == 6 * 16 * turns, "six steps of sixteen rows for each player"
    assert events(straight(method), "step")[-1]["seen"] == ledger["seen"]
    assert not events(straight(method), "warning")
    assert results["ledger"]["data"]["environment"]["id"] == RECIPES[method]["data"]["environment"]["id"]


@pytest.mark.parametrize("method", ["dqn", "ppo"])
def test_a_budget_of_environment_steps_is_kept(tmp_path: Path, method: str) -> None:
    budget = {"environment_steps": 96, "rows_per_step": 16} if method == "dqn" else {"environment_steps": 96}
    recipe = changed(RECIPES[method], budget=budget)
    work = work_of(recipe, tmp_path / "look")
    run(recipe, tmp_path / "run")
    taken = saved(tmp_path / "run").state["source"]["steps"]
    warm_up = 40 if method == "dqn" else 0
    assert taken == 96 + warm_up, "so many steps were acted, beside those of the warm-up"
    assert work.recipe.budget.steps == {"dqn": 48, "ppo": 12}[method]


# ---------------------------------------------------------------- early stopping


@pytest.mark.parametrize("method", ["dqn", "ppo"])
def test_early_stopping_on_the_return_keeps_the_best(tmp_path: Path, method: str) -> None:
    given = {"log_every": 1, "save_every": 1, "keep_every": 1, "evaluate_every": 1}
    stopping = {"metric": "return", "patience": 2, "minimum_change": 1e9}
    scale = {"data__collect__normalise_observations": False} if method == "ppo" else {}
    recipe = changed(RECIPES[method], budget__steps=20, events=given | {"early_stopping": stopping}, **scale)
    result = run(recipe, tmp_path / "run")
    assert (result.outcome, result.steps) == ("early_stopped", 3)
    then, last = saved(tmp_path / "run", 1).tensors["model"], saved(tmp_path / "run", 3).tensors["model"]
    final = tensors_of(tmp_path / "run")
    assert all(torch.equal(final[name], tensor) for name, tensor in then.items())
    assert any(not torch.equal(last[name], tensor) for name, tensor in then.items())


def test_the_returns_that_stop_a_run_are_higher_is_better(tmp_path: Path) -> None:
    given = EVENTS | {"evaluate_every": 1, "save_every": 1, "keep_every": 1}
    stopping = {"metric": "return", "patience": 3}
    scale = {"data__collect__normalise_observations": False}
    recipe = changed(RECIPES["ppo"], budget__steps=12, events=given | {"early_stopping": stopping}, **scale)
    run(recipe, tmp_path / "run")
    seen = [line["metrics"]["return"] for line in events(tmp_path / "run", "evaluate")]
    best = saved(tmp_path / "run", 1 + seen.index(max(seen))).tensors["model"]
    final = tensors_of(tmp_path / "run")
    assert all(torch.equal(final[name], tensor) for name, tensor in best.items())


# ---------------------------------------------------------------- going on with a policy


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return dict(checkpoint.load_model(folder / "model")[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_policy_can_be_gone_on_with(straight: Any, tmp_path: Path, method: str) -> None:
    recipe = changed(RECIPES[method], model={"init_from": str(straight(method))}, budget__steps=2)
    before = tensors_of(straight(method))
    first = work_of(recipe, tmp_path / "look").network().state_dict()
    assert all(torch.equal(before[name], first[name]) for name in before), "it begins where the other ended"
    run(recipe, tmp_path / "run")
    after = tensors_of(tmp_path / "run")
    assert list(before) == list(after) and any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["dqn", "ppo"])
def test_a_policy_goes_on_without_saying_how_it_learned(straight: Any, tmp_path: Path, method: str) -> None:
    data = {"kind": "environment", "environment": RECIPES[method]["data"]["environment"], "episodes": 1}
    recipe = changed(RECIPES[method], model={"init_from": str(straight(method))}, objective=None, optim=None, data=data)
    recipe = changed(recipe, budget={"steps": 1}, data__final_episodes=1)
    work = work_of(recipe, tmp_path / "look")
    assert work.recipe.objective is not None and work.recipe.objective.kind == method
    assert run(recipe, tmp_path / "run").outcome == "finished"


def test_a_policy_goes_on_with_the_scale_of_its_observations(straight: Any, tmp_path: Path) -> None:
    """The weights of a policy that saw normalised observations mean nothing on others."""
    recipe = changed(RECIPES["ppo"], model={"init_from": str(straight("ppo"))}, budget__steps=2)
    said = json.loads((straight("ppo") / "model" / "preparation.json").read_text())["normalisation"]
    work = work_of(recipe, tmp_path / "look")
    _, source = work.learning(work.network())
    began = source.normalisation()  # type: ignore[attr-defined]
    assert torch.allclose(began["mean_O"], torch.tensor(said["mean_O"]), atol=1e-5)


def test_frozen_parts_of_a_policy_stand_still(straight: Any, tmp_path: Path) -> None:
    adapter = {"kind": "freeze", "patterns": ["layers.*"]}
    recipe = changed(RECIPES["dqn"], model={"init_from": str(straight("dqn"))}, adapters=[adapter], budget__steps=2)
    run(recipe, tmp_path / "run")
    before, after = tensors_of(straight("dqn")), tensors_of(tmp_path / "run")
    still = {name for name in before if name.startswith("layers.")}
    assert still and {name for name in before if torch.equal(before[name], after[name])} == still
    owners = {name.split("/")[1] for name in saved(tmp_path / "run").tensors["optimizer"]}
    assert owners == set(before) - still


# ---------------------------------------------------------------- what is refused

ENVIRONMENT = {"kind": "environment", "environment": {"id": "CartPole-v1"}}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    # case: (method, changes, code)
    "a classifier": ("dqn", {"model": {"family": "mlp"}, "objective": None}, "E-RECIPE-065"),
    "a language model": ("dqn", {"model": {"family": "llama", "depth": 1}, "objective": None}, "E-RECIPE-065"),
    "the objective of another network": ("dqn", {"objective": {"kind": "ppo"}}, "E-RECIPE-047"),
    "an objective without an environment": ("ppo", {"objective": {"kind": "classify"}}, "E-RECIPE-047"),
    "a player is missing": ("sac", {"optim__temperature": None}, "E-RECIPE-038"),
    "the players of another objective": ("sac", {"optim": {"model": {"kind": "adamw"}}}, "E-RECIPE-038"),
    "one player too many": ("ppo", {"optim__critic": {"kind": "adamw"}}, "E-RECIPE-038"),
    "values of continuous actions": ("dqn", {"data__environment__id": "Pendulum-v1"}, "E-ENV-"),
    "a squashed policy of discrete actions": ("sac", {"data__environment__id": "CartPole-v1"}, "E-ENV-"),
    "no such environment": ("dqn", {"data__environment__id": "CartPol-v1"}, "E-ENV-"),
    "no such option": ("dqn", {"data__environment__options": {"colour": "red"}}, "E-ENV-"),
    "minibatches that do not divide": ("ppo", {"data__collect__minibatches": 3}, "E-RECIPE-067"),
    "more minibatches than rows": ("ppo", {"data__collect__minibatches": 64}, "E-RECIPE-067"),
    "micro-batches that do not divide": ("dqn", {"budget__micro_batch": 5}, "E-RECIPE-037"),
    "rows of a rollout said twice": ("ppo", {"budget__rows_per_step": 32}, "E-RECIPE-030"),
    "rows of a rollout that is derived": (
        "ppo", {"data__collect": None, "budget__rows_per_step": 16}, "E-RECIPE-030",
    ),
    "micro-batches of a rollout": ("ppo", {"budget__micro_batch": 8}, "E-RECIPE-030"),
    "remembered steps for a policy gradient": (
        "ppo", {"data__collect": {"kind": "replay"}}, "E-RECIPE-066",
    ),
    "a rollout for values": ("dqn", {"data__collect": {"kind": "rollout"}}, "E-RECIPE-066"),
    "a rollout reused without correction": ("a2c", {"data__collect__epochs": 3}, "E-RECIPE-"),
    "epochs of an environment": ("dqn", {"budget__steps": None, "budget__epochs": 2.0}, "E-RECIPE-030"),
    "a memory smaller than a batch": ("dqn", {"data__collect": {"kind": "replay", "capacity": 8}}, "E-ENV-012"),
    "adapters of language": ("dqn", {"adapters": [{"kind": "lora"}]}, "E-RECIPE-030"),
    "a metric that nobody measures": ("dqn", {"events__early_stopping": {"metric": "loss"}}, "E-RECIPE-040"),
    "samples of an actor": ("dqn", {"events__sample_every": 2}, "E-RECIPE-030"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method, changes, code = REFUSED[case]
    exit_code, shown = refused(changed(RECIPES[method], **changes), tmp_path, capsys)
    assert code in shown and exit_code == 2, (exit_code, shown)


GOING_ON: dict[str, tuple[str, dict[str, Any], str]] = {
    "a model of a table": ("dqn", {"model": "TABLE"}, "E-RECIPE-065"),
    "a policy with the objective of values": (
        "dqn", {"model": "ppo", "data__environment__id": "CartPole-v1"}, "E-RECIPE-047",
    ),
    "values with the objective of a policy": (
        "ppo", {"model": "dqn", "data__environment": {"id": "groundup/Counters-v0"}}, "E-RECIPE-047",
    ),
    "values that are to collect rollouts": (
        "dqn", {"model": "dqn", "data__collect": {"kind": "rollout"}}, "E-RECIPE-066",
    ),
    "another environment": ("dqn", {"model": "dqn", "data__environment__id": "CartPole-v1"}, "E-MODEL-007"),
    "one player of three": ("sac", {"model": "sac", "optim": {"model": {"kind": "adamw"}}}, "E-RECIPE-038"),
    "a policy on a table": ("TABLE", {"model": "dqn"}, "E-RECIPE-065"),
}  # fmt: skip


@pytest.mark.parametrize("case", GOING_ON)
def test_going_on_with_the_wrong_model_is_refused(
    case: str, straight: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method, changes, code = GOING_ON[case]
    table = table_recipe(table_file(tmp_path), budget__steps=1)
    recipe = table if method == "TABLE" else RECIPES[method]
    base = tmp_path / "table"
    if changes["model"] == "TABLE":
        run(table, base)
    else:
        base = straight(changes["model"])
    exit_code, shown = refused(changed(recipe, **changes | {"model": {"init_from": str(base)}}), tmp_path, capsys)
    assert code in shown and exit_code == 2, (exit_code, shown)


FAULTY = {"nan": "dqn", "infinite": "ppo", "reward": "a2c", "reward list": "dqn", "shape": "reinforce"}


@pytest.mark.parametrize("fault", FAULTY)
def test_an_environment_that_returns_nonsense_is_refused(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"id": "Toy/Chain-v0", "options": {"fault": fault}, "count": 2, "time_limit": 9}
    recipe = changed(RECIPES[FAULTY[fault]], data__environment=environment)
    exit_code, shown = refused(recipe, tmp_path, capsys)
    assert "E-ENV-" in shown and "Toy/Chain-v0" in shown and exit_code in (1, 2), (exit_code, shown)


def test_an_environment_that_has_changed_is_no_resume(tmp_path: Path) -> None:
    environment = {"id": "Toy/Chain-v0", "options": {"length": 5}, "time_limit": 9}
    recipe = changed(RECIPES["dqn"], data__environment=environment)
    run(recipe, tmp_path / "run", listeners=(at("step", 3, terminate),))
    with pytest.raises(GroundupError) as caught:
        run(changed(recipe, data__environment__options={"length": 5, "fault": "chance"}), tmp_path / "run", resume=True)
    assert caught.value.code.startswith(("E-RUN-", "E-ENV-"))
