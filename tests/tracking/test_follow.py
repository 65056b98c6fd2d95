"""A tracker follows a run: what it is told, and that nothing it does reaches the run."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.contract.toy_run import Options, at, changed, events, kill, killed_run, quick, run
from tests.tracking.doubles import Noted, assert_same_training, use

from groundup.errors import GroundupError
from groundup.run.entry import read_recipe
from groundup.tracking import follow
from groundup.tracking.follow import Follower
from groundup.tracking.rows import flat, row_of


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


def step(number: int, **fields: Any) -> dict[str, Any]:
    clock = {"time": "2024-01-01T00:00:00+00:00", "seconds": 1.5}
    return {"event": "step", "step": number, "loss": 1.0 / (number + 1), "clock": clock} | fields


def follower(tracker: Noted, folder: Path, warnings: list[str], lines: list[dict[str, Any]] | None = None) -> Follower:
    log = folder / "events.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(json.dumps(line) + "\n" for line in lines or []))
    return Follower(
        tracker,
        kind="noted",
        config={"a": 1},
        memory=folder / "memory" / "noted.json",
        history=log,
        length=log.stat().st_size,
        warn=lambda at, message: warnings.append(f"{at}: {message}"),
    )


def test_lines_become_rows() -> None:
    row = row_of(step(3, tokens=7, bits_per_byte=None, gradient_norm=float("nan"), nested={"x": 2}, flag=True))
    assert row is not None
    assert (row.key, row.step, row.time) == ("step", 3, 1704067200.0)
    assert row.values == {"train/loss": 0.25, "train/tokens": 7.0, "train/nested/x": 2.0, "clock/seconds": 1.5}
    clock = {"time": "2024-01-01T00:00:00+00:00"}
    row = row_of({"event": "evaluate", "step": 4, "data": "held_out", "metrics": {"loss": 2.0, "f1": None},
                  "intervals": {"loss": [1, 3]}, "clock": clock})  # fmt: skip
    assert row is not None
    assert row[:2] == ("evaluate held_out", 4)
    assert row.values == {"held_out/loss": 2.0}
    row = row_of({"event": "sample", "step": 4, "samples": [{"prompt": "the", "text": "猫"}], "clock": clock})
    assert row is not None
    assert row.texts == {"samples": "the\n猫"}
    for event in ("save", "guard", "warning", "start"):
        assert row_of({"event": event, "step": 4, "message": "x", "clock": clock}) is None


def test_a_recipe_without_nesting() -> None:
    tree = {"a": {"b": 1, "c": None}, "d": [1, 2], "e": [{"f": True}], "g": {}}
    assert flat(tree) == {"a.b": "1", "a.c": "null", "d": "[1, 2]", "e.0.f": "True", "g": "{}"}


def test_everything_is_told_once_and_in_order(tmp_path: Path) -> None:
    warnings: list[str] = []
    tracker = Noted()
    followed = follower(tracker, tmp_path, warnings)
    for number in (0, 1, 2, 1, 2, 3):  # a rewind in the middle
        followed(step(number))
    followed({"event": "end", "step": 3, "outcome": "stopped", "reason": "x", "clock": step(0)["clock"]})
    followed.close()
    assert tracker.steps == [("step", 0), ("step", 1), ("step", 2), ("step", 3)]
    assert tracker.config == {"a": 1}
    assert (tracker.known, tracker.outcome, tracker.calls[-1], warnings) == (None, "stopped", "close", [])
    # a resume: two lines that the tracker has, and one that never reached it
    tracker = Noted()
    followed = follower(tracker, tmp_path, warnings, [step(2), step(3), step(4), {"event": "save", "step": 4}])
    followed(step(5))
    followed.close()
    assert tracker.known == "first"
    assert tracker.steps == [("step", 4), ("step", 5)]


@pytest.mark.parametrize("memory", ["", "{", "[]", '{"name": "x", "told": 5}'])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, memory: str) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "noted.json").write_text(memory)
    warnings: list[str] = []
    tracker = Noted()
    follower(tracker, tmp_path, warnings, [step(1)]).close()
    assert (tracker.known, tracker.steps, warnings) == (None, [("step", 1)], [])


@pytest.mark.parametrize("call", ["begin", "tell", "flush", "end", "close"])
@pytest.mark.parametrize("fault", [ConnectionError("down\x1b[31m" + "x" * 999), Exception(), SystemExit(1)])
def test_R11_any_fault_of_a_tracker_is_one_warning(tmp_path: Path, call: str, fault: BaseException) -> None:
    warnings: list[str] = []
    followed = follower(Noted(call, fault), tmp_path, warnings)
    for number in range(3):
        followed(step(number))
    if call in ("begin", "tell", "flush"):
        followed._thread.join(5.0)
    for number in range(3, 6):
        followed(step(number))
    followed({"event": "end", "step": 6, "outcome": "finished", "reason": "", "clock": step(0)["clock"]})
    followed.close()
    followed.close()
    assert len(warnings) == 1
    assert "tracking by noted is off" in warnings[0]
    assert warnings[0].isprintable()
    assert len(warnings[0]) < 400


def test_R11_a_tracker_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "WAITING_LINES", 8)
    gate, warnings = threading.Event(), list[str]()
    followed = follower(Noted(gate=gate), tmp_path, warnings)
    began = time.perf_counter()
    for number in range(50):
        followed(step(number))
    assert time.perf_counter() - began < 1.0
    assert followed.dropped == 42
    followed.close(seconds=0.2)
    assert time.perf_counter() - began < 2.0
    [warning] = warnings
    assert "did not finish" in warning
    assert "42 lines" in warning
    gate.set()


def test_a_tracker_that_is_too_slow_says_what_it_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "WAITING_LINES", 4)
    gate, warnings = threading.Event(), list[str]()
    tracker = Noted(gate=gate)
    followed = follower(tracker, tmp_path, warnings)
    for number in range(6):
        followed(step(number))
    gate.set()
    followed.close()
    assert tracker.steps == [("step", 0), ("step", 1), ("step", 2), ("step", 3)]
    [warning] = warnings
    assert "too slow for 2 lines" in warning


@pytest.mark.parametrize("call", ["begin", "tell"])
def test_R11_training_goes_on_with_the_same_weights(
    recipe: Options, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    tracked = changed(recipe, **use(monkeypatch, Noted(call)))
    assert run(tracked, tmp_path / "tracked").outcome == "finished"
    assert_same_training(plain, tmp_path / "tracked")
    [warning] = events(tmp_path / "tracked", "warning")
    assert "tracking by tensorboard is off" in warning["message"]


def test_R11_a_folder_that_cannot_be_written(recipe: Options, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "tracking").write_text("a file where the folder should be: not even root may write into it")
    assert run(changed(recipe, events__track=[{"kind": "tensorboard"}]), folder).outcome == "finished"
    [warning] = events(folder, "warning")
    assert "tracking by tensorboard is off" in warning["message"]


def test_a_run_is_told_whole(recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Noted()
    run(changed(recipe, **use(monkeypatch, tracker)), tmp_path / "run")
    assert [at for key, at in tracker.steps if key == "step"] == list(range(1, 7))
    assert [at for key, at in tracker.steps if key.startswith("evaluate")] == [3, 6]
    assert [at for key, at in tracker.steps if key == "sample"] == [3, 6]
    assert tracker.config["budget"]["steps"] == 6
    assert tracker.config["events"]["track"][0]["kind"] == "tensorboard"
    assert tracker.outcome == "finished"
    lines = events(tmp_path / "run", "step")
    assert [row.values["train/loss"] for row in tracker.rows if row.key == "step"] == [line["loss"] for line in lines]
    assert not events(tmp_path / "run", "warning")


def test_a_resumed_run_is_told_no_step_twice(recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Noted(), Noted()
    tracked = changed(recipe, **use(monkeypatch, first))
    killed_run(tracked, tmp_path / "run", at("step", 5, kill))
    use(monkeypatch, second)
    assert run(tracked, tmp_path / "run", resume=True).outcome == "finished"
    assert second.known == "first"
    told = first.steps + second.steps
    assert len(told) == len(set(told))
    assert sorted(at for key, at in told if key == "step") == list(range(1, 7))


def test_lines_that_a_kill_kept_from_the_tracker_are_told_on_the_resume(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()  # the first tracker is told nothing at all
    tracked = changed(recipe, **use(monkeypatch, Noted(gate=gate)))
    monkeypatch.setattr(follow.Follower, "close", lambda self: None)
    killed_run(tracked, tmp_path / "run", at("step", 5, kill))
    monkeypatch.undo()
    quick(monkeypatch)
    second = Noted()
    use(monkeypatch, second)
    run(tracked, tmp_path / "run", resume=True)
    gate.set()
    assert [at for key, at in second.steps if key == "step"] == list(range(1, 7))


def test_U3_a_missing_extra_is_told_before_training(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GroundupError) as caught:
        run(changed(recipe, events__track=[{"kind": "wandb"}, {"kind": "mlflow"}]), tmp_path / "run")
    assert caught.value.code == "E-TRACK-001"
    assert 'pip install "groundup[wandb,mlflow]"' in caught.value.fix
    assert not (tmp_path / "run" / "events.jsonl").exists()


@pytest.mark.parametrize(
    ("track", "said"),
    [
        ([{"kind": "tensorbord"}], "tensorboard"),
        ([{"kind": "wandb", "mode": "on"}], "mode"),
        ([{"kind": "mlflow"}, {"kind": "mlflow"}], "more than once"),
        ([{"kind": "trackio", "project": "a/b"}], "project"),
    ],
)
def test_what_a_recipe_may_not_say(recipe: Options, track: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(GroundupError, match=r"(?s)E-RECIPE") as caught:
        read_recipe(changed(recipe, events__track=track))
    assert said in str(caught.value)
