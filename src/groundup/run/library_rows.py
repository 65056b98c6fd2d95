"""Rows as a model reads them, page by page: out of prepared tokens, or rendered anew from the files of a recipe."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.data.corpus import CLEAN
from groundup.data.shards import INDEX, TokenSet
from groundup.errors import GroundupError, printable
from groundup.report.reading import mapping, mappings, number, parse_json, read_object, text_of
from groundup.serving.library import Row, RowsPage
from groundup.text.tokenizer import FILE, AnyTokenizer, Tokenizer

SHOWN_TOKENS = 1024
"""Of one row; a document may have millions."""
LONGEST_TEXT = 20_000
SCANNED = 32 << 20
"""Bytes of cleaned text that one search looks through."""
MOST_AGAIN = 200
"""Rows that are rendered from a recipe's files."""


class StoredRows:
    """Documents of a prepared text, with the tokens that lie beside them."""

    def __init__(self) -> None:
        self._tokenizers: dict[Path, AnyTokenizer] = {}
        self._lock = threading.Lock()

    def page(self, folder: Path, run: Path | None, part: str, start: int, count: int, search: str) -> RowsPage:
        """Rows `start` … of one part of the set in `folder`."""
        tokens = mapping(read_object(folder / "tokens" / INDEX, []).get("splits"))
        clean = mapping(read_object(folder / CLEAN / INDEX, []).get("splits"))
        names = list(dict.fromkeys([*clean, *tokens]))
        if part not in names:
            part = "train" if "train" in names else names[0] if names else ""
        total = sum(int(number(one.get("documents"))) for one in mappings(tokens.get(part) or clean.get(part)))
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
        return RowsPage(rows=rows, next=after, total=total)

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
            known = self._tokenizers.get(folder)
            if known is None:
                known = self._tokenizers[folder] = _read_tokenizer(folder, run)
            return known


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
        documents, name = int(number(shard.get("documents"))), text_of(shard.get("name"))
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
        self._kept: dict[Path, tuple[float, list[Row], dict[str, str]]] = {}
        self._lock = threading.Lock()  # one at a time: reading may take all cores

    def page(self, recipe: Path, start: int, count: int, search: str) -> RowsPage:
        """Rows out of the first MOST_AGAIN of the training part."""
        with self._lock:
            changed = recipe.stat().st_mtime if recipe.is_file() else 0.0
            known = self._kept.get(recipe)
            if known is None or known[0] != changed:
                known = self._kept[recipe] = (changed, *self._render(recipe))
        _, rows, facts = known
        wanted = search.casefold()
        fitting = [row for row in rows if not wanted or wanted in _said(row)]
        page = fitting[start : start + count]
        after = start + count if start + count < len(fitting) else None
        return RowsPage(rows=page, next=after, total=len(fitting), facts=facts)

    def _render(self, path: Path) -> tuple[list[Row], dict[str, str]]:
        from groundup.run.entry import read_recipe
        from groundup.run.preview import preview_rows
        from groundup.run.preview_networks import preview_network, preview_pairs

        recipe = read_recipe(path)
        self._refuse_outside(path, [recipe.model_dump(mode="json")])
        if recipe.data.kind in ("table", "images", "environment"):
            found = preview_network(
                recipe, 16 if recipe.data.kind == "environment" else MOST_AGAIN, augment=False, out=None
            )
            facts = {name: text_of(value)[:400] for name, value in found["facts"].items()}
            return [_cells(index, row, found["headers"]) for index, row in enumerate(found["rows"], 1)], facts
        if recipe.data.kind == "pairs":
            rendered, tokenizer, _ = preview_pairs(recipe, MOST_AGAIN)
        else:
            rendered, tokenizer, _ = preview_rows(str(path), MOST_AGAIN, [])
        rows = [
            Row(
                number=index,
                text=row.text[:LONGEST_TEXT],
                ids=list(row.ids[:SHOWN_TOKENS]),
                tokens=[tokenizer.decode([id], skip_specials=False) for id in row.ids[:SHOWN_TOKENS]],
                learned=[bool(one) for one in row.trainable[:SHOWN_TOKENS]],
                cut=max(0, len(row.ids) - SHOWN_TOKENS),
            )
            for index, row in enumerate(rendered, start=1)
        ]
        return rows, {}

    def _refuse_outside(self, path: Path, values: list[Any]) -> None:
        """Refuse a recipe that names anything outside the folders that are served."""
        allowed = [place.resolve() for place in (*self.places, Path())]
        for text in _strings(values):
            remote = text.startswith(("hf:", "http:", "https:"))
            looks = remote or "/" in text or "\\" in text or text.startswith(("~", ".."))
            if looks and (remote or not any(_below(text, place) for place in allowed)):
                raise GroundupError(
                    "E-SERVE-042",
                    "the rows would have to be read from outside the folders that are served",
                    where=printable(text),
                    why="a recipe in a folder of runs may name any file; the page shows only what was offered",
                    fix=f"groundup data show {printable(str(path))}   (on the machine itself)\n"
                    "or: groundup serve --data FOLDER   (offers the folder that holds it)",
                )


def _below(text: str, place: Path) -> bool:
    return Path(text).expanduser().resolve().is_relative_to(place)


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
