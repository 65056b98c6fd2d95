"""The memory of steps: n-step returns, what is forgotten, draws in proportion to priorities, and resume."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundup.contract import Batch
from groundup.data.environments import EnvironmentOptions, Environments
from groundup.data.replay import PriorityOptions, Replay, ReplayOptions
from groundup.data.sum_tree import SumTree
from groundup.errors import GroundupError

pytest.importorskip("gymnasium")
from tests.data.toy_environments import register

register()


def always_one(observation_EO: Tensor, step: int, generator: torch.Generator) -> Tensor:
    return torch.ones(len(observation_EO), dtype=torch.int64)


def at_random(observation_EO: Tensor, step: int, generator: torch.Generator) -> Tensor:
    return torch.randint(3, (len(observation_EO),), generator=generator)


def replay(
    *, rows: int = 4, discount: float = 0.5, act: Any = at_random, copies: int = 1, seed: int = 0, **options: Any
) -> Replay:
    made = {name: options.pop(name) for name in ("length", "continuous") if name in options}
    limit = options.pop("time_limit", None)
    environments = Environments(
        EnvironmentOptions(id="tests/Chain-v0", count=copies, options=made, time_limit=limit), seed=1
    )
    defaults = {"capacity": 64, "warm_up_steps": 0}
    return Replay(ReplayOptions(**defaults | options), environments, act=act, rows=rows, discount=discount, seed=seed)


def remembered(source: Replay) -> list[tuple[int, float, int, float, bool]]:
    """Of each row: step before, reward, step after, what its value counts, terminated; by hand, in order."""
    columns = source.state_dict()["columns"]
    return [
        (int(before[0]), float(reward), int(after[0]), float(goes_on), bool(terminated))
        for before, reward, after, goes_on, terminated in zip(
            columns["observation_BO"],
            columns["reward_B"],
            columns["next_observation_BO"],
            columns["continue_B"],
            columns["terminated_B"],
        )
    ]


def test_steps_are_remembered_as_they_were() -> None:
    source = replay(length=3, rows=1, steps_per_update=3)
    source.next("model")
    # one step until there is a row to draw, then three
    assert remembered(source) == [
        (0, 1.0, 1, 0.5, False),
        (1, 2.0, 2, 0.5, False),
        (2, 3.0, 3, 0.0, True),
        (0, 1.0, 1, 0.5, False),
    ]


def test_n_step_returns_by_hand_where_the_episode_terminates() -> None:
    # rewards 1, 2, 3, 4 and a discount of 1/2
    source = replay(length=4, rows=1, n_steps=3, steps_per_update=1)
    while source.steps < 4:
        source.next("model")
    assert remembered(source) == [
        (0, 1 + 2 / 2 + 3 / 4, 3, 0.125, False),
        (1, 2 + 3 / 2 + 4 / 4, 4, 0.0, True),
        (2, 3 + 4 / 2, 4, 0.0, True),
        (3, 4.0, 4, 0.0, True),
    ]


def test_n_step_returns_by_hand_where_the_episode_is_cut_off() -> None:
    source = replay(time_limit=4, rows=1, n_steps=3)
    while source.steps < 4:
        source.next("model")
    # the last state still has a value, which counts by the number of rewards before it
    assert remembered(source) == [
        (0, 1 + 2 / 2 + 3 / 4, 3, 0.125, False),
        (1, 2 + 3 / 2 + 4 / 4, 4, 0.125, False),
        (2, 3 + 4 / 2, 4, 0.25, False),
        (3, 4.0, 4, 0.5, False),
    ]


def test_copies_do_not_mix() -> None:
    source = replay(length=3, rows=2, n_steps=2, copies=2)
    while source.steps < 6:
        source.next("model")
    columns = source.state_dict()["columns"]
    start_N, after_N = columns["observation_BO"][:, 0] % 1, columns["next_observation_BO"][:, 0] % 1
    assert torch.allclose(start_N, after_N, atol=1e-5)
    rows = remembered(source)
    copies = [[row for row, start in zip(rows, start_N) if abs(float(start - own)) < 1e-4] for own in start_N[:2]]
    assert copies[0] == copies[1] == [(0, 2.0, 2, 0.25, False), (1, 3.5, 3, 0.0, True), (2, 3.0, 3, 0.0, True)]


def test_the_oldest_is_forgotten_and_a_row_keeps_its_number() -> None:
    source = replay(rows=3, capacity=3, length=1_000, time_limit=1_000, act=always_one)
    for _ in range(20):
        batch = source.next("model")
        assert source.size == 3
        # the number of a row is the step that it began with
        assert torch.equal(batch["index_B"], batch["observation_BO"][:, 0].long())
        assert batch["index_B"].min() >= source.steps - 3


def test_warm_up_acts_at_random_and_the_policy_afterwards() -> None:
    source = replay(warm_up_steps=20, rows=2, act=always_one, steps_per_update=5, time_limit=1_000)
    seen: list[int] = []

    def act(observation_EO: Tensor, step: int, generator: torch.Generator) -> Tensor:
        seen.append(step)
        return always_one(observation_EO, step, generator)

    source._act = act
    source.next("model")
    source.next("model")
    assert seen == list(range(20, 30)) and source.steps == 30 and source.epoch == 2
    action_B = source.state_dict()["columns"]["action_B"]
    assert set(action_B[:20].tolist()) == {0, 1, 2} and set(action_B[20:].tolist()) == {1}


def test_random_vectors_stay_within_their_bounds() -> None:
    source = replay(continuous=True, warm_up_steps=50, act=lambda o, s, g: torch.zeros(1, 2))
    batch = source.next("model")
    assert batch["action_BA"].shape == (4, 2) and batch["action_BA"].dtype == torch.float32
    action_BA = source.state_dict()["columns"]["action_BA"][:50]
    assert (action_BA[:, 0].min() < -0.5) and (action_BA[:, 0].max() > 0.5) and (action_BA[:, 0].abs() <= 1).all()
    assert (action_BA[:, 1].min() < 0.5) and (action_BA[:, 1].max() > 1.5) and (action_BA[:, 1] >= 0).all()


def test_other_turns_draw_without_acting() -> None:
    source = replay(rows=2)
    source.next("model")
    steps = source.steps
    first, second = source.next("critic"), source.next("critic")
    assert source.steps == steps and source.epoch == 1 and first.keys() == second.keys()
    assert source.ledger == {"seen": 6, "trained": 6, "masked": 0, "padded": 0}


def test_even_draws_reach_every_row() -> None:
    source = replay(rows=8, warm_up_steps=10, steps_per_update=1)
    counts = torch.zeros(10)
    source.next("model")
    for _ in range(500):
        batch = source.next("other")
        assert torch.equal(batch["weight_B"], torch.ones(8))
        counts += torch.bincount(batch["index_B"], minlength=11)[:10]
    expected = 500 * 8 / 11
    assert float(((counts - expected) ** 2 / expected).sum()) < 25.2  # chi-squared, 10 degrees of freedom, p = .005


@pytest.mark.parametrize("capacity", [1, 2, 5, 8, 100])
def test_sums_of_the_tree_are_those_of_its_leaves(capacity: int) -> None:
    random, tree = np.random.default_rng(capacity), SumTree(capacity)
    leaves = np.zeros(capacity)
    for _ in range(20):
        places = random.integers(0, capacity, 7)
        values = random.random(7) * (random.random(7) > 0.3)
        tree.set(places, values)
        leaves[places] = values
        assert np.array_equal(tree.get(np.arange(capacity)), leaves)
        assert tree.total == pytest.approx(leaves.sum())
        if leaves.sum() == 0.0:
            continue
        mass = np.append(random.random(50) * tree.total, [0.0, tree.total, tree.total * (1 + 1e-9)])
        found = tree.find(mass)
        assert (leaves[found] > 0).all()
        below, above = np.cumsum(leaves)[found] - leaves[found], np.cumsum(leaves)[found]
        assert (mass[:50] >= below[:50] - 1e-9).all() and (mass[:50] <= above[:50] + 1e-9).all()


def test_rows_are_drawn_in_proportion_to_their_priorities() -> None:
    source = replay(rows=15, priorities=PriorityOptions(alpha=0.5, beta=1.0))
    source.next("model")
    assert source.size == 16
    error_B = torch.arange(16.0) ** 2 + 1.0
    source.report_priorities(torch.arange(16), -error_B)
    share = (error_B + 1e-6).sqrt().double()
    share = share / share.sum()
    counts = torch.zeros(16, dtype=torch.float64)
    for _ in range(200):
        batch = source.next("other")
        counts += torch.bincount(batch["index_B"], minlength=16)
        # 1 / (N · P), over the largest of the memory
        expected = (share.min() / share)[batch["index_B"]]
        assert torch.allclose(batch["weight_B"], expected.float(), rtol=1e-5)
    drawn = counts / counts.sum()
    # an equal share of the mass to each draw leaves less to chance than independent draws would
    assert (drawn - share).abs().max() < 0.012


def test_new_rows_have_the_largest_priority_and_forgotten_ones_change_nothing() -> None:
    source = replay(rows=4, capacity=4, priorities=PriorityOptions(alpha=1.0), time_limit=1_000)
    source.next("model")
    assert source.size == 4 and source.steps == 5
    source.report_priorities(torch.tensor([0, 1, 4]), torch.tensor([50.0, 7.0, 2.0]))  # row 0 is gone
    source.next("model")
    priorities = source.state_dict()["priorities"]
    # places hold the rows 4, 5, 2, 3; row 5 took the place of row 1, and is as likely as that was at most
    assert priorities.tolist() == pytest.approx([2.0, 7.0, 1.0, 1.0], abs=1e-5)
    source.report_priorities(torch.tensor([2, 3]), torch.tensor([float("nan"), float("inf")]))
    assert torch.equal(source.state_dict()["priorities"], priorities)


def test_the_weights_become_whole_as_beta_rises() -> None:
    source = replay(rows=4, priorities=PriorityOptions(alpha=1.0, beta=0.0, beta_steps=10), warm_up_steps=4)
    source.next("model")
    source.report_priorities(torch.arange(5), torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]))
    for steps in (5, 15):
        while source.steps < steps:
            source.next("model")
        batch = source.next("other")
        priority_B = source.state_dict()["priorities"][batch["index_B"]]
        beta = min(steps / 10, 1.0)
        assert torch.allclose(batch["weight_B"], priority_B.pow(-beta).float(), rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_steps": 3, "copies": 2, "capacity": 9},
        {"priorities": PriorityOptions(), "capacity": 9},
        {"continuous": True, "n_steps": 2},
    ],
    ids=["plain", "n steps", "priorities", "vectors"],
)
def test_resume_is_bitwise(options: dict[str, Any]) -> None:
    def act(observation_EO: Tensor, step: int, generator: torch.Generator) -> Tensor:
        if "continuous" in options:
            return torch.rand(len(observation_EO), 2, generator=generator)
        return at_random(observation_EO, step, generator)

    def learn(source: Replay) -> Batch:
        batch = source.next("model")
        source.report_priorities(batch["index_B"], batch["reward_B"] - 2.5)
        return batch

    straight, resumed = replay(act=act, **options), replay(act=act, **options)
    for _ in range(7):
        learn(straight)
    state = straight.state_dict()
    after = [learn(straight) for _ in range(11)]
    resumed.load_state_dict(state)
    for mine, theirs in zip([learn(resumed) for _ in range(11)], after, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert resumed.ledger == straight.ledger and resumed.finished == straight.finished
    assert resumed.epoch == straight.epoch == 18


def test_another_seed_draws_and_acts_differently() -> None:
    one, same, other = replay(), replay(), replay(seed=1)
    first, again, third = one.next("model"), same.next("model"), other.next("model")
    assert torch.equal(first["index_B"], again["index_B"])
    different = [not torch.equal(one.next("model")["index_B"], other.next("model")["index_B"]) for _ in range(5)]
    assert any(different) or not torch.equal(first["action_B"], third["action_B"])


def test_a_memory_too_small_is_refused() -> None:
    for options in ({"rows": 65}, {"warm_up_steps": 65}):
        with pytest.raises(GroundupError) as caught:
            replay(**options)
        assert caught.value.code == "E-ENV-012" and "65" in caught.value.fix
