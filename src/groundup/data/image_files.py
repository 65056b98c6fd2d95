"""Where images come from: folders with a sub-folder for each class, lists of paths, and files of arrays.

Here names become entries with their labels in words and their sides; no pixel of an image file is read.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from groundup.data.chat_layout import RowFault
from groundup.data.chat_records import read_records
from groundup.data.chat_rows import ROWS_TO_DETECT, SetAside
from groundup.data.image_arrays import (
    BUILT_IN,
    SIDE_NAMES,
    Block,
    is_idx,
    pair_name,
    read_built_in,
    read_idx_pairs,
    read_npz,
)
from groundup.data.image_decode import SUFFIXES
from groundup.data.image_options import PATH, ImageOptions
from groundup.data.labelled_options import GROUP, LABEL, VALUE, Side
from groundup.data.labelled_rows import LabelledLedger, _label
from groundup.data.sources import file_format, open_sources
from groundup.errors import GroundupError, nearest, printable

LISTS = ("jsonl", "json", "csv", "parquet")
"""Formats of a list of paths."""

BUILT_IN_NAME = re.compile(r"[a-z]+:[a-z0-9_-]+$")


class Picture(NamedTuple):
    """One image file: how it is shown, its side, its label in words if it has one, its group, and where it is listed
    (`FILE:LINE`, empty if it lies in a folder)."""

    path: Path
    name: str
    side: Side
    label: str | None
    group: str
    listed: str


class Columns(NamedTuple):
    """The columns of one list."""

    path: str
    label: str | None
    group: str | None


def find_images(
    files: Sequence[str],
    options: ImageOptions,
    ledger: LabelledLedger,
    *,
    side: Side = "train",
    labelled: bool = True,
) -> Iterator[Picture | Block | SetAside]:
    """Every image that the names stand for, in a fixed order; `ledger` counts what is set aside.

    Args:
        files: folders, files, globs and the names of built-in sets.
        options: the columns of lists, and whether a grouped split needs one more.
        ledger: counts entries that come in and are set aside; those that are given are counted by the caller.
        side: of what says nothing of its own.
        labelled: False finds images to predict: labels are neither needed nor looked at.

    Raises:
        GroundupError: E-DATA-002 if a name matches nothing, -130 if a folder is not laid out by classes, -100 if the
            columns of a list are not known; and what the readers of arrays raise.
    """
    read: set[Path] = set()  # halves of idx pairs: each finds the other
    for name in files:
        for path in _expand(name):
            found: Iterator[Picture | Block | SetAside]
            if path is None:
                found = iter([read_built_in(name, labelled=labelled)])
            elif path.is_dir():
                found = _folder(path, side, labelled)
            elif is_idx(path):
                halves = [] if path in read else _halves(path)
                read.update(halves)
                found = iter(read_idx_pairs(halves, labelled=labelled) if halves else ())
            elif path.suffix.lower() == ".npz":
                found = iter(read_npz(path, labelled=labelled))
            elif path.suffix.lower() in SUFFIXES and not labelled:
                found = iter([Picture(path, str(path), side, None, "", "")])
            elif file_format(path)[0] in LISTS:
                found = _listed(path, options, side, labelled)
            else:
                raise _no_reader(path, labelled)
            for item in found:
                if isinstance(item, SetAside):
                    ledger.rows += 1
                    ledger.reject(item)
                yield item


def _expand(name: str) -> list[Path | None]:
    """The paths that a name stands for; None is a built-in set."""
    path = Path(name).expanduser()
    if path.exists():
        return [path]
    if name in BUILT_IN or BUILT_IN_NAME.match(name):
        return [None]
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  Path.glob refuses absolute patterns
    if not matches:
        raise GroundupError(
            "E-DATA-002",
            f"no images at {printable(name)}",
            where=f"data.files: {printable(str(path.absolute()))}",
            why="neither a file, nor a folder, nor a matching glob, nor a built-in set",
            fix=f"mend the path, or use a built-in set: {', '.join(BUILT_IN)}",
        )
    return list(map(Path, matches))


def _no_reader(path: Path, labelled: bool) -> GroundupError:
    image = path.suffix.lower() in SUFFIXES
    return GroundupError(
        "E-DATA-008",
        f"{printable(path.name)}: " + ("a single image has no label" if image else "a file of this kind has no images"),
        where=printable(str(path)),
        why="labels come from the folders that images lie in, or from a list beside them"
        if image
        else "images are read from folders, lists of paths (.csv .tsv .jsonl .json .parquet), idx files and .npz",
        fix="give the folder above its class folders, or a .csv with the columns path and label\n"
        "unpack archives yourself and give the folder" + ("" if labelled or image else "\nor name image files"),
    )


def _halves(path: Path) -> list[Path]:
    """An idx file and its other half, which lies beside it."""
    return [one for one in _visible(path.parent) if is_idx(one) and pair_name(one.name) == pair_name(path.name)]


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, by name."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def _folder(folder: Path, side: Side, labelled: bool) -> Iterator[Picture | Block | SetAside]:
    """A folder of idx files, of class folders, or of folders for the sides that hold class folders."""
    entries = _visible(folder)
    idx = [path for path in entries if path.is_file() and is_idx(path)]
    if idx:
        yield from read_idx_pairs(idx, labelled=labelled)
        return
    folders = [path for path in entries if path.is_dir()]
    if folders and all(path.name.lower() in SIDE_NAMES for path in folders):
        for path in entries:
            if path.is_file():
                yield SetAside(str(path), 0, "it lies beside the folders of the sides", "", False, None)
        for path in folders:
            yield from _classes(path, SIDE_NAMES[path.name.lower()], labelled)
    else:
        yield from _classes(folder, side, labelled)


def _classes(folder: Path, side: Side, labelled: bool) -> Iterator[Picture | SetAside]:
    """The images of a folder, each with the name of the sub-folder that it lies in or below."""
    entries = _visible(folder)
    if labelled and not any(path.is_dir() for path in entries):
        held = sum(path.suffix.lower() in SUFFIXES for path in entries)
        raise GroundupError(
            "E-DATA-130",
            f"{printable(folder.name)} has no sub-folders: {held:,} images, {len(entries) - held:,} other files",
            where=printable(str(folder)),
            why="the name of the sub-folder that an image lies in is its label",
            fix="put the images of each class into a folder of its own: FOLDER/CLASS/IMAGE\n"
            "or give a .csv with the columns path and label\nor read them without labels: data.task=none",
        )
    for entry in entries:
        inside = sorted(entry.rglob("*"), key=lambda path: path.as_posix()) if entry.is_dir() else [entry]
        for path in inside:
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if hidden or path.is_dir():
                continue
            if path.suffix.lower() not in SUFFIXES:
                yield SetAside(str(path), 0, "no image by its name", "", False, None)
            elif labelled and not entry.is_dir():
                yield SetAside(str(path), 0, "it lies in no folder of a class", "", False, None)
            else:
                yield Picture(path, str(path), side, entry.name if labelled else None, "", "")


def _listed(path: Path, options: ImageOptions, side: Side, labelled: bool) -> Iterator[Picture | SetAside]:
    """The images of a list; their paths count from its folder."""
    (source, *_), _ = open_sources([str(path)], [])
    records = read_records(source)
    head = list(itertools.islice(records, ROWS_TO_DETECT))
    names = list(dict.fromkeys(name for record in head for name in record.fields or ()))
    columns = _find_columns(source.name, names, options, labelled) if names else None
    for line, fields, problem in itertools.chain(head, records):
        try:
            if fields is None or columns is None:
                raise RowFault(problem or "a readable row after many that are not")
            given = fields.get(columns.path)
            if not isinstance(given, str) or not given.strip() or "\0" in given:
                raise RowFault("the path is empty or not text", columns.path)
            label = None if columns.label is None else _label(fields.get(columns.label), columns.label)
        except RowFault as fault:
            yield SetAside(source.name, line, fault.reason, fault.field, fault.malformed, fields)
            continue
        group: Any = "" if columns.group is None else fields.get(columns.group)
        image = path.parent / given.strip()  # an absolute path stays as it is
        yield Picture(image, given.strip(), side, label, str(group or "").strip(), f"{source.name}:{line}")


def _find_columns(file: str, names: list[str], options: ImageOptions, labelled: bool) -> Columns:
    """E-DATA-100 with every column that is missing or not recognised."""
    known = {name.strip().casefold(): name for name in reversed(names)}
    given = options.columns

    def column(asked: str | None, usual: Sequence[str]) -> str | None:
        return asked or next((known[name] for name in usual if name in known), None)

    labels = VALUE + LABEL if options.task == "regress" else LABEL + VALUE
    path = column(given.path, PATH)
    label = column(given.label, labels) if labelled else None
    group = column(given.group, GROUP) if labelled and options.split_kind == "grouped" else None
    missing = [name for name in (path, label, group) if name is not None and name not in names]
    problems = [f"no column {name!r}" for name in missing]
    needed = {
        "path": path is None,
        "label": labelled and label is None,
        "group": labelled and options.split_kind == "grouped" and group is None,
    }
    problems += [f"none is known as the {part}" for part, lacking in needed.items() if lacking]
    if problems or path is None:
        close = [f"{name!r} may be {near!r}" for name in missing if (near := nearest(name, names))]
        raise GroundupError(
            "E-DATA-100",
            f"the columns of {printable(file)} are not as needed: {printable('; '.join(problems))}",
            where=f"{printable(file)}: its columns are {printable(', '.join(names[:30]))}",
            why="each row needs the path of an image and its label",
            fix="name them: data.columns={path: NAME, label: NAME}"
            + (f"\n{printable('; '.join(close))}" if close else "")
            + "\na table without a first line of column names needs one",
            exit_code=2,
        )
    return Columns(path, label, group)
