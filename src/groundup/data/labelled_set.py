"""A set of labelled rows made ready: read, divided, checked as a whole, with a card whose numbers add up.

What comes out still has its answers in words; `labelled_examples` makes numbers of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from groundup.data.chat_rows import SetAside
from groundup.data.labelled_check import (
    Shared,
    contradictions,
    find_faults,
    findings,
    label_counts,
    shared_rows,
)
from groundup.data.labelled_options import LabelledOptions, Side
from groundup.data.labelled_rows import LabelledLedger, LabelledRow, read_rows
from groundup.data.labelled_split import divide, split_faults
from groundup.data.set_faults import SHOWN, SIDES, refuse_contradictions


class LabelledSet(NamedTuple):
    """Rows ready to be encoded.

    Attributes:
        rows: of all sides, in the order of the files.
        labels: the labels in the order of their numbers; empty for tasks regress, embed and choice.
        card: what was read and what became of it, to be stored beside the run.
        findings: what deserves a look, a sentence each, to be shown before training.
    """

    rows: list[LabelledRow]
    labels: list[str]
    card: dict[str, Any]
    findings: list[str]

    def side(self, side: Side) -> list[LabelledRow]:
        """The rows of one side in order."""
        return [row for row in self.rows if row.side == side]


def read_labelled(options: LabelledOptions, aside: list[SetAside]) -> LabelledSet:
    """Read, divide and check.

    Args:
        options: what to read.
        aside: takes every row that is set aside, also where this raises; it is what quarantine.jsonl holds.

    Raises:
        GroundupError: the first of all faults of the set with the rest in `others`: E-DATA-003 too many
            malformed rows, -001 an empty set, -101 leaks, -102 labels unseen in training, -103 a single label;
            E-DATA-015 for options that contradict each other; and what `read_rows` raises.
    """
    _check_options(options)
    ledger = LabelledLedger()
    rows = _read(options, ledger, aside)
    repeated = _repeated(rows)
    if options.remove_duplicates:
        rows = _without(rows, repeated, "repeats an earlier training row", ledger, aside)
    leaks = shared_rows(rows)
    if options.split.leaks == "drop":
        for side in SIDES[1:]:
            gone = [leak.row for leak in leaks if leak.like.side == side]
            rows = _without(rows, gone, f"its text also stands in the {side} set", ledger, aside)
    rows = _without_rare(rows, options.minimum_rows_per_label, ledger, aside)
    faults = find_faults(rows, options, ledger, aside, leaks)
    if faults:
        faults[0].others = faults[1:]
        raise faults[0]
    if ledger.rows != ledger.kept + sum(ledger.set_aside.values()) or ledger.kept != len(rows):
        raise AssertionError(f"rows do not add up: {ledger.as_dict()}")
    found = findings(rows, options, ledger, aside)
    if leaks and options.split.leaks == "allow":
        found.append(f"{len(leaks):,} rows share their text with a set that they are measured on; first {leaks[0]}")
    labels = options.labels or sorted_labels({label for row in rows for label in row.labels})
    return LabelledSet(rows, list(labels), _card(rows, options, ledger, leaks, len(repeated), found), found)


def sorted_labels(labels: set[str]) -> list[str]:
    """Labels in alphabetical order; if all are whole numbers, by number."""
    if all(label.removeprefix("-").isdecimal() and len(label) < 19 for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _read(options: LabelledOptions, ledger: LabelledLedger, aside: list[SetAside]) -> list[LabelledRow]:
    files: dict[Side, list[str]] = {
        "train": options.files, "validation": options.validation_files, "test": options.test_files
    }  # fmt: skip
    rows: dict[Side, list[LabelledRow]] = {side: [] for side in SIDES}
    for side in SIDES:
        for item in read_rows(files[side], options, ledger, side=side) if files[side] else ():
            if isinstance(item, SetAside):
                aside.append(item)
            else:
                rows[side].append(item)
    split = options.split
    test = 0.0 if options.test_files else split.test
    validation = 0.0 if options.validation_files else split.validation
    divided = divide(rows["train"], split, options.split_kind, ledger, aside, test=test, validation=validation)
    return [*divided, *rows["validation"], *rows["test"]]


def _repeated(rows: list[LabelledRow]) -> list[LabelledRow]:
    """Training rows that repeat an earlier one, answer and all."""
    seen: set[tuple[bytes, str, str | None, tuple[str, ...]]] = set()
    found = []
    for row in rows:
        if row.side != "train":
            continue
        same = (row.key, row.answer, row.other, row.candidates)
        if same in seen:
            found.append(row)
        seen.add(same)
    return found


def _without(
    rows: list[LabelledRow], gone: list[LabelledRow], reason: str, ledger: LabelledLedger, aside: list[SetAside]
) -> list[LabelledRow]:
    aside += [ledger.withdraw(row, reason) for row in gone]
    places = {id(row) for row in gone}
    return [row for row in rows if id(row) not in places]


def _without_rare(
    rows: list[LabelledRow], minimum: int, ledger: LabelledLedger, aside: list[SetAside]
) -> list[LabelledRow]:
    """Rows without those that carry a label of fewer than `minimum` training rows; taking them out can make another
    label rare, so it is done until nothing changes."""
    while minimum:
        count = Counter(label for row in rows if row.side == "train" for label in set(row.labels))
        gone = [row for row in rows if any(count[label] < minimum for label in row.labels)]
        if not gone:
            break
        rows = _without(rows, gone, f"its label has fewer than {minimum} training rows", ledger, aside)
    return rows


def _check_options(options: LabelledOptions) -> None:
    """E-DATA-015 with everything that contradicts itself."""
    split, task, columns = options.split, options.task, options.columns
    wrong = split_faults(
        split, options.split_kind, group=columns.group, time=columns.time, test_files=options.test_files
    )
    if options.labels is not None and len(set(options.labels)) != len(options.labels):
        twice = sorted(label for label, count in Counter(options.labels).items() if count > 1)
        wrong.append(f"data.labels names twice: {', '.join(twice)}")
    without_labels = task in ("regress", "embed", "choice")
    if options.labels is not None and without_labels:
        wrong.append(f"data.labels is set, but task {task} has no labels")
    if options.minimum_rows_per_label and without_labels:
        wrong.append(f"data.minimum_rows_per_label is set, but task {task} has no labels")
    if options.label_separator is not None and task not in ("multilabel", "tag"):
        wrong.append(f"data.label_separator is set, but task {task} has one answer in a cell")
    if columns.candidates and task != "choice":
        wrong.append(f"data.columns.candidates is set, but the task is {task}")
    if split.kind == "stratified" and without_labels:
        wrong.append(f"data.split.kind is stratified, but task {task} has no labels to keep the shares of")
    if columns.other is not None and task in ("tag", "choice"):
        wrong.append(f"data.columns.other is set, but task {task} reads one text")
    refuse_contradictions(wrong)


def _card(
    rows: list[LabelledRow],
    options: LabelledOptions,
    ledger: LabelledLedger,
    leaks: list[Shared],
    repeated: int,
    found: list[str],
) -> dict[str, Any]:
    disputed = contradictions(rows)
    sides = Counter(row.side for row in rows)
    card: dict[str, Any] = {
        "task": options.task,
        "rows": ledger.as_dict(),
        "sides": {side: sides[side] for side in SIDES},
        "labels": dict(sorted(label_counts(rows).items())),
        "split": {"kind": options.split_kind, "seed": options.split.seed},
        "leaks": {
            "policy": options.split.leaks, "count": len(leaks), "examples": [str(one) for one in leaks[:SHOWN]]
        },
        "contradictions": {"count": len(disputed), "examples": [str(one) for one in disputed[:SHOWN]]},
        "repeated_training_rows": repeated,
        "findings": found,
    }  # fmt: skip
    values = {side: [row.value for row in rows if row.side == side and row.value is not None] for side in SIDES}
    if options.task == "regress":
        card["values"] = {
            side: {"least": min(here), "mean": sum(here) / len(here), "most": max(here)}
            for side, here in values.items()
            if here
        }
    return card
