"""What is wrong or odd with a set of images as a whole, found before anything is trained on it.

Faults stop; all of them are raised together. Findings are sentences for the card and the screen. Images are counted
and compared here, never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.data.chat_rows import SetAside
from groundup.data.image_decode import Form, Header
from groundup.data.image_options import ImageOptions
from groundup.data.labelled_check import Shared, contradictions, label_counts, shared_rows
from groundup.data.labelled_rows import LabelledLedger, LabelledRow
from groundup.data.labelled_split import split_faults
from groundup.data.set_faults import (
    SHOWN,
    and_more,
    empty_side,
    refuse_contradictions,
    too_many_malformed,
    what_was_set_aside,
)
from groundup.errors import GroundupError, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow(LabelledRow):
    """One image: `file` is where it stands, `line` its number there from 1 (0: the file is the image), `number` its
    place among the pixels, `key` the hash of these."""

    number: int

    @property
    def place(self) -> str:
        """`FILE`, or `FILE, image NUMBER`."""
        return printable(self.file) + (f", image {self.line:,}" if self.line else "")


def check_options(options: ImageOptions) -> None:
    """E-DATA-015 with everything that contradicts itself."""
    split, task = options.split, options.task
    wrong = split_faults(
        split, options.split_kind, group=options.columns.group, time=None, test_files=options.test_files
    )
    if split.kind == "time":
        wrong.append("data.split.kind is time, but images have none")
    if options.labels is not None and len(set(options.labels)) != len(options.labels):
        twice = sorted(label for label, count in Counter(options.labels).items() if count > 1)
        wrong.append(f"data.labels names twice: {printable(', '.join(twice))}")
    if task != "classify":
        given = {
            "data.labels": options.labels is not None,
            "data.balanced": options.balanced,
            "data.split.kind stratified": split.kind == "stratified",
        }
        wrong += [f"{name} is set, but task {task} has no labels" for name, is_set in given.items() if is_set]
    if options.columns.label is not None and task == "none":
        wrong.append("data.columns.label is set, but task none has no answers")
    refuse_contradictions(wrong)


def choose_form(options: ImageOptions, headers: Sequence[Header], names: Sequence[str]) -> Form:
    """The form of all images: as asked, else as they are.

    Args:
        headers, names: of every file or array.

    Raises:
        GroundupError: E-DATA-135 if their sizes differ and none was asked for.
    """
    channels = options.channels or (3 if any(header.channels == 3 for header in headers) else 1)
    if options.height_width is not None:
        return Form(*options.height_width, channels, options.resize)
    sizes = Counter((header.height, header.width) for header in headers)
    if len(sizes) <= 1:
        height, width = next(iter(sizes), (1, 1))
        return Form(height, width, channels, options.resize)
    first = {(header.height, header.width): name for header, name in zip(reversed(headers), reversed(names))}
    shown = [
        f"{height} × {width}: {count:,}, first {printable(first[height, width])}"
        for (height, width), count in sizes.most_common(SHOWN)
    ]
    shown += [f"and {len(sizes) - SHOWN:,} more sizes"] * (len(sizes) > SHOWN)
    middle = sorted(min(header.height, header.width) for header in headers)[len(headers) // 2]
    raise GroundupError(
        "E-DATA-135",
        f"the images have {len(sizes):,} different sizes, and data.size is not set",
        where="\n".join(shown),
        why="a network sees a batch of images at once, so all need one height and width",
        fix=f"set data.size={min(middle, 224)} (or [HEIGHT, WIDTH]), and data.resize=stretch, fit or crop",
        exit_code=2,
    )


def shared_images(rows: Sequence[ImageRow]) -> list[Shared]:
    """Images that also stand in a later set (train before validation before test), in order."""
    return shared_rows(rows)


def shown(leak: Shared) -> str:
    """Both places of an image that two sides share."""
    return f"{leak.row.place} ({leak.row.side}) = {leak.like.place} ({leak.like.side})"


def find_faults(
    rows: Sequence[ImageRow],
    options: ImageOptions,
    ledger: LabelledLedger,
    aside: Sequence[SetAside],
    leaks: Sequence[Shared],
) -> list[GroundupError]:
    """Everything that forbids to train on this set."""
    found = [
        too_many_malformed(
            ledger,
            aside,
            options.limits.malformed_limit,
            things="images",
            field="data.limits.malformed_limit",
            why="many at once usually mean an incomplete download, or a list whose paths begin elsewhere",
            fix="fetch or mend the files, or take them out",
        ),
        empty_side(rows, options, ledger, aside, things="images"),
        _leaked(leaks) if options.split.leaks == "refuse" else None,
        _unseen(rows),
        _single(rows, options),
    ]
    return [fault for fault in found if fault is not None]


def findings(
    rows: Sequence[ImageRow],
    options: ImageOptions,
    ledger: LabelledLedger,
    aside: Sequence[SetAside],
    leaks: Sequence[Shared],
    deviation: Sequence[float],
) -> list[str]:
    """What deserves a look but does not stop: a sentence each, with counts and an example."""
    found = what_was_set_aside(ledger, aside)
    if leaks:
        found.append(f"{len(leaks):,} images also stand in a set that they are measured on; first {shown(leaks[0])}")
    disputed = contradictions(rows)
    if disputed:
        one, other = disputed[0]
        found.append(
            f"{len(disputed):,} images stand with different answers; first {one.place} ({printable(one.answer, 40)}) "
            f"and {other.place} ({printable(other.answer, 40)})"
        )
    train = [row for row in rows if row.side == "train"]
    repeated = len(train) - len({row.key for row in train})
    if repeated:
        found.append(f"{repeated:,} training images repeat an earlier one pixel by pixel")
    if not all(deviation):
        found.append("a channel has one single value in all training images, so it tells nothing")
    unseen = set(options.labels or ()) - {label for row in train for label in row.labels}
    if unseen:
        found.append(f"data.labels that no training image carries: {printable(', '.join(sorted(unseen)))}")
    return found


def _leaked(leaks: Sequence[Shared]) -> GroundupError | None:
    if not leaks:
        return None
    return GroundupError(
        "E-DATA-136",
        f"{len(leaks):,} images also stand, pixel by pixel, in a set that they are measured on",
        where=and_more([*map(shown, leaks[:SHOWN])], len(leaks)),
        why="what is measured on an image that was trained on is memory, not learning",
        fix="set data.split.leaks=drop to take the trained images out, the measured sets stay whole\n"
        "or data.split.leaks=allow to train on them and have the report say so",
    )


def _unseen(rows: Sequence[ImageRow]) -> GroundupError | None:
    unseen = {label: sides for label, sides in sorted(label_counts(rows).items()) if not sides["train"]}
    if not unseen or not any(row.side == "train" for row in rows):
        return None
    lines = []
    for label, sides in list(unseen.items())[:SHOWN]:
        first = next(row for row in rows if label in row.labels)
        where = ", ".join(f"{count:,} in {side}" for side, count in sides.items() if count)
        lines.append(f"{printable(label, 60)!r}: {where}, first {first.place}")
    lines += [f"and {len(unseen) - SHOWN:,} more"] * (len(unseen) > SHOWN)
    return GroundupError(
        "E-DATA-102",
        f"{len(unseen):,} labels are measured but never seen in training",
        where="\n".join(lines),
        why="a label without a training image cannot be learned, so each image that carries it would count as wrong",
        fix="mend the name if it is another label, or add training images that carry it\n"
        "or, if one set is divided, set data.split.kind=stratified",
    )


def _single(rows: Sequence[ImageRow], options: ImageOptions) -> GroundupError | None:
    train = [row for row in rows if row.side == "train"]
    if options.task == "none" or not train or len({row.answer for row in train}) > 1:
        return None
    return GroundupError(
        "E-DATA-103",
        f"all {len(train):,} training images have the answer {printable(train[0].answer, 60)!r}",
        where=f"first {train[0].place}",
        why="where there is one answer there is nothing to tell apart, and any model would be right at once",
        fix="add images with other answers: another class folder, or other rows of the list\n"
        "or learn without answers: data.task=none",
    )
