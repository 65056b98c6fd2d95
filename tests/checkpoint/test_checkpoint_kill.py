"""Processes that are killed with SIGKILL at every step of a save, in the order in which the steps happen.

A forked child runs the save under a tracer that counts every line of the checkpoint room and every call that
changes the file system, and kills itself at the chosen count. fsync is left out in the child: a kill, unlike
a power cut, does not lose what the kernel has taken.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import groundup.checkpoint
from groundup.checkpoint import disk, load, load_model, newest, save, save_model, verify

ROOM = str(Path(groundup.checkpoint.__file__).parent)
SOURCE = Path(disk.__file__).read_text(encoding="utf-8").splitlines()
CHUNK = f"disk.py:{next(number for number, line in enumerate(SOURCE, 1) if 'digest.update' in line)}"
CALLS = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync")

THOROUGH = pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and SIGKILL")


def trace(action: Callable[[], None], reached: Callable[[str], None]) -> None:
    """Run `action`, calling `reached` with a label at every line of the room and around every disk call."""
    originals = {name: os.__dict__[name] for name in CALLS}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            reached(f"before {name}")
            result = None if name == "fsync" else originals[name](*args, **keywords)
            reached(f"after {name}")
            return result

        return call

    def on_line(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        if event == "line":
            reached(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        return on_line

    before = sys.gettrace()
    try:
        for name in CALLS:
            setattr(os, name, wrapped(name))
        sys.settrace(on_line)
        action()
    finally:
        sys.settrace(before)
        for name, original in originals.items():
            setattr(os, name, original)


def labels_of(action: Callable[[], None]) -> list[str]:
    labels: list[str] = []
    trace(action, labels.append)
    return labels


def run_killed(action: Callable[[], None], at: int) -> bool:
    """Run `action` in a child that kills itself at count `at`; whether it came that far."""
    child = os.fork()
    if child == 0:
        count = 0

        def reached(_: str) -> None:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

        exit_code = 3
        try:
            trace(action, reached)
            exit_code = 0
        finally:
            os._exit(exit_code)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the save raised in the child"
    return os.WIFSIGNALED(status)


def kill_points(labels: list[str], thorough: bool) -> list[int]:
    """Counts to kill at: after every call that changes the disk and around each chunk that is written; if
    thorough, also where each line of the room runs first and last."""
    wanted = ("after mkdir", "after rename", "after replace", "after unlink", "after rmdir")
    chosen = {index for index, label in enumerate(labels) if label in wanted or label == CHUNK}
    if thorough:
        chosen |= {index for index, label in enumerate(labels) if " " in label}
        chosen |= {labels.index(label) for label in set(labels)}
        chosen |= {len(labels) - 1 - labels[::-1].index(label) for label in set(labels)}
    return sorted(index + 1 for index in chosen)


def save_step(root: Path, step: int, value: float) -> None:
    weights = {"w": torch.full((6000,), value), "tied": torch.full((3,), value)}
    groups = {"model": weights, "optimizer": {"m": torch.full((5,), value)}}
    save(root, step=step, tensors=groups, state={"value": value}, files={"recipe.yaml": b"a: 1\n"})


def value_of(folder: Path) -> float:
    checkpoint = load(folder)
    values = {float(x) for group in checkpoint.tensors.values() for t in group.values() for x in t.unique()}
    assert values == {checkpoint.state["value"]}
    return checkpoint.state["value"]


def check_next_save_clears_up(root: Path) -> None:
    save_step(root, 9, 9.0)
    assert all(not verify(path) for path in root.iterdir() if path.is_dir())
    assert all(path.name == "latest" or path.name.startswith("step-00000") for path in root.iterdir())
    assert not [path for path in root.iterdir() if ".tmp-" in path.name or ".old-" in path.name]
    assert value_of(root / "step-000009") == 9.0
    assert (root / "latest").read_text() == "step-000009\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "checkpoints"
    save_step(root, 1, 1.0)
    save_step(root, 2, 2.0)
    return root


@THOROUGH
def test_K1_R6_killed_anywhere_in_a_save_the_previous_or_the_new_one_loads(
    tmp_path: Path, template: Path, thorough: bool
) -> None:
    root = tmp_path / "c"
    shutil.copytree(template, root)
    labels = labels_of(lambda: save_step(root, 3, 3.0))
    assert {"before mkdir", "after rename", "after replace", "before rmdir"} <= set(labels)
    seen = set()
    for at in kill_points(labels, thorough):
        shutil.rmtree(root)
        shutil.copytree(template, root)
        assert run_killed(lambda: save_step(root, 3, 3.0), at), (at, len(labels))
        found = newest(root)
        assert found.path is not None
        assert found.rejected == [], "half a checkpoint stood under a name that counts"
        assert value_of(found.path) == found.step
        assert sum(not verify(path) for path in root.glob("step-00000?")) >= 2
        seen.add(found.step)
        check_next_save_clears_up(root)
    assert seen == {2, 3}


@THOROUGH
def test_K1_killed_while_replacing_the_same_step_there_is_always_a_whole_one(
    tmp_path: Path, template: Path, thorough: bool
) -> None:
    root = tmp_path / "c"
    shutil.copytree(template, root)
    labels = labels_of(lambda: save_step(root, 2, 2.5))
    seen = set()
    aside = 0
    for at in kill_points(labels, thorough):
        shutil.rmtree(root)
        shutil.copytree(template, root)
        run_killed(lambda: save_step(root, 2, 2.5), at)
        found = newest(root)
        assert found.path is not None
        assert found.step == 2
        assert found.rejected == []
        seen.add(value_of(found.path))
        aside += found.path.name != "step-000002"
        check_next_save_clears_up(root)
        assert value_of(root / "step-000002") in (2.0, 2.5)
    assert seen == {2.0, 2.5}
    assert aside > 0, "no kill fell between the two renames"


@THOROUGH
def test_K1_killed_while_replacing_a_model_folder_a_whole_model_loads(tmp_path: Path, thorough: bool) -> None:
    folder = tmp_path / "run" / "model"

    def write(value: float) -> None:
        save_model(folder, tensors={"w": torch.full((10,), value)}, files={"model.json": b"{}"})

    write(1.0)
    labels = labels_of(lambda: write(2.0))
    seen = set()
    for at in kill_points(labels, thorough):
        write(1.0)
        run_killed(lambda: write(2.0), at)
        tensors, files = load_model(folder)
        assert files == {"model.json": b"{}"}
        (value,) = tensors["w"].unique().tolist()
        seen.add(value)
    assert seen == {1.0, 2.0}
    write(3.0)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def train(root: Path, steps: int) -> None:
    """A toy run whose every step depends on all before it: weights, momentum and random state."""
    found = newest(root)
    generator = torch.Generator().manual_seed(1)
    weights, momentum, done, seen = torch.zeros(40), torch.zeros(40), 0, []
    if found.path is not None:
        checkpoint = load(found.path)
        weights, momentum = checkpoint.tensors["model"]["w"], checkpoint.tensors["optimizer"]["m"]
        generator.set_state(checkpoint.tensors["random"]["torch"])
        done, seen = checkpoint.step, checkpoint.state["seen"]
    for step in range(done + 1, steps + 1):
        gradient = torch.randn(40, generator=generator)
        momentum = 0.9 * momentum + gradient
        weights = weights - 0.1 * momentum
        seen = [*seen, float(gradient.sum())]
        groups = {"model": {"w": weights}, "optimizer": {"m": momentum}}
        groups["random"] = {"torch": generator.get_state()}
        save(root, step=step, tensors=groups, state={"seen": seen}, files={})


def test_R6_killed_at_random_points_and_resumed_the_result_is_bitwise_equal(tmp_path: Path) -> None:
    labels = labels_of(lambda: train(tmp_path / "straight", 5))
    chance = random.Random(0)
    kills = 0
    for attempt in range(6):
        root = tmp_path / f"killed-{attempt}"
        while run_killed(partial(train, root, 5), chance.randrange(1, len(labels))):
            kills += 1
        for name in ("model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"):
            straight = tmp_path / "straight" / "step-000005" / name
            assert (root / "step-000005" / name).read_bytes() == straight.read_bytes()
    assert kills >= 4
