"""The confusion matrix as a heat map that stays readable from two labels to a hundred.

It is drawn at its own size and scrolls in its own box on a narrow screen. Colours are classes of `page.css`, their
strength is an attribute; each cell tells its numbers when pointed at.
"""

from __future__ import annotations

import math

from groundup.report import figures
from groundup.report.markup import Markup, join, tag

MOST_LABELS = 120
LONGEST_NAME = 30
SIZES = ((4, 84, 14.0), (8, 56, 13.5), (16, 36, 12.5), (30, 24, 11.0), (48, 16, 11.0), (MOST_LABELS, 11, 9.5))
"""Up to so many labels: the side of a cell and the size of its text, in pixels."""
SMALLEST_WRITTEN = 24
LETTER = 0.58  # the usual width of a letter, as a share of the size of the text

Cell = tuple[int, int, int]


def matrix(labels: list[str], cells: list[Cell], identifier: str) -> Markup:
    """The matrix of `cells` (truth, prediction, rows) with what it shows in words; empty without any."""
    if not cells:
        return Markup("")
    kept = labels_to_draw(len(labels), cells)
    caption = tag("figcaption", tag("strong", "Confusion matrix"), " ", tag("span", described(cells), class_="quiet"))
    fewer = None
    if len(kept) < len(labels):
        fewer = f"Of {len(labels)} labels the {len(kept)} with the most mistakes are drawn."
    box = tag(
        "div",
        drawing([labels[index] for index in kept], renumbered(cells, kept), identifier),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label="Confusion matrix",
    )
    reading = (
        "Down: the true label. Across: the predicted one. The stronger the colour, the larger the share of the "
        "true label's rows; mistakes lie off the diagonal, in a colour of their own. "
    )
    return tag("figure", caption, box, tag("p", reading, fewer, class_="quiet small"), class_="confusion")


def described(cells: list[Cell]) -> str:
    """The matrix in a sentence."""
    total = sum(rows for _, _, rows in cells)
    right = sum(rows for truth, predicted, rows in cells if truth == predicted)
    return f"{right:,} of {total:,} rows on the diagonal"


def labels_to_draw(labels: int, cells: list[Cell]) -> list[int]:
    """All labels, or of too many those in the most mistakes, in their order."""
    wrong = [0] * labels
    for truth, predicted, rows in cells:
        if truth != predicted:
            wrong[truth] += rows
            wrong[predicted] += rows
    worst = sorted(range(labels), key=lambda index: (-wrong[index], index))
    return sorted(worst[:MOST_LABELS])


def renumbered(cells: list[Cell], kept: list[int]) -> list[tuple[int, int, int, float]]:
    """The cells between the labels that are drawn, with their share of all rows of the true label."""
    support: dict[int, int] = {}
    for truth, _, rows in cells:
        support[truth] = support.get(truth, 0) + rows
    place = {label: index for index, label in enumerate(kept)}
    return [(place[t], place[p], rows, rows / support[t]) for t, p, rows in cells if t in place and p in place]


def short_name(name: str) -> str:
    """A label that fits beside the matrix."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def drawing(labels: list[str], cells: list[tuple[int, int, int, float]], identifier: str) -> Markup:
    """The matrix with its labels."""
    side, size = next((side, size) for most, side, size in SIZES if len(labels) <= most)
    longest = max(len(short_name(name)) for name in labels) * size * LETTER
    upright = longest <= side - 6
    left, top = math.ceil(longest) + 12, (size * 1.8 if upright else math.ceil(longest) + 12)
    whole = side * len(labels)
    marks = [tag("rect", x=left, y=top, width=whole, height=whole, class_="field")]
    for index, name in enumerate(labels):
        centre = (index + 0.5) * side
        named = tag("title", name)
        marks.append(tag("text", named, short_name(name), x=left - 7, y=top + centre, dy="0.34em", class_="end"))
        if upright:
            marks.append(tag("text", named, short_name(name), x=left + centre, y=top - 8, class_="middle"))
        else:
            turned = f"translate({left + centre:g} {top - 7:g}) rotate(-90)"
            marks.append(tag("text", named, short_name(name), transform=turned, dy="0.34em", class_="start"))
    marks += [cell(one, labels, side, left, top) for one in cells]
    wide, high = left + whole + 2, top + whole + 2
    heading = f"{identifier}-title"
    return tag(
        "svg",
        tag("title", "Confusion matrix", id=heading),
        *marks,
        role="img",
        aria_labelledby=heading,
        width=f"{wide:g}",
        height=f"{high:g}",
        font_size=size,
        class_="heat",
    )


def cell(one: tuple[int, int, int, float], labels: list[str], side: int, left: float, top: float) -> Markup:
    """One cell: its colour, its number where there is room, and what it says when pointed at."""
    truth, predicted, rows, share = one
    x, y = left + predicted * side, top + truth * side
    right = truth == predicted
    strength = 0.08 + 0.92 * share if right else 0.14 + 0.86 * math.sqrt(share)
    said = f"{rows:,} rows of {labels[truth]}" + (" predicted rightly" if right else f" taken for {labels[predicted]}")
    gap = 1 if side >= SMALLEST_WRITTEN else 0.5
    box = tag(
        "rect",
        x=f"{x + gap / 2:g}",
        y=f"{y + gap / 2:g}",
        width=side - gap,
        height=side - gap,
        fill_opacity=f"{strength:.2f}",
        class_="right" if right else "wrong",
    )
    written = None
    if side >= SMALLEST_WRITTEN:
        shown = str(rows) if rows < 10_000 else figures.short(rows)
        style = "middle over" if strength > 0.6 else "middle on"
        if len(shown) * side * 0.22 < side:
            written = tag("text", shown, x=f"{x + side / 2:g}", y=f"{y + side / 2:g}", dy="0.34em", class_=style)
    return tag("g", join([tag("title", f"{said} ({figures.percent(share)})"), box, written]))
