"""What is wrong with a set of rows as a whole, whatever its rows are: texts, tables, images or pairs. Only errors and
sentences are made here; what is wrong with single rows is decided where they are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from groundup.data.chat_rows import SetAside, percent
from groundup.data.labelled_options import Side
from groundup.data.labelled_rows import LabelledLedger
from groundup.errors import GroundupError, printable

SHOWN = 5
"""Examples that are named of each fault."""

SIDES: tuple[Side, ...] = ("train", "validation", "test")


class Sided(Protocol):
    """A row that belongs to a side."""

    @property
    def side(self) -> Side: ...


class Shares(Protocol):
    """The shares of a split."""

    @property
    def test(self) -> float: ...
    @property
    def validation(self) -> float: ...


class Divided(Protocol):
    """Options that say which sides there are."""

    @property
    def validation_files(self) -> list[str]: ...
    @property
    def test_files(self) -> list[str]: ...
    @property
    def split(self) -> Shares: ...


def place_of(item: SetAside) -> str:
    """Where something stood that was set aside: `FILE:LINE`, or the file alone where that is all of it."""
    return printable(item.file) + (f":{item.line}" if item.line else "")


def reasons(aside: Sequence[SetAside], *, malformed: bool) -> str:
    """Each reason with its count and the first place, the commonest first, a line each.

    Args:
        malformed: of malformed rows alone.
    """
    chosen = [item for item in aside if item.malformed or not malformed]
    count = Counter(item.reason.split(": ")[0] for item in chosen)
    first = {item.reason.split(": ")[0]: item for item in reversed(chosen)}
    return "\n".join(
        f"{number:,} × {printable(first[reason].reason, 150)} ({place_of(first[reason])})"
        for reason, number in count.most_common(SHOWN + 1)
    )


def what_was_set_aside(ledger: LabelledLedger, aside: Sequence[SetAside]) -> list[str]:
    """A sentence for each reason: how many, and the first."""
    first = {item.reason.split(": ")[0]: item for item in reversed(aside)}
    return [
        f"{count:,} × set aside, {printable(reason)}; first {place_of(first[reason])}"
        + printable(first[reason].reason.removeprefix(reason))
        for reason, count in ledger.set_aside.most_common()
    ]


def refuse_contradictions(wrong: Sequence[str]) -> None:
    """E-DATA-015 with every option that contradicts another, if there is one."""
    if not wrong:
        return
    raise GroundupError(
        "E-DATA-015",
        wrong[0] if len(wrong) == 1 else f"{len(wrong)} options of data contradict others",
        where="\n".join(wrong),
        why="a field that would not be used is more likely a mistake than meant",
        fix="leave those fields out, or set the task or the kind that they belong to",
        exit_code=2,
    )


def too_many_malformed(
    ledger: LabelledLedger,
    aside: Sequence[SetAside],
    limit: float,
    *,
    things: str = "rows",
    field: str = "data.malformed_limit",
    why: str,
    fix: str,
) -> GroundupError | None:
    """E-DATA-003 if more than the share `limit` is malformed.

    Args:
        things: what the rows are called.
        field: of the recipe that holds the limit.
        why: what usually lies behind it.
        fix: what to do about it, besides allowing more.
    """
    if ledger.malformed <= limit * ledger.rows:
        return None
    share = ledger.malformed / ledger.rows
    return GroundupError(
        "E-DATA-003",
        f"malformed {things} are over the limit: {ledger.malformed:,} of {ledger.rows:,} {things} ({percent(share)}, "
        f"limit {percent(limit)})",
        where=reasons(aside, malformed=True),
        why=why,
        fix=f"{fix}\nor allow them: {field}={min(1.0, share + 0.0005):.3f}",
    )


def empty_side(
    rows: Sequence[Sided],
    options: Divided,
    ledger: LabelledLedger,
    aside: Sequence[SetAside],
    *,
    things: str = "rows",
) -> GroundupError | None:
    """E-DATA-001 if a side that is asked for has nothing."""
    count = Counter(row.side for row in rows)
    asked = {
        "train": True,
        "validation": bool(options.validation_files) or options.split.validation > 0,
        "test": bool(options.test_files) or options.split.test > 0,
    }
    empty = [side for side in SIDES if asked[side] and not count[side]]
    if not empty:
        return None
    sizes = ", ".join(f"{side} {count[side]:,}" for side in SIDES)
    return GroundupError(
        "E-DATA-001",
        f"no {things.removesuffix('s')} is left in the {' and the '.join(empty)} set: {ledger.kept:,} of "
        f"{ledger.rows:,} {things} kept",
        where="\n".join(filter(None, (f"{things}: {sizes}", reasons(aside, malformed=False)))),
        why=f"each set that is asked for needs {things}: one to learn from, the others to measure on",
        fix=f"give more {things} or a larger share: data.split.test=0.2 data.split.validation=0.2\n"
        "or do without that set: data.split.test=0 (or data.split.validation=0)",
    )


def and_more(shown: Sequence[str], total: int) -> str:
    """Lines of examples, and how many more there are."""
    return "\n".join([*shown, *([f"and {total - len(shown):,} more"] if total > len(shown) else [])])
