"""Which curves a run has, and the section of the page that shows them against steps, tokens and time.

Each chart is drawn three times, once per axis; style sheets alone choose which one is seen, so the switch
works without a script. The script only adds the reading of single values, from the block that `points` fills.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from groundup.report import figures
from groundup.report.charts import Format, Series, above, line_chart, smooth, thin
from groundup.report.collect import RunRecord, interval
from groundup.report.markup import Child, Markup, data_block, details, join, table, tag
from groundup.report.reading import mapping, number, text_of

AXES = (("steps", "step", "steps"), ("tokens", "tokens", "tokens"), ("time", "seconds", "time"))
SMOOTHED_FROM = 60
MOST_SETS = 3
MOST_METRICS = 12
ROWS = 14
NATS = ("next_token", "masked_token", "classify", "choice", "tag", "multilabel", "translate")
"""Objectives whose loss is a mean cross-entropy."""
NOTES = {
    "return": "rewards of an episode, summed",
    "accuracy": "share of right answers",
    "masked_accuracy": "share of the hidden tokens",
    "token_accuracy": "share of the target's tokens",
    "negative_bound": "nats per image",
    "pixel_error": "mean squared error of a pixel",
    "squared_error": "mean",
    "reciprocal_rank": "mean of 1 / rank of the right partner",
}
REPEATS = ("loss", "bits_per_byte", "perplexity")
"""Metrics of evaluations that have a chart of their own, or say again what the loss says."""


@dataclass(frozen=True)
class Chart:
    """One quantity: the column of the step events and, where it is also evaluated, the metric's name. What is only
    evaluated has no column, and its intervals are a band."""

    key: str
    title: str
    note: str
    y_format: Format
    metric: str = ""
    from_zero: bool = False
    smoothed: bool = False
    binary: bool = False
    band: bool = False
    wide: bool = False


RECORDED = (
    Chart("loss", "Loss", "as the objective counts it", figures.short, metric="loss", smoothed=True, wide=True),
    Chart(
        "bits_per_byte",
        "Bits per byte",
        "comparable between tokenizers",
        figures.short,
        metric="bits_per_byte",
        smoothed=True,
    ),
    Chart("learning_rate", "Learning rate", "as scheduled", figures.short, from_zero=True),
    Chart("gradient_norm", "Gradient norm", "before clipping", figures.short, from_zero=True, smoothed=True),
    Chart("tokens_per_second", "Throughput", "a second", figures.short, from_zero=True, smoothed=True),
    Chart(
        "ceiling_share",
        "Share of the ceiling",
        "of the measured matrix speed",
        lambda share: f"{share * 100:.4g} %",
        from_zero=True,
        smoothed=True,
    ),
    Chart("memory_bytes", "Memory", "of the process", figures.size, from_zero=True, binary=True),
)


@dataclass(frozen=True)
class Line:
    """A drawn series with its place on all three axes."""

    name: str
    style: str
    x: dict[str, list[float]]
    y: list[float]
    low: list[float]
    high: list[float]
    band: bool = False

    def on(self, axis: str) -> Series:
        return Series(self.name, self.style, self.x[axis], self.y, self.low, self.high, self.band)


def charts_of(record: RunRecord) -> list[Chart]:
    """The charts of a run: its loss, every metric that was evaluated on the way, then what else each step recorded.

    Who learns to act is judged by its returns, so they come first; its loss says little.
    """
    kind = text_of(mapping(record.recipe.get("objective")).get("kind"))
    loss = "nats per target" if kind in NATS or (not kind and record.unit == "tokens") else RECORDED[0].note
    notes = {
        "loss": "nats per image" if kind == "elbo" else loss,
        "tokens_per_second": f"{record.unit} per second",
    }
    recorded = [replace(chart, note=notes.get(chart.key, chart.note)) for chart in RECORDED]
    names = dict.fromkeys(name for event in record.evaluations for name in mapping(event.get("metrics")))
    evaluated = [
        Chart(
            f"evaluated-{index}",
            figures.capital(figures.words(name)[:60]),
            NOTES.get(name, ""),
            figures.short,
            name,
            band=True,
        )
        for index, name in enumerate([name for name in names if name not in REPEATS][:MOST_METRICS])
    ]
    if any(chart.metric == "return" for chart in evaluated):
        evaluated.sort(key=lambda chart: chart.metric != "return")
        return [replace(evaluated[0], wide=True), *evaluated[1:], replace(recorded[0], wide=False), *recorded[1:]]
    return [*recorded[:2], *evaluated, *recorded[2:]]


def lines_of(record: RunRecord, chart: Chart) -> list[Line]:
    """The series of one chart, thinned to what can be seen; [] if the run recorded none of it."""
    columns = record.columns
    if chart.key not in columns:
        return [replace(line, band=True) for line in evaluated_lines(record, chart.metric)]
    values: Sequence[float] = columns[chart.key]
    if chart.key == "ceiling_share" and not any(value > 0 for value in values):
        return []  # the work of a step was not counted
    lines: list[Line] = []

    def line(name: str, style: str, y: Sequence[float]) -> None:
        kept = thin(columns["step"], y)
        if kept:
            x = {axis: [columns[column][i] for i in kept] for axis, column, _ in AXES}
            lines.append(Line(name, style, x, [y[i] for i in kept], [], []))

    if chart.smoothed and len(values) >= SMOOTHED_FROM:
        span = span_of(record)
        line("each record", "faint", values)
        line(f"average of {span}", "main", smooth(values, span))
    else:
        line("training" if chart.metric else chart.title.lower(), "main", values)
    return lines + evaluated_lines(record, chart.metric)


def span_of(record: RunRecord) -> int:
    """Over how many records the strong line averages: about a fiftieth of the run, an odd number."""
    return max(5, len(record.columns["step"]) // 50 | 1)


def evaluated_lines(record: RunRecord, metric: str) -> list[Line]:
    """Points with intervals for each evaluated set, joined by a line; the first three sets."""
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for event in record.evaluations:
        value = number(mapping(event.get("metrics")).get(metric))
        if metric and math.isfinite(value):
            low, high = interval(event, metric)
            name = figures.words(text_of(event.get("data")) or "held_out")
            found.setdefault(name, []).append((number(event.get("step")), value, low, high))
    lines = []
    for index, (name, points) in enumerate(list(found.items())[:MOST_SETS]):
        rows = [points[i] for i in thin([p[0] for p in points], [p[1] for p in points], 120)]
        x = {axis: [record.at_step(column, row[0]) for row in rows] for axis, column, _ in AXES}
        values, lows, highs = ([row[at] for row in rows] for at in (1, 2, 3))
        lines.append(Line(name, f"held-{index}", x, values, lows, highs))
    return lines


def curves(record: RunRecord, prefix: str = "") -> Markup:
    """The charts of a run with the switch of their axis and the numbers behind them; empty without any."""
    figures_: list[Markup] = []
    data: dict[str, Any] = {}
    charts = charts_of(record)
    for chart in charts:
        lines = lines_of(record, chart)
        if lines:
            figures_.append(figure(record, chart, lines, prefix))
            data[prefix + chart.key] = [points(line) for line in lines]
    if not figures_:
        return tag("p", "No step was recorded, so there is no curve to draw.", class_="quiet")
    choices = [
        tag(
            "label",
            tag("input", type="radio", name=f"{prefix}axis", value=axis, checked=index == 0),
            tag("span", name),
        )
        for index, (axis, column, name) in enumerate(axes_of(record))
        if any(math.isfinite(value) for value in record.columns[column])
    ]
    switch = tag("fieldset", tag("legend", "Draw against"), *choices, class_="switch")
    return tag(
        "div",
        switch if len(choices) > 1 else None,
        tag("div", *figures_, class_="charts"),
        numbers(record, charts),
        data_block(data, f"{prefix}points"),
        class_="curves",
    )


def figure(record: RunRecord, chart: Chart, lines: list[Line], prefix: str) -> Markup:
    """One chart on all its axes, with its title, its legend and what was smoothed."""
    drawings: list[Child] = []
    for axis, column, name in axes_of(record):
        series = [line.on(axis) for line in lines]
        if not any(math.isfinite(x) for one in series for x in one.x):
            continue
        reach = record.at_step(column, record.last("step"))
        drawings.append(
            line_chart(
                f"{prefix}{chart.key}-{axis}",
                f"{chart.title} against {name}",
                described(chart, lines, reach, axis, name),
                series,
                x_format=(lambda value: figures.duration(value)) if axis == "time" else figures.short,
                y_format=chart.y_format,
                reach=reach,
                time=axis == "time",
                from_zero=chart.from_zero,
                binary=chart.binary,
                class_=f"by-{axis}",
                data_chart=chart.key,
                data_axis=axis,
                data_unit=name,
                data_points=f"{prefix}points",
                data_key=f"{prefix}{chart.key}",
            )
        )
    legend = [tag("span", line.name, class_=f"key {line.style}") for line in lines]
    cut, highest = above([line.on("steps") for line in lines])
    if cut:
        legend.append(tag("span", f"above the frame: up to {chart.y_format(highest)}"))
    return tag(
        "figure",
        tag("figcaption", tag("strong", chart.title), " ", tag("span", chart.note, class_="quiet")),
        tag("div", *legend, class_="legend") if len(legend) > 1 or chart.band else None,
        tag("div", *drawings, class_="plot"),
        class_="wide" if chart.wide else None,
    )


def axes_of(record: RunRecord) -> list[tuple[str, str, str]]:
    """What curves are drawn against: its name in the page, the column, and the word for it."""
    return [(axis, column, record.unit if axis == "tokens" else name) for axis, column, name in AXES]


def described(chart: Chart, lines: list[Line], reach: float, axis: str, unit: str) -> str:
    """The chart in words: from where to where each line goes."""
    parts = []
    for line in lines:
        values = [value for value in line.y if math.isfinite(value)]
        if values and line.style != "faint":
            ends = f"from {chart.y_format(values[0])} to {chart.y_format(values[-1])}"
            extremes = f"lowest {chart.y_format(min(values))}, highest {chart.y_format(max(values))}"
            parts.append(f"{line.name}: {ends}, {extremes}")
    extent = figures.duration(reach) if axis == "time" else f"{figures.count(reach)} {unit}"
    note = f" ({chart.note})" if chart.note else ""
    return f"{chart.title}{note} over {extent}. " + "; ".join(parts) + "."


def points(line: Line) -> dict[str, Any]:
    """What the script reads aloud or shows beside the pointer, rounded to six digits."""

    def rounded(values: Sequence[float]) -> list[float | None]:
        return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]

    shown = {axis: rounded(line.x[axis]) for axis, _, _ in AXES}
    return {"name": line.name, **shown, "y": rounded(line.y)} | (
        {"low": rounded(line.low), "high": rounded(line.high)} if line.low else {}
    )


def numbers(record: RunRecord, charts: list[Chart]) -> Markup:
    """The values behind the curves as tables, for those who would rather read than look."""
    columns = record.columns
    total = len(columns["step"])
    parts: list[Child] = []
    if total:
        picked = sorted({round(i * (total - 1) / (min(total, ROWS) - 1 or 1)) for i in range(min(total, ROWS))})
        shown: list[tuple[str, str, Format]] = [
            ("step", "step", figures.count),
            ("tokens", record.unit, figures.count),
            ("seconds", "time", figures.duration),
            *(
                (chart.key, chart.title.lower(), chart.y_format)
                for chart in charts
                if chart.key in columns and chart.key not in REPEATS
            ),
        ]
        shown[3:3] = [("loss", "loss", figures.metric), ("bits_per_byte", "bits per byte", figures.metric)]
        shown = [item for item in shown if any(math.isfinite(value) for value in columns[item[0]])]
        rows: list[list[Child]] = [
            [
                shape(columns[name][i]) if math.isfinite(columns[name][i]) else figures.MISSING
                for name, _, shape in shown
            ]
            for i in picked
        ]
        caption = f"Training: {len(picked)} of {total:,} recorded steps"
        parts.append(table(caption, [title for _, title, _ in shown], rows, numeric=range(len(shown))))
    rows = []
    for event in spread(record.evaluations, 40):
        for metric, value in mapping(event.get("metrics")).items():
            low, high = interval(event, metric)
            step = figures.count(number(event.get("step")))
            rows.append(
                [
                    step,
                    text_of(event.get("data")),
                    figures.words(metric),
                    figures.metric(number(value)),
                    figures.between(low, high),
                ]
            )
    if rows:
        heads = ["step", "data", "metric", "value", "interval"]
        parts.append(table("Evaluations during training", heads, rows, numeric=(0, 3, 4)))
    return details("The numbers behind the curves", join(parts))


def spread(items: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most `most` items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
