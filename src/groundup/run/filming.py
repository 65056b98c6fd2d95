"""One episode of a finished policy, in frames that are small enough to stand in results.json: with pictures where the
environment draws them, else with the numbers of its observations.

Shapes: H height, W width.
"""

from __future__ import annotations

from typing import Any

from groundup.data.environments import EnvironmentOptions, Environments, drawing
from groundup.data.spaces import Pixels
from groundup.engine.events import SURVIVABLE
from groundup.evaluation.episodes import Frame, Policy, film
from groundup.run.pictures import SIDES, bounded, shrunk

MOST_FRAMES = 12
MOST_NUMBERS = 64
FAULTS = (*SURVIVABLE, AssertionError, AttributeError, ImportError, MemoryError)
"""What environments raise besides what ends no run."""

Shown = tuple[Pixels | None, list[float]]


def filmed(policy: Policy, options: EnvironmentOptions, *, seed: int) -> list[dict[str, Any]]:
    """The first episode of a seed: [{step, action, reward, return}, each with `png` (base64), or with the first
    `numbers` of its observation and how many there are, `size`]. Empty if it cannot be played: a film that cannot be
    made costs no finished run.

    Args:
        policy: chooses the actions.
        options: the environment; what it was trained in is not touched.
        seed: of the episode and of the policy's draws.
    """
    alone = options.model_copy(update={"count": 1})
    try:
        frames = _frames(policy, drawing(alone), seed)
    except FAULTS:  # of making it so that it draws, or of letting it go
        try:
            frames = _frames(policy, alone, seed)
        except FAULTS:
            return []
    pictures = [frame.shown[0] for frame in frames if frame.shown[0] is not None]
    texts = bounded(pictures) if len(pictures) == len(frames) else []
    lines: list[dict[str, Any]] = []
    for index, frame in enumerate(frames):
        told = {"step": frame.step, "action": frame.action, "reward": frame.reward, "return": frame.total_reward}
        lines.append(told | ({"png": texts[index]} if texts else _numbers(frame.shown[1])))
    return lines


def _numbers(numbers: list[float]) -> dict[str, Any]:
    return {"numbers": [float(f"{number:.6g}") for number in numbers[:MOST_NUMBERS]], "size": len(numbers)}


def _frames(policy: Policy, options: EnvironmentOptions, seed: int) -> list[Frame]:
    def look(environments: Environments) -> Shown:
        picture = environments.picture()
        return None if picture is None else shrunk(picture, SIDES[0]), environments.numbers()

    return film(policy, lambda seed: Environments(options, seed), look, seed=seed, most=MOST_FRAMES)
