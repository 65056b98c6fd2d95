"""The part of the page about a classifier: metrics with intervals, confusion matrix, curves, calibration, failures.

It draws what `classification` of results.json holds and computes nothing but places on the page. What is missing
or malformed there is left out. The matrix is drawn in `confusion.py`, the curves in `squares.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from groundup.report import figures
from groundup.report.collect import RunRecord
from groundup.report.confusion import matrix
from groundup.report.markup import Child, Markup, details, join, table, tag
from groundup.report.measures import caption_of, scores_table
from groundup.report.reading import known, mapping, mappings, number, text_of
from groundup.report.squares import Line, square

MOST_SETS = 4
MOST_ROWS = 500
OPEN_ROWS = 12
LONGEST = 400
LENGTHS = "text length"
"""The kind of slice that means nothing where the text is only the name of a row."""
PLACES = {"images": "image", "table": "row"}
"""What single rows are called by, by the kind of data: an image by its path, a row by its file and line."""
STYLES = ("main", "held-0", "held-1", "held-2")
VERDICTS = {"better": "good", "worse": "bad", "within noise": "fair"}
HEADLINE = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, mean over labels",
    "f1_weighted": "F1, weighted by rows",
    "f1_micro": "F1 over all decisions",
    "precision_macro": "precision, mean over labels",
    "recall_macro": "recall, mean over labels",
    "top_3_accuracy": "true label among the first 3",
    "top_5_accuracy": "true label among the first 5",
    "roc_area_macro": "area under ROC, mean over labels",
    "roc_area_micro": "area under ROC, all labels pooled",
    "average_precision_macro": "average precision, mean over labels",
    "average_precision_micro": "average precision, all labels pooled",
    "log_loss": "log loss (nats, lower is better)",
}
PER_LABEL = {
    "support": "rows",
    "predicted": "predicted",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "roc_area": "area under ROC",
    "average_precision": "average precision",
    "threshold": "threshold",
}
CALIBRATION = {
    "expected_error": "expected calibration error",
    "expected_error_equal_mass": "the same, bins of equally many rows",
    "largest_error": "largest error of a bin",
    "brier": "Brier score",
    "log_loss": "log loss",
}


def classification(record: RunRecord, prefix: str = "") -> Markup:
    """The section; empty when results.json holds neither `classification` nor `multilabel`."""
    sets: list[dict[str, Any]] = []
    for name in ("classification", "multilabel"):
        found = record.results.get(name)
        sets += [mapping(found)] if isinstance(found, dict) else mappings(found)
    place = PLACES.get(record.data_kind, "text")
    parts = [one_set(one, f"{prefix}classes-{index}", place) for index, one in enumerate(sets[:MOST_SETS])]
    return join(parts)


def one_set(found: dict[str, Any], identifier: str, place: str) -> Markup:
    """Everything about one set of rows; `place` is the word for what single rows are called by."""
    names = labels_of(found)
    return join(
        [
            headline(found),
            comparison(mapping(found.get("comparison"))),
            notes(found),
            matrix(names, cells_of(found, len(names)), f"{identifier}-matrix"),
            plots(found, identifier),
            calibration(mapping(found.get("calibration"))),
            threshold(mapping(found.get("threshold"))),
            per_label(mappings(found.get("per_label"))),
            slices([one for one in mappings(found.get("slices")) if place == "text" or one.get("kind") != LENGTHS]),
            confused(mappings(found.get("confused"))),
            mistakes(mappings(found.get("mistakes")), place),
        ]
    )


def labels_of(found: dict[str, Any]) -> list[str]:
    """The names of the labels."""
    names = found.get("labels")
    return [text_of(name)[:LONGEST] for name in names] if isinstance(names, list) else []


def cells_of(found: dict[str, Any], labels: int) -> list[tuple[int, int, int]]:
    """The cells of the confusion matrix that are not empty: truth, prediction, rows; malformed ones left out."""
    cells = []
    for cell in found["confusion"] if isinstance(found.get("confusion"), list) else []:
        if isinstance(cell, list) and len(cell) == 3 and all(type(value) is int for value in cell):
            truth, predicted, rows = cell
            if 0 <= truth < labels and 0 <= predicted < labels and 0 < rows < 1 << 53:
                cells.append((truth, predicted, rows))
    return cells


def headline(found: dict[str, Any]) -> Markup:
    """The metrics with their intervals, those that are shares drawn on one scale."""
    measured = {name: mapping(value) for name, value in mapping(found.get("headline")).items()}
    if not measured:
        return Markup("")
    titles = dict(HEADLINE)
    if found.get("confusion"):
        measured.pop("f1_micro", None)  # with one label a row it is the accuracy
    else:
        titles["accuracy"] = "rows with every label right"
    if len(labels_of(found)) == 2:  # two labels mirror each other: pooled areas say nothing more
        measured = {
            name: value for name, value in measured.items() if name not in ("roc_area_micro", "average_precision_micro")
        }
    caption = caption_of(f"Classification of {figures.count(known(found.get('rows')))} rows", found)
    names = [name for name in HEADLINE if name in measured]
    return scores_table(
        caption, [(titles[name], measured[name], "" if name == "log_loss" else "share") for name in names]
    )


def notes(found: dict[str, Any]) -> Markup:
    """What the measurement itself says a reader has to know."""
    lines = found.get("notes") if isinstance(found.get("notes"), list) else []
    return join(tag("p", text_of(line)[:LONGEST], class_="quiet small") for line in (lines or [])[:20])


def comparison(found: dict[str, Any]) -> Markup:
    """Another model on the same rows beside this one."""
    rows: list[list[Child]] = []
    for one in mappings(found.get("metrics"))[:20]:
        change = mapping(one.get("difference"))
        said = text_of(one.get("verdict"))
        rows.append(
            [
                HEADLINE.get(text_of(one.get("metric")), text_of(one.get("metric"))[:80]),
                figures.metric(known(mapping(one.get("before")).get("value"))),
                tag("b", figures.metric(known(mapping(one.get("after")).get("value")))),
                signed(known(change.get("value"))),
                figures.between(known(change.get("low")), known(change.get("high"))) or figures.MISSING,
                tag("span", said[:40], class_=f"badge {VERDICTS.get(said, 'plain')}"),
            ]
        )
    if not rows:
        return Markup("")
    test = mapping(found.get("mcnemar"))
    chance = known(test.get("p"))
    before, after = (figures.count(known(test.get(name))) for name in ("only_before", "only_after"))
    said = f"{before} rows only the model before has right, {after} only the model after; "
    odds = "" if chance is None else "< 0.0001" if chance < 1e-4 else f"= {figures.metric(chance)}"
    heads = ["metric", "before", "after", "change", "its interval", "verdict"]
    return join(
        [
            table("Two models on the same rows", heads, rows, numeric=(1, 2, 3, 4), class_="results"),
            tag(
                "p",
                said,
                f"by chance alone: p {odds} (McNemar, exact).",
                class_="quiet small",
            )
            if chance is not None
            else None,
        ]
    )


def signed(change: float | None) -> str:
    """A difference with its sign."""
    return f"+{figures.metric(change)}" if change is not None and change > 0 else figures.metric(change)


def plots(found: dict[str, Any], identifier: str) -> Markup:
    """ROC and precision-recall curves, the reliability diagram, accuracy against coverage."""
    curves, drawn = mapping(found.get("curves")), []
    roc = lines_of(mappings(curves.get("roc")))
    if roc:
        axes = ("false positive rate", "true positive rate")
        drawn.append(square(f"{identifier}-roc", "ROC curves", "area under each", axes, roc, rising=True))
    recall = lines_of(mappings(curves.get("precision_recall")))
    if recall:
        axes = ("recall", "precision")
        note = "average precision of each"
        drawn.append(square(f"{identifier}-recall", "Precision and recall", note, axes, recall))
    reliable = reliability_lines(mapping(found.get("calibration")))
    if reliable:
        axes, note = ("confidence", "accuracy"), "on the diagonal, confidence is what it says"
        drawn.append(square(f"{identifier}-reliable", "Reliability", note, axes, reliable, rising=True))
    points = mappings(found.get("selective"))
    covered = numbers([[one.get("coverage") for one in points], [one.get("accuracy") for one in points]])
    if len(covered[0]) > 1:
        axes, note = ("share of rows answered", "accuracy"), "most confident rows first"
        line = Line("", "main", *covered)
        lowest = math.floor(min(0.99, *covered[1]) * 10) / 10  # below 1, so that a perfect line has an axis
        drawn.append(square(f"{identifier}-covered", "If only sure answers count", note, axes, [line], lowest))
    return tag("div", *drawn, class_="charts squares") if drawn else Markup("")


def lines_of(found: list[dict[str, Any]]) -> list[Line]:
    """The recorded curves with their areas, in the styles of the page."""
    lines = []
    for style, one in zip(STYLES, found):
        x, y = numbers([one.get("x"), one.get("y")])
        if x:
            area = figures.metric(known(one.get("area")))
            lines.append(Line(f"{text_of(one.get('name'))[:60]}: {area}", style, x, y))
    return lines


def numbers(columns: Sequence[object]) -> tuple[list[float], list[float]]:
    """Two columns of shares without the rows that hold anything else."""
    first, second = (column if isinstance(column, list) else [] for column in columns)
    pairs = [(number(x), number(y)) for x, y in zip(first[:2000], second)]
    kept = [(x, y) for x, y in pairs if 0 <= x <= 1 and 0 <= y <= 1]
    return [x for x, _ in kept], [y for _, y in kept]


def reliability_lines(found: dict[str, Any]) -> list[Line]:
    """Accuracy against confidence in bins, as it is and after the temperature; the more rows the larger the dot."""
    lines = []
    after = "after" in found
    for style, key, name in (("held-0", "before", "as trained"), ("main", "after", "with temperature")):
        bins = mappings(mapping(found.get(key)).get("bins"))[:100]
        x, y = numbers([[one.get("confidence") for one in bins], [one.get("accuracy") for one in bins]])
        rows = [known(one.get("rows")) or 0.0 for one in bins]
        if x and len(rows) == len(x):
            sizes = [2 + 5 * math.sqrt(abs(count) / max(*rows, 1.0)) for count in rows]
            lines.append(Line(name if after else "", style if after else "main", x, y, sizes))
    return lines


def calibration(found: dict[str, Any]) -> Markup:
    """The calibration errors, before and after the temperature."""
    before, after = mapping(found.get("before")), mapping(found.get("after"))
    rows: list[list[Child]] = []
    for name, title in CALIBRATION.items():
        values = [known(one.get(name)) for one in ([before, after] if after else [before])]
        if any(value is not None for value in values):
            rows.append([title, *map(figures.metric, values)])
    if not rows:
        return Markup("")
    temperature = mapping(found.get("temperature"))
    value = known(temperature.get("value"))
    said = "The logits divided by one number, chosen on a validation part; predictions stay the same."
    if temperature.get("at_limit") is True:
        said += " The best temperature lies beyond the range that was searched."
    return join(
        [
            table(
                "Calibration: do probabilities mean what they say?",
                ["", "as trained", *([f"with temperature {figures.metric(value)}"] if after else [])],
                rows,
                numeric=(1, 2),
            ),
            tag("p", said, class_="quiet small") if after else None,
        ]
    )


def threshold(found: dict[str, Any]) -> Markup:
    """The threshold that was chosen for a yes or no."""
    value = known(found.get("value"))
    if value is None:
        return Markup("")
    reached = ", ".join(f"{name} {figures.metric(known(found.get(name)))}" for name in ("precision", "recall", "f1"))
    label = text_of(found.get("label"))[:80]
    return tag(
        "p",
        f"Best threshold for {label} by F1, chosen on the validation part: probability at least ",
        tag("b", figures.metric(value)),
        f" ({reached} there). The figures above are for the most probable label.",
        class_="small",
    )


def per_label(found: list[dict[str, Any]]) -> Markup:
    """One row for each label."""
    columns = [name for name in PER_LABEL if any(known(one.get(name)) is not None for one in found)]
    rows: list[list[Child]] = [
        [
            text_of(one.get("label"))[:LONGEST],
            *((figures.count if i in ("support", "predicted") else figures.metric)(known(one.get(i))) for i in columns),
        ]
        for one in found[:MOST_ROWS]
    ]
    if not rows:
        return Markup("")
    caption = "Each label against all others"
    heads = ["label", *(PER_LABEL[name] for name in columns)]
    shown = table(caption, heads, rows, numeric=range(1, len(heads)), class_="bare")
    return details(f"{caption}: {len(found)} labels", shown, open_=len(rows) <= OPEN_ROWS)


def slices(found: list[dict[str, Any]]) -> Markup:
    """The groups of rows that fare worst."""
    rows: list[list[Child]] = [
        [
            tag("span", text_of(one.get("name"))[:LONGEST], dir="auto"),
            figures.words(text_of(one.get("kind"))[:80]),
            figures.count(known(one.get("rows"))),
            figures.metric(known(one.get("accuracy"))),
            figures.between(known(one.get("low")), known(one.get("high"))) or figures.MISSING,
        ]
        for one in found[:MOST_ROWS]
    ]
    heads = ["slice", "by", "rows", "accuracy", "interval"]
    caption = "Worst slices, by the upper end of their interval"
    return table(caption, heads, rows, numeric=(2, 3, 4)) if rows else Markup("")


def confused(found: list[dict[str, Any]]) -> Markup:
    """The pairs of labels that are confused most."""
    rows: list[list[Child]] = [
        [
            text_of(one.get("label"))[:LONGEST],
            text_of(one.get("predicted"))[:LONGEST],
            figures.count(known(one.get("rows"))),
            figures.percent(known(one.get("share"))),
        ]
        for one in found[:MOST_ROWS]
    ]
    heads = ["true label", "taken for", "rows", "of its rows"]
    return table("Most confused", heads, rows, numeric=(2, 3)) if rows else Markup("")


def mistakes(found: list[dict[str, Any]], place: str) -> Markup:
    """The wrong predictions that the model is surest of: read these first."""
    rows: list[list[Child]] = [
        [
            tag("span", text_of(one.get("text"))[:LONGEST] or f"(no {place})", dir="auto"),
            text_of(one.get("predicted"))[:LONGEST],
            figures.metric(known(one.get("probability"))),
            text_of(one.get("label"))[:LONGEST],
            figures.metric(known(one.get("true_probability"))),
        ]
        for one in found[:MOST_ROWS]
    ]
    heads = [place, "predicted", "probability", "true label", "its probability"]
    caption = "Most confident mistakes: a wrong label in the data looks like this too"
    return table(caption, heads, rows, numeric=(2, 4), class_="results classes mistakes") if rows else Markup("")
