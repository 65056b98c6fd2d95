"""Environments to act in: several copies of one gymnasium environment, stepped side by side in this process.

What chooses the actions and what learns from the rewards does not enter here.

Shapes: E copies, O… the shape of an observation, A numbers of an action.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from groundup.data.spaces import Actions, Encoder, Numbers, Pixels, as_picture, not_finite
from groundup.errors import GroundupError, nearest, printable

OWN_FIELDS = {"id": "id", "max_episode_steps": "time_limit", "disable_env_checker": "", "vectorization_mode": ""}
"""Keyword arguments of gymnasium.make that are not options of the environment, and the field that has their meaning."""

DRAWN = "rgb_array"
"""The way of rendering, of gymnasium's, that gives pictures as arrays."""


class EnvironmentOptions(BaseModel):
    """An environment and how many copies of it are stepped side by side."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field(
        min_length=1, description="name in gymnasium's registry, such as CartPole-v1 or groundup/Counters-v0"
    )
    count: int = Field(default=1, ge=1, description="copies that are stepped side by side, 1 or more")
    options: dict[str, int | float | bool | str] = Field(
        default_factory=dict, description="keyword arguments of the environment, such as {is_slippery: false}"
    )
    time_limit: int | None = Field(
        default=None, ge=1, description="steps after which an episode is truncated. None: the environment's own limit"
    )

    @model_validator(mode="after")
    def _no_field_twice(self) -> Self:
        for name in sorted(self.options.keys() & OWN_FIELDS.keys()):
            instead = f": set the field {OWN_FIELDS[name]} instead" if OWN_FIELDS[name] else ""
            raise ValueError(f"options.{name} is no option of an environment{instead}")
        return self


class Transition(NamedTuple):
    """One step of every copy. `next_observation_EO` is what the step led to, before any reset; an episode that was
    `truncated_E` but not `terminated_E` would have gone on, so its last state still has a value."""

    observation_EO: Tensor
    action: Tensor
    reward_E: Tensor
    next_observation_EO: Tensor
    terminated_E: Tensor
    truncated_E: Tensor


class Episode(NamedTuple):
    """An episode that ended: the undiscounted sum of its rewards, its length in steps, which copy played it, and the
    seed that it was reset with."""

    total_reward: float
    length: int
    copy: int
    seed: int


class Environments:
    """Copies of one environment. A copy whose episode ends is reset at once.

    Every episode is reset with a seed of its own, a function of (seed, copy, number of the episode) alone. So the
    state of a copy is the number of its episode and the actions since its reset: resuming plays them again.

    Args:
        options: which environment.
        seed: of all episodes, 0 or more.

    Attributes:
        observation_EO: what each copy shows now, float32, (E, *observation_shape); see spaces.Encoder.
        observation_shape: of one observation.
        actions: how many actions there are to choose from, or None where an action is a vector.
        action_shape: (), or (A,) for a vector.
        action_low, action_high: bounds of a vector, float32 (A,), infinite where there are none, else None.
        finished: the episodes that ended in the last step, by copy.

    Raises:
        GroundupError: E-ENV-001 to E-ENV-005, E-ENV-008, E-ENV-009.
    """

    def __init__(self, options: EnvironmentOptions, seed: int) -> None:
        self.options, self.seed, self.count = options, seed, options.count
        self._copies = [make(options) for _ in range(options.count)]
        self._encoder = Encoder(self._copies[0].observation_space, options.id)
        self._actions = Actions(self._copies[0].action_space, options.id)
        self.observation_shape, self.actions = self._encoder.shape, self._actions.count
        self.action_shape = self._actions.shape
        self.action_low = None if self._actions.low is None else torch.from_numpy(self._actions.low)
        self.action_high = None if self._actions.high is None else torch.from_numpy(self._actions.high)
        self.finished: list[Episode] = []
        self._episode = [0] * self.count
        self._taken: list[list[Any]] = [[] for _ in range(self.count)]
        self._total = [0.0] * self.count
        self._raw: list[Any] = [None] * self.count
        self._warned = False
        self.observation_EO = torch.from_numpy(np.stack([self._reset(copy) for copy in range(self.count)]))

    def step(self, action: Tensor) -> Transition:
        """Act once in every copy.

        Args:
            action: int64 (E,), or floating point (E, A), which is clipped to the bounds.

        Raises:
            GroundupError: E-ENV-003, E-ENV-004, E-ENV-006.
        """
        before_EO = self.observation_EO
        handed = action.detach().cpu().clone()
        if handed.is_floating_point():
            handed = handed.float()
        reached, shown, rewards, terminations, truncations = [], [], [], [], []
        self.finished = []
        for copy, taken in enumerate(self._actions.decode(handed.numpy())):
            observation, reward, terminated, truncated = self._act(copy, taken)
            self._taken[copy].append(handed[copy])
            reached.append(observation)
            if terminated or truncated:
                seed = episode_seed(self.seed, copy, self._episode[copy])
                self.finished.append(Episode(self._total[copy], len(self._taken[copy]), copy, seed))
                self._episode[copy] += 1
                observation = self._reset(copy)
            shown.append(observation)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
        self.observation_EO = torch.from_numpy(np.stack(shown))
        return Transition(
            before_EO,
            handed,
            torch.tensor(rewards, dtype=torch.float32),
            torch.from_numpy(np.stack(reached)),
            torch.tensor(terminations),
            torch.tensor(truncations),
        )

    def picture(self) -> Pixels | None:
        """What the first copy draws of its present state, or else shows of it where its observation is an image,
        (H, W, 3); None where it has no picture. Only copies of `drawing` options draw."""
        drawn: Any = None
        if self._copies[0].render_mode == DRAWN:
            try:
                drawn = self._copies[0].render()
            except Exception:  # noqa: BLE001 - the edge of its drawing: without a picture all else goes on
                drawn = None
        seen = as_picture(drawn)
        return as_picture(self._raw[0]) if seen is None else seen

    def numbers(self) -> list[float]:
        """The present observation of the first copy: its own numbers where it is one array, else those of its parts as
        a network reads them."""
        raw = self._raw[0]
        plain = isinstance(raw, np.ndarray | np.number | int | float)
        found: list[float] = np.asarray(raw if plain else self.observation_EO[0], np.float64).ravel().tolist()
        return found

    def state_dict(self) -> dict[str, Any]:
        """The number of each copy's episode, the actions since its reset (one copy after another), and what they led
        to."""
        taken = [action for actions in self._taken for action in actions]
        return {
            "episode": list(self._episode),
            "length": [len(actions) for actions in self._taken],
            "total_reward": list(self._total),
            "taken": torch.stack(taken) if taken else torch.zeros(0),
            "observation_EO": self.observation_EO.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: reset with the same seeds and act the same.

        Raises:
            GroundupError: E-ENV-007 the same actions lead elsewhere.
        """
        shown, done = [], 0
        for copy, length in enumerate(state["length"]):
            self._episode[copy] = state["episode"][copy]
            observation, ended = self._reset(copy), False
            handed = state["taken"][done : done + length]
            for taken in self._actions.decode(handed.numpy()) if length else []:
                observation, _, terminated, truncated = self._act(copy, taken)
                ended |= terminated or truncated
            self._taken[copy], done = list(handed), done + length
            same = np.array_equal(observation, state["observation_EO"][copy].numpy())
            if ended or not same or self._total[copy] != state["total_reward"][copy]:
                self._not_deterministic(copy)
            shown.append(observation)
        self.observation_EO = torch.from_numpy(np.stack(shown))
        self.finished = []

    def close(self) -> None:
        """Let go of windows and files that the copies hold."""
        for copy in self._copies:
            copy.close()

    def _reset(self, copy: int) -> Numbers:
        raw, _ = self._copies[copy].reset(seed=episode_seed(self.seed, copy, self._episode[copy]))
        self._taken[copy], self._total[copy], self._raw[copy] = [], 0.0, raw
        return self._encoder(raw)

    def _act(self, copy: int, action: Any) -> tuple[Numbers, float, bool, bool]:
        raw, reward, terminated, truncated, _ = self._copies[copy].step(action)
        if raw is self._raw[copy] and isinstance(raw, np.ndarray) and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.options.id} returns the same array from every step, so that a state kept by its user changes "
                "under them; it is copied here",
                stacklevel=3,
            )
        self._raw[copy] = raw
        paid = np.asarray(reward, dtype=np.float64)
        with np.errstate(over="ignore"):
            if paid.size != 1 or not np.isfinite(paid.astype(np.float32)).all():
                not_finite(self.options.id, f"the reward {printable(str(reward), 60)}", "one number a step")
        self._total[copy] += paid.item()
        return self._encoder(raw), paid.item(), bool(terminated), bool(truncated)

    def _not_deterministic(self, copy: int) -> None:
        raise GroundupError(
            "E-ENV-007",
            f"after the same seed and the same {len(self._taken[copy]):,} actions the environment is in another state",
            where=f"{self.options.id}, copy {copy}, episode {self._episode[copy]:,}",
            why="a run is resumed by acting again as before the stop, which needs an environment that draws all its "
            "chance from the seed of reset",
            fix="draw from self.np_random in the environment and keep nothing from one episode to the next; or start "
            "the run anew",
        )


def drawing(options: EnvironmentOptions) -> EnvironmentOptions:
    """The same environment, drawing pictures of its states if it says that it can.

    Raises:
        GroundupError: E-ENV-001, E-ENV-002, E-ENV-008.
    """
    made = _built(options)
    modes = made.metadata.get("render_modes") or ()
    made.close()
    if DRAWN not in modes:
        return options
    return options.model_copy(update={"options": {**options.options, "render_mode": DRAWN}})


def episode_seed(seed: int, copy: int, episode: int) -> int:
    """The seed that an episode is reset with, 0 to 2^31 - 1."""
    return int(np.random.SeedSequence([seed, copy, episode]).generate_state(1)[0] >> 1)


def import_gymnasium() -> ModuleType:
    """The gymnasium package, with the environments of groundup registered.

    Raises:
        GroundupError: E-ENV-002 it is not installed.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise GroundupError(
            "E-ENV-002",
            "environments need the extra rl, which is not installed",
            where="data.environment.id",
            why="they come from the package gymnasium, which is optional because other kinds of data do not need it",
            fix='pip install "groundup[rl]"',
        ) from error
    from groundup.data.counters import register

    register()
    return gymnasium


def make(options: EnvironmentOptions) -> Any:
    """One environment, a gymnasium.Env, whose episodes end.

    Raises:
        GroundupError: E-ENV-001 no such id, E-ENV-002 no gymnasium, E-ENV-008 it cannot be built, E-ENV-009 it has
            no limit of steps.
    """
    made = _built(options)
    if made.spec.max_episode_steps is None:
        raise GroundupError(
            "E-ENV-009",
            f"the environment {options.id} has no limit of steps",
            where="data.environment.time_limit",
            why="a policy that runs in circles would never end its episode",
            fix="data.environment.time_limit: 1000   (or what suits the task)",
            exit_code=2,
        )
    return made


def transition_table(options: EnvironmentOptions) -> tuple[dict[int, dict[int, list[Any]]], list[float], int | None]:
    """What a tabular environment (FrozenLake, CliffWalking, Taxi) says of itself, for exact planning.

    Returns:
        For each state and action the list of (probability, next state, reward, terminated); the probability of each
        state to be the first; the limit of steps, if there is one.

    Raises:
        GroundupError: E-ENV-001, E-ENV-002, E-ENV-008; E-ENV-011 the environment has no such table.
    """
    made = _built(options)
    try:
        table, start_S = made.unwrapped.P, made.unwrapped.initial_state_distrib
    except AttributeError as error:
        raise GroundupError(
            "E-ENV-011",
            f"the environment {options.id} has no table of its transitions",
            where="data.environment.id",
            why="exact planning reads the probability of every step from the table `P` of the environment",
            fix="use FrozenLake-v1, CliffWalking-v1 or Taxi-v4, or learn by acting",
            exit_code=2,
        ) from error
    return table, [float(p) for p in start_S], made.spec.max_episode_steps


WRONG_OPTIONS = (TypeError, ValueError, KeyError, AssertionError, AttributeError)
"""What environments raise at options that they do not take."""


def _built(options: EnvironmentOptions) -> Any:
    gymnasium = import_gymnasium()
    if options.id not in gymnasium.registry:
        _unknown(options.id, sorted(gymnasium.registry))
    try:
        return gymnasium.make(
            options.id, max_episode_steps=options.time_limit, disable_env_checker=True, **options.options
        )
    except (gymnasium.error.Error, ImportError, *WRONG_OPTIONS) as error:
        raise GroundupError(
            "E-ENV-008",
            f"the environment {options.id} cannot be built",
            where=f"data.environment.options: {printable(str(options.options))}",
            why=printable(f"{type(error).__name__}: {error}", 400),
            fix="correct the options; where a package is missing, its name stands above",
            exit_code=2,
        ) from error


def _unknown(name: str, known: list[str]) -> None:
    near = nearest(name, known)
    versions = [other for other in known if other.split("-v")[0] == name.split("-v")[0]]
    if ":" in name:
        fix = "install a package that registers its environments with gymnasium, or register yours in Python"
    elif versions or near:
        fix = f"data.environment.id: {' or '.join(versions or [str(near)])}"
    else:
        fix = f"known: {', '.join(printable(other) for other in known if '/' not in other)}, groundup/Counters-v0"
    raise GroundupError(
        "E-ENV-001",
        f"no environment is registered as {printable(name)}",
        where="data.environment.id",
        why="a recipe names an environment of gymnasium's registry; it cannot name code to import",
        fix=fix,
        exit_code=2,
    )


def require_actions(environments: Environments, kind: Literal["discrete", "continuous"], method: str) -> None:
    """The environment must have actions of the kind that a method can choose.

    Raises:
        GroundupError: E-ENV-010.
    """
    found = "continuous" if environments.actions is None else "discrete"
    if found != kind:
        raise GroundupError(
            "E-ENV-010",
            f"{method} needs {kind} actions, and those of {environments.options.id} are {found}",
            where=f"objective.kind: {method}",
            why="it values each of a few actions" if kind == "discrete" else "it moves along the slope of the actions",
            fix="use a policy-gradient method or soft actor-critic, or an environment with actions to choose from"
            if kind == "discrete"
            else "use dqn or a policy-gradient method, or an environment whose action space is a Box",
            exit_code=2,
        )
