"""Kills a small run at random moments, resumes it each time, and compares it with the run left alone.

Most kills hit a child that is forked here, before it trains: starting Python and torch anew each time would
take minutes. Half of them come after a random number of lines of groundup's own code (so that forward,
backward, update, write, rename and pointer are all hit), half after a random time. Some more are real
commands of their own. Everything is drawn from one seed.

    python -m tests.faults.killing FOLDER [SEED]

It must be a process of its own: a fork is only safe where no thread of torch has been at work. groundup's
files must not change meanwhile, because the forked children hold what was read at the start.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once here instead of in each child
from tests.contract.toy_run import Options, Outcome, assert_same, outcome, quick, run, text_file, text_recipe

import groundup
from groundup.recipe.yaml import dump

PACKAGE = str(Path(groundup.__file__).parent)
ROOMS = tuple(f"{PACKAGE}/{room}/" for room in ("engine", "checkpoint", "run", "optim", "objectives"))
FORKED, COMMANDS = 42, 8
KILLS_IN_A_RUN = 6


def recipe_of(folder: Path) -> Options:
    """Sixty steps with everything that is saved: momentum, averages, best weights, windows."""
    return text_recipe(
        text_file(folder, documents=60),
        optim={"model": {"kind": "muon", "learning_rate": 0.01}},
        budget__steps=60,
        events={
            "log_every": 2, "save_every": 7, "evaluate_every": 20, "evaluate_tokens": 200, "sample_every": 25,
            "sample_tokens": 4, "average": 0.9, "early_stopping": {"patience": 50},
        },
    )  # fmt: skip


def traced(action: Callable[[], None], on_line: Callable[[], None]) -> None:
    """Run `action`, calling `on_line` before each line of the rooms in which a run happens."""

    def local(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            on_line()
        return local

    def entered(frame: FrameType, event: str, _: object) -> Any:
        return local if frame.f_code.co_filename.startswith(ROOMS) else None

    sys.settrace(entered)
    try:
        action()
    finally:
        sys.settrace(None)


def fork(action: Callable[[], None]) -> int:
    """A child that does `action` and ends with 0, or with 3 if it raises."""
    child = os.fork()
    if child:
        return child
    code = 3
    try:
        action()
        code = 0
    except BaseException:  # noqa: BLE001 - the outermost edge of the child
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int, seconds: float | None = None) -> bool:
    """Wait for a child, at most `seconds`, then kill it; whether it was killed."""
    if seconds is not None:
        descriptor = os.pidfd_open(child)
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            os.kill(child, signal.SIGKILL)
        os.close(descriptor)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, f"the run ended with status {status}"
    return False


def killed_by_line(action: Callable[[], None], number: int) -> bool:
    """Run `action` in a child that kills itself before the line with this number."""
    left = [number]

    def on_line() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return wait(fork(lambda: traced(action, on_line)))


def count_lines(action: Callable[[], None], note: Path) -> tuple[int, float]:
    """Lines and seconds of the whole action, in a child."""

    def counted() -> None:
        lines = [0]

        def on_line() -> None:
            lines[0] += 1

        traced(action, on_line)
        note.write_text(str(lines[0]))

    wait(fork(counted))
    began = time.perf_counter()
    wait(fork(action))
    return int(note.read_text()), time.perf_counter() - began


def forked_kills(recipe: Options, root: Path, expected: Outcome, chance: random.Random) -> Counter[str]:
    """Run after run, each killed a few times and then finished."""

    def train(folder: Path) -> Callable[[], None]:
        return lambda: (run(recipe, folder, resume=True), None)[1]

    lines, seconds = count_lines(train(root / "measured"), root / "lines")
    done: Counter[str] = Counter()
    number = 0
    while done["killed by line"] + done["killed by time"] < FORKED:
        number += 1
        folder = root / f"forked-{number}"
        for _ in range(min(KILLS_IN_A_RUN, FORKED - done["killed by line"] - done["killed by time"])):
            if done["killed by line"] <= done["killed by time"]:
                hit = killed_by_line(train(folder), chance.randrange(1, lines))
                done["killed by line"] += hit
            else:
                hit = wait(fork(train(folder)), chance.uniform(0.0, seconds))
                done["killed by time"] += hit
            if not hit:
                break
        wait(fork(train(folder)))
        assert_same(outcome(folder), expected)
        done["runs"] += 1
    return done


def command_kills(recipe: Options, root: Path, expected: Outcome, chance: random.Random) -> Counter[str]:
    """The same with real commands, each killed when its event log has grown to a random length."""
    file = root / "recipe.yaml"
    file.write_text(dump(recipe), encoding="utf-8")
    lines = len(expected.events)
    done: Counter[str] = Counter()
    while done["killed commands"] < COMMANDS:
        folder = root / f"command-{done['runs']}"
        command = [sys.executable, "-m", "groundup", "train", str(file), "--out", str(folder), "--resume"]
        for _ in range(COMMANDS // 2):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if not kill_when_grown(process, folder / "events.jsonl", chance.randrange(1, lines)):
                break
            done["killed commands"] += 1
        subprocess.run(command, check=True, capture_output=True)
        assert_same(outcome(folder), expected)
        done["runs"] += 1
    return done


def kill_when_grown(process: subprocess.Popen[bytes], log: Path, lines: int) -> bool:
    """Kill the process once this many lines were written by it; whether it still ran."""
    descriptor = os.pidfd_open(process.pid)
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    old = log.stat().st_mtime_ns if log.exists() else 0
    while not waiting.poll(5):
        if log.exists() and log.stat().st_mtime_ns != old and log.read_bytes().count(b"\n") >= lines:
            process.kill()
            break
    os.close(descriptor)
    code = process.wait()
    assert code in (0, -signal.SIGKILL), f"the command ended with {code}"
    return code != 0


def main(root: Path, seed: int) -> None:
    """Everything, and one line that sums it up."""
    torch.set_num_threads(1)
    quick(pytest.MonkeyPatch())
    chance, began = random.Random(seed), time.perf_counter()
    recipe = recipe_of(root)
    wait(fork(lambda: (run(recipe, root / "straight"), None)[1]))
    expected = outcome(root / "straight")
    assert expected.events[-1]["outcome"] == "finished"
    done = forked_kills(recipe, root, expected, chance)
    done += command_kills(recipe, root, expected, chance)
    kills = sum(count for name, count in done.items() if name.startswith("killed"))
    said = {"kills": kills, **done, "tensors": len(expected.tensors), "events": len(expected.events)}
    print(json.dumps({**said, "seconds": round(time.perf_counter() - began, 1), "seed": seed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
