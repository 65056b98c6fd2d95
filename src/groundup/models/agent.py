"""Networks that act: `actor_critic`, a policy with a value of each state, for discrete and continuous actions, and
`soft_actor_critic`, a bounded continuous policy with two judges of its actions. Where experience comes from and what is
learned from it is no business of this file: a network gives actions, log-probabilities and values.

Shapes: B rows, O the shape of one observation, N actions to choose from, A numbers of a continuous action, W width.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import GroundupError, printable
from groundup.models.layers import ACTIVATIONS, Activation

Widths = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]

LOG_DEVIATION = (-20.0, 2.0)
"""Between these the logarithm of a soft actor's deviation is held (Haarnoja et al. 2018, appendix D)."""


class ActorCriticOptions(BaseModel):
    """A policy, and the value of a state."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["actor_critic"] = "actor_critic"
    hidden: Widths = Field(default=[64, 64], description="widths of the hidden layers of each body")
    activation: Activation = Field(default="tanh", description="after each hidden layer")
    shared: bool = Field(default=False, description="policy and value read one body, instead of a body each")
    initial_deviation: float = Field(
        default=1.0, gt=0.0, description="of continuous actions at first, in halves of the range of the action"
    )


class SoftActorCriticOptions(BaseModel):
    """A policy squashed into its bounds, two judges of actions, and a temperature."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["soft_actor_critic"] = "soft_actor_critic"
    hidden: Widths = Field(default=[256, 256], description="widths of the hidden layers of actor and judges")
    activation: Activation = Field(default="relu", description="after each hidden layer")
    initial_temperature: float = Field(default=1.0, gt=0.0, description="weight of the entropy at first")


class Bounds(nn.Module):
    """The range of each number of an action, as its middle and half its width; where there is no finite range, 0 and 1.
    Networks count in halves of the range from the middle, so that no scale of an environment reaches their weights."""

    middle_A: Tensor
    half_A: Tensor

    def __init__(self, low_A: Tensor, high_A: Tensor) -> None:
        super().__init__()
        low, high = low_A.double(), high_A.double()
        finite = low.isfinite() & high.isfinite() & (low < high)
        self._middle = torch.where(finite, (low + high) / 2, 0.0).tolist()
        self._half = torch.where(finite, (high - low) / 2, 1.0).tolist()
        self.register_buffer("middle_A", torch.tensor(self._middle))
        self.register_buffer("half_A", torch.tensor(self._half))

    def initialise(self) -> None:
        """Fill the buffers."""
        self.middle_A.copy_(torch.tensor(self._middle))
        self.half_A.copy_(torch.tensor(self._half))

    def outside(self, unit: Tensor) -> Tensor:
        """From halves of the range to the units of the environment."""
        return self.middle_A + self.half_A * unit

    def inside(self, action: Tensor) -> Tensor:
        """From the units of the environment to halves of the range."""
        return (action - self.middle_A) / self.half_A


class Body(nn.Module):
    """Flattens an observation, then linear layers with an activation after each."""

    def __init__(self, inputs: int, hidden: list[int], activation: Activation) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in zip([inputs, *hidden], hidden))
        self.activation = ACTIVATIONS[activation]

    def forward(self, x_BO: Tensor) -> Tensor:
        x_BW = x_BO.flatten(1)
        for layer in self.layers:
            x_BW = self.activation(layer(x_BW))
        return x_BW


def orthogonal(part: nn.Module, gain: float, generator: torch.Generator) -> None:
    """Draw matrices of linear layers orthogonal with this gain (Saxe et al. 2013, arXiv:1312.6120); biases are zero."""
    for layer in part.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            nn.init.zeros_(layer.bias)


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape, type and place of `like`, drawn where the generator is.

    Each number takes one draw, in order, so that a batch in four parts gets the numbers of the whole batch, which
    `torch.randn` does not promise.
    """
    uniform = torch.rand(like.shape, generator=generator, dtype=torch.float64, device=generator.device)
    tiny = torch.finfo(torch.float64).tiny
    return torch.special.ndtri(uniform.clamp_min(tiny)).to(like)


def normal_log_density(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Of each number under a normal distribution, in nats."""
    return -0.5 * ((x - mean) * (-log_deviation).exp()).square() - log_deviation - 0.5 * math.log(2 * math.pi)


class ActorCritic(nn.Module):
    """A policy over actions, and the value of a state. Discrete actions: logits of a choice. Continuous ones: a normal
    distribution for each number, whose deviation does not depend on the state (Schulman et al. 2017, section 6.1).

    A continuous action may lie outside its range; whoever hands it to an environment cuts it off there, and keeps what
    was drawn, which is what the log-probability belongs to.

    Args:
        options: of the family.
        shape: of one observation.
        outputs: actions to choose from, or numbers of a continuous action.
        low_A, high_A: the range of a continuous action; None where actions are discrete.
    """

    def __init__(
        self,
        options: ActorCriticOptions,
        shape: tuple[int, ...],
        outputs: int,
        low_A: Tensor | None = None,
        high_A: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.options, width = options, options.hidden[-1]
        sizes = (math.prod(shape), options.hidden, options.activation)
        self.body = Body(*sizes)
        self.head = nn.Linear(width, outputs)
        self.value_body = None if options.shared else Body(*sizes)
        self.value_head = nn.Linear(width, 1)
        self.bounds: Bounds | None = None
        if low_A is not None and high_A is not None:
            self.bounds = Bounds(low_A, high_A)
            self.log_deviation_A = nn.Parameter(torch.empty(outputs))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters.

        | parameter              | distribution                                                                  |
        |------------------------|-------------------------------------------------------------------------------|
        | matrices of bodies     | orthogonal, gain √2                                                           |
        | matrix of the head     | orthogonal, gain 0.01: all actions about equally likely at first              |
        | matrix of the values   | orthogonal, gain 1                                                            |
        | biases                 | zero                                                                          |
        | log_deviation_A        | log of `initial_deviation`                                                    |

        (Andrychowicz et al. 2020, arXiv:2006.05990, section 3.2, on the small gain of the head.)
        """
        orthogonal(self.body, math.sqrt(2), generator)
        orthogonal(self.head, 0.01, generator)
        if self.value_body is not None:
            orthogonal(self.value_body, math.sqrt(2), generator)
        orthogonal(self.value_head, 1.0, generator)
        if self.bounds is not None:
            nn.init.constant_(self.log_deviation_A, math.log(self.options.initial_deviation))
            self.bounds.initialise()

    def forward(self, observation_BO: Tensor) -> Tensor:
        """Logits (B, N), or the means (B, A) of a continuous action in the units of the environment."""
        return self._both(observation_BO)[0]

    def value(self, observation_BO: Tensor) -> Tensor:
        """The discounted reward expected from each state on, (B,)."""
        state_BW = (self.body if self.value_body is None else self.value_body)(observation_BO)
        return self.value_head(state_BW).squeeze(-1).float()

    def _both(self, observation_BO: Tensor) -> tuple[Tensor, Tensor]:
        state_BW = self.body(observation_BO)
        said = self.head(state_BW).float()
        if self.bounds is not None:
            said = self.bounds.outside(said)
        judged_BW = state_BW if self.value_body is None else self.value_body(observation_BO)
        return said, self.value_head(judged_BW).squeeze(-1).float()

    def judge(self, observation_BO: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the policy thinks of actions that were taken.

        Args:
            action: int64 (B,), or float32 (B, A).
        Returns:
            Log-probability of the action in nats, entropy of the policy in nats, value of the state; each (B,).
        """
        said, value_B = self._both(observation_BO)
        return *self._density(said, action), value_B

    def _density(self, said: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        if self.bounds is None:
            log_p_BN = said.log_softmax(dim=-1)
            entropy_B = -(log_p_BN.exp() * log_p_BN).sum(dim=-1)
            return log_p_BN.gather(1, action[:, None]).squeeze(1), entropy_B
        log_deviation_A = self.log_deviation_A + self.bounds.half_A.log()
        log_p_B = normal_log_density(action, said, log_deviation_A).sum(dim=-1)
        entropy = (0.5 + 0.5 * math.log(2 * math.pi) + log_deviation_A).sum()
        return log_p_B, entropy.expand_as(log_p_B)

    @torch.no_grad()
    def act(
        self, observation_BO: Tensor, generator: torch.Generator, greedy: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw an action for each row, or take the likeliest one.

        Returns:
            Actions, int64 (B,) or float32 (B, A); their log-probabilities and the values of the states, (B,).
        """
        said, value_B = self._both(observation_BO)
        if self.bounds is not None:
            deviation_A = self.bounds.half_A * self.log_deviation_A.exp()
            action = said if greedy else said + deviation_A * normal(said, generator)
            _require_finite(action)
        else:
            _require_finite(said)
            p_BN = said.softmax(dim=-1).to(generator.device)
            drawn_B = p_BN.argmax(dim=-1) if greedy else torch.multinomial(p_BN, 1, generator=generator).squeeze(1)
            action = drawn_B.to(said.device)
        return action, self._density(said, action)[0], value_B


class SoftActor(nn.Module):
    """A normal distribution whose mean and deviation depend on the state, squashed into the bounds by tanh."""

    def __init__(self, options: SoftActorCriticOptions, inputs: int, bounds: Bounds) -> None:
        super().__init__()
        self.body = Body(inputs, options.hidden, options.activation)
        self.head = nn.Linear(options.hidden[-1], 2 * len(bounds.half_A))
        self.bounds = bounds

    def forward(self, observation_BO: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation before the squashing, (B, A) each."""
        mean_BA, log_deviation_BA = self.head(self.body(observation_BO)).float().chunk(2, dim=-1)
        return mean_BA, log_deviation_BA.clamp(*LOG_DEVIATION)

    def sample(self, observation_BO: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """An action for each row, (B, A) in the units of the environment, through which gradients flow, and its
        log-probability, (B,) in nats.

        The density of a = middle + half · tanh(u) is that of u divided by half · (1 - tanh² u) (Haarnoja et al. 2018,
        arXiv:1801.01290, appendix C); log(1 - tanh² u) = 2 · (log 2 - u - softplus(-2u)) is exact for large u too.
        """
        mean_BA, log_deviation_BA = self(observation_BO)
        u_BA = mean_BA + log_deviation_BA.exp() * normal(mean_BA, generator)
        return self.bounds.outside(u_BA.tanh()), self.log_probability(u_BA, mean_BA, log_deviation_BA)

    def log_probability(self, u_BA: Tensor, mean_BA: Tensor, log_deviation_BA: Tensor) -> Tensor:
        """Of the action that comes of `u_BA` by squashing, (B,) in nats."""
        slope_BA = 2 * (math.log(2) - u_BA - F.softplus(-2 * u_BA)) + self.bounds.half_A.log()
        return (normal_log_density(u_BA, mean_BA, log_deviation_BA) - slope_BA).sum(dim=-1)

    def log_scale(self) -> Tensor:
        """How much more entropy an action has in the environment's units than in halves of the range, in nats."""
        return self.bounds.half_A.log().sum()


class Judge(nn.Module):
    """The value of an action in a state."""

    def __init__(self, options: SoftActorCriticOptions, inputs: int) -> None:
        super().__init__()
        self.body = Body(inputs, options.hidden, options.activation)
        self.head = nn.Linear(options.hidden[-1], 1)

    def forward(self, both_BO: Tensor) -> Tensor:
        return self.head(self.body(both_BO)).squeeze(-1).float()


class TwinCritic(nn.Module):
    """Two judges, drawn apart; taking the lower one keeps errors from adding up (Fujimoto et al. 2018,
    arXiv:1802.09477, section 4.2)."""

    def __init__(self, options: SoftActorCriticOptions, inputs: int, bounds: Bounds) -> None:
        super().__init__()
        self.judges = nn.ModuleList(Judge(options, inputs + len(bounds.half_A)) for _ in range(2))
        self.bounds = bounds

    def forward(self, observation_BO: Tensor, action_BA: Tensor) -> Tensor:
        """The values of both, (2, B)."""
        both_BO = torch.cat([observation_BO.flatten(1), self.bounds.inside(action_BA)], dim=-1)
        return torch.stack([judge(both_BO) for judge in self.judges])


class Temperature(nn.Module):
    """The weight of the entropy, kept positive through its logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.empty(()))

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        return self.log_temperature.exp()


class SoftActorCritic(nn.Module):
    """The networks of a soft actor–critic under one root: `actor`, `critic` and `temperature` learn in turns.

    Raises:
        GroundupError: E-MODEL-135 discrete actions, or actions without finite bounds.
    """

    def __init__(
        self, options: SoftActorCriticOptions, shape: tuple[int, ...], low_A: Tensor | None, high_A: Tensor | None
    ) -> None:
        super().__init__()
        low_A, high_A = _bounded(low_A, high_A)
        self.options = options
        self.actor = SoftActor(options, math.prod(shape), Bounds(low_A, high_A))
        self.critic = TwinCritic(options, math.prod(shape), Bounds(low_A, high_A))
        self.temperature = Temperature()

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters.

        | parameter                    | distribution                                         |
        |------------------------------|------------------------------------------------------|
        | matrices of bodies           | orthogonal, gain √2                                  |
        | matrix of the actor's head   | orthogonal, gain 0.01: in the middle, and wide       |
        | matrices of the judges' heads | orthogonal, gain 1                                  |
        | biases                       | zero                                                 |
        | log_temperature              | log of `initial_temperature`                         |
        """
        orthogonal(self.actor.body, math.sqrt(2), generator)
        orthogonal(self.actor.head, 0.01, generator)
        for judge in self.critic.judges.children():
            for name, part in judge.named_children():
                orthogonal(part, 1.0 if name == "head" else math.sqrt(2), generator)
        nn.init.constant_(self.temperature.log_temperature, math.log(self.options.initial_temperature))
        self.actor.bounds.initialise()
        self.critic.bounds.initialise()

    def forward(self, observation_BO: Tensor) -> Tensor:
        """The action that the policy prefers, (B, A) in the units of the environment."""
        return self.actor.bounds.outside(self.actor(observation_BO)[0].tanh())

    @torch.no_grad()
    def act(self, observation_BO: Tensor, generator: torch.Generator, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Draw an action for each row, (B, A), or take the squashed mean; and log-probabilities, (B,) in nats."""
        mean_BA, log_deviation_BA = self.actor(observation_BO)
        u_BA = mean_BA if greedy else mean_BA + log_deviation_BA.exp() * normal(mean_BA, generator)
        _require_finite(u_BA)
        return self.actor.bounds.outside(u_BA.tanh()), self.actor.log_probability(u_BA, mean_BA, log_deviation_BA)


def _require_finite(said: Tensor) -> None:
    """An action (or the logits of one) of each row, before it is taken."""
    if not bool(said.isfinite().all()):
        wrong = int((~said.isfinite()).flatten(1).any(dim=1).sum())
        raise GroundupError(
            "E-MODEL-136",
            f"the policy says something that is not finite in {wrong} of {len(said)} states",
            where="the weights of the policy, or what it was shown",
            why="no action can be drawn from it: training has diverged, or observations are far beyond those before",
            fix="a lower learning rate or a gradient clip, from the last good checkpoint; "
            "data.collect.normalise_observations: "
            "true where observations are large",
        )


def _bounded(low_A: Tensor | None, high_A: Tensor | None) -> tuple[Tensor, Tensor]:
    if low_A is not None and high_A is not None and bool((low_A.isfinite() & high_A.isfinite()).all()):
        return low_A, high_A
    if low_A is None or high_A is None:
        what, where = "a soft actor–critic was to choose among discrete actions", "the environment's actions"
    else:
        what = "a soft actor–critic was to act without bounds"
        where = printable(f"the environment's actions go from {low_A.tolist()} to {high_A.tolist()}")
    raise GroundupError(
        "E-MODEL-135",
        what,
        where=where,
        why="its actions are numbers that are squashed into a finite range",
        fix="model.family: actor_critic with objective.kind: ppo   (it serves both kinds of actions)",
        exit_code=2,
    )
