"""Rollouts: advantages are what the formulas say, whether an episode ended or was cut off; minibatches cover the
rollout; and the source goes on bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.data.environments import Episode, Transition
from groundup.data.moments import Moments
from groundup.data.rollout import Rollout, RolloutOptions, advantages
from groundup.errors import GroundupError
from groundup.models.agent import ActorCritic, ActorCriticOptions

DISCOUNT, LAMBDA = 0.9, 0.7


class Clocks:
    """Two clocks: each observation is (copy, time), each reward the time reached. The first one's episodes terminate at
    3, the second one's are truncated at 2."""

    observation_shape = (2,)

    def __init__(self) -> None:
        self.time = [0, 0]
        self.finished: list[Episode] = []
        self.acted: list[Tensor] = []

    @property
    def observation_EO(self) -> Tensor:
        return torch.tensor([[copy, time] for copy, time in enumerate(self.time)], dtype=torch.float32)

    def step(self, action: Tensor) -> Transition:
        before = self.observation_EO
        self.acted.append(action)
        self.time = [time + 1 for time in self.time]
        reached = self.observation_EO
        ended = [self.time[0] == 3, self.time[1] == 2]
        self.finished = [Episode(0.0, self.time[copy], copy, 0) for copy in range(2) if ended[copy]]
        self.time = [0 if over else time for over, time in zip(ended, self.time)]
        return Transition(
            before, action, reached[:, 1], reached, torch.tensor([ended[0], False]), torch.tensor([False, ended[1]])
        )

    def state_dict(self) -> dict[str, Any]:
        return {"time": list(self.time)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.time = list(state["time"])


def worth(observation_BO: Tensor) -> Tensor:
    """A value that tells every state from the others."""
    return 10.0 + 3.0 * observation_BO[:, 1] - observation_BO[:, 0]


def chance(observation_EO: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    drawn = torch.randint(2, (len(observation_EO),), generator=generator)
    return drawn, torch.full((len(observation_EO),), -math.log(2)), worth(observation_EO)


def clocks(**options: Any) -> Rollout:
    given = RolloutOptions(**{"horizon": 7, "epochs": 2, "minibatches": 3, "gae_lambda": LAMBDA, **options})
    return Rollout(given, Clocks(), act=chance, value=worth, discount=DISCOUNT, seed=5)  # type: ignore[arg-type]


def in_order(source: Rollout) -> dict[str, Tensor]:
    """The next epoch of the rollout, in the order in which it was experienced, (T, E, …)."""
    parts = [source.next("model") for _ in range(source.options.minibatches)]
    order = torch.cat([part["row_B"] for part in parts]).argsort()
    whole = {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}
    return {name: column.unflatten(0, (-1, 2)) for name, column in whole.items()}


def by_hand(rewards: list[float], values: list[float], nexts: list[float], ends: list[str], lam: float) -> list[float]:
    """Each advantage as its own sum of discounted one-step errors, up to the end of its episode."""
    result = []
    for start in range(len(rewards)):
        total = 0.0
        for t in range(start, len(rewards)):
            follows = 0.0 if ends[t] == "terminated" else nexts[t]
            total += (DISCOUNT * lam) ** (t - start) * (rewards[t] + DISCOUNT * follows - values[t])
            if ends[t]:
                break
        result.append(total)
    return result


def test_advantages_equal_a_plain_double_loop() -> None:
    random = torch.Generator().manual_seed(0)
    reward, value, following = (torch.randn(40, 3, generator=random, dtype=torch.float64) for _ in range(3))
    kind = torch.randint(8, (40, 3), generator=random)  # 0: terminated, 1: truncated, 2: both, else it goes on
    terminated, truncated = (kind == 0) | (kind == 2), (kind == 1) | (kind == 2)
    found = advantages(reward, value, following, terminated, truncated, DISCOUNT, LAMBDA)
    for copy in range(3):
        ends = [
            "terminated" if t else "truncated" if c else "" for t, c in zip(terminated[:, copy], truncated[:, copy])
        ]
        columns = (column[:, copy].tolist() for column in (reward, value, following))
        expected = by_hand(*columns, ends, LAMBDA)
        assert found[:, copy].tolist() == pytest.approx(expected, rel=1e-12)


def test_termination_and_truncation_have_closed_forms() -> None:
    """With λ = 1, reward 1 and value v everywhere: the return is a geometric sum, and a truncated episode adds the
    discounted value of the state where it stopped."""
    steps, v = 6, 4.0
    one, value = torch.ones(steps, 1, dtype=torch.float64), torch.full((steps, 1), v, dtype=torch.float64)
    last = torch.tensor([[False]] * (steps - 1) + [[True]])
    never = torch.zeros_like(last)
    left = torch.arange(steps, 0, -1, dtype=torch.float64)[:, None]
    geometric = (1 - DISCOUNT**left) / (1 - DISCOUNT)
    ended = advantages(one, value, value, last, never, DISCOUNT, 1.0) + value
    cut = advantages(one, value, value, never, last, DISCOUNT, 1.0) + value
    torch.testing.assert_close(ended, geometric)
    torch.testing.assert_close(cut, geometric + DISCOUNT**left * v)
    # a value that is right everywhere leaves nothing to be surprised by, whatever λ
    right = torch.full_like(one, 1 / (1 - DISCOUNT))
    assert advantages(one, right, right, never, last, DISCOUNT, LAMBDA).abs().max() < 1e-12
    # λ = 0 is the one-step error
    short = advantages(one, value, value, last, never, DISCOUNT, 0.0)
    torch.testing.assert_close(short[:, 0], 1 + DISCOUNT * v * (~last[:, 0]).double() - v)


@pytest.mark.parametrize("lam", [LAMBDA, 1.0, 0.0])
def test_the_source_bootstraps_where_an_episode_was_cut_and_only_there(lam: float) -> None:
    rollout = in_order(clocks(gae_lambda=lam))
    # the first clock: 1 2 3| 1 2 3| 1…, terminated; the second: 1 2| 1 2| 1 2| 1…, truncated; the end cuts both
    first = [1.0, 2, 3, 1, 2, 3, 1], ["", "", "terminated"] * 2 + ["cut"]
    second = [1.0, 2, 1, 2, 1, 2, 1], ["", "cut"] * 3 + ["cut"]
    for copy, (rewards, ends) in enumerate((first, second)):
        values = [10.0 + 3.0 * (reward - 1) - copy for reward in rewards]  # of the state before
        nexts = [10.0 + 3.0 * reward - copy for reward in rewards]  # of the true next state
        assert rollout["value_B"][:, copy].tolist() == values
        expected = by_hand(rewards, values, nexts, ends, lam)
        assert rollout["advantage_B"][:, copy].tolist() == pytest.approx(expected, rel=1e-5)
        returns = [a + v for a, v in zip(expected, values)]
        assert rollout["return_B"][:, copy].tolist() == pytest.approx(returns, rel=1e-5)
    standard = rollout["standard_advantage_B"].double()
    assert standard.mean().abs() < 1e-6 and abs(float(standard.std(correction=0)) - 1) < 1e-6


def test_every_epoch_has_every_row_once_and_the_ledger_adds_up() -> None:
    source = clocks()
    seen = []
    for number in range(2 * source.batches_per_epoch):
        batch = source.next("model")
        assert source.epoch == number // 6 and source.batch == number % 6 + 1
        seen.append(batch["row_B"].tolist())
        assert all(len(column) == len(batch["row_B"]) for column in batch.values())
        assert batch["observation_BO"].shape[1:] == (2,) and batch["action_B"].dtype == torch.int64
    epochs = [[row for part in seen[start : start + 3] for row in part] for start in range(0, 12, 3)]
    assert all(sorted(epoch) == list(range(14)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4  # each in an order of its own
    assert source.ledger == {"seen": 56, "trained": 56, "masked": 0, "padded": 0}
    assert source.steps == 28
    assert [episode.length for episode in source.finished] == [2, 3, 2, 3, 2, 2]  # those of the second rollout


def test_stopping_reuse_begins_a_new_rollout() -> None:
    source = clocks()
    source.stop_reuse()  # nothing to stop yet
    source.next("model")
    assert (source.epoch, source.batch, source.steps) == (0, 1, 14)
    source.stop_reuse()
    source.stop_reuse()
    source.next("model")
    assert (source.epoch, source.batch, source.steps) == (1, 1, 28)


def test_moments_equal_those_of_all_rows_at_once() -> None:
    random = torch.Generator().manual_seed(1)
    rows = torch.randn(100, 3, generator=random, dtype=torch.float64) * torch.tensor([1.0, 1e3, 0.0]) + 1e4
    moments = Moments((3,))
    torch.testing.assert_close(moments.standard(rows[:2] - 1e4, 5.0), (rows[:2] - 1e4).clamp(-5, 5))
    for start, end in ((0, 1), (1, 8), (8, 100)):
        moments.update(rows[start:end])
    torch.testing.assert_close(moments.mean, rows.mean(dim=0))
    torch.testing.assert_close(moments.deviation, (rows.var(dim=0, correction=0) + 1e-8).sqrt())
    shown = moments.standard(rows, 2.0)
    assert shown.abs().max() <= 2.0 and shown[:, 2].abs().max() < 1e-6


def test_observations_and_rewards_are_normalised_as_they_come() -> None:
    source = clocks(normalise_observations=True, normalise_rewards=True, horizon=2, minibatches=1)
    batch = in_order(source)
    # the first step shows (0, 0) and (1, 0): means 0.5 and 0, deviations 0.5 and nothing
    torch.testing.assert_close(batch["observation_BO"][0], torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), rtol=0, atol=1e-6)
    # the second shows (0, 1) and (1, 1), so that times have the mean 0.5 and the deviation 0.5 over both
    torch.testing.assert_close(batch["observation_BO"][1], torch.tensor([[-1.0, 1.0], [1.0, 1.0]]), rtol=0, atol=1e-6)
    given = source.normalisation()
    torch.testing.assert_close(given["mean_O"], torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(given["deviation_O"], torch.tensor([0.5, 0.5]), rtol=1e-6, atol=1e-6)
    shown = torch.tensor([[3.0, 7.0], [900.0, 0.0]])
    served = ((shown - given["mean_O"]) / given["deviation_O"]).clamp(-10, 10)
    torch.testing.assert_close(source.normalise(shown), served, rtol=1e-6, atol=1e-6)
    assert clocks().normalisation() == {} and clocks().normalise(shown) is shown
    # discounted returns 1, 1, then 1 · 0.9 + 2 twice: the deviation of the second step's rewards is that of all four
    deviation = torch.tensor([1.0, 1.0, 2.9, 2.9]).std(correction=0)
    cut = batch["return_B"][1] - DISCOUNT * worth(source.normalise(torch.tensor([[0.0, 2.0], [1.0, 2.0]])))
    torch.testing.assert_close(cut, (2.0 / deviation).expand(2), rtol=1e-4, atol=1e-4)


def stored(state: Any) -> Any:
    """A copy, as it would come back from a checkpoint, which holds JSON values and tensors."""
    if isinstance(state, dict):
        return {str(name): stored(value) for name, value in state.items()}
    if isinstance(state, list):
        return [stored(value) for value in state]
    if isinstance(state, Tensor):
        return state.clone()
    assert state is None or type(state) in (bool, int, float, str), type(state)
    return state


@pytest.mark.parametrize("taken", [0, 1, 5, 6, 8])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_G2_a_resumed_source_is_bitwise_the_same(env: str, taken: int) -> None:
    pytest.importorskip("gymnasium")
    from groundup.data.environments import EnvironmentOptions, Environments

    def build() -> Rollout:
        environments = Environments(EnvironmentOptions(id=env, count=3, time_limit=9), 1)
        low, high = environments.action_low, environments.action_high
        outputs = environments.actions or len(low if low is not None else [])
        model = ActorCritic(ActorCriticOptions(hidden=[8]), environments.observation_shape, outputs, low, high)
        model.initialise(torch.Generator().manual_seed(0))
        options = RolloutOptions(
            horizon=7, epochs=2, minibatches=3, normalise_observations=True, normalise_rewards=True
        )
        value = torch.no_grad()(model.value)
        return Rollout(options, environments, act=model.act, value=value, discount=0.99, seed=3)

    straight, resumed = build(), build()
    for _ in range(taken):
        straight.next("model")
    state = straight.state_dict()
    assert bool(state["columns"]) == (taken % 6 != 0)  # a rollout that is used up is not kept
    kept = stored(state)
    expected = [straight.next("model") for _ in range(14)]
    resumed.load_state_dict(kept)
    for batch in expected:
        found = resumed.next("model")
        assert found.keys() == batch.keys()
        assert all(torch.equal(found[name], batch[name]) for name in batch)
    assert (resumed.ledger, resumed.steps, resumed.finished) == (straight.ledger, straight.steps, straight.finished)
    assert straight.finished


def test_more_minibatches_than_rows_are_refused() -> None:
    with pytest.raises(GroundupError) as caught:
        clocks(horizon=2, minibatches=5)
    assert caught.value.code == "E-ENV-030" and "4 rows" in str(caught.value)
