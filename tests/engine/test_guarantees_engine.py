"""Faults of a run, each by its case in the list of guarantees: what must happen, and what must stay whole."""

from __future__ import annotations

import errno
import json
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.toy_run import (
    Options,
    assert_same,
    at,
    changed,
    chat_file,
    chat_recipe,
    events,
    kill,
    killed_run,
    outcome,
    parts_of,
    run,
    saved,
    text_file,
    text_recipe,
)
from torch import Tensor

from groundup import checkpoint
from groundup.checkpoint import RunLock
from groundup.contract import IGNORE, Batch, Loss
from groundup.data.stream import PackedStream
from groundup.engine.events import EventLog
from groundup.engine.guard import MINIMUM_WINDOW, Guard
from groundup.engine.options import GuardOptions
from groundup.engine.stop import Stop
from groundup.errors import GroundupError
from groundup.objectives.next_token import NextToken
from groundup.recipe.yaml import dump
from groundup.run import assemble as assembling
from groundup.run import measuring
from groundup.run import rehearse as rehearsing
from groundup.run.entry import read_recipe, train
from groundup.run.language import LanguageWork
from groundup.run.models import initialised
from groundup.run.plan import fix, foresee_plan
from groundup.run.rehearse import require_gradients


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A small run on text that is prepared already."""
    root = tmp_path_factory.mktemp("prepared")
    whole = text_recipe(text_file(root))
    parts_of(whole, root / "run")
    data = {"kind": "text", "prepared": str(root / "run" / "data"), "context": 32}
    return changed(whole, data=data, tokenizer=None, events__evaluate_every=0, events__evaluate_tokens=None)


def refused(code: str, action: Callable[[], Any]) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        action()
    fault = caught.value
    assert fault.code == code and fault.what and fault.where and fault.why and fault.fix
    return fault


class Poison:
    """The loss of next_token, turned into something else in chosen micro-batches (counted from 0)."""

    def __init__(self, patch: pytest.MonkeyPatch, change: Callable[[int, Tensor], Tensor]) -> None:
        self.count, plain = -1, NextToken.loss
        self.active = False

        def loss(objective: NextToken, turn: str, batch: Batch) -> Loss:
            found = plain(objective, turn, batch)
            if not self.active:
                return found
            self.count += 1
            return Loss(change(self.count, found.total), {})

        patch.setattr(NextToken, "loss", loss)

    def start(self, line: dict[str, Any]) -> None:
        """A listener: the rehearsal before the first step is not poisoned."""
        self.active = True


# ---------------------------------------------------------------- R1, R2: the guard


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_R1_G4_one_poisoned_micro_batch_skips_the_step(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    poison = Poison(monkeypatch, lambda n, total: total * value if n == 7 else total)  # step 3, second of two
    run(changed(recipe, events__save_every=1, events__keep_every=1), tmp_path, listeners=(poison.start,))
    before, after = saved(tmp_path, 3), saved(tmp_path, 4)
    for part in ("model", "optimizer"):
        for name, tensor in before.tensors[part].items():
            assert torch.equal(tensor, after.tensors[part][name]), name
    assert not torch.equal(
        after.tensors["model"]["embedding.weight"], saved(tmp_path, 5).tensors["model"]["embedding.weight"]
    )
    (line,) = events(tmp_path, "guard")
    assert (line["step"], line["kind"]) == (3, "nonfinite")
    assert line["detail"]["micro_batches"] == [1]
    written = json.loads((tmp_path / "faults" / line["detail"]["rows"]).read_text())
    assert list(written["rows"]) == ["1"]
    rows = torch.tensor(written["rows"]["1"]["tokens_BT"])
    parts = parts_of(changed(recipe), tmp_path / "again")
    stream = parts.source()
    for _ in range(7):
        stream.next("model")
    assert torch.equal(rows, stream.next("model")["tokens_BT"]), "the rows at fault are those that were read"
    assert all(torch.isfinite(t).all() for t in outcome(tmp_path).tensors.values() if t.is_floating_point())


def test_R1_a_gradient_that_is_not_finite_is_refused_too(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Explode(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, total: Tensor) -> Tensor:
            return total.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return gradients[0] * math.inf

    poison = Poison(monkeypatch, lambda n, total: Explode.apply(total) if n == 4 else total)
    run(changed(recipe, budget__steps=5), tmp_path, listeners=(poison.start,))
    (line,) = events(tmp_path, "guard")
    assert (line["step"], line["kind"], line["detail"]["micro_batches"]) == (2, "nonfinite", [0, 1])


def test_R1_the_run_stops_after_k_steps_in_a_row(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Poison(monkeypatch, lambda n, total: total * math.nan if n >= 10 or n == 3 else total)
    whole = changed(recipe, guard={"stop_after": 3})
    fault = refused("E-RUN-020", lambda: run(whole, tmp_path, listeners=(poison.start,)))
    assert "3 steps in a row" in fault.what and "step 7" in fault.where
    assert [line["step"] for line in events(tmp_path, "guard")] == [1, 5, 6, 7]
    end = events(tmp_path)[-1]
    assert (end["event"], end["outcome"]) == ("end", "failed") and "E-RUN-020" in end["reason"]
    assert checkpoint.newest(tmp_path / "checkpoints").step == 5
    assert json.loads((tmp_path / "results.json").read_text())["outcome"] == "failed"


def judge(guard: Guard, losses: list[float]) -> list[bool]:
    return [guard.accepts(step, [loss], 1.0, 1.0, [{}]) for step, loss in enumerate(losses)]


def test_R2_a_spike_is_noticed_and_one_nan_does_not_poison_the_window(tmp_path: Path) -> None:
    reports: list[tuple[str, int]] = []
    options = GuardOptions(window=16, spike=4.0)
    guard = Guard(options, report=lambda kind, step, detail: reports.append((kind, step)), folder=tmp_path)
    steady = [2.0 + 0.01 * (step % 3) for step in range(20)]
    judge(guard, [*steady[:10], math.nan, math.inf, *steady[:10], 9.0])
    assert reports == [("nonfinite", 10), ("nonfinite", 11), ("spike", 22)]
    assert all(map(math.isfinite, guard.window)) and len(guard.window) == 16
    again = Guard(options, report=lambda kind, step, detail: None, folder=tmp_path)
    again.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert again.window == guard.window and again.refused == guard.refused


def test_R2_few_losses_call_nothing_a_spike(tmp_path: Path) -> None:
    reports: list[str] = []
    guard = Guard(GuardOptions(), report=lambda kind, step, detail: reports.append(kind), folder=tmp_path)
    judge(guard, [1.0] * (MINIMUM_WINDOW - 1) + [50.0])
    assert not reports


def test_R2_G2_the_window_survives_a_resume(recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison = Poison(monkeypatch, lambda n, total: total * 30 if n == 21 else total)  # step 10
    run(recipe, tmp_path / "straight", listeners=(poison.start,))
    assert [line["kind"] for line in events(tmp_path / "straight", "guard")] == ["spike"]
    poison.count = -1
    killed_run(recipe, tmp_path / "killed", poison.start, at("step", 9, kill))
    poison.count = 9  # the resume begins with the micro-batches of step 5
    run(recipe, tmp_path / "killed", resume=True, listeners=(poison.start,))
    assert_same(outcome(tmp_path / "killed"), outcome(tmp_path / "straight"))


def test_R2_rewind_goes_back_to_the_checkpoint_and_skips_the_rows(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Poison(monkeypatch, lambda n, total: total * 30 if n == 26 else total)  # step 13
    whole = changed(recipe, budget__steps=16, guard={"rewind": True}, events__keep_every=1)
    run(whole, tmp_path, listeners=(poison.start,))
    lines = [(line["event"], line["step"]) for line in events(tmp_path)]
    spike = lines.index(("guard", 13))
    assert lines[spike - 1] == ("step", 13) and lines[spike + 1] == ("step", 11), lines
    assert lines[-2:] == [("save", 16), ("end", 16)]
    # 13 steps were taken, the 14th was refused, and 6 more came after the rewind to step 10
    last = saved(tmp_path).state
    assert last["source"]["drawn"] == (13 + 1 + 6) * 4
    assert last["guard"]["window"] and len(last["guard"]["window"]) == 16
    steps = [line["step"] for line in events(tmp_path, "step")]
    assert steps == [*range(1, 14), *range(11, 17)]


def test_R2_rewinds_without_end_are_an_error(recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison = Poison(monkeypatch, lambda n, total: total * 30 if n >= 22 else total)
    whole = changed(recipe, budget__steps=16, guard={"rewind": True, "stop_after": 2})
    fault = refused("E-RUN-022", lambda: run(whole, tmp_path, listeners=(poison.start,)))
    assert "after step 10" in fault.where
    assert len(events(tmp_path, "guard")) == 3


# ---------------------------------------------------------------- G8: nothing to learn


def test_G8_a_batch_without_targets_is_logged_and_then_an_error(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PackedStream.next

    def masked(stream: PackedStream, turn: str) -> Batch:
        batch = plain(stream, turn)
        number = stream.drawn // stream.rows
        if number in (3, 4) or number > 12:  # all of step 1, and everything from step 6
            batch["target_BT"][:] = IGNORE
        return batch

    monkeypatch.setattr(PackedStream, "next", masked)
    fault = refused("E-RUN-021", lambda: run(changed(recipe, guard={"stop_after": 2}), tmp_path))
    assert "2 steps in a row" in fault.what and "groundup data show" in fault.fix
    guards = [(line["step"], line["kind"]) for line in events(tmp_path, "guard")]
    assert guards == [(1, "no_target"), (6, "no_target"), (7, "no_target")]


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_G8_the_ledger_of_a_run_adds_up(recipe: Options, tmp_path: Path, kind: str) -> None:
    run(recipe if kind == "text" else chat_recipe(chat_file(tmp_path)), tmp_path / "run")
    said = json.loads((tmp_path / "run" / "results.json").read_text())
    ledger = said["ledger"]["tokens"]
    assert ledger["seen"] == ledger["trained"] + ledger["masked"] + ledger["padded"] == said["tokens"]
    assert said["tokens"] == 12 * (128 if kind == "text" else 384)
    assert ledger["trained"] > 0 and (ledger["masked"] > 0) == (kind == "chat")
    last = events(tmp_path / "run", "step")[-1]
    assert (last["tokens"], last["seen"]) == (ledger["trained"], ledger["seen"])


# ---------------------------------------------------------------- R3, R4: before the first step


def test_R3_a_parameter_without_gradient_is_named(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LanguageWork.stand_in

    def with_a_dead_part(work: LanguageWork) -> Any:
        model: Any = real(work)
        model.layers[0].unused = torch.nn.Linear(3, 3)
        return model

    monkeypatch.setattr(LanguageWork, "stand_in", with_a_dead_part)
    fault = refused("E-RUN-031", lambda: run(recipe, tmp_path))
    assert "layers.0.unused.weight, layers.0.unused.bias" in fault.where and "2 trainable" in fault.what
    assert not (tmp_path / "events.jsonl").exists()


def test_R3_zero_gradients_count_as_none_and_frozen_parameters_do_not(recipe: Options, tmp_path: Path) -> None:
    model = initialised("llama", parts_of(recipe, tmp_path).options, torch.device("cpu"), seed=0)
    for name, parameter in model.named_parameters():
        parameter.grad = torch.zeros_like(parameter) if name == "norm.weight" else torch.ones_like(parameter)
    assert refused("E-RUN-031", lambda: require_gradients(model)).where == "norm.weight"
    model.norm.weight.requires_grad_(False)
    require_gradients(model)


def test_R3_the_shortest_context_is_no_false_alarm(recipe: Options, tmp_path: Path) -> None:
    for context in (2, 3, 4):
        whole = changed(recipe, data__context=context, budget={"steps": 1, "tokens_per_step": 8 * context})
        run(changed(whole, budget__micro_batch=8), tmp_path / str(context))


def large(recipe: Options) -> Options:
    """Activations of many gigabytes in one micro-batch of many rows."""
    sizes = {"width": 64, "layers": 4, "heads": 4, "context": 1024}
    budget = {"steps": 5, "tokens_per_step": 1024 * 64, "micro_batch": 64}
    return changed(recipe, model=sizes, data__context=1024, budget=budget)


def test_R4_out_of_memory_is_foreseen_and_the_knobs_named(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsing, "available_memory", lambda device: 10**9)
    fault = refused("E-RUN-030", lambda: run(large(recipe), tmp_path))
    assert "budget.micro_batch=32" in fault.fix and "hardware.recompute=true" in fault.fix
    assert "data.context=512" in fault.fix and "64 × context 1024" in fault.where
    assert not (tmp_path / "checkpoints").exists()


def test_R4_plan_foresees_it_and_fix_mends_it(recipe: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.run import plan as planning

    monkeypatch.setattr(planning, "available_memory", lambda device: 10**9)
    too_large = read_recipe(large(recipe))
    plan = foresee_plan(too_large)
    assert not plan.fits and "GB of memory are needed, 1.0 GB are free" in plan.lacking
    mended = fix(too_large)
    assert mended is not None
    fixed, fields = mended
    assert fields["budget.micro_batch"] == fixed.budget.micro_batch < 64
    assert foresee_plan(fixed).fits
    twice = {**fields, "budget.micro_batch": 2 * fields["budget.micro_batch"]}
    assert not foresee_plan(read_recipe(large(recipe), [f"{k}={json.dumps(v)}" for k, v in twice.items()])).fits


def test_R4_running_out_in_the_rehearsal_is_the_same_error(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: Any) -> Loss:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(NextToken, "loss", exhausted)
    assert "can't allocate memory" in refused("E-RUN-030", lambda: run(recipe, tmp_path)).where


def test_R4_more_memory_than_any_machine_has(recipe: Options) -> None:
    sizes = {"width": 32768, "layers": 12, "heads": 128}
    plan = foresee_plan(read_recipe(changed(recipe, model=sizes)))
    assert not plan.fits and plan.numbers["parameters"] > 10**11


# ---------------------------------------------------------------- R5: signals, on real processes


def start_command(recipe: Options, folder: Path, *more: str) -> subprocess.Popen[str]:
    file = folder / "recipe.yaml"
    file.write_text(dump(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "groundup", "train", str(file), "--out", str(folder / "run"), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def grown(process: subprocess.Popen[str], log: Path, lines: int) -> None:
    """Return once the log has this many lines; fails if the process ends before."""
    descriptor = os.pidfd_open(process.pid)
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while not (log.exists() and log.read_bytes().count(b"\n") >= lines):
        if waiting.poll(10):
            pytest.fail(process.communicate()[0])
    os.close(descriptor)


@pytest.fixture(scope="module")
def endless(recipe: Options) -> Options:
    """A run that nobody would wait for."""
    return changed(recipe, budget__steps=1_000_000, events={"log_every": 1, "save_every": 3, "evaluate_every": 0,
                                                            "sample_every": 0})  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_R5_a_signal_finishes_the_step_and_saves(endless: Options, tmp_path: Path, number: int, code: int) -> None:
    process = start_command(endless, tmp_path)
    grown(process, tmp_path / "run" / "events.jsonl", 6)
    process.send_signal(number)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    assert "Traceback" not in said and "--resume" in said
    end = events(tmp_path / "run")[-1]
    assert (end["event"], end["outcome"]) == ("end", "stopped")
    found = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert found.step == end["step"] > 0 and not found.rejected
    assert json.loads((tmp_path / "run" / "report.json").read_text())["outcome"] == "stopped"


def test_R5_the_second_ctrl_c_ends_at_once_with_the_last_good_intact(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe, tmp_path / "run")
    good = checkpoint.newest(tmp_path / "run" / "checkpoints").step
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(assembling.checkpoint, "save", lambda *arguments, **keywords: os._exit(77))
        with Stop().listening():
            signal.raise_signal(signal.SIGTERM)  # an earlier request to stop must not take the second away
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        os._exit(78)
    _, status = os.waitpid(child, 0)
    assert os.WEXITSTATUS(status) == 130
    assert checkpoint.newest(tmp_path / "run" / "checkpoints").step == good


def test_R5_two_interrupts_of_a_command(endless: Options, tmp_path: Path) -> None:
    process = start_command(changed(endless, events__save_every=2), tmp_path)
    grown(process, tmp_path / "run" / "events.jsonl", 8)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    found = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert found.step and not checkpoint.verify(found.path)


def test_R5_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Stop().listening() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "terminated"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# ---------------------------------------------------------------- R9, R10: the folder


@pytest.fixture
def begun(recipe: Options, tmp_path: Path) -> Path:
    """A run that was killed after its first checkpoint."""
    killed_run(recipe, tmp_path / "run", at("step", 7, kill))
    return tmp_path / "run"


ARCHITECTURE = [
    {"model__width": 32}, {"model__layers": 3}, {"seed": 2}, {"data__context": 16},
    {"optim": {"model": {"kind": "sgd"}}}, {"events__average": 0.9},
]  # fmt: skip


@pytest.mark.parametrize("change", ARCHITECTURE, ids=lambda change: next(iter(change)))
@pytest.mark.parametrize("accept", [False, True])
def test_R9_the_architecture_cannot_be_edited(
    recipe: Options, begun: Path, change: dict[str, Any], accept: bool
) -> None:
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    edited = changed(recipe, **change)
    fault = refused("E-RUN-003", lambda: run(edited, begun, resume=True, accept_changes=accept))
    assert fault.exit_code == 2 and next(iter(change)).replace("__", ".").split(".")[0] in fault.where
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before


def test_R9_other_edits_are_shown_and_need_a_word(recipe: Options, begun: Path) -> None:
    edited = changed(recipe, optim__model__learning_rate=0.002, budget__steps=14)
    fault = refused("E-RUN-004", lambda: run(edited, begun, resume=True))
    assert "0.01" in fault.where and "0.002" in fault.where and "budget.steps" in fault.where
    assert fault.exit_code == 2 and "--accept-changes" in fault.fix
    said: list[str] = []
    result = run(edited, begun, resume=True, accept_changes=True, say=said.append)
    assert result.steps == 14 and any("0.002" in line for line in said)
    assert events(begun, "step")[-1]["learning_rate"] < 0.002
    assert run(edited, begun, resume=True).steps == 14, "what was accepted is not asked again"
    refused("E-RUN-004", lambda: run(recipe, begun, resume=True))


def test_R9_the_resolved_recipe_is_the_same_recipe(recipe: Options, begun: Path) -> None:
    assert train(begun / "recipe.yaml", out=begun, resume=True).outcome == "finished"
    assert run(recipe, begun, resume=True).outcome == "finished"


def test_R10_a_second_run_in_a_folder_is_refused(recipe: Options, begun: Path) -> None:
    fault = refused("E-RUN-002", lambda: run(recipe, begun))
    assert "--resume" in fault.fix and fault.exit_code == 2
    with RunLock(begun):
        script = "import sys\nfrom groundup.cli.main import main\nsys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", script, "train", str(begun / "recipe.yaml"), "--out", str(begun)]
        done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 1 and "E-RUN-001" in done.stderr and str(os.getpid()) in done.stderr
    assert run(recipe, begun, resume=True).outcome == "finished"


# ---------------------------------------------------------------- R13, K2: what happens after a step


FAULTS = [RuntimeError("no"), ValueError("no"), GroundupError("E-EVAL-003", "no"), OSError(5, "no"), KeyError("no")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_R13_an_evaluation_that_raises_is_a_warning(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def failing(*arguments: Any, **keywords: Any) -> Any:
        raise fault

    monkeypatch.setattr(measuring, "evaluate_texts", failing)
    monkeypatch.setattr(measuring, "answers_of", failing)
    whole = changed(recipe, budget__steps=4, events__evaluate_every=2, events__sample_every=3)
    assert run(whole, tmp_path).outcome == "finished"
    warnings = [(line["step"], line["message"]) for line in events(tmp_path, "warning")]
    assert [step for step, _ in warnings] == [2, 3, 4]
    assert all("no" in message for _, message in warnings)
    assert warnings[0][1].startswith("evaluation failed") and warnings[1][1].startswith("sampling failed")


def test_K2_a_full_disk_at_a_save_ends_the_run_with_the_old_checkpoint_whole(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename
    renames = [0]

    def full(*arguments: Any, **keywords: Any) -> None:
        renames[0] += 1
        if renames[0] >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        real(*arguments, **keywords)

    monkeypatch.setattr(os, "rename", full)
    fault = refused("E-CKPT-002", lambda: run(recipe, tmp_path))
    monkeypatch.setattr(os, "rename", real)
    assert "step 10" in fault.what
    end = events(tmp_path)[-1]
    assert (end["outcome"], end["step"]) == ("failed", 10) and "E-CKPT-002" in end["reason"]
    found = checkpoint.newest(tmp_path / "checkpoints")
    assert found.step == 5 and not found.rejected
    run(recipe, tmp_path, resume=True)
    run(recipe, tmp_path / "straight")
    assert_same(outcome(tmp_path), outcome(tmp_path / "straight"))


def test_K2_a_disk_that_takes_nothing_more_does_not_hide_the_fault(
    recipe: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(log: EventLog, event: str, step: int, **fields: Any) -> None:
        if event == "end":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(EventLog, "write", full)
    Poison(monkeypatch, lambda n, total: total * math.nan).active = True
    fault = refused("E-RUN-020", lambda: run(recipe, tmp_path))
    assert "not finite" in fault.what


def test_a_lost_event_log_is_not_filled_with_zeros(recipe: Options, begun: Path) -> None:
    (begun / "events.jsonl").unlink()
    run(recipe, begun, resume=True)
    assert [line["step"] for line in events(begun, "step")] == list(range(6, 13))


# ---------------------------------------------------------------- R18, T4


def test_R18_tied_weights_are_saved_once_and_restored_tied(recipe: Options, tmp_path: Path) -> None:
    run(changed(recipe, budget__steps=5), tmp_path)
    folder = tmp_path / "checkpoints" / "step-000005"
    length = int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
    header = json.loads((folder / "model.safetensors").read_bytes()[8 : 8 + length])
    assert len([name for name in header if name in ("head.weight", "embedding.weight")]) == 1
    parts = parts_of(changed(recipe), tmp_path / "parts")
    state = assembling.new_state(parts)
    state.load_tensors(saved(tmp_path).tensors)
    assert state.module.head.weight is state.module.embedding.weight
    assert torch.equal(state.module.head.weight, saved(tmp_path).tensors["model"]["embedding.weight"])


def test_R18_frozen_parameters_have_no_optimizer_and_do_not_move(recipe: Options, tmp_path: Path) -> None:
    from groundup.optim.optimizer import Optimizer

    parts = parts_of(recipe, tmp_path)
    model = parts.network()
    model.layers[0].requires_grad_(False)
    optimizer = Optimizer(model, parts.recipe.optim["model"], steps=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step(1)
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) == name.startswith("layers.0."), name
    assert not [name for name in optimizer.state_dict() if name.startswith("layers.0.")]
    model.requires_grad_(False)
    refused("E-RUN-010", lambda: Optimizer(model, parts.recipe.optim["model"], steps=3))
    model.layers[1].requires_grad_(True)
    other = Optimizer(model, parts.recipe.optim["model"], steps=3)
    assert "layers.0" not in refused("E-RUN-011", lambda: other.load_state_dict(optimizer.state_dict())).where


def test_T4_data_of_another_tokenizer_is_refused_with_both_hashes(recipe: Options, tmp_path: Path) -> None:
    other = text_recipe(text_file(tmp_path, seed=5), tokenizer={"kind": "byte"}, budget__steps=1)
    run(other, tmp_path / "other")
    whole = changed(recipe, model={"init_from": str(tmp_path / "other")})
    fault = refused("E-DATA-090", lambda: run(whole, tmp_path / "run"))
    own = parts_of(recipe, tmp_path / "parts").tokenizer.digest
    theirs = parts_of(other, tmp_path / "parts-2").tokenizer.digest
    assert own[:12] in fault.where and theirs[:12] in fault.where and "--tokenizer" in fault.fix


# ---------------------------------------------------------------- R17: recipes that cannot be meant


BAD: list[tuple[str, Any, str]] = [
    # field, value, what the error must also say
    ("budget.steps", 0, "1"),
    ("budget.steps", -5, "1"),
    ("budget.steps", 2.5, "budget.steps"),
    ("budget.micro_batch", 0, "1"),
    ("budget.tokens_per_step", 0, "1"),
    ("budget.tokens_per_step", 100, "128"),
    ("optim.model.learning_rate", 0.0, "0"),
    ("optim.model.learning_rate", -1.0, "0"),
    ("optim.model.learning_rate", math.nan, "10"),
    ("optim.model.learning_rate", 1e9, "10"),
    ("optim.model.schedule", {"kind": "cosine", "warmup": 13}, "12"),
    ("optim.model.schedule", {"kind": "cosine", "warmup": -1}, "0"),
    ("optim.model.schedule", {"kind": "cosine", "decay": 0.5}, "cosine"),
    ("optim.model", {"kind": "sgd", "nesterov": True, "momentum": 0.0}, "momentum"),
    ("optim.critic", {"kind": "sgd"}, "critic"),
    ("optim.model.clip", 0.0, "0"),
    ("data.context", 1, "2"),
    ("model.context", 16, "32"),
    ("model.heads", 3, "16"),
    ("model.heads", 16, "16"),
    ("model.key_value_heads", 3, "2"),
    ("model.head_size", 5, "2"),
    ("model.width", 0, "1"),
    ("events.keep", 1, "2"),
    ("events.average", 1.0, "1"),
    ("events.early_stopping", {"metric": "accuracy"}, "bits_per_byte"),
    ("guard.stop_after", 0, "1"),
    ("guard.spike", 1.0, "1"),
    ("seed", -1, "0"),
    ("hardware.precision", "float16", "bfloat16"),
]  # fmt: skip


def spoiled(recipe: Options, field: str, value: Any) -> Options:
    with_stops = changed(recipe, events__evaluate_every=4)
    return changed(with_stops, **{field.replace(".", "__"): value})


@pytest.mark.parametrize(("field", "value", "says"), BAD, ids=[f"{field}={value}" for field, value, _ in BAD])
def test_R17_a_recipe_that_cannot_be_meant(recipe: Options, field: str, value: Any, says: str) -> None:
    with pytest.raises(GroundupError) as caught:
        read_recipe(spoiled(recipe, field, value))
    fault = caught.value
    text = str(fault)
    assert fault.code.startswith("E-RECIPE-") and fault.exit_code == 2
    assert fault.what and fault.where and fault.why and fault.fix
    leaf = "data.context" if field == "model.context" else field
    assert leaf.split(".")[0] in fault.where and says in text, text
    if not isinstance(value, dict) and "context" not in field:
        shown = "NaN" if isinstance(value, float) and math.isnan(value) else str(value)
        assert shown.lower() in text.lower(), text


def test_R17_all_faults_at_once_and_exit_code_2(recipe: Options, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    bad = changed(recipe, budget__steps=0, optim__model__learning_rate=1e9, model__heads=0, events__keep=1)
    file.write_text(dump(bad), encoding="utf-8")
    with pytest.raises(GroundupError) as caught:
        read_recipe(file)
    said = [caught.value, *caught.value.others]
    assert len(said) == 4 and all(fault.exit_code == 2 for fault in said)
    together = changed(recipe, model__heads=3, budget__tokens_per_step=100, guard={"rewind": True})
    file.write_text(dump(changed(together, events__save_every=0)), encoding="utf-8")
    command = [sys.executable, "-m", "groundup", "train", str(file), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for code in ("E-RECIPE-032", "E-RECIPE-037", "E-RECIPE-030"):
        assert code in done.stderr
    assert not (tmp_path / "run").exists()


def test_R17_a_step_of_half_a_micro_batch_is_refused_wherever_the_context_comes_from(recipe: Options) -> None:
    derived = changed(recipe, data__context=None, model__context=32, budget__tokens_per_step=96)
    fault = refused("E-RECIPE-037", lambda: read_recipe(derived))
    assert "budget.tokens_per_step" in fault.where


def test_R17_a_step_of_half_a_micro_batch_is_refused_for_the_context_of_another_run(
    recipe: Options, tmp_path: Path
) -> None:
    run(changed(recipe, budget__steps=1), tmp_path / "base")
    after = changed(recipe, data__context=None, model={"init_from": str(tmp_path / "base")})
    fault = refused("E-RECIPE-037", lambda: run(changed(after, budget__tokens_per_step=96), tmp_path / "run"))
    assert "64" in fault.what and fault.exit_code == 2
