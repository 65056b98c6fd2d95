"""From a run folder to a `RunRecord`: everything the report knows, read once, in one pass over the events.

No number is computed or rounded here; that is `summary.py`. Nothing is drawn here; that is the page.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.report.reading import (
    mapping,
    mappings,
    number,
    read_lines,
    read_object,
    read_text,
    read_yaml,
    text_of,
)

MEASURED = ("step", "tokens", "seen", "loss", "bits_per_byte", "learning_rate", "gradient_norm")
STEP_PARTS = ("data_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds")
CLOCKED = ("seconds", "tokens_per_second", "ceiling_share", "memory_bytes")
COLUMNS = (*MEASURED, *CLOCKED, *STEP_PARTS)
MOST_INCIDENTS = 400
LONGEST_UNIT = 20
MOST_EXAMPLES = 5
REPEATED = "step records were repeated by later ones, which count"
UNNUMBERED = "step records have no step number and were left out"
RUN_FILES = ("events.jsonl", "recipe.yaml", "results.json", "plan.json", "sessions.jsonl")


@dataclass
class Quarantine:
    """What `data/quarantine.jsonl` holds: how many rows were set aside, why, and a few to look at."""

    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class RunRecord:
    """A run as its folder tells it. Missing files leave their field empty; `notes` says what was unreadable.

    `columns` holds one array of float64 per quantity of the step events, all of equal length, NaN where a
    step recorded none: steps, trained tokens, seconds, nats per target and so on, named as in the events.
    """

    name: str
    folder: Path
    title: str = ""
    columns: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in COLUMNS})
    start: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    incidents: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    times: list[str] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=Quarantine)
    plan: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    source_text: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stages: list[RunRecord] = field(default_factory=list)

    @property
    def data_kind(self) -> str:
        """What the run learned from, as its recipe says: text, chat, labelled, table, images, pairs, environment."""
        return text_of(mapping(self.recipe.get("data")).get("kind"))

    @property
    def unit(self) -> str:
        """What the ledger counts: tokens or rows; "units" for stages that count different things.

        The steps of a translator are made of pairs, its ledger counts their tokens.
        """
        if self.stages and not self.start:
            units = {stage.unit for stage in self.stages}
            return units.pop() if len(units) == 1 else "units"
        said = text_of(self.start.get("unit"))
        return said if said.isalpha() and len(said) <= LONGEST_UNIT else "tokens"

    def last(self, column: str) -> float:
        """The latest recorded value of a column, NaN if there is none."""
        return next((value for value in reversed(self.columns[column]) if not math.isnan(value)), math.nan)

    def at_step(self, column: str, step: float) -> float:
        """The value of a growing column (tokens, seconds) at a step, interpolated; 0 before the first."""
        if column == "step" or math.isnan(step):
            return step
        steps, values = self.columns["step"], self.columns[column]
        right = bisect_left(steps, step)
        if right == len(steps):
            return values[-1] if values else math.nan
        before_step, before = (steps[right - 1], values[right - 1]) if right else (0.0, 0.0)
        span = steps[right] - before_step
        return before + (values[right] - before) * ((step - before_step) / span if span else 1.0)


def collect(folder: Path | str, *, title: str = "", stages: list[Path] | None = None) -> RunRecord:
    """Read a run folder.

    Args:
        folder: the run folder; any of its files may be missing, cut or broken.
        title: what the report is called; the folder's name by default.
        stages: run folders that this folder sums up, in the order in which they ran.
    """
    folder = Path(folder)
    name = folder.name or folder.resolve().name
    record = RunRecord(name=name, folder=folder, title=title or name)
    notes = record.notes
    for event in read_lines(folder / "events.jsonl", notes):
        take_event(record, event)
    for fault in (REPEATED, UNNUMBERED):
        if count := record.counts.pop(fault, 0):
            notes.append(f"events.jsonl: {count} {fault}")
    record.sessions = list(read_lines(folder / "sessions.jsonl", notes))
    record.cards, record.quarantine = read_data(folder / "data", notes)
    record.plan = read_object(folder / "plan.json", notes)
    record.results = read_object(folder / "results.json", notes)
    record.model = read_object(folder / "model" / "model.json", notes)
    record.recipe_text = read_text(folder / "recipe.yaml", notes)
    record.source_text = read_text(folder / "recipe.source.yaml", notes)
    record.recipe = read_yaml(record.recipe_text, "recipe.yaml", notes)
    record.stages = [collect(stage) for stage in stages or []]
    return record


def is_run(folder: Path) -> bool:
    """Whether a folder is a run: it holds one of a run's files and is no checkpoint or model folder."""
    if (folder / "manifest.json").exists() or (folder / "state.json").exists():
        return False
    return any((folder / name).is_file() for name in RUN_FILES)


def take_event(record: RunRecord, event: dict[str, Any]) -> None:
    """Put one line of the events where it belongs."""
    kind = text_of(event.get("event"))
    clock = event.get("clock")
    clock = clock if isinstance(clock, dict) else {}
    record.counts[kind] += 1
    time = clock.get("time")
    if isinstance(time, str):
        record.times[1:] = [time]  # the first and the latest
    if kind == "step":
        take_step(record, event, clock)
    elif kind == "evaluate":
        record.evaluations.append(event)
    elif kind == "sample":
        record.samples.append(event)
    elif kind == "start":
        record.start = event
    else:
        if kind == "end":
            record.end = event
        record.incidents.append(event)
        if len(record.incidents) > MOST_INCIDENTS:  # keep the oldest half and the newest ones
            del record.incidents[MOST_INCIDENTS // 2]


def take_step(record: RunRecord, event: dict[str, Any], clock: dict[str, Any]) -> None:
    """Append one step to the columns; a step that was done again replaces the first try."""
    step = number(event.get("step"))
    if not math.isfinite(step):
        record.counts[UNNUMBERED] += 1
        return
    steps = record.columns["step"]
    if steps and step <= steps[-1]:
        first = bisect_left(steps, step)
        record.counts[REPEATED] += len(steps) - first
        for values in record.columns.values():
            del values[first:]
    for name in MEASURED:
        record.columns[name].append(number(event.get(name)))
    for name in (*CLOCKED, *STEP_PARTS):
        record.columns[name].append(number(clock.get(name)))


def read_data(folder: Path, notes: list[str]) -> tuple[dict[str, dict[str, Any]], Quarantine]:
    """The data cards by the name of their source ("" for the only one), and all set-aside rows together."""
    cards: dict[str, dict[str, Any]] = {}
    found = Quarantine()
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        below = []
    for place in (folder, *below):
        card = read_object(place / "card.json", notes)
        if card:
            cards["" if place == folder else place.name] = card
        for row in read_lines(place / "quarantine.jsonl", notes):
            found.rows += 1
            found.reasons[text_of(row.get("reason"))[:200] or "no reason recorded"] += 1
            if len(found.examples) < MOST_EXAMPLES:
                found.examples.append(row)
    return cards, found


def interval(event: dict[str, Any], metric: str) -> tuple[float, float]:
    """The interval of one metric of an evaluate event; NaN where there is none."""
    bounds = mapping(event.get("intervals")).get(metric)
    if isinstance(bounds, list) and len(bounds) == 2:
        return number(bounds[0]), number(bounds[1])
    return math.nan, math.nan


def evaluations_of(record: RunRecord) -> list[dict[str, Any]]:
    """The rows {stage, data, metric, before, after, low, high} of a run or of all its stages.

    They come from `results.json`; without one (a run that crashed) the first and the latest evaluation of
    the events stand in for it.
    """
    rows = mappings(record.results.get("evaluations"))
    if rows:
        return rows
    if record.stages:
        return [row for stage in record.stages for row in evaluations_of(stage)]
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for event in record.evaluations:
        data = text_of(event.get("data"))
        for metric, value in mapping(event.get("metrics")).items():
            low, high = interval(event, metric)
            row = first.get((data, metric))
            if row is None:
                first[data, metric] = row = {
                    "stage": record.name,
                    "data": data,
                    "metric": metric,
                    "before": None,
                }
            else:
                row["before"] = row["first"]
            row.setdefault("first", value)
            row.update(after=value, low=low, high=high)
    return [{key: value for key, value in row.items() if key != "first"} for row in first.values()]
