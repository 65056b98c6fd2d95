"""Which columns of a file hold the text, the label and the rest: as named, or by their usual names.

Only names are looked at here, never a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from groundup.data.labelled_options import (
    ANSWER,
    CANDIDATES,
    GROUP,
    LABEL,
    PAIRS,
    QUESTION,
    TAGS,
    TEXT,
    TIME,
    VALUE,
    WORDS,
    LabelledOptions,
    Task,
)
from groundup.errors import GroundupError, nearest, printable

LABEL_NAMES: dict[Task, tuple[str, ...]] = {
    "classify": LABEL + VALUE,
    "multilabel": LABEL + TAGS,
    "tag": TAGS + LABEL,
    "regress": VALUE + LABEL,
    "embed": (),
    "choice": LABEL + ANSWER,
}
TEXT_NAMES: dict[Task, tuple[str, ...]] = {
    "classify": TEXT,
    "multilabel": TEXT,
    "tag": WORDS + TEXT,
    "regress": TEXT,
    "embed": (),
    "choice": QUESTION + TEXT,
}


class Found(NamedTuple):
    """The columns of one file; None and empty where the task has no such column."""

    text: str
    label: str | None
    other: str | None
    group: str | None
    candidates: tuple[str, ...]
    time: str | None = None

    def shown(self) -> str:
        """`text=review, label=stars` for a data card."""
        named = {"text": self.text, "label": self.label, "other": self.other, "group": self.group}
        named["time"] = self.time
        named["candidates"] = "+".join(self.candidates) or None
        return ", ".join(f"{part}={name}" for part, name in named.items() if name is not None)


def find_columns(file: str, names: Sequence[str], options: LabelledOptions, *, labelled: bool) -> Found:
    """The columns of a file.

    Args:
        file: how the file is shown.
        names: its columns in order.
        options: which task, and which columns are named.
        labelled: False where the rows are to be predicted, so that no label is needed.

    Raises:
        GroundupError: E-DATA-100 with every column that is missing or not recognised.
    """
    known = {name.strip().casefold(): name for name in reversed(names)}
    given, task = options.columns, options.task
    asked = (given.text, given.label if labelled else None, given.other, given.group, given.time, *given.candidates)
    problems = [f"no column {name!r}" for name in asked if name is not None and name not in names]

    def usual(candidates: Sequence[str]) -> str | None:
        return next((known[name] for name in candidates if name in known), None)

    text, other = given.text, given.other
    if text is None:
        text, other = _texts(known, task, other)
    elif task == "embed" and other is None:
        other = usual([second for first, second in PAIRS if first == text.casefold()])
    label = group = None
    candidates: tuple[str, ...] = ()
    if labelled and task != "embed":
        label = given.label or usual(LABEL_NAMES[task])
    if options.split_kind == "grouped" and labelled:
        group = given.group or usual(GROUP)
    if task == "choice":
        one = usual(CANDIDATES)
        candidates = tuple(given.candidates) or ((one,) if one else ())
    time = (given.time or usual(TIME)) if options.split_kind == "time" and labelled else None
    needed = {
        "text": not text,
        "label": labelled and task != "embed" and not label,
        "other": task == "embed" and not other,
        "candidates": task == "choice" and not candidates,
        "group": labelled and options.split_kind == "grouped" and not group,
        "time": labelled and options.split_kind == "time" and not time,
    }
    problems += [f"none is known as the {part}" for part, lacking in needed.items() if lacking]
    if problems or text is None:
        raise _unknown(file, names, problems, [name for name in asked if name and name not in names])
    return Found(text, label, other, group, candidates, time)


def _texts(known: dict[str, str], task: Task, other: str | None) -> tuple[str | None, str | None]:
    """The usual names of the text and, where two belong together, of the second."""
    for name in TEXT_NAMES[task]:
        if name in known:
            return known[name], other
    for first, second in PAIRS:
        if first in known and second in known:
            return known[first], other or known[second]
    return next((known[name] for name in QUESTION if name in known), None), other


def _unknown(file: str, names: Sequence[str], problems: list[str], missing: list[str]) -> GroundupError:
    shown = ", ".join(printable(name, 40) for name in names[:30]) or "none"
    close = [f"{name!r} may be {near!r}" for name in missing if (near := nearest(name, list(names)))]
    return GroundupError(
        "E-DATA-100",
        f"the columns of {printable(file)} are not as needed: {'; '.join(printable(one) for one in problems)}",
        where=f"{printable(file)}: its columns are {shown}",
        why="each row needs its text and its label, and guessing between unknown columns would train on the wrong one",
        fix="name them: data.columns={text: NAME, label: NAME}"
        + (f"\n{printable('; '.join(close))}" if close else "")
        + "\na table without a first line of column names needs one",
        exit_code=2,
    )
