"""Policy gradients and soft actor–critic against their formulas written out, and torch.distributions."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal

from groundup.contract import Batch
from groundup.errors import GroundupError
from groundup.models.agent import (
    ActorCritic,
    ActorCriticOptions,
    SoftActorCritic,
    SoftActorCriticOptions,
    normal,
)
from groundup.objectives.policy import A2COptions, PolicyGradient, PPOOptions, ReinforceOptions
from groundup.objectives.soft_actor_critic import SAC, SACOptions

LOW, HIGH = torch.tensor([-2.0, 1.0]), torch.tensor([2.0, 4.0])
ROWS = 24


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def agent(kind: str = "discrete", **options: Any) -> ActorCritic:
    bounds = () if kind == "discrete" else (LOW, HIGH)
    model = ActorCritic(ActorCriticOptions(hidden=[16], **options), (3,), 4 if kind == "discrete" else 2, *bounds)
    model.initialise(generator(1))
    with torch.no_grad():
        model.head.weight.mul_(50)  # far from even, so that all actions differ
    return model


def experience(model: ActorCritic) -> Batch:
    """What the policy did, with advantages and returns that are anything."""
    random = generator(2)
    observation = torch.randn(ROWS, 3, generator=random)
    action, log_p, value = model.act(observation, random)
    advantage = torch.randn(ROWS, generator=random)
    return {
        "observation_BO": observation,
        "action_B" if action.dim() == 1 else "action_BA": action,
        "log_probability_B": log_p,
        "value_B": value,
        "advantage_B": advantage,
        "standard_advantage_B": (advantage - advantage.mean()) / advantage.std(correction=0),
        "return_B": value + advantage + torch.randn(ROWS, generator=random),
    }


def moved(model: ActorCritic) -> ActorCritic:
    """The policy after it has learned a little."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for number, parameter in enumerate(other.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator(number)), alpha=0.05)
    return other


def never() -> None:
    raise AssertionError("reuse was to go on")


def distribution(model: ActorCritic, observation: Tensor) -> Any:
    said = model(observation)
    if model.bounds is None:
        return Categorical(logits=said)
    return Independent(Normal(said, (HIGH - LOW) / 2 * model.log_deviation_A.exp()), 1)


def gradients(model: torch.nn.Module, total: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, [p for p in model.parameters() if p.requires_grad], allow_unused=True))


def assert_close(first: list[Tensor], second: list[Tensor], tolerance: float = 1e-5) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second):
        if a is None or b is None:
            assert a is b
        else:
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("shared", [False, True])
def test_log_probabilities_entropies_and_values_are_those_of_the_distribution(kind: str, shared: bool) -> None:
    model = agent(kind, shared=shared)
    assert any(name.startswith("value_body") for name, _ in model.named_parameters()) != shared
    batch = experience(model)
    action = batch["action_B" if kind == "discrete" else "action_BA"]
    log_p, entropy, value = model.judge(batch["observation_BO"], action)
    expected = distribution(model, batch["observation_BO"])
    torch.testing.assert_close(log_p, expected.log_prob(action))
    torch.testing.assert_close(entropy, expected.entropy())
    torch.testing.assert_close(value, model.value(batch["observation_BO"]))
    assert torch.equal(log_p, batch["log_probability_B"]) and torch.equal(value, batch["value_B"])
    greedy, log_p, _ = model.act(batch["observation_BO"], generator(), greedy=True)
    best = expected.logits.argmax(dim=1) if kind == "discrete" else expected.mean
    assert torch.equal(greedy, best)
    torch.testing.assert_close(log_p, expected.log_prob(best))


def test_actions_are_drawn_as_often_as_they_are_likely() -> None:
    discrete, continuous = agent(), agent("continuous", initial_deviation=0.5)
    observation = torch.randn(1, 3, generator=generator(3)).expand(40_000, -1)
    drawn, _, _ = discrete.act(observation, generator(4))
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert (shares - discrete(observation[:1]).softmax(dim=1)[0]).abs().max() < 0.01
    drawn, _, _ = continuous.act(observation, generator(4))
    torch.testing.assert_close(drawn.mean(dim=0), continuous(observation[:1])[0], rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.std(dim=0), 0.5 * (HIGH - LOW) / 2, rtol=0.02, atol=0)


def test_normal_draws_do_not_depend_on_how_a_batch_is_cut() -> None:
    whole = normal(torch.empty(50, 3), generator(5))
    random = generator(5)
    parts = torch.cat([normal(torch.empty(rows, 3), random) for rows in (1, 20, 29)])
    assert torch.equal(whole, parts)
    many = normal(torch.empty(100_000, dtype=torch.float64), generator(6))
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert abs(float((many**power).mean()) - moment) < 0.05


def test_first_draws_are_orthogonal_and_start_even() -> None:
    model = ActorCritic(ActorCriticOptions(hidden=[64, 64]), (4,), 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    model.initialise(generator())
    inner = model.body.layers[1].weight
    torch.testing.assert_close(inner @ inner.T, 2 * torch.eye(64), rtol=1e-5, atol=1e-5)
    logits = model(torch.randn(100, 4, generator=generator()))
    assert (logits.softmax(dim=1) - 0.5).abs().max() < 0.01
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


PPO = [
    PPOOptions(),
    PPOOptions(clip=0.05, value_clip=0.1, entropy_weight=0.3, value_weight=0.7),
    PPOOptions(normalise_advantages=False, clip=0.01),
]


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("options", PPO)
def test_ppo_equals_the_paper_written_out(kind: str, options: PPOOptions) -> None:
    old = agent(kind)
    batch, model = experience(old), moved(old)
    loss = PolicyGradient(options, model, never).loss("model", batch)
    action = batch["action_B" if kind == "discrete" else "action_BA"]
    policy, value = distribution(model, batch["observation_BO"]), model.value(batch["observation_BO"])
    advantage = batch["standard_advantage_B" if options.normalise_advantages else "advantage_B"]
    total, clipped = torch.zeros(()), 0
    for row in range(ROWS):
        ratio = policy.log_prob(action)[row].exp() / batch["log_probability_B"][row].exp()
        a = advantage[row]
        outside = bool(ratio > 1 + options.clip) or bool(ratio < 1 - options.clip)
        clipped += outside
        held = 1 + options.clip if ratio > 1 else 1 - options.clip
        gain = ratio * a if not outside or bool(ratio * a < held * a) else torch.tensor(held) * a
        error = (value[row] - batch["return_B"][row]) ** 2
        if options.value_clip is not None:
            step = float((value[row] - batch["value_B"][row]).detach())
            if abs(step) > options.value_clip:
                fixed = batch["value_B"][row] + math.copysign(options.value_clip, step)
                error = max(error, (fixed - batch["return_B"][row]) ** 2)
        total = total - gain + options.value_weight * error - options.entropy_weight * policy.entropy()[row]
    torch.testing.assert_close(loss.total, total, rtol=1e-5, atol=1e-5)
    assert_close(gradients(model, loss.total), gradients(model, total), 2e-5)
    assert 0 < clipped < ROWS or options.clip > 0.1
    assert int(loss.metrics["clipped"]) == clipped


@pytest.mark.parametrize("options", [A2COptions(), ReinforceOptions(normalise_advantages=True, value_weight=1.0)])
def test_the_plain_policy_gradient_equals_its_formula(options: A2COptions | ReinforceOptions) -> None:
    model = agent()
    batch = experience(model)
    loss = PolicyGradient(options, model, never).loss("model", batch)
    policy, value = distribution(model, batch["observation_BO"]), model.value(batch["observation_BO"])
    advantage = batch["standard_advantage_B"] if options.normalise_advantages else batch["advantage_B"]
    total = (
        -(policy.log_prob(batch["action_B"]) * advantage).sum()
        + options.value_weight * ((value - batch["return_B"]) ** 2).sum()
        - options.entropy_weight * policy.entropy().sum()
    )
    torch.testing.assert_close(loss.total, total)
    assert_close(gradients(model, loss.total), gradients(model, total))


def test_before_the_first_update_the_ratio_is_1_and_ppo_is_the_plain_gradient() -> None:
    model = agent("continuous")
    batch = experience(model)
    same = {"entropy_weight": 0.1, "normalise_advantages": True}
    near = PolicyGradient(PPOOptions(**same), model, never).loss("model", batch)
    assert float(near.metrics["ratio"]) == float(near.metrics["rows"]) == ROWS
    assert float(near.metrics["divergence"]) == 0 and int(near.metrics["clipped"]) == 0
    plain = PolicyGradient(A2COptions(**same), model, never).loss("model", batch)
    assert_close(gradients(model, near.total), gradients(model, plain.total))


@pytest.mark.parametrize("options", [PPOOptions(clip=0.05, value_clip=0.1), A2COptions(), ReinforceOptions()])
def test_four_parts_of_a_batch_are_the_whole(options: Any) -> None:
    old = agent()
    batch, model = experience(old), moved(old)
    objective = PolicyGradient(options, model, never)
    parts = [{name: column[start : start + 7] for name, column in batch.items()} for start in range(0, ROWS, 7)]
    total = sum((objective.loss("model", part).total for part in parts), torch.zeros(()))
    assert sum(int(objective.weight("model", part)) for part in parts) == ROWS
    assert_close(gradients(model, total), gradients(model, objective.loss("model", batch).total))


def test_a_policy_that_moved_too_far_stops_the_reuse_of_its_rollout() -> None:
    old = agent()
    batch, model = experience(old), moved(old)
    stops: list[int] = []
    # the divergence of the step is that of all its micro-batches
    measured = PolicyGradient(PPOOptions(), model, never).loss("model", batch).metrics
    mean = float(measured["divergence"]) / ROWS
    new, before = model.judge(batch["observation_BO"], batch["action_B"])[0].detach(), batch["log_probability_B"]
    assert mean == pytest.approx(float(((new - before).exp() - 1 - (new - before)).mean()), rel=1e-5)
    assert mean > 0
    for target, expected in ((mean * 0.99, [1]), (mean * 1.01, [])):
        stops.clear()
        objective = PolicyGradient(PPOOptions(target_kl=target), model, lambda: stops.append(1))
        for start in range(0, ROWS, 6):
            objective.loss("model", {name: column[start : start + 6] for name, column in batch.items()})
        assert stops == []
        objective.after_step(1)
        assert stops == expected
        objective.after_step(2)  # nothing was measured since
        assert stops == expected
    objective = PolicyGradient(PPOOptions(target_kl=mean / 2), model, never)
    objective.loss("model", batch)
    objective.load_state_dict(objective.state_dict())  # a step that did not end leaves nothing behind
    objective.after_step(1)


# ---------------------------------------------------------------- soft actor–critic


def soft_agent(**options: Any) -> SoftActorCritic:
    model = SoftActorCritic(SoftActorCriticOptions(hidden=[16], **options), (3,), LOW, HIGH)
    model.initialise(generator(1))
    with torch.no_grad():
        model.actor.head.weight.mul_(50)
    return model


def memories() -> Batch:
    random = generator(2)
    terminated = torch.arange(ROWS) % 4 == 0
    return {
        "observation_BO": torch.randn(ROWS, 3, generator=random),
        "action_BA": LOW + (HIGH - LOW) * torch.rand(ROWS, 2, generator=random),
        "reward_B": torch.randn(ROWS, generator=random),
        "next_observation_BO": torch.randn(ROWS, 3, generator=random),
        "continue_B": 0.9 * (~terminated).float(),
        "terminated_B": terminated,
        "weight_B": 0.5 + torch.rand(ROWS, generator=random),
        "index_B": torch.arange(ROWS),
    }


def soft(model: SoftActorCritic, **options: Any) -> SAC:
    return SAC(SACOptions(**options), model, numbers=2, seed=7)


@pytest.mark.parametrize("mean, deviation", [(0.0, 1.0), (1.5, 0.3), (-3.0, 2.0)])
def test_the_squashed_density_is_the_derivative_of_its_distribution(mean: float, deviation: float) -> None:
    """P(a ≤ x) = Φ((atanh((x - middle) / half) - mean) / deviation), differentiated numerically."""
    model = soft_agent().double()
    middle, half = (LOW + HIGH).double() / 2, (HIGH - LOW).double() / 2

    def below(action: Tensor) -> Tensor:
        return torch.special.ndtr((((action - middle) / half).atanh() - mean) / deviation)

    u = mean + deviation * torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None].expand(-1, 2)
    action, tiny = middle + half * u.tanh(), 1e-7
    slope = (below(action + tiny) - below(action - tiny)) / (2 * tiny)
    given = torch.full_like(u, mean), torch.full_like(u, math.log(deviation))
    torch.testing.assert_close(model.actor.log_probability(u, *given), slope.log().sum(dim=1), rtol=1e-4, atol=1e-4)


def test_the_squashed_density_is_exact_far_out() -> None:
    model = soft_agent().double()
    u = torch.tensor([[30.0, -40.0]], dtype=torch.float64)
    found = model.actor.log_probability(u, u, torch.zeros_like(u))
    # 1 - tanh²(u) = 4 e^(-2|u|) there, and the normal density is that of its middle
    expected = -math.log(2 * math.pi) - (2 * math.log(4) - 60 - 80) - float(model.actor.log_scale())
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_actions_stay_within_their_bounds() -> None:
    model = soft_agent()
    observation = 100 * torch.randn(500, 3, generator=generator(3))
    for greedy in (False, True):
        action, log_p = model.act(observation, generator(4), greedy=greedy)
        assert bool((action >= LOW).all() & (action <= HIGH).all()) and bool(log_p.isfinite().all())
    assert torch.equal(action, model(observation))
    assert float(model.actor.log_scale()) == pytest.approx(math.log(2.0 * 1.5))


def test_targets_by_hand() -> None:
    model, batch = soft_agent(initial_temperature=0.3), memories()
    objective = soft(model)
    with torch.no_grad():
        for parameter in objective.target.parameters():
            parameter.mul_(1.1)  # apart from the quick judges
    action, log_p = model.actor.sample(batch["next_observation_BO"], generator(7))
    log_p, values = log_p.detach(), objective.target(batch["next_observation_BO"], action).detach()
    found = objective.targets(batch)
    for row in range(ROWS):
        follows = min(float(values[0, row]), float(values[1, row])) - 0.3 * float(log_p[row])
        expected = float(batch["reward_B"][row]) + (0 if row % 4 == 0 else 0.9 * follows)
        assert float(found[row]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_each_turn_moves_its_own_player_alone_by_its_formula() -> None:
    model, batch = soft_agent(initial_temperature=0.3), memories()
    target = soft(model).targets(batch)
    value = model.critic(batch["observation_BO"], batch["action_BA"])
    action, log_p = model.actor.sample(batch["observation_BO"], generator(7))
    written = {
        "critic": (batch["weight_B"] * ((value[0] - target) ** 2 + (value[1] - target) ** 2)).sum(),
        "actor": (0.3 * log_p - torch.minimum(*model.critic(batch["observation_BO"], action))).sum(),
        # the target is -2 in halves of the ranges 2 and 1.5, which is log 3 more in the environment's units
        "temperature": (model.temperature() * (-log_p.detach() - math.log(3.0) + 2.0)).sum(),
    }
    for turn in SAC.turns:
        assert int(soft(model).weight(turn, batch)) == ROWS
        total = soft(model).loss(turn, batch).total
        torch.testing.assert_close(total, written[turn], rtol=1e-5, atol=1e-5)
        player = dict(model.named_children())[turn]
        expected = torch.autograd.grad(written[turn], list(player.parameters()), retain_graph=True)
        model.zero_grad()
        total.backward()
        assert_close([parameter.grad for parameter in player.parameters()], list(expected))
        touched = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert touched == {turn}
    reported: list[tuple[Tensor, Tensor]] = []
    objective = SAC(SACOptions(), model, numbers=2, seed=7, report_priorities=lambda *given: reported.append(given))
    for turn in SAC.turns:
        objective.loss(turn, batch)
    ((index, error),) = reported
    assert torch.equal(index, batch["index_B"])
    torch.testing.assert_close(error, (value.detach() - target).abs().mean(dim=0), rtol=1e-5, atol=1e-5)


def test_the_temperature_falls_where_there_is_more_entropy_than_asked_for() -> None:
    model, batch = soft_agent(), memories()
    entropy = float(soft(model).loss("actor", batch).metrics["entropy"]) / ROWS
    for target, sign in ((entropy - 1, 1), (entropy + 1, -1)):
        model.zero_grad()
        soft(model, target_entropy=target).loss("temperature", batch).total.backward()
        slope = float(model.temperature.log_temperature.grad)  # the temperature is 1
        assert slope == pytest.approx(sign * ROWS, rel=1e-4)


def test_four_parts_of_remembered_steps_are_the_whole() -> None:
    model, batch = soft_agent(), memories()
    parts = [{name: column[start : start + 7] for name, column in batch.items()} for start in range(0, ROWS, 7)]
    for turn in SAC.turns:
        objective = soft(model)
        total = sum((objective.loss(turn, part).total for part in parts), torch.zeros(()))
        assert_close(gradients(model, total), gradients(model, soft(model).loss(turn, batch).total))


def test_the_slow_judges_follow_and_everything_resumes() -> None:
    model, batch = soft_agent(), memories()
    objective = soft(model, target_rate=0.25)
    before = [parameter.clone() for parameter in objective.target.parameters()]
    with torch.no_grad():
        for parameter in model.critic.parameters():
            parameter.add_(1.0)
    objective.after_step(1)
    torch.testing.assert_close(list(objective.target.parameters()), [parameter + 0.25 for parameter in before])
    assert not any(parameter.requires_grad for parameter in objective.target.parameters())
    state = objective.state_dict()
    expected = objective.loss("critic", batch).total
    objective.after_step(2)  # does not reach into the state that was taken
    resumed = SAC(SACOptions(target_rate=0.25), model, numbers=2, seed=8)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.loss("critic", batch).total, expected)


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "low, high",
    [(None, None), (torch.tensor([-1.0, -math.inf]), torch.ones(2)), (torch.ones(1), torch.tensor([math.inf]))],
)
def test_soft_actor_critic_refuses_actions_that_it_cannot_serve(low: Tensor | None, high: Tensor | None) -> None:
    with pytest.raises(GroundupError) as caught:
        SoftActorCritic(SoftActorCriticOptions(), (3,), low, high)
    assert caught.value.code == "E-MODEL-135" and "ppo" in caught.value.fix


def test_a_policy_that_has_diverged_says_so() -> None:
    for model in (agent(), agent("continuous"), soft_agent()):
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
        with pytest.raises(GroundupError) as caught:
            model.act(torch.ones(2, 3), generator())
        assert caught.value.code == "E-MODEL-136" and "2 of 2" in str(caught.value)
