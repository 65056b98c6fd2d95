"""Small charts as inline SVG: lines with faint and strong strokes, points with intervals, stacked bars.

A chart has no viewBox. Its paths live in a nested SVG that stretches with the page, its labels and points
are placed in per cent across and in pixels down, so text keeps its size from a phone to a printed page.
Colours, strokes and fonts are classes of `page.css`; nothing about a run is known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.report.markup import Markup, join, tag

HEIGHT = 200
WIDE = 1000
MOST_POINTS = 480
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
BINARY_STEPS = tuple(2**power for power in range(60))

Format = Callable[[float], str]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One line or row of points: equally long x and y, `low` and `high` for points with an interval, which is drawn
    as a bar through each point or, for a `band`, as an area along the line."""

    name: str
    style: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    band: bool = False

    @property
    def points(self) -> bool:
        return bool(self.low)

    @property
    def banded(self) -> bool:
        """Whether its intervals are an area along the line: one point alone has none."""
        return self.band and sum(map(math.isfinite, self.low)) > 1


@dataclass(frozen=True)
class Scale:
    """A linear map of a range of values to a range of the drawing, with the ticks to label."""

    first: float
    last: float
    start: float
    stop: float
    ticks: tuple[float, ...] = ()

    def __call__(self, value: float) -> float:
        return self.start + (self.stop - self.start) * (value - self.first) / (self.last - self.first)


def thin(x: Sequence[float], y: Sequence[float], limit: int = MOST_POINTS) -> list[int]:
    """Which points to keep so that at most about `limit` remain and every spike stays visible.

    The points are cut into equal runs; each run keeps its lowest and its highest finite value. The first and
    the last point always stay. Deterministic; the kept points are values of the record, never averages.
    """
    values = np.asarray(y, dtype=np.float64)
    finite = np.flatnonzero(np.isfinite(values) & np.isfinite(np.asarray(x, dtype=np.float64)))
    if len(finite) <= limit:
        return [int(index) for index in finite]
    kept = {int(finite[0]), int(finite[-1])}
    for run in np.array_split(finite, limit // 2):
        kept |= {int(run[values[run].argmin()]), int(run[values[run].argmax()])}
    return sorted(kept)


def smooth(values: Sequence[float], span: int) -> list[float]:
    """The mean over about `span` values around each value, near values counting more, fewer near the ends.

    It looks as far ahead as back, so it does not lag. A missing value is left out and stays missing.
    """
    return [float(value) for value in centred(centred(np.asarray(values), span // 2), span // 2)]


def centred(values: Values, span: int) -> Values:
    """The plain mean over `span` values around each value."""
    usable = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(usable, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(usable)])
    place = np.arange(len(values))
    reach = np.minimum(span // 2, np.minimum(place, len(values) - 1 - place))
    first, last = place - reach, place + reach + 1
    means = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return np.where(usable, means, np.nan)


def frame(values: Sequence[float]) -> tuple[float, float]:
    """The range of values to draw: all of them, unless the highest would flatten the rest into a line.

    Then the frame ends at a little more than twice the reach of the lower 95 %; `above` counts what is cut.
    """
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return 0.0, 1.0
    low, high = finite[0], finite[-1]
    usual = finite[int(0.95 * (len(finite) - 1))]
    ceiling = usual + 1.2 * (usual - low)
    return low, (ceiling if len(finite) >= 50 and high > ceiling > low else high)


def above(series: Sequence[Series]) -> tuple[int, float]:
    """How many of the drawn values lie above the frame, and the highest of them."""
    _, ceiling = frame([value for one in series for value in (*one.y, *one.low, *one.high)])
    cut = [value for one in series for value in one.y if math.isfinite(value) and value > ceiling]
    return len(cut), max(cut, default=math.nan)


def spaced(low: float, high: float, most: int, steps: Sequence[float] | None = None) -> tuple[float, ...]:
    """Round values from at or above `low` to at or below `high`, at most `most` of them."""
    rough = (high - low) / max(most - 1, 1)
    if steps and rough <= steps[-1]:
        step = next(step for step in steps if step >= rough)
    else:
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in STEPS if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(index * step for index in range(first, last + 1))


def widened(low: float, high: float) -> tuple[float, float]:
    """A range that is never empty, however equal or extreme its ends."""
    if high - low > max(abs(low), abs(high)) * 1e-12 and math.isfinite(high - low):
        return low, high
    middle = low if math.isfinite(high - low) else 0.0
    reach = abs(middle) * 0.05 or 1.0
    return middle - reach, middle + reach


def vertical(series: Sequence[Series], from_zero: bool, binary: bool) -> Scale:
    """The scale of values for all series of a chart, with room for the intervals of its points."""
    values = [value for one in series for value in (*one.y, *one.low, *one.high)]
    low, high = frame(values)
    low, high = widened(min(low, 0.0) if from_zero else low, high)
    room = (high - low) * 0.06
    low, high = (low if from_zero else low - room), high + room
    return Scale(low, high, HEIGHT - 0.5, 0.5, spaced(low, high, 6, BINARY_STEPS if binary else None))


def horizontal(series: Sequence[Series], time: bool, reach: float = 0.0) -> Scale:
    """The scale across: from zero to the last recorded value, or to `reach` if that is farther."""
    values = [value for value in (reach, *(x for one in series for x in one.x)) if math.isfinite(value)]
    low, high = widened(min([0.0, *values]), max([0.0, *values]))
    return Scale(low, high, 0.0, 100.0, spaced(low, high, 6, TIME_STEPS if time else None))


def line_path(one: Series, across: Scale, down: Scale) -> Markup:
    """A path through the points; a missing value interrupts it."""
    commands: list[str] = []
    pen_down = False
    for x, y in zip(one.x, one.y):
        if not (math.isfinite(x) and math.isfinite(y)):
            pen_down = False
            continue
        height = max(min(down(y), HEIGHT * 3.0), -HEIGHT * 3.0)
        commands.append(f"{'L' if pen_down else 'M'}{across(x) * WIDE / 100:.1f} {height:.1f}")
        pen_down = True
    if len(commands) == 1:
        commands.append("h0.1")
    return tag("path", d="".join(commands), class_=f"line {one.style}", vector_effect="non-scaling-stroke")


def band_path(one: Series, across: Scale, down: Scale) -> Markup:
    """The area between the lower and the upper ends of the intervals; points without one are passed over."""
    rows = [row for row in zip(one.x, one.low, one.high) if all(map(math.isfinite, row))]
    ends = [(x, high) for x, _, high in rows] + [(x, low) for x, low, _ in reversed(rows)]
    places = (f"{across(x) * WIDE / 100:.1f} {max(min(down(y), HEIGHT * 3.0), -HEIGHT * 3.0):.1f}" for x, y in ends)
    return tag("path", d=f"M{'L'.join(places)}Z", class_=f"band {one.style}")


def point_marks(one: Series, across: Scale, down: Scale) -> Markup:
    """A dot for each value inside the frame and a bar for its interval."""
    marks: list[Markup] = []
    for x, y, low, high in zip(one.x, one.y, one.low, one.high):
        if not (math.isfinite(x) and down.first <= y <= down.last):
            continue
        at = f"{across(x):.2f}%"
        if math.isfinite(low) and math.isfinite(high) and not one.banded:
            ends = {"y1": f"{down(low):.1f}", "y2": f"{down(high):.1f}"}
            marks.append(tag("line", x1=at, x2=at, class_=f"whisker {one.style}", **ends))
        marks.append(tag("circle", cx=at, cy=f"{down(y):.1f}", r="2.6", class_=f"dot {one.style}"))
    return join(marks)


def axes(across: Scale, down: Scale, x_format: Format, y_format: Format) -> Markup:
    """Grid lines with their labels: values at the left, the x axis below."""
    marks: list[Markup] = []
    for value in down.ticks:
        height = f"{down(value):.1f}"
        marks.append(tag("line", x1="0", x2="100%", y1=height, y2=height, class_="grid"))
        marks.append(tag("text", y_format(value), x="-8", y=height, dy="0.32em", class_="label end"))
    for value in across.ticks:
        at = across(value)
        side = " start" if at < 3 else " end" if at > 95 else " middle"
        marks.append(tag("text", x_format(value), x=f"{at:.2f}%", y=HEIGHT + 18, class_="label" + side))
    marks.append(tag("line", x1="0", x2="100%", y1=HEIGHT, y2=HEIGHT, class_="base"))
    return join(marks)


def line_chart(
    identifier: str,
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    x_format: Format,
    y_format: Format,
    reach: float = 0.0,
    time: bool = False,
    from_zero: bool = False,
    binary: bool = False,
    class_: str = "",
    **data: str,
) -> Markup:
    """An SVG of `series`, with a title and a description for those who cannot see it.

    Args:
        identifier: unique in the page; `identifier-title` and `identifier-text` name its two texts.
        reach: how far the horizontal axis goes at least.
        time: x is seconds, so that ticks fall on minutes and hours.
        from_zero: the vertical axis starts at zero.
        binary: y is bytes, so that ticks fall on whole binary units.
        data: data-… attributes for the script.
    """
    across, down = horizontal(series, time, reach), vertical(series, from_zero, binary)
    bands = [band_path(one, across, down) for one in series if one.banded]
    lines = [line_path(one, across, down) for one in series]
    inner = tag(
        "svg",
        *bands,
        *lines,
        viewBox=f"0 0 {WIDE} {HEIGHT}",
        preserveAspectRatio="none",
        width="100%",
        height=HEIGHT,
        class_="paths",
    )
    return tag(
        "svg",
        tag("title", title, id=f"{identifier}-title"),
        tag("desc", description, id=f"{identifier}-text"),
        axes(across, down, x_format, y_format),
        inner,
        *(point_marks(one, across, down) for one in series if one.points),
        id=identifier,
        role="img",
        aria_labelledby=f"{identifier}-title {identifier}-text",
        height=HEIGHT + 24,
        width="100%",
        class_=f"chart {class_}".strip(),
        data_first=f"{across.first:.6g}",
        data_last=f"{across.last:.6g}",
        **data,
    )


def interval_bar(
    title: str, before: float | None, after: float, low: float | None, high: float | None, span: Scale
) -> Markup:
    """One evaluation on a line: a hollow mark before, a dot after, a bar for the interval."""
    marks = [tag("line", x1="0", x2="100%", y1="11", y2="11", class_="base")]
    if before is not None:
        at = f"{span(before):.2f}%"
        ends = {"x1": at, "x2": f"{span(after):.2f}%"}
        marks.append(tag("line", y1="11", y2="11", class_="change", **ends))
        marks.append(tag("circle", cx=at, cy="11", r="4", class_="hollow"))
    if low is not None and high is not None:
        wide = max(span(high) - span(low), 0.0)
        marks.append(
            tag(
                "rect",
                x=f"{span(low):.2f}%",
                y="6.5",
                height="9",
                width=f"{wide:.2f}%",
                rx="2",
                class_="interval",
            )
        )
    marks.append(tag("circle", cx=f"{span(after):.2f}%", cy="11", r="4", class_="dot main"))
    return tag("svg", tag("title", title), *marks, role="img", width="100%", height="22", class_="range")


PARTS = 7
"""Colours of the parts of a whole, in page.css."""


def stacked_bar(title: str, parts: Sequence[tuple[str, float]]) -> Markup:
    """Shares of a whole as one bar, in the given order; classes part-0, part-1 … colour it."""
    whole = sum(value for _, value in parts)
    if whole <= 0:
        return Markup("")
    marks, at = [], 0.0
    for index, (name, value) in enumerate(parts):
        share = 100 * value / whole
        ends = {"x": f"{at:.3f}%", "width": f"{share:.3f}%"}
        marks.append(
            tag(
                "svg",
                tag("rect", tag("title", name), width="100%", height="14"),
                height="14",
                y="0",
                **ends,
                class_=f"part-{index % PARTS}",
            )
        )
        at += share
    return tag("svg", tag("title", title), *marks, role="img", width="100%", height="14", class_="stack")
