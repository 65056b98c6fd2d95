"""What lies on disk below a folder of runs, for the page of the server: runs, prepared data, models.

Things are found by walking the folder and named by ids; what is asked for is looked up among what was found, so no
request can name a path. Nothing is written here, and no link that leads outside is followed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.checkpoint.lock import LOCK, is_abandoned
from groundup.report import collect, compare, find_runs, is_run, render, stages_of, summarize
from groundup.report.reading import known, mapping, mappings, read_object, read_text
from groundup.report.runs import recent_summary
from groundup.report.summary import headline, plain
from groundup.run.library_data import PreparedData
from groundup.run.library_events import read_piece
from groundup.run.library_memory import Memory, stamp
from groundup.run.library_models import ModelFolders
from groundup.run.library_places import id_of, leads_outside, name_below, unknown
from groundup.serving.library import (
    DataDetail,
    DataLine,
    EventsPiece,
    Json,
    ModelLine,
    QuarantinePage,
    RowsPage,
    RunDetail,
    RunLine,
    RunsFolder,
)

LIVE_SECONDS = 120.0
LISTING_SECONDS = 1.0
WATCHED = ("events.jsonl", "results.json", "sessions.jsonl", "report.json", "recipe.yaml", "plan.json")
CLASSIFICATION = ("data", "rows", "labels", "confusion", "curves", "calibration", "selective", "per_label", "headline")
"""What the page draws of a classifier; the report has the rest."""


@dataclass
class _Listing:
    """What a walk found, by id: run folders, with the name of each below the root."""

    until: float = 0.0
    runs: dict[str, Path] = field(default_factory=dict)


class RunsLibrary:
    """Answers the page from a folder of runs; see groundup.serving.library.Library.

    Args:
        runs: the folder below which runs are looked for, and models that no run made; it may come into being later.
        data: folders that are prepared data, or hold some.
        models: models, or folders that hold some.
        beside: one more folder of models, where `groundup import` is told to put them; there may be none.
    """

    def __init__(
        self, runs: Path, *, data: Sequence[Path] = (), models: Sequence[Path] = (), beside: Path = Path("models")
    ) -> None:
        self.root = runs
        self._listing = _Listing()
        self._lock = threading.Lock()
        self._summaries: Memory[Json] = Memory()
        self._reports: Memory[str] = Memory(most=8)
        self._data = PreparedData(runs, data)
        self._models = ModelFolders(runs, (*models, beside))

    def folder(self) -> RunsFolder:
        return RunsFolder(path=str(self.root.absolute()), exists=self.root.is_dir())

    def runs(self) -> list[RunLine]:
        """Every run, the latest first; a run with a link that leads outside the folder is left out."""
        lines = [self._line(id, folder) for id, folder in self._folders().items()]
        return sorted(lines, key=lambda line: (line.started or "", line.name), reverse=True)

    def run(self, id: str) -> RunDetail:
        folder = self._folder(id)
        results = read_object(folder / "results.json", [])
        found = [one for name in ("classification", "multilabel") for one in _as_list(results.get(name))]
        return RunDetail(
            line=self._line(id, folder),
            summary=self._summary(folder),
            recipe=read_text(folder / "recipe.yaml", []),
            classification=[plain({name: one[name] for name in CLASSIFICATION if name in one}) for one in found[:4]],
            data=[line.id for line in self.data() if line.run == id],
            model=next((line.id for line in self.models() if line.lineage.get("run_id") == id), None),
        )

    def events(self, id: str, after: int, mark: str) -> EventsPiece:
        return read_piece(self._folder(id) / "events.jsonl", after, mark)

    def report(self, id: str) -> str:
        folder = self._folder(id)
        return self._reports.get(folder, _state_of(folder), lambda: render(collect(folder, stages=stages_of(folder))))

    def compare(self, first: str, second: str) -> Json:
        found: Json = plain(compare(self._folder(first), self._folder(second)).as_dict())
        return found

    def data(self) -> list[DataLine]:
        return self._data.lines(self._folders())

    def prepared(self, id: str) -> DataDetail:
        return self._data.detail(id, self._folders())

    def rows(self, id: str, part: str, start: int, count: int, search: str) -> RowsPage:
        return self._data.rows(id, self._folders(), part, start, count, search)

    def quarantine(self, id: str, after: int, count: int, reason: str, search: str) -> QuarantinePage:
        return self._data.quarantine(id, self._folders(), after, count, reason, search)

    def models(self) -> list[ModelLine]:
        return self._models.lines(self._folders(), self._summary)

    def _folders(self) -> dict[str, Path]:
        """The run folders by id, looked for anew after a second."""
        with self._lock:
            if time.monotonic() >= self._listing.until:
                self._listing = _Listing(time.monotonic() + LISTING_SECONDS, self._walk())
            return self._listing.runs

    def _walk(self) -> dict[str, Path]:
        if not self.root.is_dir():
            return {}
        root = self.root.resolve()
        return {
            id_of(name_below(path, self.root)): path for path in find_runs(self.root) if not leads_outside(path, root)
        }

    def _folder(self, id: str) -> Path:
        folder = self._folders().get(id)
        if folder is None:
            raise unknown("run", id)
        return folder

    def _summary(self, folder: Path) -> Json:
        return self._summaries.get(
            folder,
            _state_of(folder),
            lambda: recent_summary(folder) or summarize(collect(folder, stages=stages_of(folder))),
        )

    def _line(self, id: str, folder: Path) -> RunLine:
        summary = self._summary(folder)
        row = headline(summary) or {"metric": None, "after": mapping(summary["final"]).get("loss")}
        return RunLine(
            id=id,
            name=name_below(folder, self.root),
            path=str(folder),
            outcome=str(summary["outcome"]),
            live=summary["outcome"] == "unfinished" and is_live(folder),
            steps=known(summary["steps"]),
            steps_planned=known(summary.get("steps_planned")),
            unit=str(summary["unit"]),
            tokens=known(summary["tokens"]),
            metric=row["metric"],
            value=known(row["after"]),
            low=known(row.get("low")),
            high=known(row.get("high")),
            seconds=known(summary["seconds"]),
            started=str(summary["started"]) if summary["started"] else None,
            stages=len(mappings(summary.get("stages"))),
        )


def _state_of(folder: Path) -> tuple[object, ...]:
    """Sizes and times of the files that a summary is made of, those of stages directly below included."""
    try:
        below = [] if (folder / "events.jsonl").exists() else [path for path in folder.iterdir() if is_run(path)]
    except OSError:
        below = []
    return tuple(stamp(place / name) for place in (folder, *sorted(below)) for name in WATCHED)


def is_live(folder: Path) -> bool:
    """Whether a run without an end is still being written: lately, and not by a process of this machine that died."""
    return not is_abandoned(folder / LOCK) and _age(folder / "events.jsonl") < LIVE_SECONDS


def _age(path: Path) -> float:
    """Seconds since a file was written to; infinite if there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _as_list(value: Any) -> list[Json]:
    return [mapping(value)] if isinstance(value, dict) else mappings(value)
