"""Exact planning: closed forms, agreement of the two methods, and the known optima of gymnasium's tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from groundup.errors import GroundupError
from groundup.evaluation.tabular import (
    dynamics,
    expected_return,
    policy_iteration,
    value_iteration,
)

# State 0: stay (pays 0) or go to 1 (pays 0). State 1: back (pays 1) or the end, state 2 (pays 2).
CHAIN: dict[int, dict[int, list[tuple[float, int, float, bool]]]] = {
    0: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 1, 0.0, False)]},
    1: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 2, 2.0, True)]},
    2: {0: [(1.0, 2, 0.0, True)], 1: [(1.0, 2, 0.0, True)]},
}


def table_of(name: str, **options: Any) -> tuple[Any, list[float], int | None]:
    pytest.importorskip("gymnasium")
    from groundup.data.environments import EnvironmentOptions, transition_table

    return transition_table(EnvironmentOptions(id=name, options=options))


@pytest.mark.parametrize(
    ("discount", "value", "policy"),
    [
        (0.9, [0.9 / 0.19, 1 / 0.19], [1, 0]),  # round and round: V(1) = 1 + .81 V(1)
        (0.5, [1.0, 2.0], [1, 1]),  # the end is worth more: 1 + .25 · 2 < 2
        (0.0, [0.0, 2.0], [0, 1]),
    ],
)
def test_the_chain_has_its_closed_form(discount: float, value: list[float], policy: list[int]) -> None:
    model = dynamics(CHAIN)
    for plan in (policy_iteration(model, discount), value_iteration(model, discount)):
        assert plan.value_S.tolist() == pytest.approx([*value, 0.0], abs=1e-9)
        assert plan.policy_S[:2].tolist() == policy


def test_returns_of_a_policy_by_hand() -> None:
    model, start = dynamics(CHAIN), [1.0, 0.0, 0.0]
    to_the_end, round_and_round = np.array([1, 1, 0]), np.array([1, 0, 0])
    assert expected_return(model, to_the_end, start) == 2.0
    assert expected_return(model, to_the_end, start, time_limit=1) == 0.0
    assert expected_return(model, round_and_round, start, time_limit=7) == 3.0
    # half and half in both states: from 1 the end has the chance 1/2, else back; 1 · 1/2 + 2 · 1/2, twice on average
    even = np.full((3, 2), 0.5)
    assert expected_return(model, even, start) == pytest.approx(3.0)
    with pytest.raises(GroundupError) as caught:
        expected_return(model, round_and_round, start)
    assert caught.value.code == "E-ENV-015" and "2 of 2" in caught.value.what


@pytest.mark.parametrize("name", ["FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1"])
@pytest.mark.parametrize("discount", [0.9, 0.99])
def test_both_methods_agree_and_satisfy_bellmans_equation(name: str, discount: float) -> None:
    model = dynamics(table_of(name)[0])
    one, other = policy_iteration(model, discount), value_iteration(model, discount)
    np.testing.assert_allclose(one.value_S, other.value_S, atol=1e-8)
    assert np.array_equal(one.policy_S, other.policy_S)
    np.testing.assert_allclose(model.look_ahead(one.value_S, discount).max(axis=1), one.value_S, atol=1e-9)


def test_frozen_lake() -> None:
    table, start, limit = table_of("FrozenLake-v1")
    model = dynamics(table)
    plan = policy_iteration(model, 0.99)
    assert limit == 100
    assert expected_return(model, plan.policy_S, start, limit) == pytest.approx(0.741, abs=1e-3)
    # without the limit of 100 steps: 14 of 17
    assert expected_return(model, plan.policy_S, start) == pytest.approx(14 / 17, abs=1e-9)
    assert value_iteration(model, 1.0).value_S[0] == pytest.approx(14 / 17, abs=1e-9)
    model = dynamics(table_of("FrozenLake-v1", is_slippery=False)[0])
    assert expected_return(model, policy_iteration(model, 0.99).policy_S, start, limit) == 1.0


def test_played_out_it_is_what_the_table_says() -> None:
    import torch

    table, start, limit = table_of("FrozenLake-v1")
    from groundup.data.environments import EnvironmentOptions, Environments

    model = dynamics(table)
    policy_S = policy_iteration(model, 0.99).policy_S
    exact = expected_return(model, policy_S, start, limit)
    environments = Environments(EnvironmentOptions(id="FrozenLake-v1", count=40), seed=0)
    won: dict[int, list[float]] = {copy: [] for copy in range(40)}
    while min(len(each) for each in won.values()) < 5:
        environments.step(torch.from_numpy(policy_S[environments.observation_EO.argmax(dim=1).numpy()]))
        for episode in environments.finished:
            won[episode.copy].append(episode.total_reward)
    share = np.mean([total for each in won.values() for total in each[:5]])
    assert abs(share - exact) < 4 * (exact * (1 - exact) / 200) ** 0.5


def test_cliff_walking_is_thirteen_steps() -> None:
    table, start, _ = table_of("CliffWalking-v1")
    model = dynamics(table)
    assert expected_return(model, policy_iteration(model, 0.99).policy_S, start) == pytest.approx(-13.0, abs=1e-12)
    assert value_iteration(model, 1.0).value_S[36] == -13.0


def test_taxi() -> None:
    table, start, limit = table_of("Taxi-v4")
    model = dynamics(table)
    plan = value_iteration(model, 1.0)
    assert expected_return(model, plan.policy_S, start, limit) == pytest.approx(7.93, abs=1e-9)
    assert float(np.dot(start, plan.value_S)) == pytest.approx(7.93, abs=1e-9)


def test_a_malformed_table_is_refused_with_all_its_faults() -> None:
    table = {
        0: {0: [(0.5, 0, 0.0, False)], 1: [(1.0, 7, 0.0, False)]},
        1: {0: [(1.0, 0, float("inf"), False)]},
    }
    with pytest.raises(GroundupError) as caught:
        dynamics(table)
    assert caught.value.code == "E-ENV-013"
    assert caught.value.where.splitlines() == [
        "state 0, action 0: probabilities sum to 0.5, or one is negative",
        "state 0, action 1 leads to 7, reward 0.0",
        "state 1 has the actions [0], expected 0 to 1",
    ]
    with pytest.raises(GroundupError):
        dynamics({})


def test_discounts_without_finite_values_are_refused() -> None:
    model = dynamics(CHAIN)
    with pytest.raises(GroundupError) as caught:
        policy_iteration(model, 1.0)
    assert caught.value.code == "E-ENV-014"
    with pytest.raises(GroundupError) as caught:
        value_iteration(model, 1.0, limit=50)  # round and round pays for ever
    assert caught.value.code == "E-ENV-014" and "50 sweeps" in caught.value.what
