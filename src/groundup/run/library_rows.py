"""Rows as a model reads them, page by page: out of prepared tokens, or rendered anew from the files of a recipe."""

from __future__ import annotations

import errno
import glob
import itertools
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.data.corpus import CLEAN
from groundup.data.shards import INDEX, TokenSet
from groundup.errors import GroundupError, printable
from groundup.report.reading import known, mapping, mappings, parse_json, read_object, text_of
from groundup.run.library_memory import Memory, stamp
from groundup.run.library_places import leads_outside, lies_below
from groundup.serving.library import Row, RowsPage
from groundup.text.tokenizer import FILE, AnyTokenizer, Tokenizer

SHOWN_TOKENS = 1024
"""Of one row; a document may have millions."""
LONGEST_TEXT = 20_000
SCANNED = 32 << 20
"""Bytes of cleaned text that one search looks through."""
MOST_AGAIN = 200
"""Rows that are rendered from a recipe's files."""
MOST_PLAYED = 16
"""Steps or moves that are shown of what has no rows."""
NAMING = frozenset(
    ("files", "held_out_files", "test_files", "validation_files", "prepared", "template", "init_from", "options")
)
"""The fields of a recipe that name files; `options` are those of an environment, which may read any."""
REMOTE = ("hf:", "http:", "https:")


class StoredRows:
    """Documents of a prepared text, with the tokens that lie beside them."""

    def __init__(self) -> None:
        self._tokenizers: dict[Path, AnyTokenizer] = {}
        self._counts: Memory[int | None] = Memory(most=100)
        self._lock = threading.Lock()

    def page(self, folder: Path, run: Path | None, part: str, start: int, count: int, search: str) -> RowsPage:
        """Rows `start` … of one part of the set in `folder`."""
        tokens = mapping(read_object(folder / "tokens" / INDEX, []).get("splits"))
        clean = mapping(read_object(folder / CLEAN / INDEX, []).get("splits"))
        names = list(dict.fromkeys([*clean, *tokens]))
        if part not in names:
            part = "train" if "train" in names else names[0] if names else ""
        total = sum(_documents(one) for one in mappings(tokens.get(part) or clean.get(part)))
        if search or part not in tokens:
            found, after = self._search(folder, mappings(clean.get(part)), start, count, search)
        else:
            last = min(start + count, total)
            found, after = [(index, "") for index in range(start, last)], last if last < total else None
        if part in tokens:
            encoder = self._tokenizer(folder, run)
            documents = TokenSet.open(folder / "tokens", part, verify=False)
            rows = [_document(documents, index, encoder) for index, _ in found if index < documents.num_documents]
        else:
            rows = [Row(number=index + 1, text=text[:LONGEST_TEXT]) for index, text in found]
        fit = self._count(folder, part, mappings(clean.get(part)), search) if search else None
        return RowsPage(rows=rows, next=after, total=total, found=fit)

    def _count(self, folder: Path, part: str, shards: Sequence[dict[str, Any]], search: str) -> int | None:
        """How many documents of a part hold a text; None if that is more than one search looks through."""

        def read() -> int | None:
            found, after = self._search(folder, shards, 0, sys.maxsize, search)
            return len(found) if after is None else None

        return self._counts.get((folder, part, search.casefold()), stamp(folder / CLEAN / INDEX), read)

    def _search(
        self, folder: Path, shards: Sequence[dict[str, Any]], start: int, count: int, search: str
    ) -> tuple[list[tuple[int, str]], int | None]:
        """Documents from number `start` on that hold a text, and where to go on; bounded in what is read."""
        wanted, found, seen = search.casefold(), list[tuple[int, str]](), 0
        for index, text in _texts(folder / CLEAN, shards, start):
            if len(found) == count or seen > SCANNED:
                return found, index
            seen += len(text)
            if wanted in text.casefold():
                found.append((index, text))
        return found, None

    def _tokenizer(self, folder: Path, run: Path | None) -> AnyTokenizer:
        """The tokenizer that lies beside the tokens, or in the model of the run."""
        with self._lock:
            kept = self._tokenizers.get(folder)
            if kept is None:
                kept = self._tokenizers[folder] = _read_tokenizer(folder, run)
            return kept


def _read_tokenizer(folder: Path, run: Path | None) -> AnyTokenizer:
    from groundup.run import models

    places = [folder, folder.parent] if run is not None else [folder]
    place = next((place for place in places if (place / FILE).is_file()), None)
    if place is not None:
        try:
            return Tokenizer.load(place)
        except GroundupError:  # one from elsewhere, whose roles stand beside the model
            if run is None:
                raise
    return models.load_described(run or folder)[0].tokenizer


def _texts(folder: Path, shards: Sequence[dict[str, Any]], start: int) -> Iterator[tuple[int, str]]:
    """The cleaned documents from number `start` on; whole shards before it are passed over."""
    first = 0
    for shard in shards:
        documents, name = _documents(shard), text_of(shard.get("name"))
        if first + documents > start and name == Path(name).name:
            try:
                with (folder / f"{name}.jsonl").open("rb") as file:
                    for index, line in enumerate(file, start=first):
                        if index >= start:
                            value, _ = parse_json(line.decode("utf-8", errors="replace"))
                            yield index, text_of(mapping(value).get("text"))
            except OSError as error:
                raise GroundupError(
                    "E-DATA-004",
                    f"the cleaned text cannot be read ({error.strerror})",
                    where=printable(str(folder / f"{name}.jsonl")),
                    why="the index names this file, and it is not there or not readable",
                    fix="prepare the data again",
                ) from error
        first += documents


def _documents(shard: dict[str, Any]) -> int:
    """How many documents an index says that a shard has; none where it says no number."""
    return int(known(shard.get("documents")) or 0)


def _document(documents: TokenSet, index: int, tokenizer: AnyTokenizer) -> Row:
    ids = [int(id) for id in documents.document(index)]
    shown = ids[:SHOWN_TOKENS]
    return Row(
        number=index + 1,
        text=tokenizer.decode(shown, skip_specials=False)[:LONGEST_TEXT],
        ids=shown,
        tokens=[tokenizer.decode([id], skip_specials=False) for id in shown],
        learned=[place > 0 for place in range(len(shown))],  # nothing stands before the first to predict it from
        cut=len(ids) - len(shown),
    )


class RecipeRows:
    """Rows that are rendered from the files that a recipe names, as `groundup data show` does.

    Args:
        places: the folders from which files may be read, the current one besides.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = places
        self._kept: dict[Path, tuple[object, RowsPage]] = {}
        self._lock = threading.Lock()  # one at a time: reading may take all cores

    def page(self, recipe: Path, start: int, count: int, search: str) -> RowsPage:
        """Rows out of the first MOST_AGAIN of the training part."""
        state = stamp(recipe)
        with self._lock:
            kept = self._kept.get(recipe)
            if kept is None or kept[0] != state:
                kept = self._kept[recipe] = state, self._read(recipe)
        page = kept[1]
        wanted = search.casefold()
        fitting = [row for row in page.rows if not wanted or wanted in _said(row)]
        after = start + count if start + count < len(fitting) else None
        found = len(fitting) if wanted else None
        return replace(page, rows=fitting[start : start + count], next=after, found=found)

    def _read(self, path: Path) -> RowsPage:
        try:
            return self._render(path)
        except OSError as error:  # the recipe is somebody else's, and so are the files that it names
            raise _unreadable(path, str(error.filename or ""), str(error.strerror or error)) from error

    def _render(self, path: Path) -> RowsPage:
        """All rows that are shown, as one page."""
        from groundup.run.entry import read_recipe
        from groundup.run.preview import preview_rows
        from groundup.run.preview_networks import NETWORK_KINDS, preview_network, preview_pairs

        recipe = read_recipe(path)
        for name in named_files(recipe.model_dump(mode="json")):
            self._refuse_outside(path, name)
        if recipe.data.kind in NETWORK_KINDS:
            most = MOST_PLAYED if recipe.data.kind in ("environment", "game") else MOST_AGAIN
            found = preview_network(recipe, most, augment=False, out=None)
            facts = {name: text_of(value)[:400] for name, value in found["facts"].items()}
            rows = [_cells(index, row, found["headers"]) for index, row in enumerate(found["rows"], 1)]
            return _page(rows, found["total"], facts)
        pairs = recipe.data.kind == "pairs"
        shown = preview_pairs(recipe, MOST_AGAIN) if pairs else preview_rows(str(path), MOST_AGAIN, [])
        rows = [
            Row(
                number=index,
                text=row.text[:LONGEST_TEXT],
                ids=list(row.ids[:SHOWN_TOKENS]),
                tokens=[shown.tokenizer.decode([id], skip_specials=False) for id in row.ids[:SHOWN_TOKENS]],
                learned=[bool(one) for one in row.trainable[:SHOWN_TOKENS]],
                cut=max(0, len(row.ids) - SHOWN_TOKENS),
            )
            for index, row in enumerate(shown.rows, start=1)
        ]
        return _page(rows, shown.total, {})

    def _refuse_outside(self, path: Path, name: str) -> None:
        """Refuse a name that stands for anything outside the folders that are served, or that can stand for nothing."""
        allowed = [place.resolve() for place in (*self.places, Path())]
        if name.startswith(REMOTE):
            raise _outside(path, name)
        try:
            named = Path(name).expanduser()
            named.stat()
        except FileNotFoundError:  # a glob, a set that is built in, or a fault that the data room puts into words
            matches = map(Path, glob.glob(str(named), recursive=True))  # noqa: PTH207  Path.glob refuses absolute patterns
            places = [named, *matches]
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno == errno.EACCES:
                raise _outside(path, name) from error
            raise _unreadable(path, name, str(error)) from error
        else:
            places = [named]
        if not all(lies_below(place, allowed) and not leads_outside(place, *allowed) for place in places):
            raise _outside(path, name)


def _page(rows: list[Row], total: int | None, facts: dict[str, str]) -> RowsPage:
    within = len(rows) if total is None or len(rows) < total else None
    return RowsPage(rows=rows, next=None, total=total, within=within, facts=facts)


def _outside(path: Path, name: str) -> GroundupError:
    return GroundupError(
        "E-SERVE-042",
        "the rows would have to be read from outside the folders that are served",
        where=printable(name),
        why="a recipe in a folder of runs may name any file; the page shows only what was offered",
        fix=f"groundup data show {printable(str(path))}   (on the machine itself)\n"
        "or: groundup serve --data FOLDER   (offers the folder that holds it)",
    )


def _unreadable(path: Path, name: str, fault: str) -> GroundupError:
    return GroundupError(
        "E-SERVE-043",
        f"the recipe names a file that cannot be read: {printable(fault, 120)}",
        where=f"{printable(str(path))}: {printable(name)}",
        why="it is closed to this user, no file can have its name, or the links on the way to it lead in a circle",
        fix="make it readable or name another one in the recipe, and load the page again",
    )


def named_files(value: Any) -> Iterator[str]:
    """Every text in a recipe that names a file: those under the keys of NAMING, however deep."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item) if key in NAMING else named_files(item)
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(named_files, value))


def _strings(values: Any) -> Iterator[str]:
    """Every text in a nest of mappings and lists."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        yield from itertools.chain.from_iterable(map(_strings, values.values()))
    elif isinstance(values, list):
        yield from itertools.chain.from_iterable(map(_strings, values))


def _cells(index: int, row: dict[str, Any], headers: list[str]) -> Row:
    cells = [[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in line] for line in row["cells"]]
    return Row(number=index, place=row["place"], answer=text_of(row["answer"]), headers=headers, cells=cells)


def _said(row: Row) -> str:
    """What a search looks through."""
    cells = " ".join(itertools.chain.from_iterable(row.cells))
    return f"{row.text} {row.place} {row.answer} {cells}".casefold()
