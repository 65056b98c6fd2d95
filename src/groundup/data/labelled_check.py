"""What is wrong or odd with a set of labelled rows as a whole, found before anything is trained on it.

Faults stop; all of them are raised together. Findings are sentences for the card and the screen. Rows are
counted and compared here, never changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from groundup.data.chat_rows import SetAside
from groundup.data.labelled_options import LabelledOptions, Side
from groundup.data.labelled_rows import LabelledLedger, LabelledRow
from groundup.data.set_faults import SHOWN, SIDES, and_more, empty_side, too_many_malformed, what_was_set_aside
from groundup.errors import GroundupError, printable


class Shared(NamedTuple):
    """A row of a training or validation set whose text also stands in a set that it is measured on."""

    row: LabelledRow
    like: LabelledRow

    def __str__(self) -> str:
        return f"{self.row.place} ({self.row.side}) = {self.like.place} ({self.like.side}): {shortened(self.row)}"


class Contradiction(NamedTuple):
    """Two rows of one text with different answers, the first two of that text."""

    one: LabelledRow
    other: LabelledRow

    def __str__(self) -> str:
        answers = f"{printable(self.one.answer, 40)!r} and {printable(self.other.answer, 40)!r}"
        return f"{self.one.place} and {self.other.place} say {answers}: {shortened(self.one)}"


def shortened(row: LabelledRow) -> str:
    """The beginning of a row's text, safe to print."""
    return f'"{printable(row.text, 60)}"'


def shared_rows(rows: Sequence[LabelledRow]) -> list[Shared]:
    """Rows whose text also stands in a later set (train before validation before test), in order."""
    later: dict[bytes, LabelledRow] = {}
    for row in rows:
        known = later.get(row.key)
        if known is None or SIDES.index(row.side) > SIDES.index(known.side):
            later[row.key] = row
    return [Shared(row, later[row.key]) for row in rows if later[row.key].side != row.side]


def contradictions(rows: Sequence[LabelledRow]) -> list[Contradiction]:
    """Texts that stand more than once and not always with the same answer, each with its first two rows."""
    first: dict[bytes, LabelledRow] = {}
    found: dict[bytes, Contradiction] = {}
    for row in rows:
        known = first.setdefault(row.key, row)
        if row.answer != known.answer:
            found.setdefault(row.key, Contradiction(known, row))
    return list(found.values())


def label_counts(rows: Sequence[LabelledRow]) -> dict[str, dict[Side, int]]:
    """For each label how many rows of each side carry it (task tag: how many words)."""
    counts: dict[str, dict[Side, int]] = defaultdict(lambda: dict.fromkeys(SIDES, 0))
    for row in rows:
        for label in row.labels:
            counts[label][row.side] += 1
    return dict(counts)


def find_faults(
    rows: Sequence[LabelledRow],
    options: LabelledOptions,
    ledger: LabelledLedger,
    aside: Sequence[SetAside],
    leaks: Sequence[Shared],
) -> list[GroundupError]:
    """Everything that forbids to train on this set."""
    found = [
        too_many_malformed(
            ledger,
            aside,
            options.malformed_limit,
            why="a mismatch here usually means the wrong columns, the wrong task, or a damaged export",
            fix="mend the rows, or name the right columns: data.columns={text: NAME, label: NAME}",
        ),
        empty_side(rows, options, ledger, aside),
        _leaked(leaks) if options.split.leaks == "refuse" else None,
        _unseen(rows),
        _single(rows, options),
    ]
    return [fault for fault in found if fault is not None]


def findings(
    rows: Sequence[LabelledRow], options: LabelledOptions, ledger: LabelledLedger, aside: Sequence[SetAside]
) -> list[str]:
    """What deserves a look but does not stop: a sentence each, with counts and an example."""
    found = what_was_set_aside(ledger, aside)
    disputed = contradictions(rows)
    if disputed:
        found.append(f"{len(disputed):,} texts stand with different answers; first {disputed[0]}")
    for side in SIDES[1:]:
        here = [row for row in rows if row.side == side]
        if len(here) > 1 and options.task in ("classify", "regress") and len({row.answer for row in here}) == 1:
            found.append(f"all {len(here):,} rows of the {side} set have the answer {printable(here[0].answer, 40)!r}")
    alike: dict[str, set[str]] = defaultdict(set)
    for label in label_counts(rows):
        alike["".join(label.casefold().split())].add(label)
    for names in (sorted(names) for names in alike.values() if len(names) > 1):
        found.append(f"labels that differ in case or spacing alone: {printable(', '.join(map(repr, names)))}")
    train = [row for row in rows if row.side == "train"]
    if options.task == "choice" and len(train) > 1 and len({row.choice for row in train}) == 1:
        found.append(f"in all {len(train):,} training rows the right candidate is number {train[0].choice}: its place "
                     "alone tells it; shuffle the candidates")  # fmt: skip
    listed = set(options.labels or ()) - {label for row in train for label in row.labels}
    if listed:
        found.append(f"data.labels that no training row carries: {printable(', '.join(sorted(listed)))}")
    return found


def _leaked(leaks: Sequence[Shared]) -> GroundupError | None:
    if not leaks:
        return None
    return GroundupError(
        "E-DATA-101",
        f"{len(leaks):,} rows share their text with a set that they are measured on",
        where=and_more([str(one) for one in leaks[:SHOWN]], len(leaks)),
        why="what is measured on a text that was trained on is memory, not learning",
        fix="set data.split.leaks=drop to take the trained rows out, the measured sets stay whole\n"
        "or data.split.leaks=allow to train on them and have the report say so",
    )


def _unseen(rows: Sequence[LabelledRow]) -> GroundupError | None:
    unseen = {label: sides for label, sides in sorted(label_counts(rows).items()) if not sides["train"]}
    if not unseen or not any(row.side == "train" for row in rows):
        return None
    lines = []
    for label, sides in list(unseen.items())[:SHOWN]:
        first = next(row for row in rows if label in row.labels)
        where = ", ".join(f"{count:,} in {side}" for side, count in sides.items() if count)
        lines.append(f"{printable(label, 60)!r}: {where}, first {first.place}: {shortened(first)}")
    if len(unseen) > SHOWN:
        lines.append(f"and {len(unseen) - SHOWN:,} more")
    return GroundupError(
        "E-DATA-102",
        f"{len(unseen):,} labels are measured but never seen in training",
        where="\n".join(lines),
        why="a label without a training row cannot be learned, so every row that carries it would count as wrong",
        fix="mend the spelling if it is another label, or add training rows that carry it\n"
        "or set those rows aside: data.minimum_rows_per_label=1\n"
        "or, if one table is divided, set data.split.kind=stratified",
    )


def _single(rows: Sequence[LabelledRow], options: LabelledOptions) -> GroundupError | None:
    train = [row for row in rows if row.side == "train"]
    if options.task in ("embed", "choice") or not train:
        return None
    if options.task == "tag":
        answers = {label for row in train for label in row.labels}
    else:
        answers = {row.answer for row in train}
    if len(answers) > 1:
        return None
    return GroundupError(
        "E-DATA-103",
        f"all {len(train):,} training rows have the answer {printable(next(iter(answers)), 60)!r}",
        where=f"first {train[0].place}: {shortened(train[0])}",
        why="where there is one answer there is nothing to tell apart, and any model would be right at once",
        fix="add rows with other answers, or name the right column: data.columns={label: NAME}\n"
        "a file sorted by label that was cut gives this too",
    )
