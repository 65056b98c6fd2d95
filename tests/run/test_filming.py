"""The film of an episode: the right frames, small enough, and no error whatever drawing does."""

from __future__ import annotations

import base64
import io
import json
import sys
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from groundup.data.environments import EnvironmentOptions
from groundup.evaluation.episodes import play, random_policy
from groundup.run.acting import environments_of
from groundup.run.filming import filmed
from groundup.run.pictures import MOST_CHARACTERS

LENGTH = 40


class NoDisplay(Exception):
    """What a library of drawing may raise: it descends from nothing that is known."""


class Drawing(gymnasium.Env[Any, Any]):
    """Counts its steps, pays their number, and draws them as one shade of grey, or as `draws` says."""

    metadata: ClassVar = {"render_modes": ["human", "rgb_array"]}

    def __init__(self, draws: str = "shade", render_mode: str | None = None) -> None:
        if draws == "refuses" and render_mode:
            raise TypeError("got an unexpected keyword argument 'render_mode'")
        self.draws, self.render_mode = draws, render_mode
        image = gymnasium.spaces.Box(0, 255, (9, 7, 1), np.uint8)
        plain = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = image if draws == "image" else plain
        self.action_space = gymnasium.spaces.Discrete(3)
        self.steps = 0

    def _seen(self) -> NDArray[Any]:
        if self.draws == "image":
            return np.full((9, 7, 1), self.steps, np.uint8)
        return np.array([self.steps, -0.123456789])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._seen(), float(self.steps), self.steps == LENGTH, False, {}

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        match self.draws:
            case "shade":
                return np.full((300, 480, 3), self.steps, np.uint8)
            case "noise":
                return np.random.default_rng(self.steps).integers(0, 256, (600, 450, 3), np.uint8)
            case "raises":
                raise NoDisplay
            case "now and then":
                return np.zeros((8, 8, 3), np.uint8) if self.steps else None
            case "numbers":
                return np.zeros((8, 8, 3))
        return [np.zeros((8, 8, 3), np.uint8)]


@pytest.fixture(scope="module", autouse=True)
def register() -> None:
    if "tests/Drawing-v0" not in gymnasium.registry:
        gymnasium.register("tests/Drawing-v0", entry_point=Drawing, max_episode_steps=100)


def last(observation_EO: Tensor, generator: torch.Generator) -> Tensor:
    return torch.full((len(observation_EO),), 2)


def drawn(draws: str) -> list[dict[str, Any]]:
    options = EnvironmentOptions(id="tests/Drawing-v0", count=5, options={"draws": draws})
    frames = filmed(last, options, seed=3)
    json.dumps(frames, allow_nan=False)
    assert [frame["step"] for frame in frames] == [1, 5, 8, 12, 15, 19, 22, 26, 29, 33, 36, 40]
    for frame in frames:
        step = frame["step"]
        assert (frame["action"], frame["reward"], frame["return"]) == (2, step, step * (step + 1) / 2)
    return frames


def pixels(frame: dict[str, Any]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(frame["png"]))))


def test_each_frame_shows_the_state_before_its_step() -> None:
    for frame in drawn("shade"):
        picture = pixels(frame)
        assert picture.shape == (150, 240, 3) and (picture == frame["step"] - 1).all() and "numbers" not in frame


def test_pictures_of_noise_are_made_smaller_until_they_fit() -> None:
    frames = drawn("noise")
    assert MOST_CHARACTERS / 3 < sum(len(frame["png"]) for frame in frames) <= MOST_CHARACTERS
    shapes = {pixels(frame).shape for frame in frames}
    assert shapes == {(64, 48, 3)}  # as high as wide as before


@pytest.mark.parametrize("draws", ["raises", "refuses", "now and then", "numbers", "a list"])
def test_without_pictures_there_are_the_numbers_of_the_observation(draws: str) -> None:
    for frame in drawn(draws):
        assert frame["numbers"] == [frame["step"] - 1, -0.123457] and frame["size"] == 2 and "png" not in frame


def test_an_observation_that_is_an_image_is_the_picture() -> None:
    for frame in drawn("image"):
        assert pixels(frame).shape == (9, 7, 3) and (pixels(frame) == frame["step"] - 1).all()


def test_a_package_of_drawing_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    options = EnvironmentOptions(id="CartPole-v1", count=8)
    monkeypatch.setitem(sys.modules, "pygame", None)
    frames = filmed(lambda o, g: (o[:, 2] > 0).long(), options, seed=1)
    assert frames and all(len(frame["numbers"]) == 4 for frame in frames)


def test_it_is_the_first_of_the_episodes_that_are_measured() -> None:
    options = EnvironmentOptions(id="CartPole-v1", count=8)
    played = play(lambda o, g: (o[:, 2] > 0).long(), environments_of(options, count=3), 3, seed=6)
    frames = filmed(lambda o, g: (o[:, 2] > 0).long(), options, seed=6)
    assert (frames[-1]["step"], frames[-1]["return"]) == (played.lengths_N[0], played.returns_N[0])


def test_numbers_are_those_of_the_environment_not_of_its_encoding() -> None:
    options = EnvironmentOptions(id="groundup/Counters-v0")
    make = environments_of(options, count=1)
    frames = filmed(random_policy(make(0)), options, seed=2)
    assert frames[0]["size"] == 10 and frames[0]["numbers"] == make(2).numbers()
    assert all(0 <= number <= 9 and number.is_integer() for frame in frames for number in frame["numbers"])


def test_vectors_of_actions_are_kept_whole() -> None:
    options = EnvironmentOptions(id="Pendulum-v1", time_limit=5)
    frames = filmed(random_policy(environments_of(options, count=1)(0)), options, seed=2)
    assert [frame["step"] for frame in frames] == [1, 2, 3, 4, 5]
    assert all(len(frame["action"]) == 1 and abs(frame["action"][0]) <= 2 for frame in frames)


def test_an_episode_that_cannot_be_played_is_no_film() -> None:
    assert filmed(last, EnvironmentOptions(id="tests/Drawing-v0", options={"unknown": 1}), seed=0) == []
