"""Deep Q-networks against closed forms: targets by hand, the values of a chain, and what a resume gives back."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.contract import Batch
from groundup.data.environments import EnvironmentOptions, Environments
from groundup.data.replay import PriorityOptions, Replay, ReplayOptions
from groundup.errors import GroundupError
from groundup.models.q_network import QNetwork, QNetworkOptions
from groundup.objectives.value import DQN, DQNOptions, EpsilonGreedy, greedy


class Lookup(nn.Module):
    """Values of one-hot states, from a table."""

    def __init__(self, table_SN: list[list[float]]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table_SN))

    def forward(self, x_BO: Tensor) -> Tensor:
        return x_BO @ self.table


def states(*numbers: int, count: int = 2) -> Tensor:
    return nn.functional.one_hot(torch.tensor(numbers), count).float()


def batch_of(rows: list[tuple[int, int, float, int, float]], weight: list[float] | None = None) -> Batch:
    """Rows of (state, action, reward, next state, what its value counts)."""
    state, action, reward, following, goes_on = zip(*rows)
    return {
        "observation_BO": states(*state),
        "action_B": torch.tensor(action),
        "reward_B": torch.tensor(reward, dtype=torch.float32),
        "next_observation_BO": states(*following),
        "continue_B": torch.tensor(goes_on, dtype=torch.float32),
        "weight_B": torch.tensor(weight or [1.0] * len(rows)),
        "index_B": torch.arange(len(rows)),
    }


ROWS = [(0, 0, 1.0, 1, 0.5), (1, 1, -2.0, 0, 0.25), (0, 1, 3.0, 1, 0.0)]


def test_targets_by_hand_double_and_plain() -> None:
    model = Lookup([[1.0, 2.0], [4.0, 3.0]])
    slow = [[10.0, 20.0], [30.0, 50.0]]
    for double, expected in (
        (False, [1 + 0.5 * 50, -2 + 0.25 * 20, 3.0]),
        # the network prefers action 1 in state 0 and action 0 in state 1
        (True, [1 + 0.5 * 30, -2 + 0.25 * 20, 3.0]),
    ):
        objective = DQN(DQNOptions(double=double), model)
        objective.load_state_dict({"target": {"table": torch.tensor(slow)}})
        assert objective.targets(batch_of(ROWS)).tolist() == expected


def test_the_loss_by_hand() -> None:
    model = Lookup([[1.0, 2.0], [4.0, 3.0]])
    reported: list[tuple[Tensor, Tensor]] = []
    # y: 1 + .5 · 4, -2 + .25 · 2, 3; errors 2, -4.5, 1
    for huber, losses in ((True, [1.5, 4.0, 0.5]), (False, [2.0, 4.5**2 / 2, 0.5])):
        objective = DQN(DQNOptions(huber=huber), model, lambda index, error: reported.append((index, error)))
        batch = batch_of(ROWS, [1.0, 0.5, 0.25])
        loss = objective.loss("model", batch)
        assert float(loss.total.detach()) == pytest.approx(losses[0] + losses[1] / 2 + losses[2] / 4)
        assert {name: float(value) for name, value in loss.metrics.items()} == pytest.approx(
            {"value": 6.0, "target": 4.5, "error": 7.5, "rows": 3}
        )
        assert objective.weight("model", batch) == 3
    assert reported[0][0].tolist() == [0, 1, 2] and reported[0][1].tolist() == pytest.approx([2.0, -4.5, 1.0])
    model.zero_grad()
    loss.total.backward()
    # the slope of a squared error is the error, times its weight; targets have none
    assert model.table.grad is not None
    assert model.table.grad.tolist() == [[pytest.approx(-2.0), pytest.approx(-0.25)], [0.0, pytest.approx(2.25)]]


def test_sums_do_not_depend_on_how_the_batch_is_divided() -> None:
    model = Lookup([[1.0, 2.0], [4.0, 3.0]])
    objective = DQN(DQNOptions(), model)
    whole = objective.loss("model", batch_of(ROWS)).total
    parts = [objective.loss("model", batch_of(part)).total for part in (ROWS[:1], ROWS[1:])]
    assert float(whole.detach()) == pytest.approx(float(sum(part.detach() for part in parts)))


@pytest.mark.parametrize("double", [False, True])
def test_the_values_of_a_chain_of_two_states(double: bool) -> None:
    # In state 0 action 0 stays and pays 0, action 1 goes to state 1 and pays 0; in state 1 action 0 goes back and
    # pays 1, action 1 ends and pays 2. With discount g: V(1) = max(1 + g V(0), 2), V(0) = g V(1).
    # For g = .9: going round for ever pays 1 / (1 - .81) = 5.263… in state 1.
    g = 0.9
    v1 = 1 / (1 - g * g)
    exact = [[g * g * v1, g * v1], [v1, 2.0]]
    model = Lookup([[0.0, 0.0], [0.0, 0.0]])
    objective = DQN(DQNOptions(discount=g, target_every=10, double=double, huber=False), model)
    batch = batch_of([(0, 0, 0.0, 0, g), (0, 1, 0.0, 1, g), (1, 0, 1.0, 0, g), (1, 1, 2.0, 1, 0.0)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(1, 1_201):
        optimizer.zero_grad()
        objective.loss("model", batch).total.backward()
        optimizer.step()
        objective.after_step(step)
    assert torch.allclose(model.table.detach(), torch.tensor(exact), atol=1e-3)


def test_the_slow_copy_moves_when_and_as_far_as_it_should() -> None:
    model = Lookup([[0.0], [0.0]])
    whole, soft = DQN(DQNOptions(target_every=3), model), DQN(DQNOptions(target_every=1, target_rate=0.25), model)
    with torch.no_grad():
        model.table.fill_(8.0)
    for step, (all_of_it, share) in enumerate([(0.0, 2.0), (0.0, 3.5), (8.0, 4.625)], start=1):
        for objective, value in ((whole, all_of_it), (soft, share)):
            objective.after_step(step)
            assert objective.state_dict()["target"]["table"].tolist() == [[value], [value]]
    assert not any(p.requires_grad for p in whole.target.parameters())


def test_exploration_falls_in_a_line_and_is_as_random_as_it_says() -> None:
    model = Lookup([[0.0, 1.0, 0.0, 0.0]] * 2)
    policy = EpsilonGreedy(DQNOptions(epsilon_from=0.9, epsilon_to=0.1, epsilon_steps=100), model)
    assert [policy.epsilon(step) for step in (0, 50, 100, 10_000)] == pytest.approx([0.9, 0.5, 0.1, 0.1])
    action_E = policy(states(*[0] * 20_000), 50, torch.Generator().manual_seed(0))
    share_N = torch.bincount(action_E, minlength=4) / 20_000
    assert torch.allclose(share_N, torch.tensor([0.125, 0.625, 0.125, 0.125]), atol=0.015)
    again = policy(states(*[0] * 20_000), 50, torch.Generator().manual_seed(0))
    assert torch.equal(action_E, again)


def test_dueling_is_value_plus_centred_advantage() -> None:
    network = QNetwork(QNetworkOptions(hidden=[5], dueling=True), (3,), 4)
    network.initialise(torch.Generator().manual_seed(0))
    x_BO = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    hidden_BF = torch.relu(network.layers[0](x_BO))
    assert network.state_head is not None
    advantage_BN, value_B1 = network.head(hidden_BF), network.state_head(hidden_BF)
    expected = value_B1 + advantage_BN - advantage_BN.mean(dim=1, keepdim=True)
    assert torch.allclose(network(x_BO), expected)
    assert torch.allclose(network(x_BO).mean(dim=1, keepdim=True), value_B1, atol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (3, 1, 1), (1, 7, 12), (4, 84, 84)])
def test_every_shape_of_observation_gives_a_value_for_each_action(shape: tuple[int, ...]) -> None:
    network = QNetwork(QNetworkOptions(hidden=[8]), shape, 5)
    network.initialise(torch.Generator().manual_seed(0))
    value_BN = network(torch.ones(2, *shape))
    assert value_BN.shape == (2, 5) and len(network.convolutions) == (3 if len(shape) == 3 else 0)
    value_BN.sum().backward()
    assert all(p.grad is not None and bool(p.isfinite().all()) for p in network.parameters())
    other = QNetwork(QNetworkOptions(hidden=[8]), shape, 5)
    other.initialise(torch.Generator().manual_seed(0))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(network.parameters(), other.parameters()))


def test_channels_without_an_image_are_refused() -> None:
    with pytest.raises(GroundupError) as caught:
        QNetwork(QNetworkOptions(channels=[8]), (4,), 2)
    assert caught.value.code == "E-MODEL-100" and "model.channels" in caught.value.where


class Training:
    """DQN on a small environment, put together as a run does."""

    def __init__(self, name: str, priorities: PriorityOptions | None) -> None:
        pytest.importorskip("gymnasium")
        environments = Environments(EnvironmentOptions(id=name, count=2), seed=0)
        assert environments.actions is not None
        self.model = QNetwork(QNetworkOptions(hidden=[16]), environments.observation_shape, environments.actions)
        self.model.initialise(torch.Generator().manual_seed(0))
        options = DQNOptions(target_every=4, epsilon_steps=60)
        self.source = Replay(
            ReplayOptions(capacity=50, warm_up_steps=20, n_steps=2, priorities=priorities),
            environments,
            act=EpsilonGreedy(options, self.model),
            rows=8,
            discount=options.discount,
            seed=0,
        )
        self.objective = DQN(options, self.model, self.source.report_priorities)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.step = 0

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            batch = self.source.next("model")
            (self.objective.loss("model", batch).total / self.objective.weight("model", batch)).backward()
            self.optimizer.step()
            self.step += 1
            self.objective.after_step(self.step)

    def state_dict(self) -> dict[str, Any]:
        parts = {"source": self.source, "objective": self.objective, "model": self.model, "optimizer": self.optimizer}
        return copied({**{name: part.state_dict() for name, part in parts.items()}, "step": self.step})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.source.load_state_dict(state["source"])
        self.objective.load_state_dict(state["objective"])
        self.step = state["step"]


def copied(value: Any) -> Any:
    """As a disk would give it back: nothing is shared with what goes on."""
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(part) for part in value)
    return value.clone() if isinstance(value, Tensor) else value


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(itertools.chain.from_iterable(flat(part) for part in value.values()))
    if isinstance(value, list | tuple):
        return list(itertools.chain.from_iterable(flat(part) for part in value))
    return [value]


@pytest.mark.parametrize("priorities", [None, PriorityOptions()], ids=["even", "priorities"])
@pytest.mark.parametrize("name", ["CartPole-v1", "groundup/Counters-v0"])
def test_resume_halfway_is_bitwise_the_straight_run(name: str, priorities: PriorityOptions | None) -> None:
    straight, first, second = (Training(name, priorities) for _ in range(3))
    straight.train(30)
    first.train(15)
    state = first.state_dict()
    first.train(3)  # goes on, and must not change what was saved
    second.load_state_dict(state)
    second.train(15)
    mine, theirs = flat(second.state_dict()), flat(straight.state_dict())
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_the_counting_environment_is_learned() -> None:
    torch.manual_seed(0)
    pytest.importorskip("gymnasium")
    environments = Environments(EnvironmentOptions(id="groundup/Counters-v0"), seed=0)
    model = QNetwork(QNetworkOptions(hidden=[64]), environments.observation_shape, 10)
    model.initialise(torch.Generator().manual_seed(0))
    options = DQNOptions(discount=0.9, target_every=50, epsilon_steps=800)
    source = Replay(
        ReplayOptions(capacity=5_000, warm_up_steps=400),
        environments,
        act=EpsilonGreedy(options, model),
        rows=64,
        discount=options.discount,
        seed=0,
    )
    objective, optimizer = DQN(options, model), torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(1, 601):
        optimizer.zero_grad()
        batch = source.next("model")
        (objective.loss("model", batch).total / 64).backward()
        optimizer.step()
        objective.after_step(step)
    play = Environments(EnvironmentOptions(id="groundup/Counters-v0", count=50), seed=1)
    best_E = 10.0 - play.observation_EO.view(50, 10, 10)[:, :, 0].sum(dim=1)
    total_E, over_E = torch.zeros(50), torch.zeros(50, dtype=torch.bool)
    for _ in range(20):
        done = play.step(greedy(model, play.observation_EO)[0])
        total_E += done.reward_E.where(~over_E, 0.0)
        over_E |= done.terminated_E
    assert over_E.all() and torch.equal(total_E, best_E)
