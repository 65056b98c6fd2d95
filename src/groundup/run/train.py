"""A run from a recipe: folder and lock, data, rehearsal, loop, final model, results, report."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import groundup
from groundup import checkpoint
from groundup.checkpoint import RunLock
from groundup.compiled import training
from groundup.engine.events import SURVIVABLE, EventLog, Listener
from groundup.engine.loop import Run, train
from groundup.engine.stop import EXIT_CODES, Stop
from groundup.errors import GroundupError
from groundup.machine.memory import PeakMemory, release_memory
from groundup.recipe import digest, to_yaml
from groundup.recipe.resolve import resolve_steps
from groundup.recipe.tree import Recipe
from groundup.run.assemble import (
    RECIPE_FILE,
    SOURCE_FILE,
    Saver,
    accumulate,
    assemble,
    restore,
)
from groundup.run.gather import gather
from groundup.run.hardware import computing, settle
from groundup.run.plan import plan_of
from groundup.run.rehearse import ENOUGH_SECONDS, rehearse
from groundup.run.results import Scores, evaluations
from groundup.run.resume import reconcile, require_same_base
from groundup.run.tracking import Trackers
from groundup.run.work import Say, Work
from groundup.tracking import require_installed

BEFORE_FILE, RESULTS_FILE, PLAN_FILE = "before.json", "results.json", "plan.json"
Finished = Callable[[Work, torch.nn.Module], None]
"""Called with the work and the final model of a run once its results are written."""


@dataclass
class Result:
    """How a run ended."""

    folder: Path
    outcome: str
    steps: int
    seconds: float
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = 0


def train_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    command: Sequence[str] = (),
    stage: str = "train",
    listeners: tuple[Listener, ...] = (),
    finished: Finished = lambda work, model: None,
    say: Say = lambda line: None,
) -> Result:
    """Run a checked recipe in `folder`.

    Args:
        recipe: checked; a resume compares it with the one that the run began with.
        folder: the run folder; new or empty, unless `resume`.
        resume: go on from the newest whole checkpoint (from the beginning if there is none).
        accept_changes: resume although fields of the recipe changed (never its architecture).
        command: the command line, for the report.
        stage: what the evaluations of this run are called.
        listeners: called with every line of events.jsonl as it is written.
        finished: called at the end of a run that came to its end.
        say: receives lines of progress before training begins.

    Raises:
        GroundupError: any fault of recipe, data, machine or run.
    """
    if not resume and (folder / RECIPE_FILE).exists():
        raise GroundupError(
            "E-RUN-002",
            "the folder already holds a run",
            where=str(folder),
            why="a second run would write over its checkpoints and events",
            fix="add --resume to go on with it, or choose another folder with --out DIR",
            exit_code=2,
        )
    require_installed(recipe.events.track)
    with RunLock(folder) as lock:
        if lock.note:
            say(lock.note)
        work = _begin(recipe, folder, resume=resume, accept_changes=accept_changes, say=say)
        _note_session(folder, command, resume)
        how: dict[str, Any] = {"command": command, "stage": stage, "listeners": listeners, "finished": finished}
        with computing(work):
            return _run(work, folder, resume=resume, say=say, **how)


def _begin(recipe: Recipe, folder: Path, *, resume: bool, accept_changes: bool, say: Say) -> Work:
    """Prepare the data and settle every number; writes the recipes and the plan of a new run."""
    settled: Recipe | None = None
    if resume and (folder / RECIPE_FILE).exists():
        settled = reconcile(recipe, folder, accept_changes=accept_changes, say=say)
    ahead = threading.Thread(target=_get_ready, args=(settled or recipe,), name="groundup-ready")
    ahead.start()
    try:
        work = gather(settled or recipe, folder, say=say)
    finally:
        ahead.join()
    if settled is not None and settled.budget.steps is not None:
        work.recipe = resolve_steps(work.recipe, rows_per_epoch=work.rows_per_epoch, seconds_per_step=1.0)
    else:
        work.recipe = settle(work)
        # a budget in minutes is turned into steps by this timing; otherwise it only feeds the plan
        timing = ENOUGH_SECONDS if work.recipe.budget.minutes is not None else ENOUGH_SECONDS / 4
        with computing(work):
            rehearsal = rehearse(work, seconds=timing)
            seconds = rehearsal.step(accumulate(work.recipe))
            process = release_memory()  # now with the libraries that a step loads
            work.recipe = resolve_steps(work.recipe, rows_per_epoch=work.rows_per_epoch, seconds_per_step=seconds)
            write_json(folder / PLAN_FILE, {"predicted": plan_of(work, seconds, process, rehearsal.peak)})
    if settled is None or accept_changes:
        # The given recipe first: without the resolved one a killed start counts as none.
        write_whole(folder / SOURCE_FILE, to_yaml(recipe))
    write_whole(folder / RECIPE_FILE, to_yaml(work.recipe))
    return work


def _get_ready(recipe: Recipe) -> None:
    """What takes seconds and waits for no data: a machine makes the compiled functions once."""
    if not recipe.counts_rows and recipe.hardware.kernels != "plain":
        training.why_not()


def _run(
    work: Work,
    folder: Path,
    *,
    resume: bool,
    command: Sequence[str],
    stage: str,
    listeners: tuple[Listener, ...],
    finished: Finished,
    say: Say,
) -> Result:
    stop = Stop()
    with stop.listening(), PeakMemory(work.device) as memory, Trackers() as trackers:
        run, log, save = assemble(work, folder, listeners=listeners, stop=stop)
        try:
            resumed = resume and _resume(run, save, folder, say)
            if not resumed:
                log.cut(0)
            trackers.follow(log, work.recipe, folder)
            if not resumed:
                _log_start(log, work, run)
            before = _before(run, work, folder)
            outcome = _train_on(run, folder)
        except GroundupError as error:
            with suppress(OSError):  # a full disk must not hide what went wrong
                log.write("end", run.state.step, outcome="failed", reason=str(error))
                _finish(run, work, folder, "failed", command, memory, None)
            raise
        if outcome in EXIT_CODES:
            save(planned=False)
            log.write("end", run.state.step, outcome="stopped", reason=outcome)
            _finish(run, work, folder, "stopped", command, memory, None)
            return Result(folder, "stopped", run.state.step, run.state.seconds, exit_code=EXIT_CODES[outcome])
        _final_weights(run)
        after = work.score(run.state.module, final=True)
        found = evaluations(stage, before, after, work.metric_names)
        save()
        checkpoint.save_model(folder / "model", tensors=work.kept_tensors(run.state.module), files=work.small_files())
        log.write("end", run.state.step, outcome=outcome, reason="")
        _finish(run, work, folder, outcome, command, memory, found)
        finished(work, run.state.module)
        return Result(folder, outcome, run.state.step, run.state.seconds, found)


def _resume(run: Run, save: Saver, folder: Path, say: Say) -> bool:
    """Put the run back to its newest whole checkpoint; False if it has none yet."""
    found = checkpoint.newest(folder / "checkpoints")
    for path, problems in found.rejected:
        say(f"checkpoint {path.name} is not whole ({problems[0].file}: {problems[0].what}); going back")
    if found.path is None:
        say("no whole checkpoint yet: starting from the beginning")
        return False
    saved = checkpoint.load(found.path)
    require_same_base(saved.files, save.files(), found.path)
    restore(run, saved)
    save.resumed(saved, found.path)
    save.log.replay_start()
    say(f"resuming after step {found.step}")
    return True


def _train_on(run: Run, folder: Path) -> str:
    """The loop, started again after every rewind. What happened until the spike stays in the log, and the
    rows that led to it are not seen again."""
    rewinds: Counter[int] = Counter()
    while (outcome := train(run)) == "rewind":
        source = run.state.source.state_dict()
        found = checkpoint.newest(folder / "checkpoints")
        if found.path is not None:
            restore(run, checkpoint.load(found.path))
        run.state.source.load_state_dict(source)
        run.guard.rewind_wanted = False
        rewinds[run.state.step] += 1
        if rewinds[run.state.step] > run.guard.options.stop_after:
            raise GroundupError(
                "E-RUN-022",
                f"the loss spiked again after each of {run.guard.options.stop_after} rewinds to one place",
                where=f"after step {run.state.step}",
                why="other rows did not help, so the rows are not the cause",
                fix="lower optim.model.learning_rate, raise guard.spike, or set guard.rewind=false",
            )
    return outcome


def _final_weights(run: Run) -> None:
    """Early stopping hands out the best weights, an average its averaged ones; else they are the last."""
    state = run.state
    if state.best:
        state.module.load_state_dict(state.best, strict=False)
    elif state.average is not None:
        with torch.no_grad():
            for name, parameter in state.average.live.items():
                parameter.copy_(state.average.shadow[name])


def _before(run: Run, work: Work, folder: Path) -> Scores:
    """What the model scored before its first step; kept in a file, so that a resume knows it too."""
    path = folder / BEFORE_FILE
    if run.state.step or path.exists():
        try:
            return Scores.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return Scores({})
    scores = work.score(run.state.module, final=work.init_from is not None)
    write_json(path, scores.as_dict())
    return scores


def _log_start(log: EventLog, work: Work, run: Run) -> None:
    recipe = work.recipe
    log.write(
        "start",
        0,
        recipe_digest=digest(recipe),
        steps=recipe.budget.steps,
        parameters=sum(part["parameters"] for part in work.parameter_parts()),
        trainable=sum(p.numel() for p in run.state.module.parameters() if p.requires_grad),
        unit=work.unit,
        units_per_step=round(recipe.rows_per_step * work.units_per_row),
        precision=work.precision,
        compile=recipe.hardware.compile,
        kernels=recipe.hardware.kernels,
        save_every=recipe.events.save_every,
    )


def _finish(
    run: Run,
    work: Work,
    folder: Path,
    outcome: str,
    command: Sequence[str],
    memory: PeakMemory,
    found: list[dict[str, Any]] | None,
) -> None:
    """results.json: what the report is made from, beside the events."""
    ledger = run.state.source.state_dict()["ledger"]
    module = run.state.module
    write_json(
        folder / RESULTS_FILE,
        {
            "outcome": outcome,
            "command": shlex.join(command),
            "recipe_digest": digest(work.recipe),
            "steps": run.state.step,
            "tokens": ledger["seen"],
            "seconds": run.state.seconds,
            "measured": {"memory_bytes": memory.peak, "seconds": run.state.seconds},
            "ledger": {"data": work.data_ledger(), "tokens": {**ledger, "cut": work.cut_units}},
            "hardware": work.hardware(folder),
            "evaluations": found or [],
            "preset_difference": work.preset_difference(),
            "samples": _samples(work, module) if found is not None else [],
            "trainable": trainable_share(module),
            **(work.results(module) if found is not None else {}),
        },
    )


def _samples(work: Work, module: torch.nn.Module) -> list[dict[str, str]]:
    """The last samples; one that cannot be made costs no finished run."""
    try:
        return work.samples(module)
    except SURVIVABLE:
        return []


def trainable_share(module: torch.nn.Module) -> dict[str, int]:
    """Parameters that are trained and those that stand still, by number and by bytes."""
    trained = [p for p in module.parameters() if p.requires_grad]
    frozen = [p for p in module.parameters() if not p.requires_grad]
    stored = [b for name, b in module.named_buffers() if name in module.state_dict()]
    return {
        "trained": sum(p.numel() for p in trained),
        "frozen": sum(p.numel() for p in frozen),
        "trained_bytes": sum(p.nbytes for p in trained),
        "frozen_bytes": sum(p.nbytes for p in [*frozen, *stored]),
    }


def _note_session(folder: Path, command: Sequence[str], resume: bool) -> None:
    """One line for each process that worked here."""
    line = {
        "kind": "resume" if resume else "start",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "pid": os.getpid(),
        "host": platform.node(),
        "command": shlex.join(command),
        "groundup": groundup.__version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    with (folder / "sessions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_json(path: Path, value: Any) -> None:
    """Write a small JSON file whole or not at all."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a small text file whole or not at all: a kill in between must not leave half a recipe."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
