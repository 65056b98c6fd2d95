"""What the page asks about runs, prepared data and models on disk: the questions, and the shapes of the answers.

Whoever puts the server together hands in an object that answers them. Things are named by ids out of a listing; no
path ever comes from a request. Nothing is read from a disk here, and nothing about HTTP enters this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Json = dict[str, Any]
"""A JSON object: numbers are finite, unknown ones None."""

RowSource = Literal["stored", "recipe", "none"]
"""Where the rows of a prepared set come from: they lie beside the card; the recipe's files are read again; nowhere."""


@dataclass(frozen=True, kw_only=True)
class RunsFolder:
    """Where runs are looked for: the whole path, and whether there is such a folder yet."""

    path: str
    exists: bool


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """One run in a list.

    name: its path below the folder of runs; path: as the command line takes it.
    live: it has not ended and was written to within the last two minutes.
    tokens: what it learned from, counted in `unit`; value, low, high: its leading metric with its interval.
    seconds: of training; started: ISO time.
    """

    id: str
    name: str
    path: str
    outcome: str
    live: bool
    steps: float | None
    steps_planned: float | None
    unit: str
    tokens: float | None
    metric: str | None
    value: float | None
    low: float | None
    high: float | None
    seconds: float | None
    started: str | None
    stages: int = 0


@dataclass(frozen=True, kw_only=True)
class RunDetail:
    """Everything about one run but its events.

    summary: the content of report.json; recipe: the resolved recipe as text; classification: for each measured set
    of a classifier its labels, confusion [[truth, prediction, rows]], curves, calibration, per_label and headline.
    data, model: ids of what lies in the run's folder, None where there is none.
    """

    line: RunLine
    summary: Json
    recipe: str
    classification: list[Json]
    data: list[str]
    model: str | None


@dataclass(frozen=True, kw_only=True)
class EventsPiece:
    """Some of a run's events, from a byte of its file on.

    steps: a column for each quantity of the step events, equally long, None where a step recorded none.
    events: all others, in order. next: the byte to ask from next; size: bytes of the file now.
    mark: what stands before `next`, to be given back with it; reset: the file no longer holds what was read before
    (a resumed run was cut back), so this piece begins at its start.
    unreadable: broken lines left out; thinned: of a long file, only some of the steps are here.
    """

    steps: dict[str, list[float | None]]
    events: list[Json]
    next: int
    size: int
    mark: str
    reset: bool = False
    unreadable: int = 0
    thinned: bool = False


@dataclass(frozen=True, kw_only=True)
class DataLine:
    """One prepared set: the documents or rows that were kept and set aside, and how many are in each part."""

    id: str
    name: str
    path: str
    kind: str
    run: str | None
    recipe: str | None
    rows: RowSource
    kept: float | None
    set_aside: float | None
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataDetail:
    """A set with its card; reasons: why rows were set aside, and how many for each."""

    line: DataLine
    card: Json
    reasons: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row as a model reads it. ids, tokens and learned are equally long; `cut`: tokens beyond those shown.

    A row of a table or an image has `cells` under `headers` instead, and an answer.
    """

    number: int
    text: str = ""
    place: str = ""
    answer: str = ""
    ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)
    cut: int = 0
    headers: list[str] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RowsPage:
    """Rows of one part.

    next: the row to ask from next, None at the end.
    total: how many rows the part has; None if it has no end.
    within: only so many of them, from the first on, are shown and searched; None: all.
    found: how many of these hold the text that was searched; None if none was, or if they are too many to be counted.
    """

    rows: list[Row]
    next: int | None
    total: int | None
    within: int | None = None
    found: int | None = None
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QuarantinePage:
    """Rows that were set aside, as they were recorded; next: the byte to ask from next, None at the end."""

    rows: list[Json]
    next: int | None


@dataclass(frozen=True, kw_only=True)
class ModelLine:
    """A model on disk. lineage: run, data, base, steps, outcome, as far as known; fault: why it cannot be read."""

    id: str
    name: str
    path: str
    kind: str = ""
    family: str = ""
    parameters: int | None = None
    bytes: int | None = None
    types: dict[str, int] = field(default_factory=dict)
    digest: str | None = None
    labels: list[str] = field(default_factory=list)
    lineage: Json = field(default_factory=dict)
    options: Json = field(default_factory=dict)
    fault: str = ""


class Library(Protocol):
    """Answers the page. Calls block and may come from several threads at once.

    Every method that takes an id raises GroundupError E-SERVE-041 if the listing does not have it.
    """

    def folder(self) -> RunsFolder:
        """The folder of runs, which may come into being later."""
        ...

    def runs(self) -> list[RunLine]:
        """Every run, the latest first."""
        ...

    def run(self, id: str) -> RunDetail: ...

    def events(self, id: str, after: int, mark: str) -> EventsPiece:
        """A bounded piece of the events from byte `after` on; see EventsPiece."""
        ...

    def report(self, id: str) -> str:
        """The report as a whole HTML page, made anew from the run's files."""
        ...

    def compare(self, first: str, second: str) -> Json:
        """What `groundup runs --compare` says of two runs."""
        ...

    def data(self) -> list[DataLine]:
        """Every prepared set, in the order of their names."""
        ...

    def prepared(self, id: str) -> DataDetail: ...

    def rows(self, id: str, part: str, start: int, count: int, search: str) -> RowsPage:
        """Rows of a part ("" for the first) from row `start` on; `search`: only those that hold this text.

        Raises:
            GroundupError: E-SERVE-042 the rows would have to be read from files outside the folders served; what the
                data room raises for damaged data.
        """
        ...

    def quarantine(self, id: str, after: int, count: int, reason: str, search: str) -> QuarantinePage:
        """Rows that were set aside from byte `after` of their file on, filtered by reason and text."""
        ...

    def models(self) -> list[ModelLine]:
        """Every model on disk, served or not, in the order of their names."""
        ...
