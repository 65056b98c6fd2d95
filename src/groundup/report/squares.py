"""Square plots of one quantity against its like: ROC and precision-recall curves, reliability diagrams, predictions.

A plot has its own size and shrinks with a narrow page as a whole. Colours are classes of `page.css`; nothing about
a run is known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.report import figures
from groundup.report.charts import Scale, spaced
from groundup.report.markup import Markup, tag

SIDE, LEFT, TOP, BOTTOM = 316, 54, 8, 40
SMALLEST_DOT = 2.3  # pixels: a bin with a three-hundredth of the rows of the fullest


@dataclass(frozen=True)
class Line:
    """A line of a square plot; `sizes`, if any, marks its points with dots of these radii in pixels, and the line
    passes by the smallest of them. Points that are not `joined` have no line."""

    name: str
    style: str
    x: Sequence[float]
    y: Sequence[float]
    sizes: Sequence[float] = ()
    joined: bool = True


def square(
    identifier: str,
    title: str,
    note: str,
    axes: tuple[str, str],
    lines: list[Line],
    lowest: float = 0.0,
    *,
    span: tuple[float, float] = (0.0, 1.0),
    rising: bool = False,
) -> Markup:
    """A square plot of shares, or of values in `span`; `rising` draws the diagonal that chance, perfect calibration or
    right predictions follow."""
    first, last = span
    lowest = max(lowest, first) if span == (0.0, 1.0) else first
    across = Scale(first, last, LEFT, LEFT + SIDE)
    down = Scale(lowest, last, TOP + SIDE, TOP)
    ends = {"x1": LEFT, "x2": LEFT + SIDE}
    marks: list[Markup] = []
    for value in spaced(lowest, last, 6):
        y = f"{down(value):.1f}"
        marks.append(tag("line", y1=y, y2=y, class_="base" if value == lowest else "grid", **ends))
        marks.append(tag("text", figures.short(value), x=LEFT - 8, y=y, dy="0.32em", class_="label end"))
    for value in spaced(first, last, 6):
        at = f"{across(value):.1f}"
        marks.append(tag("text", figures.short(value), x=at, y=TOP + SIDE + 17, class_="label middle"))
    middle = LEFT + SIDE / 2
    marks.append(tag("text", axes[0], x=middle, y=TOP + SIDE + 35, class_="label middle"))
    turned = f"rotate(-90 10 {TOP + SIDE / 2})"
    marks.append(tag("text", axes[1], x="10", y=TOP + SIDE / 2, transform=turned, class_="label middle"))
    if rising:
        marks.append(tag("line", y1=TOP + SIDE, y2=TOP, class_="cursor", **ends))
    for line in reversed(lines):
        sizes = (line.sizes or [SMALLEST_DOT] * len(line.x)) if line.joined else []
        joined = [(x, y) for x, y, size in zip(line.x, line.y, sizes) if size >= SMALLEST_DOT]
        path = "L".join(f"{across(x):.1f} {down(y):.1f}" for x, y in joined)
        if path:
            marks.append(tag("path", d=f"M{path}", class_=f"line {line.style}"))
        marks += [
            tag("circle", cx=f"{across(x):.1f}", cy=f"{down(y):.1f}", r=f"{size:.1f}", class_=f"dot {line.style}")
            for x, y, size in zip(line.x, line.y, line.sizes)
        ]
    legend = [tag("span", line.name, class_=f"key {line.style}") for line in lines if line.name]
    described = f"{title}: {axes[1]} against {axes[0]}. " + "; ".join(line.name for line in lines if line.name)
    drawing = tag(
        "svg",
        tag("title", title, id=f"{identifier}-title"),
        tag("desc", described, id=f"{identifier}-text"),
        *marks,
        id=identifier,
        role="img",
        aria_labelledby=f"{identifier}-title {identifier}-text",
        viewBox=f"0 0 {LEFT + SIDE + 8} {TOP + SIDE + BOTTOM}",
        width=LEFT + SIDE + 8,
        class_="square",
    )
    caption = tag("figcaption", tag("strong", title), " ", tag("span", note, class_="quiet"))
    return tag("figure", caption, drawing, tag("div", *legend, class_="legend") if legend else None)
