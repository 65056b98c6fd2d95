"""Each tracker writes what it is told: read back from the real package where it is installed, and, for those that the
tests do not install, from a stand-in with the calls that are used."""

from __future__ import annotations

import json
import sqlite3
import types
from pathlib import Path
from typing import Any

import pytest
from tests.contract.toy_run import at, changed, events, kill, killed_run, quick, run
from tests.tracking.doubles import assert_same_training, files_below, installed, stand_in

from groundup.tracking import TrackerOptions, open_tracker
from groundup.tracking.options import MlflowOptions, TensorBoardOptions, TrackioOptions, WandbOptions
from groundup.tracking.rows import Row, Tracker

CONFIG = {"name": "run", "optim": {"model": {"kind": "adamw", "clip": None}}, "data": {"files": ["a", "b"]}}
TIME = 1.7e9


def row(step: int, **values: float) -> Row:
    return Row("step", step, TIME + step, {f"train/{name}": value for name, value in values.items()}, {})


def tell_all(options: TrackerOptions, folder: Path, known: str | None = None, steps: tuple[int, ...] = (1, 2)) -> str:
    """A session of a tracker, from opening to closing."""
    tracker: Tracker = open_tracker(options, folder, "my run")
    name = tracker.begin(CONFIG, known)
    for step in steps:
        tracker.tell(row(step, loss=1.0 / step, learning_rate=0.01))
    tracker.tell(Row("sample", steps[-1], TIME, {}, {"samples": "the <b>\n猫"}))
    tracker.flush()
    tracker.end(Row("end", steps[-1], TIME, {}, {"outcome": "stopped: max"}), "stopped")
    tracker.flush()
    tracker.close()
    return name


def accumulated(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def texts(found: Any, name: str) -> list[tuple[int, str]]:
    return [(one.step, one.tensor_proto.string_val[0].decode()) for one in found.Tensors(f"{name}/text_summary")]


def test_tensorboard(tmp_path: Path) -> None:
    options = TensorBoardOptions(kind="tensorboard")
    name = tell_all(options, tmp_path)
    assert tell_all(options, tmp_path, known=name, steps=(3,)) == name
    found = accumulated(tmp_path / "tracking" / "tensorboard")
    assert [(one.step, one.value) for one in found.Scalars("train/loss")] == [
        (1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))
    ]  # fmt: skip
    assert found.Scalars("train/loss")[0].wall_time == TIME + 1
    assert texts(found, "samples") == [(2, "the <b>\n猫"), (3, "the <b>\n猫")]
    assert texts(found, "outcome")[-1] == (3, "stopped: max")
    [(_, shown)] = texts(found, "recipe")
    assert json.loads(shown) == CONFIG
    tell_all(TensorBoardOptions(kind="tensorboard", folder=str(tmp_path / "all")), tmp_path)
    assert accumulated(tmp_path / "all" / "my run").Scalars("train/loss")


def test_tensorboard_of_a_run_killed_and_resumed(
    recipe: dict[str, Any], plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    tracked = changed(recipe, events__track=[{"kind": "tensorboard"}])
    folder = tmp_path / "run"
    killed_run(tracked, folder, at("step", 5, kill))
    run(tracked, folder, resume=True)
    assert_same_training(plain, folder)
    assert not events(folder, "warning")
    found = accumulated(folder / "tracking" / "tensorboard")
    for tag, field in (("train/loss", "loss"), ("train/learning_rate", "learning_rate"), ("train/tokens", "tokens")):
        lines = events(folder, "step")
        assert [(one.step, one.value) for one in found.Scalars(tag)] == [
            (line["step"], pytest.approx(line[field], rel=1e-6)) for line in lines
        ]
    assert [one.step for one in found.Scalars("clock/tokens_per_second")] == [1, 2, 3, 4, 5, 6]
    evaluations = events(folder, "evaluate")
    data = evaluations[0]["data"]
    assert [one.step for one in found.Scalars(f"{data}/loss")] == [3, 6]
    assert [one.value for one in found.Scalars(f"{data}/loss")] == pytest.approx(
        [line["metrics"]["loss"] for line in evaluations], rel=1e-6
    )
    assert [step for step, _ in texts(found, "samples")] == [3, 6]
    assert [text for _, text in texts(found, "outcome")] == ["finished"]


def trackio_stand_in(patch: pytest.MonkeyPatch) -> None:
    """The one call that is used, with the table that it fills."""
    storage = types.SimpleNamespace()

    def bulk_log(project: str, run: str, metrics_list: list[Any], *, steps: list[int], timestamps: list[str],
                 config: Any, log_ids: list[str], run_id: str) -> None:  # fmt: skip
        with sqlite3.connect(module.TRACKIO_DIR / f"{project}.db") as base:  # type: ignore[attr-defined]
            base.execute("CREATE TABLE IF NOT EXISTS metrics (run_id, run_name, step, metrics, log_id UNIQUE)")
            base.execute("CREATE TABLE IF NOT EXISTS configs (run_id, config)")
            for metrics, step, id in zip(metrics_list, steps, log_ids):
                values = (run_id, run, step, json.dumps(metrics), id)
                base.execute("INSERT OR IGNORE INTO metrics VALUES (?, ?, ?, ?, ?)", values)
            if config:
                base.execute("INSERT INTO configs VALUES (?, ?)", (run_id, json.dumps(config)))

    storage.bulk_log = bulk_log
    stand_in(patch, "trackio")
    module = stand_in(patch, "trackio.sqlite_storage", SQLiteStorage=storage, TRACKIO_DIR=None)


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if not installed("trackio"):
        trackio_stand_in(monkeypatch)
    options = TrackioOptions(kind="trackio", project="mine")
    id = tell_all(options, tmp_path)
    assert tell_all(options, tmp_path, known=id, steps=(2, 3)) == id
    with sqlite3.connect(tmp_path / "tracking" / "trackio" / "mine.db") as base:
        found = base.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY rowid").fetchall()
        [(config,)] = base.execute("SELECT config FROM configs").fetchall()
    assert {line[:2] for line in found} == {(id, "my run")}
    read = [(step, json.loads(metrics)) for _, _, step, metrics in found]
    assert [(step, told["train/loss"]) for step, told in read if "train/loss" in told] == [
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
    ]
    assert [told["samples"]["_value"] for _, told in read if "samples" in told] == ["the <b>\n猫"] * 2
    assert [step for step, told in read if "outcome" in told] == [2, 3]
    assert json.loads(config).items() >= CONFIG.items()
    assert capsys.readouterr().out == ""


class StandInRun:
    """A run of wandb, as far as it is used."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given, self.rows, self.summary = given, list[tuple[int, dict[str, Any]]](), dict[str, Any]()
        self.exit_code: int | None = None

    def log(self, data: dict[str, Any], step: int) -> None:
        self.rows.append((step, data))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


def test_wandb_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[StandInRun] = []

    def init(**given: Any) -> StandInRun:
        runs.append(StandInRun(given))
        return runs[-1]

    stand_in(monkeypatch, "wandb", init=init, Settings=lambda **given: given, Html=lambda text, inject: text)
    options = WandbOptions(kind="wandb", project="mine")
    id = tell_all(options, tmp_path)
    assert tell_all(options, tmp_path, known=id, steps=(3,)) == id
    first, second = runs
    assert first.given["mode"] == "offline"
    assert (first.given["project"], first.given["name"], first.given["config"]) == ("mine", "my run", CONFIG)
    assert first.given["dir"] == str(tmp_path / "tracking" / "wandb")
    assert (first.given["id"], first.given["resume"]) == (second.given["id"], second.given["resume"]) == (id, "allow")
    assert [step for step, _ in first.rows + second.rows] == [1, 2, 2, 3, 3]
    assert first.rows[0][1] == {"train/loss": 1.0, "train/learning_rate": 0.01}
    assert first.rows[2][1] == {"samples": "<pre>the &lt;b&gt;\n猫</pre>"}
    assert first.summary == {"outcome": "stopped: max"}
    assert first.exit_code == 0


@pytest.mark.skipif(not installed("wandb"), reason="needs the extra wandb")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    import wandb

    options = WandbOptions(kind="wandb")
    id = tell_all(options, tmp_path)
    assert tell_all(options, tmp_path, known=id, steps=(3,)) == id
    files = [name for name in files_below(tmp_path / "tracking" / "wandb") if name.endswith(f"run-{id}.wandb")]
    assert len(files) == 2
    assert all("offline-run-" in name for name in files)
    assert wandb.run is None
    assert capfd.readouterr().out == ""


class StandInMlflow:
    """A client of MLflow, as far as it is used."""

    def __init__(self, tracking_uri: str) -> None:
        self.uri, self.metrics, self.params, self.texts = tracking_uri, list[Any](), dict[str, str](), dict[str, str]()
        self.tags, self.status, self.batches = dict[str, str](), list[str](), list[int]()

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return f"experiment {name}"

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        self.made = (experiment_id, run_name)
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))

    def update_run(self, run_id: str, status: str) -> None:
        self.status.append(status)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self.metrics += metrics
        self.params |= dict(params)
        self.batches.append(len(params))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.texts[artifact_file] = text

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.tags[key] = value

    def set_terminated(self, run_id: str, status: str) -> None:
        self.status.append(status)


def test_mlflow_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clients: dict[str, StandInMlflow] = {}
    stand_in(
        monkeypatch, "mlflow", MlflowClient=lambda tracking_uri: clients.setdefault("one", StandInMlflow(tracking_uri))
    )
    stand_in(monkeypatch, "mlflow.entities", Metric=lambda *parts: parts, Param=lambda *parts: parts)
    options = MlflowOptions(kind="mlflow", experiment="mine")
    assert tell_all(options, tmp_path) == "abc"
    assert tell_all(options, tmp_path, known="abc", steps=(3,)) == "abc"
    client = clients["one"]
    assert client.uri == (tmp_path / "tracking" / "mlflow").as_uri()
    assert client.made == ("experiment mine", "my run")
    assert client.params == {"name": "run", "optim.model.kind": "adamw", "optim.model.clip": "null",
                             "data.files": "['a', 'b']"}  # fmt: skip
    assert [(step, value) for name, value, _, step in client.metrics if name == "train/loss"] == [
        (1, 1.0), (2, 0.5), (3, 1 / 3)
    ]  # fmt: skip
    assert client.metrics[0][2] == round((TIME + 1) * 1000)
    assert client.texts == {f"samples/step-{step:06d}.txt": "the <b>\n猫" for step in (2, 3)}
    assert client.tags == {"outcome": "stopped: max"}
    assert client.status == ["KILLED", "RUNNING", "KILLED"]


@pytest.mark.skipif(not installed("mlflow"), reason="needs the extra mlflow")
def test_mlflow_files(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    options = MlflowOptions(kind="mlflow")
    id = tell_all(options, tmp_path)
    assert tell_all(options, tmp_path, known=id, steps=(3,)) == id
    client = MlflowClient(tracking_uri=(tmp_path / "tracking" / "mlflow").as_uri())
    history = client.get_metric_history(id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    found = client.get_run(id)
    assert found.data.params["optim.model.kind"] == "adamw"
    assert found.data.tags["outcome"] == "stopped: max"
    assert (found.info.status, found.info.run_name) == ("KILLED", "my run")
    assert client.list_artifacts(id)[0].path == "samples"


@pytest.mark.parametrize("kind", ["trackio", "wandb", "mlflow"])
def test_a_run_tracked_by_the_real_package(
    kind: str, recipe: dict[str, Any], plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed(kind):
        pytest.skip(f"needs the extra {kind}")
    quick(monkeypatch)
    tracked = changed(recipe, events__track=[{"kind": kind}])
    killed_run(tracked, tmp_path / "run", at("step", 5, kill))
    run(tracked, tmp_path / "run", resume=True)
    assert_same_training(plain, tmp_path / "run")
    assert not events(tmp_path / "run", "warning")
    assert len(files_below(tmp_path / "run" / "tracking" / kind)) > 0
