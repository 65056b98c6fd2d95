"""What an environment's spaces mean to a network: any observation becomes float32 numbers of one fixed shape, and an
action is one of several or a vector of numbers.

Gymnasium's space objects come in as arguments; nothing is stepped here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from groundup.errors import GroundupError, printable

Numbers = NDArray[np.float32]
Pixels = NDArray[np.uint8]

CHANNELS = (1, 3, 4)
"""Sizes of the last dimension by which a uint8 box of three dimensions is known as an image."""


class Encoder:
    """Observations of one space as float32 arrays of `shape`.

    | space                   | numbers                                                                  |
    |-------------------------|--------------------------------------------------------------------------|
    | Box                     | its values, its shape                                                    |
    | Box of uint8, (H, W, C) | an image: divided by 255, shape (C, H, W)                                |
    | Discrete                | one-hot                                                                  |
    | MultiDiscrete           | the one-hots of its entries, one after another                           |
    | MultiBinary             | its zeros and ones                                                       |
    | Tuple, Dict             | the numbers of the parts in order (of the names for Dict), flat          |

    Raises:
        GroundupError: E-ENV-005 another space.
    """

    def __init__(self, space: Any, environment: str) -> None:
        self.environment = environment
        self.shape, self._encode = self._plan(space, "observation")

    def __call__(self, observation: Any) -> Numbers:
        """A new array of `shape`; the environment may do with its own what it likes.

        Raises:
            GroundupError: E-ENV-003 a number that is not finite, E-ENV-004 not an observation of the space.
        """
        numbers = self._encode(observation)
        if not np.isfinite(numbers).all():
            bad = np.argwhere(~np.isfinite(numbers))
            not_finite(self.environment, f"{len(bad)} of {numbers.size} numbers of the observation", bad[0].tolist())
        return numbers

    def _plan(self, space: Any, path: str) -> tuple[tuple[int, ...], Callable[[Any], Numbers]]:
        kind = type(space).__name__
        if kind == "Box":
            return self._box(space, path)
        if kind == "MultiBinary":
            return tuple(space.shape), lambda value: self._array(value, space.shape, path).astype(np.float32)
        if kind == "Discrete":
            size, start = int(space.n), int(space.start)
            return (size,), lambda value: self._one_hot(self._array(value, (), path) - start, np.array([size]), path)
        if kind == "MultiDiscrete":
            sizes, starts = np.asarray(space.nvec).ravel(), np.asarray(space.start).ravel()
            return (int(sizes.sum()),), lambda value: self._one_hot(
                self._array(value, space.shape, path).ravel() - starts, sizes, path
            )
        if kind in ("Tuple", "Dict"):
            names = list(space.spaces) if kind == "Dict" else list(range(len(space.spaces)))
            parts = [(name, *self._plan(space.spaces[name], f"{path}[{name!r}]")) for name in names]
            size = sum(int(np.prod(shape)) for _, shape, _ in parts)
            return (size,), lambda value: np.concatenate([encode(value[name]).ravel() for name, _, encode in parts])
        raise GroundupError(
            "E-ENV-005",
            f"observations of the space {printable(str(space))} cannot be turned into numbers of one shape",
            where=f"{self.environment}: {path}",
            why="a network reads numbers of one fixed shape: Box, Discrete, MultiDiscrete, MultiBinary, and Tuple or "
            "Dict of these",
            fix="wrap the environment so that its observations are of one of these spaces",
            exit_code=2,
        )

    def _box(self, space: Any, path: str) -> tuple[tuple[int, ...], Callable[[Any], Numbers]]:
        shape = tuple(space.shape)
        if space.dtype == np.uint8 and len(shape) == 3 and shape[2] in CHANNELS:
            return (shape[2], shape[0], shape[1]), lambda value: np.ascontiguousarray(
                self._array(value, shape, path).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
            )

        def plain(value: Any) -> Numbers:
            with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is refused as such
                return self._array(value, shape, path).astype(np.float32)

        return shape, plain

    def _array(self, value: Any, shape: tuple[int, ...], path: str) -> NDArray[Any]:
        array = np.asarray(value)
        if array.shape != tuple(shape) or array.dtype.kind not in "biuf":
            self._other(f"{path} has shape {array.shape} and type {array.dtype}, its space shape {tuple(shape)}")
        return array

    def _one_hot(self, index_N: NDArray[Any], size_N: NDArray[Any], path: str) -> Numbers:
        index_N = np.atleast_1d(index_N)
        if index_N.dtype.kind not in "biu" or (index_N < 0).any() or (index_N >= size_N).any():
            self._other(f"{path} is {printable(str(index_N), 60)}, outside 0 to {printable(str(size_N - 1), 60)}")
        numbers = np.zeros(int(size_N.sum()), dtype=np.float32)
        numbers[np.cumsum(size_N) - size_N + index_N] = 1.0
        return numbers

    def _other(self, what: str) -> NoReturn:
        raise GroundupError(
            "E-ENV-004",
            f"an observation is not of the environment's own space: {what}",
            where=self.environment,
            why="the network was built for the space that the environment declares",
            fix="correct observation_space or what reset and step return; gymnasium.utils.env_checker.check_env "
            "names the place",
        )


def as_picture(value: Any) -> Pixels | None:
    """A copy of an array of uint8, (H, W, 1, 3 or 4), as (H, W, 3); None of anything else."""
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3 or not value.size:
        return None
    if value.shape[2] not in CHANNELS:
        return None
    return value.repeat(3, axis=2) if value.shape[2] == 1 else value[:, :, :3].copy()


def not_finite(environment: str, what: str, place: object) -> NoReturn:
    """An environment or a policy gave a number that is not finite.

    Raises:
        GroundupError: E-ENV-003, always.
    """
    raise GroundupError(
        "E-ENV-003",
        f"{what} are not finite (or too large for float32), first at {place}",
        where=environment,
        why="one such number makes every later weight of the network NaN",
        fix="look at the environment at that step; a diverging simulation needs a smaller time step or bounded actions",
    )


class Actions:
    """The actions of one environment.

    Attributes:
        count: how many there are to choose from; None where an action is a vector of numbers.
        shape: () or the shape of the vector.
        low, high: float32 bounds of that shape, infinite where there are none; None for a choice.

    Raises:
        GroundupError: E-ENV-005 another space than Discrete and Box of floating-point numbers.
    """

    def __init__(self, space: Any, environment: str) -> None:
        self.environment = environment
        self.count: int | None = None
        self.low: Numbers | None = None
        self.high: Numbers | None = None
        kind = type(space).__name__
        self.shape: tuple[int, ...] = tuple(space.shape or ())
        if kind == "Discrete":
            self.count, self._start = int(space.n), int(space.start)
        elif kind == "Box" and space.dtype.kind == "f":
            self.low, self.high = space.low.astype(np.float32), space.high.astype(np.float32)
            self._low, self._high, self._dtype = space.low, space.high, space.dtype
        else:
            raise GroundupError(
                "E-ENV-005",
                f"actions of the space {printable(str(space))} are not supported",
                where=environment,
                why="a policy here chooses one of several actions (Discrete) or gives a vector of numbers (Box)",
                fix="wrap the environment so that its action space is Discrete or a Box of float32",
                exit_code=2,
            )

    def decode(self, action_EA: NDArray[Any]) -> list[Any]:
        """What each copy's `step` takes; vectors are clipped to the bounds.

        Raises:
            GroundupError: E-ENV-003 not finite, E-ENV-006 of another shape or outside the choices.
        """
        if self.count is None:
            self._check_shape(action_EA)
            if not np.isfinite(action_EA).all():
                not_finite(self.environment, "actions of the policy", np.argwhere(~np.isfinite(action_EA))[0].tolist())
            return [np.clip(action.astype(self._dtype), self._low, self._high) for action in action_EA]
        self._check_shape(action_EA)
        if action_EA.dtype.kind not in "iu" or (action_EA < 0).any() or (action_EA >= self.count).any():
            self._refuse(f"{printable(str(action_EA.tolist()), 60)}, expected integers from 0 to {self.count - 1}")
        return [np.int64(action + self._start) for action in action_EA]

    def _check_shape(self, action_EA: NDArray[Any]) -> None:
        if action_EA.shape[1:] != self.shape:
            self._refuse(f"of shape {action_EA.shape}, expected (copies, {', '.join(map(str, self.shape))})")

    def _refuse(self, what: str) -> NoReturn:
        raise GroundupError(
            "E-ENV-006",
            f"the policy gave actions that the environment does not have: {what}",
            where=self.environment,
            why="the policy was built for an environment with other actions",
            fix="use the policy with the environment that it was trained on",
        )
