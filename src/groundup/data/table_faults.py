"""What is wrong with single cells of a table, as errors that name the rows, the columns and the values.

Only messages are made here; whether a cell is wrong is decided in the other table files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from groundup.data.table_cells import shown
from groundup.errors import GroundupError, nearest, printable

SHOWN = 5
"""Cells that are named of each fault."""


class BadCell(NamedTuple):
    """A cell that cannot be used: the row it is in, its column, and what it holds."""

    place: str
    column: str
    value: Any

    def __str__(self) -> str:
        return f"{printable(self.place)}: column {printable(self.column, 60)!r}: {shown(self.value)}"


def missing_fault(gaps: Sequence[BadCell], rows: int) -> GroundupError:
    """E-DATA-112: cells that are empty, NaN or infinite, where nothing is filled in."""
    count = Counter(gap.column for gap in gaps)
    by_column = ", ".join(f"{printable(name, 60)!r} {number:,}" for name, number in count.most_common(SHOWN))
    return GroundupError(
        "E-DATA-112",
        f"{len(gaps):,} cells of {len({gap.place for gap in gaps}):,} rows (of {rows:,}) are empty, NaN or too large",
        where="\n".join([*_listed(gaps), f"by column: {by_column}" + (" …" if len(count) > SHOWN else "")]),
        why="one cell that is not a finite number makes every prediction and every gradient of its batch NaN",
        fix="mend the cells, or train with them filled in: data.preprocessing.missing=median (or mean, most_frequent)\n"
        "or leave such rows out: data.preprocessing.missing=drop\n"
        "or leave a column out: data.columns.ignore=[NAME]",
    )


def _listed(cells: Sequence[BadCell]) -> list[str]:
    return [*map(str, cells[:SHOWN]), *([f"and {len(cells) - SHOWN:,} more"] if len(cells) > SHOWN else [])]


def absent_fault(cells: Sequence[BadCell], rows: Sequence[Mapping[str, Any]]) -> GroundupError:
    """E-DATA-116: rows that lack a column; each cell names one."""
    lacking = list(dict.fromkeys(cell.column for cell in cells))
    given = list(dict.fromkeys(name for row in rows[:100] for name in row))
    close = [f"{name!r} may be {near!r}" for name in lacking if (near := nearest(name, given))]
    return GroundupError(
        "E-DATA-116",
        f"{len(lacking):,} columns are missing: {printable(', '.join(lacking[:SHOWN]))}",
        where="\n".join(
            [f"{printable(cell.place)}: no column {printable(cell.column, 60)!r}" for cell in cells[:SHOWN]]
            + ([f"and {len(cells) - SHOWN:,} more"] if len(cells) > SHOWN else [])
            + [f"the columns are: {printable(', '.join(given[:30]), 600) or 'none'}"]
        ),
        why="the model was trained on every one of them and has no answer without it",
        fix=f"add {'them' if len(lacking) > 1 else 'it'}; an unknown value stands there as an empty cell"
        + (f"\n{printable('; '.join(close[:SHOWN]))}" if close else ""),
    )


def not_numbers_fault(cells: Sequence[BadCell]) -> GroundupError:
    """E-DATA-115: cells that are not of the kind of their column."""
    return GroundupError(
        "E-DATA-115",
        f"{len(cells):,} cells hold what their column cannot: text among numbers, or a list or object",
        where="\n".join(_listed(cells)),
        why="a number is digits with a point: 1,000 and 3,5 and 5 kg could each be meant in more than one way",
        fix="write plain numbers, such as 1000 and 3.5, and leave unknown ones empty\n"
        "or train with the column as categories: data.columns.categorical=[NAME]",
    )


def unseen_fault(cells: Sequence[BadCell], known: Mapping[str, Sequence[str]]) -> GroundupError:
    """E-DATA-114: cells with a category that is none of those known, which are given by column."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    lists = [f"{printable(name, 60)!r} knows {printable(', '.join(known[name]), 160)}" for name in columns[:SHOWN]]
    close = [
        f"{cell.value!r} may be {near!r}" for cell in cells[:SHOWN]
        if (near := nearest(str(cell.value), list(known[cell.column])))
    ]  # fmt: skip
    return GroundupError(
        "E-DATA-114",
        f"{len(cells):,} cells hold a category that training does not have",
        where="\n".join([*_listed(cells), *lists]),
        why="a category that was never seen has no weight of its own, so the answer would ignore it in silence",
        fix="mend the spelling if it is another category, or add training rows that have it\n"
        "or train so that it counts as none: data.preprocessing.unseen=zeros"
        + (f"\n{printable('; '.join(close))}" if close else ""),
    )


def barren_fault(names: Sequence[str], rows: int) -> GroundupError:
    """E-DATA-113: columns that are empty in all training rows."""
    return GroundupError(
        "E-DATA-113",
        f"{len(names):,} columns are empty in all {rows:,} training rows",
        where=printable(", ".join(names), 600),
        why="there is nothing to take a mean or a most frequent value of, and nothing to learn from",
        fix=f"leave them out: data.columns.ignore=[{printable(', '.join(names[:SHOWN]))}]",
    )


def crowded_fault(name: str, count: int, limit: int) -> GroundupError:
    """E-DATA-118: a column with more categories than the limit."""
    return GroundupError(
        "E-DATA-118",
        f"column {printable(name, 60)!r} has {count:,} categories in training; the limit is {limit:,}",
        where=f"data.columns: {printable(name, 60)}",
        why="each category becomes a column of its own; so many are usually names or numbers of rows",
        fix=f"leave it out: data.columns.ignore=[{printable(name, 60)}]\n"
        "or join the rare ones: data.preprocessing.rare=10\n"
        "or learn a vector for each: data.preprocessing.categories=embed",
    )
