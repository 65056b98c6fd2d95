"""Prepared data for the page: the sets below runs and named folders, their cards, rows and quarantine.

Rows that lie beside a card as tokens are paged through where they lie. Those of a conversation, a table or images are
not stored: the recipe's files are read again as training read them, but only if they lie where the server may look.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.data.corpus import CARD, QUARANTINE
from groundup.report.reading import known, mapping, parse_json, read_object, read_text, read_yaml, text_of
from groundup.report.summary import plain
from groundup.run.library_memory import Memory, stamp
from groundup.run.library_places import id_of, leads_outside, name_below, unknown
from groundup.run.library_rows import RecipeRows, StoredRows
from groundup.serving.library import DataDetail, DataLine, Json, QuarantinePage, RowSource, RowsPage

SCANNED = 16 << 20
"""Bytes of a quarantine that one answer looks through."""
LONGEST = 1 << 20
DEEPEST = 3
STORED = ("tokens", "clean")
RECIPE_KINDS = ("chat", "labelled", "table", "images", "pairs", "environment", "game")
WITHOUT_FILES = ("environment", "game")
"""Kinds of data that are made while training, so that there is no card."""


@dataclass(frozen=True)
class _Set:
    """A folder with a card, and the run that it belongs to."""

    folder: Path
    name: str
    run: str | None = None
    run_folder: Path | None = None


class PreparedData:
    """Finds prepared sets and reads them."""

    def __init__(self, root: Path, named: Sequence[Path]) -> None:
        self.root, self.named = root, named
        self._stored = StoredRows()
        self._again = RecipeRows((root, *named))
        self._cards: Memory[Json] = Memory()
        self._kinds: Memory[str] = Memory()
        self._found: tuple[Mapping[str, Path], dict[str, _Set]] | None = None

    def lines(self, runs: Mapping[str, Path]) -> list[DataLine]:
        """Every set, by name."""
        return sorted((self._line(id, one) for id, one in self._sets(runs).items()), key=lambda line: line.name)

    def detail(self, id: str, runs: Mapping[str, Path]) -> DataDetail:
        one = self._find(id, runs)
        card = self._card(one.folder)
        aside = mapping(_ledger(card).get("set_aside"))
        reasons = {name: int(known(_documents(value)) or 0) for name, value in aside.items()}
        return DataDetail(line=self._line(id, one), card=plain(card), reasons=reasons)

    def rows(self, id: str, runs: Mapping[str, Path], part: str, start: int, count: int, search: str) -> RowsPage:
        one = self._find(id, runs)
        line = self._line(id, one)
        if line.rows == "stored":
            return self._stored.page(one.folder, one.run_folder, part, start, count, search)
        if line.rows == "recipe" and one.run_folder is not None:
            return self._again.page(one.run_folder / "recipe.yaml", start, count, search)
        return RowsPage(rows=[], next=None, total=0)

    def quarantine(
        self, id: str, runs: Mapping[str, Path], after: int, count: int, reason: str, search: str
    ) -> QuarantinePage:
        return set_aside(self._find(id, runs).folder / QUARANTINE, after, count, reason, search)

    def _find(self, id: str, runs: Mapping[str, Path]) -> _Set:
        one = self._sets(runs).get(id)
        if one is None:
            raise unknown("prepared data", id)
        return one

    def _card(self, folder: Path) -> Json:
        path = folder / CARD
        return self._cards.get(path, stamp(path), lambda: read_object(path, []))

    def _kind(self, run: Path) -> str:
        path = run / "recipe.yaml"
        return self._kinds.get(path, stamp(path), lambda: _data_kind(path))

    def _sets(self, runs: Mapping[str, Path]) -> dict[str, _Set]:
        """The sets by id, looked for anew when the runs were."""
        known = self._found
        if known is None or known[0] is not runs:
            known = self._found = runs, self._walk(runs)
        return known[1]

    def _walk(self, runs: Mapping[str, Path]) -> dict[str, _Set]:
        found: dict[str, _Set] = {}
        for run, folder in runs.items():
            for place in _with_cards(folder / "data", deepest=1):
                name = name_below(folder, self.root)
                name = name if place == folder / "data" else f"{name}/{place.name}"
                found[id_of(f"run/{name}")] = _Set(place, name, run, folder)
            if not any(one.run == run for one in found.values()) and self._kind(folder) in WITHOUT_FILES:
                name = name_below(folder, self.root)
                found[id_of(f"run/{name}")] = _Set(folder / "data", name, run, folder)
        for number, named in enumerate(self.named):
            for place in _with_cards(named, deepest=DEEPEST):
                if leads_outside(place, named.resolve()) or any(place == one.folder for one in found.values()):
                    continue
                found[id_of(f"{number}/{place}")] = _Set(place, place.relative_to(named.parent).as_posix())
        return found

    def _line(self, id: str, one: _Set) -> DataLine:
        card = self._card(one.folder)
        kind = (self._kind(one.run_folder) if one.run_folder is not None else "") or "text"
        ledger = _ledger(card)
        source: RowSource = "none"
        if any((one.folder / name / "index.json").is_file() for name in STORED):
            source = "stored"
        elif one.run_folder is not None and kind in RECIPE_KINDS:
            source = "recipe"
        parts = mapping(card.get("splits")) or mapping(card.get("sides"))
        counted = {name: known(_documents(value)) for name, value in parts.items()}
        aside = [known(_documents(value)) for value in mapping(ledger.get("set_aside")).values()]
        return DataLine(
            id=id,
            name=one.name,
            path=str(one.folder),
            kind=kind,
            run=one.run,
            recipe=str(one.run_folder / "recipe.yaml") if one.run_folder is not None else None,
            rows=source,
            kept=known(_documents(ledger.get("kept"))),
            set_aside=sum(value for value in aside if value is not None) if ledger else None,
            parts={name: value for name, value in counted.items() if value is not None},
        )


def _data_kind(path: Path) -> str:
    """The kind of data that a recipe is for."""
    recipe = read_yaml(read_text(path, []), path.name, [])
    return text_of(mapping(recipe.get("data")).get("kind"))


def _ledger(card: Json) -> Json:
    """The counts of a card, whatever they are called there."""
    return next((found for name in ("ledger", "rows", "images") if (found := mapping(card.get(name)))), {})


def _documents(value: object) -> object:
    """A count that stands alone, or beside a number of bytes."""
    return mapping(value).get("documents") if isinstance(value, dict) else value


def _with_cards(place: Path, *, deepest: int) -> list[Path]:
    """Folders with a card at or below a place; links are not followed."""
    found = []
    for folder, below, names in os.walk(place):
        here = Path(folder)
        if CARD in names:
            found.append(here)
        if len(here.relative_to(place).parts) >= deepest:
            below.clear()
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in STORED)
    return found


def set_aside(path: Path, after: int, count: int, reason: str, search: str) -> QuarantinePage:
    """Rows of a quarantine from byte `after` on: at most `count`, out of at most SCANNED bytes of the file."""
    rows: list[Json] = []
    wanted = search.casefold()
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(min(after, size))
            while len(rows) < count and file.tell() - after < SCANNED:
                line = file.readline(LONGEST)
                if not line:
                    break
                while len(line) == LONGEST and not line.endswith(b"\n") and (rest := file.readline(LONGEST)):
                    line = line[:-1] + rest[-1:] if rest.endswith(b"\n") else line  # too long to be shown: pass over it
                value, _ = parse_json(line.decode("utf-8", errors="replace"))
                row: Any = value if isinstance(value, dict) else {"reason": "not readable", "text": _start(line)}
                if line.strip() and _fits(row, reason, wanted):
                    rows.append(plain(row))
            place = file.tell()
    except OSError:
        return QuarantinePage(rows=[], next=None)
    return QuarantinePage(rows=rows, next=place if place < size else None)


def _start(line: bytes) -> str:
    return line[:400].decode("utf-8", errors="replace")


def _fits(row: Json, reason: str, wanted: str) -> bool:
    said = text_of(row.get("reason"))
    return (not reason or said == reason) and (not wanted or wanted in text_of(row).casefold())
