"""The page of a cross-validation: what its folds measured together, beside the baselines, in one HTML file.

What comes in is the dictionary of cross_validation.json; no run is read here. The page is built of the parts that the
report of a run has, under the same content policy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from groundup.report import figures
from groundup.report.charts import Series, line_chart
from groundup.report.document import asset, document
from groundup.report.markup import Child, Markup, join, table, tag
from groundup.report.page import Part, chapter


def render_cross_validation(found: Mapping[str, Any]) -> str:
    """The whole page as HTML text."""
    parts = [
        ("results", "Results", results(found)),
        ("folds", "Folds", folds(found)),
        ("curve", "Fewer rows to train on", learning_curve(found)),
        ("settings", "Chosen settings", settings(found)),
        ("labels", "Labels in question", suspects(found)),
    ]
    parts = [part for part in parts if part[2]]
    body = tag("body", tag("header", head(found, parts), class_="top"), tag("main", *map(chapter, parts)))
    return document(f"{found['name']}: cross-validation", body, asset("page.css"))


def head(found: Mapping[str, Any], parts: list[Part]) -> Markup:
    """Name, what was done, the sections."""
    main, rows = found["main"], found["rows"]
    measured = found["metrics"][main]
    train, test = (sum(rows[side]) / len(rows[side]) for side in ("train", "test"))
    repeated = f", drawn {found['repeats']} times" if found["repeats"] > 1 else ""
    sentence = (
        f"{found['folds']} folds{repeated}, divided {found['split']}: each model was trained on about "
        f"{figures.count(round(train))} rows and measured on {figures.count(round(test))} that it had not seen. "
        f"{figures.capital(figures.words(main))} is {figures.metric(measured['value'])} "
        f"({figures.between(measured['low'], measured['high'])})."
    )
    links = (tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in parts)
    return join(
        [
            tag("p", "groundup cross-validation", class_="eyebrow"),
            tag("h1", tag("span", str(found["name"])[:200], dir="auto")),
            tag("p", sentence, class_="lead"),
            tag("nav", tag("ul", *links), aria_label="Sections"),
        ]
    )


def results(found: Mapping[str, Any]) -> Markup:
    """Each metric with its interval, the baselines beside it."""
    baselines = found["baselines"]
    lines: list[list[Child]] = []
    for name, measured in found["metrics"].items():
        line: list[Child] = [figures.words(name), tag("b", figures.metric(measured["value"])), _between(measured)]
        for other in baselines.values():
            theirs = other["metrics"].get(name)
            line += [_value(theirs), other["verdict"].get(name, figures.MISSING)]
        lines.append(line)
    heads = ["metric", "mean", "interval"]
    for name in baselines:
        heads += [name, "against it"]
    note = (
        "The interval is the corrected resampled t (Nadeau & Bengio 2003): folds share training rows, so their spread "
        "alone would promise too much. Against a baseline, better and worse are said where the interval of the "
        "difference over the same folds lies clear of zero."
    )
    caption = "Means over the folds, with 95 % intervals"
    return join([table(caption, heads, lines, numeric=(1, 2)), tag("p", note, class_="quiet")])


def folds(found: Mapping[str, Any]) -> Markup:
    """What each fold measured, with the way to its own report."""
    names = list(found["metrics"])
    rows: list[list[Child]] = []
    for number, (run, scores) in enumerate(zip(found["runs"], found["per_fold"], strict=True)):
        sizes: list[Child] = [figures.count(found["rows"][side][number]) for side in ("train", "test")]
        link = tag("a", run, href=f"{quote(run)}/report.html")
        rows.append([link, *sizes, *(figures.metric(scores[name]) for name in names)])
    heads = ["fold", "trained on", "tested on", *map(figures.words, names)]
    return table("Each fold", heads, rows, numeric=range(1, len(heads)))


def learning_curve(found: Mapping[str, Any]) -> Markup:
    """The main metric by the number of rows that were trained on."""
    points = found.get("learning_curve", [])
    if not points:
        return Markup("")
    main = found["main"]
    sizes = [sum(point["rows"]["train"]) / len(point["rows"]["train"]) for point in points]
    values = [[_number(point["metrics"][main][key]) for point in points] for key in ("value", "low", "high")]
    series = Series(figures.words(main), "main", sizes, values[0], values[1], values[2])
    chart = line_chart(
        "curve-chart",
        f"{figures.words(main)} by rows to train on",
        "; ".join(f"{size:.0f} rows: {value:.4g}" for size, value in zip(sizes, values[0], strict=True)),
        [series],
        x_format=figures.short,
        y_format=figures.short,
    )
    lines: list[list[Child]] = [
        [figures.count(round(size)), *(_value(point["metrics"][name]) for name in found["metrics"])]
        for size, point in zip(sizes, points, strict=True)
    ]
    heads = ["rows to train on", *map(figures.words, found["metrics"])]
    return join([chart, table("Means by rows to train on", heads, lines, numeric=range(len(heads)))])


def settings(found: Mapping[str, Any]) -> Markup:
    """Which setting each fold chose, and what it was chosen by."""
    nested = found.get("nested")
    if not nested:
        return Markup("")
    names = list(nested["means"][0])
    rows: list[list[Child]] = [
        [run, chosen, *(figures.metric(means[name]) for name in names)]
        for run, chosen, means in zip(found["runs"], nested["chosen"], nested["means"], strict=True)
    ]
    note = (
        f"Each fold chose by the mean {figures.words(found['main'])} over {nested['inner_folds']} folds of its own "
        "training rows, so its test rows took no part in the choice."
    )
    return join([tag("p", note), table("Choices", ["fold", "chosen", *names], rows)])


def suspects(found: Mapping[str, Any]) -> Markup:
    """How many labels are probably wrong, and the surest of them."""
    noise = found.get("label_noise")
    if not noise:
        return Markup("")
    text = (
        f"{figures.count(noise['suspects'])} of {figures.count(noise['rows'])} rows probably have a wrong label "
        f"(confident learning; the share is estimated at {figures.percent(noise['share'])}). "
    )
    link = tag("a", noise["file"], href=quote(noise["file"]))
    rows: list[list[Child]] = [
        [one["place"], one["given"], one["suggested"], figures.metric(one["score"])] for one in noise["first"]
    ]
    shown = table("The surest of them", ["row", "given", "suggested", "score"], rows, numeric=(3,)) if rows else None
    return join([tag("p", text, "All of them: ", link), shown])


def _between(measured: Mapping[str, Any]) -> str:
    return figures.between(measured["low"], measured["high"]) or figures.MISSING


def _value(measured: Mapping[str, Any] | None) -> str:
    return figures.metric(measured["value"]) if measured is not None else figures.MISSING


def _number(value: float | None) -> float:
    return math.nan if value is None else value
