"""Environments: what a network is shown of them, where episodes end, resume, and the errors of those that misbehave."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from groundup.data.environments import (
    EnvironmentOptions,
    Environments,
    episode_seed,
    make,
    require_actions,
    transition_table,
)
from groundup.data.spaces import Encoder
from groundup.errors import GroundupError

gymnasium = pytest.importorskip("gymnasium")
from tests.data.toy_environments import register  # noqa: E402  (it needs gymnasium)

register()


def chain(count: int = 1, time_limit: int | None = None, **options: Any) -> Environments:
    return Environments(
        EnvironmentOptions(id="tests/Chain-v0", count=count, options=options, time_limit=time_limit), seed=3
    )


def play(environments: Environments, steps: int, seed: int = 0) -> list[Tensor]:
    """Random play; everything that was seen."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(steps):
        action = torch.randint(environments.actions or 1, (environments.count,), generator=generator)
        done = environments.step(action)
        seen += [done.next_observation_EO, done.reward_E, environments.observation_EO]
    return seen


def test_a_transition_shows_where_the_step_led_before_the_reset() -> None:
    environments = chain(count=2, length=3)
    assert environments.observation_shape == (2,) and environments.actions == 3 and environments.action_shape == ()
    for number in (1, 2, 3):
        before = environments.observation_EO
        done = environments.step(torch.tensor([0, 2]))
        assert torch.equal(done.observation_EO, before)
        assert done.reward_E.tolist() == [number, number] and done.reward_E.dtype == torch.float32
        # the actions of the space start at -1
        assert done.next_observation_EO[:, 1].tolist() == [-1.0, 1.0]
        assert done.next_observation_EO[:, 0].int().tolist() == [number, number]
        assert done.terminated_E.tolist() == [number == 3] * 2 and not done.truncated_E.any()
    assert environments.observation_EO[:, 0].max() < 1.0  # reset, while the transition shows the third step
    assert [(e.total_reward, e.length, e.copy) for e in environments.finished] == [(6.0, 3, 0), (6.0, 3, 1)]
    assert [e.seed for e in environments.finished] == [episode_seed(3, 0, 0), episode_seed(3, 1, 0)]
    environments.step(torch.tensor([0, 0]))
    assert environments.finished == []


def test_truncated_is_not_terminated() -> None:
    environments = chain(time_limit=2)
    environments.step(torch.tensor([0]))
    done = environments.step(torch.tensor([0]))
    assert done.truncated_E.tolist() == [True] and done.terminated_E.tolist() == [False]


def test_the_time_limit_of_the_environment_holds_where_none_is_given() -> None:
    environments = chain()
    ends = [bool(environments.step(torch.tensor([0])).truncated_E) for _ in range(10)]
    assert ends == [False, False, False, False, True] * 2


def test_every_episode_has_a_start_of_its_own_and_seeds_repeat_it() -> None:
    def starts(seed: int) -> Tensor:
        options = EnvironmentOptions(id="tests/Chain-v0", count=2, options={"length": 1})
        environments = Environments(options, seed)
        shown = [environments.observation_EO]
        for _ in range(4):
            environments.step(torch.tensor([0, 0]))
            shown.append(environments.observation_EO)
        return torch.cat(shown)[:, 0]

    assert len(starts(0).unique()) == 10
    assert torch.equal(starts(0), starts(0)) and not torch.equal(starts(0), starts(1))


@pytest.mark.parametrize("name", ["CartPole-v1", "groundup/Counters-v0", "FrozenLake-v1"])
def test_resume_is_bitwise_and_needs_no_pickle(name: str) -> None:
    options = EnvironmentOptions(id=name, count=3)
    straight = Environments(options, seed=1)
    play(straight, 57)
    state = straight.state_dict()
    assert all(isinstance(value, Tensor | list) for value in state.values())
    resumed = Environments(options, seed=1)
    play(resumed, 5, seed=9)  # whatever it did before does not matter
    resumed.load_state_dict(state)
    assert torch.equal(resumed.observation_EO, straight.observation_EO)
    for mine, theirs in zip(play(resumed, 40, seed=2), play(straight, 40, seed=2), strict=True):
        assert torch.equal(mine, theirs)
    for key, value in straight.state_dict().items():
        again = resumed.state_dict()[key]
        assert torch.equal(again, value) if isinstance(value, Tensor) else again == value


def test_resume_of_continuous_actions_before_the_first_step_too() -> None:
    options = EnvironmentOptions(id="Pendulum-v1", count=2)
    straight, resumed = Environments(options, seed=1), Environments(options, seed=1)
    resumed.load_state_dict(straight.state_dict())
    for _ in range(11):
        straight.step(torch.randn(2, 1))
    resumed.load_state_dict(straight.state_dict())
    action = torch.tensor([[0.5], [-0.25]])
    assert torch.equal(resumed.step(action).next_observation_EO, straight.step(action).next_observation_EO)


def test_an_environment_with_chance_of_its_own_cannot_be_resumed() -> None:
    environments = chain(fault="chance")
    environments.step(torch.tensor([0]))
    with pytest.raises(GroundupError) as caught:
        chain(fault="chance").load_state_dict(environments.state_dict())
    assert caught.value.code == "E-ENV-007" and "1 actions" in caught.value.what


def test_actions_that_were_handed_in_may_change_afterwards() -> None:
    environments, action = chain(), torch.tensor([2])
    done = environments.step(action)
    action.fill_(0)
    assert done.action.tolist() == [2] and environments.state_dict()["taken"].tolist() == [2]


def test_continuous_actions_are_clipped_for_the_environment_alone() -> None:
    environments = chain(continuous=True)
    assert environments.actions is None and environments.action_shape == (2,)
    assert environments.action_low is not None and environments.action_high is not None
    assert environments.action_low.tolist() == [-1.0, 0.0] and environments.action_high.tolist() == [1.0, 2.0]
    done = environments.step(torch.tensor([[-5.0, 1.5]]))
    assert done.next_observation_EO[0, 1] == 0.5  # -1 + 1.5
    assert done.action.tolist() == [[-5.0, 1.5]]


def test_observations_of_every_space() -> None:
    spaces = gymnasium.spaces
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    cases: list[tuple[Any, Any, tuple[int, ...], Any]] = [
        (spaces.Box(0, 9, (2, 2), np.int64), np.array([[1, 2], [3, 4]]), (2, 2), [[1, 2], [3, 4]]),
        (spaces.Box(0, 255, (2, 4, 3), np.uint8), image, (3, 2, 4), (image.transpose(2, 0, 1) / 255).tolist()),
        (spaces.Discrete(3, start=5), np.int64(6), (3,), [0, 1, 0]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 0]), (5,), [0, 1, 1, 0, 0]),
        (spaces.MultiBinary(3), np.array([1, 0, 1], dtype=np.int8), (3,), [1, 0, 1]),
        (
            spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Box(-1, 1, (2,))}),
            {"a": np.array([0.5, -0.5], dtype=np.float32), "b": 1},
            (4,),
            [0.5, -0.5, 0, 1],
        ),
        (spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (1, 1))]), (0, np.array([[0.25]])), (3,), [1, 0, 0.25]),
    ]
    for space, observation, shape, numbers in cases:
        encoder = Encoder(space, "here")
        assert encoder.shape == shape
        shown = encoder(observation)
        assert shown.dtype == np.float32 and shown.shape == shape
        np.testing.assert_allclose(shown, np.array(numbers), rtol=1e-6)
    with pytest.raises(GroundupError) as caught:
        Encoder(spaces.Dict({"a": spaces.Text(5)}), "here")
    assert caught.value.code == "E-ENV-005" and "observation['a']" in caught.value.where


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (
            "nan",
            "E-ENV-003",
            "1 of 2 numbers of the observation are not finite (or too large for float32), first at [1]",
        ),
        ("infinite", "E-ENV-003", "first at [0]"),
        ("reward", "E-ENV-003", "the reward nan"),
        ("reward list", "E-ENV-003", "the reward [1.0, 2.0]"),
        ("shape", "E-ENV-004", "shape (3,)"),
    ],
)
def test_D8_numbers_that_would_spoil_the_network_are_refused_in_the_step_that_gave_them(
    fault: str, code: str, says: str
) -> None:
    environments = chain(fault=fault)
    environments.step(torch.tensor([0]))
    with pytest.raises(GroundupError) as caught:
        environments.step(torch.tensor([0]))
    assert caught.value.code == code and says in caught.value.what


def test_a_state_outside_its_space_is_refused() -> None:
    environments = chain(fault="outside", discrete=True)
    assert environments.observation_EO.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    environments.step(torch.tensor([0]))
    with pytest.raises(GroundupError) as caught:
        environments.step(torch.tensor([0]))
    assert caught.value.code == "E-ENV-004" and "outside 0 to" in caught.value.what


def test_an_array_that_changes_under_its_user_is_copied_and_warned_of_once() -> None:
    environments = chain(fault="same", length=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = [environments.step(torch.tensor([0])) for _ in range(4)]
    assert len(caught) == 1 and "same array" in str(caught[0].message)
    assert [int(each.next_observation_EO[0, 0]) for each in done] == [1, 2, 3, 4]
    assert [int(each.observation_EO[0, 0]) for each in done] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (torch.tensor([3]), "E-ENV-006"),
        (torch.tensor([-1]), "E-ENV-006"),
        (torch.tensor([0.5]), "E-ENV-006"),
        (torch.tensor([[0]]), "E-ENV-006"),
    ],
)
def test_actions_that_do_not_exist_are_refused(action: Tensor, code: str) -> None:
    with pytest.raises(GroundupError) as caught:
        chain().step(action)
    assert caught.value.code == code


def test_vectors_that_cannot_be_acted_are_refused() -> None:
    for action, code in ((torch.tensor([[0.0, math.nan]]), "E-ENV-003"), (torch.tensor([[0.0]]), "E-ENV-006")):
        with pytest.raises(GroundupError) as caught:
            chain(continuous=True).step(action)
        assert caught.value.code == code


def test_the_kind_of_actions_must_suit_the_method() -> None:
    require_actions(chain(), "discrete", "dqn")
    require_actions(chain(continuous=True), "continuous", "sac")
    with pytest.raises(GroundupError) as caught:
        require_actions(chain(continuous=True), "discrete", "dqn")
    assert caught.value.code == "E-ENV-010" and "soft actor-critic" in caught.value.fix
    with pytest.raises(GroundupError) as caught:
        require_actions(chain(), "continuous", "sac")
    assert caught.value.code == "E-ENV-010" and "dqn" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CartPole-v7", "CartPole-v1"),
        ("Cartpole-v1", "CartPole-v1"),
        ("groundup/Counter-v0", "groundup/Counters-v0"),
        ("os:path-v0", "install a package"),
        ("qqqq", "known:"),
    ],
)
def test_an_unknown_id_names_the_nearest(name: str, says: str) -> None:
    with pytest.raises(GroundupError) as caught:
        make(EnvironmentOptions(id=name))
    assert caught.value.code == "E-ENV-001" and says in caught.value.fix


def test_options_that_the_environment_does_not_have() -> None:
    with pytest.raises(GroundupError) as caught:
        make(EnvironmentOptions(id="CartPole-v1", options={"gravitation": 3.0}))
    assert caught.value.code == "E-ENV-008" and "gravitation" in caught.value.why
    with pytest.raises(ValidationError, match="set the field time_limit instead"):
        EnvironmentOptions(id="CartPole-v1", options={"max_episode_steps": 3})


def test_an_environment_without_end_needs_a_limit() -> None:
    with pytest.raises(GroundupError) as caught:
        make(EnvironmentOptions(id="CliffWalking-v1"))
    assert caught.value.code == "E-ENV-009"
    assert make(EnvironmentOptions(id="CliffWalking-v1", time_limit=50)).spec.max_episode_steps == 50
    assert transition_table(EnvironmentOptions(id="CliffWalking-v1"))[2] is None


def test_an_environment_without_a_table() -> None:
    with pytest.raises(GroundupError) as caught:
        transition_table(EnvironmentOptions(id="CartPole-v1"))
    assert caught.value.code == "E-ENV-011"


def test_without_gymnasium_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(GroundupError) as caught:
        make(EnvironmentOptions(id="CartPole-v1"))
    assert caught.value.code == "E-ENV-002" and 'pip install "groundup[rl]"' in caught.value.fix


def test_the_counting_environment_passes_gymnasiums_checker() -> None:
    from gymnasium.utils.env_checker import check_env

    made = make(EnvironmentOptions(id="groundup/Counters-v0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made.unwrapped)


def test_the_counting_environment_pays_as_it_says() -> None:
    made = make(EnvironmentOptions(id="groundup/Counters-v0"))
    first, _ = made.reset(seed=0)
    second, reward, terminated, truncated, _ = made.step(int(np.flatnonzero(first)[0]))
    assert reward == 1.0 and not terminated and not truncated
    assert second is not first and (second != first).sum() == 1  # a copy: the first has not changed
    _, reward, *_ = made.step(int(np.flatnonzero(first)[0]))
    assert reward == -1.0
    assert np.array_equal(made.reset(seed=0)[0], first)


def test_the_best_return_is_the_number_of_counters_that_are_not_zero() -> None:
    environments = Environments(EnvironmentOptions(id="groundup/Counters-v0", count=10), seed=5)
    expected = dict.fromkeys(range(10), 0)
    returns = []
    for copy, shown in enumerate(environments.observation_EO):
        expected[copy] = 10 - int(shown.view(10, 10)[:, 0].sum())
    while len(returns) < 200:
        not_zero_EC = 1.0 - environments.observation_EO.view(10, 10, 10)[:, :, 0]
        environments.step(not_zero_EC.argmax(dim=1))
        for episode in environments.finished:
            assert episode.total_reward == expected[episode.copy] == episode.length
            returns.append(episode.total_reward)
            expected[episode.copy] = int(10 - environments.observation_EO[episode.copy].view(10, 10)[:, 0].sum())
    assert np.mean(returns) == pytest.approx(9.0, abs=0.3)


def test_the_counting_environment_is_cut_off_and_an_all_zero_start_ends_with_the_first_step() -> None:
    made = make(EnvironmentOptions(id="groundup/Counters-v0"))
    made.reset(seed=0)
    ends = [made.step(0)[2:4] for _ in range(100)]
    assert ends[-1] == (False, True) and ends[-2] == (False, False)
    made.reset(seed=0)
    made.unwrapped._counters[:] = 0
    assert made.step(4)[1:4] == (-1.0, True, False)


def test_random_play_of_the_counting_environment_returns_what_it_should() -> None:
    # exact, by the number of steps left and of counters that are not zero
    value_K = np.zeros(11)
    for _ in range(100):
        chance_K = np.arange(11) / 10
        after_K = chance_K * (1 + np.roll(value_K, 1)) + (1 - chance_K) * (value_K - 1)
        value_K = np.where(np.arange(11) > 0, after_K, 0.0)
    value_K[0] = -1.0
    start_K = np.array([math.comb(10, k) * 0.9**k * 0.1 ** (10 - k) for k in range(11)])
    exact = float(start_K @ value_K)
    assert exact == pytest.approx(-10.234, abs=1e-3)
    environments = Environments(EnvironmentOptions(id="groundup/Counters-v0", count=30), seed=0)
    generator = torch.Generator().manual_seed(0)
    returns: dict[int, list[float]] = {copy: [] for copy in range(30)}
    while min(len(each) for each in returns.values()) < 3:
        environments.step(torch.randint(10, (30,), generator=generator))
        for episode in environments.finished:
            returns[episode.copy].append(episode.total_reward)
    firsts = [total for each in returns.values() for total in each[:3]]  # of each copy as many: short ones end sooner
    assert abs(np.mean(firsts) - exact) < 4 * np.std(firsts) / math.sqrt(len(firsts))
