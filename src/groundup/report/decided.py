"""The part of the page that shows what decided a few held-out answers, drawn as on the page of one explanation.

Explanations come from `explanations` of results.json: {data, left_out, rows}, each row what `groundup
explain-prediction --json` prints with the truth, whether the answer was right, and pictures. What is malformed there is
left out.
"""

from __future__ import annotations

import base64
from typing import Any

from groundup.report import figures
from groundup.report.collect import RunRecord
from groundup.report.episode import picture_of
from groundup.report.explanation import (
    CLOSING,
    METHOD_NAMES,
    NAMES,
    Picture,
    coloured_text,
    framed,
    gap_text,
    legend,
    listed,
)
from groundup.report.markup import Child, Markup, tag
from groundup.report.reading import known, mapping, mappings, text_of

MOST_ROWS, MOST_PARTS = 12, 5000
SHOWN = 6
"""Parts of a row that are listed before the rest opens on demand."""
LONGEST, LABEL = 300, 80
SIDE = 224
"""Pixels of the page that a picture's longer side takes, or a little less."""

Row = dict[str, Any]


def decided(record: RunRecord) -> Markup:
    """The section; empty when results.json holds no explanations."""
    found = mapping(record.results.get("explanations"))
    rows = [row for one in mappings(found.get("rows"))[:MOST_ROWS] if (row := read(one)) is not None]
    left_out = known(found.get("left_out"))
    if not rows and not left_out:
        return Markup("")
    command = tag("code", "groundup explain-prediction RUN --input FILE --row N")
    missing: list[Child] = []
    if left_out:
        rest = "row that was chosen" if left_out == 1 else "rows that were chosen"
        missing = [f"{figures.count(left_out)} {rest} would have taken too long here. "]
    return tag(
        "div",
        tag("p", opening(rows, text_of(found.get("data"))), class_="quiet") if rows else None,
        tag("ol", *(tag("li", *shown(row)) for row in rows), class_="decided") if rows else None,
        tag("p", *missing, "Any other row: ", command, ".", class_="quiet small"),
        tag("p", CLOSING, class_="quiet small") if rows else None,
    )


def opening(rows: list[Row], data: str) -> str:
    """Which rows these are, and what the amounts are."""
    set_name = f" of the {figures.words(data)[:LABEL]} rows" if data else ""
    if rows[0]["label"] is None:
        which = f"The answers farthest from the truth and the closest to it{set_name}"
    elif any(not row["right"] for row in rows):
        which = f"The surest mistakes and the surest right answers{set_name}"
    else:
        which = f"The surest right answers{set_name}; no mistake is shown"
    part, method = NAMES[rows[0]["kind"]][0], METHOD_NAMES[rows[0]["method"]]
    return f"{which}, with what each {part} adds to the score, by {method}."


def read(given: Row) -> Row | None:
    """A row with fields of the right types, None if what has to be there is not."""
    kind, method = text_of(given.get("kind")), text_of(given.get("method"))
    score, nothing = known(given.get("score")), known(given.get("baseline_score"))
    parts = [
        {"name": text_of(part.get("name"))[:LONGEST], "cell": text_of(part.get("cell"))[:LONGEST], "amount": amount}
        for part in mappings(given.get("parts"))[:MOST_PARTS]
        if (amount := known(part.get("amount"))) is not None
    ]
    if kind not in NAMES or method not in METHOD_NAMES or score is None or nothing is None or not parts:
        return None
    label, numbers = given.get("label"), ("steps", "sum", "gap", "relative_gap", "cut_tokens")
    return {name: known(given.get(name)) for name in numbers} | {
        "kind": kind, "method": method, "score": score, "baseline_score": nothing, "parts": parts,
        "label": None if label is None else text_of(label)[:LABEL], "truth": given.get("truth"),
        "right": given.get("right") is True, "rough": given.get("rough") is True,
        "answer": mapping(given.get("answer")), "place": text_of(given.get("place"))[:LONGEST],
        "baseline": text_of(given.get("baseline"))[:LONGEST], "unlisted": mapping(given.get("unlisted")),
        "pictures": [drawn for one in mappings(given.get("pictures"))[:2] if (drawn := picture(one)) is not None],
    }  # fmt: skip


def picture(given: Row) -> Picture | None:
    """A picture of results.json, enlarged by a whole factor; None if it is no PNG."""
    seen = picture_of(given.get("png"))
    if seen is None:
        return None
    text, width, height = seen
    factor = max(1, SIDE // max(width, height))
    caption, description = (text_of(given.get(name))[:LONGEST] for name in ("caption", "description"))
    return Picture(base64.b64decode(text), caption, description, width * factor, height * factor)


def shown(row: Row) -> list[Child]:
    """One row: what was said and what is true, the input in colour, what counts most, and whether it adds up."""
    pictures, kind = row["pictures"], row["kind"]
    seen = tag("div", *map(framed, pictures), class_="pictures") if pictures else None
    return [
        tag("p", verdict(row), class_="verdict"),
        tag("p", row["place"], class_="quiet small place", dir="auto"),
        coloured_text(row) if kind == "text" else seen,
        legend(row),
        listed(row, SHOWN if kind == "table" else 0),
        unlisted(row["unlisted"]),
        tag("p", scored(row), class_="quiet small"),
        rough(row),
    ]


def verdict(row: Row) -> Markup:
    """What the network says and what is true, with a word for how these agree."""
    if row["label"] is None:
        said, truth = (figures.short(known(value)) for value in (row["answer"].get("value"), row["truth"]))
        near = tag("span", "close" if row["right"] else "far off", class_="badge")
        return tag("span", tag("strong", f"says {said}, is {truth}"), " ", near)
    share = known(mapping(row["answer"].get("probabilities")).get(row["label"]))
    sure = "" if share is None else f" ({figures.percent(share)})"
    truth = "" if row["right"] else f", is {text_of(row['truth'])[:LABEL]}"
    kind, word = ("good", "right") if row["right"] else ("bad", "mistake")
    strong = tag("strong", f"says {row['label']}{sure}{truth}", dir="auto")
    return tag("span", strong, " ", tag("span", word, class_=f"badge {kind}"))


def unlisted(found: Row) -> Markup | None:
    """Columns that results.json does not name."""
    number, amount = known(found.get("parts")), known(found.get("amount"))
    if number is None or amount is None:
        return None
    said = f"{figures.count(number)} further columns add {figures.short(amount)} together."
    return tag("p", said, class_="quiet small")


def scored(row: Row) -> str:
    """The two scores, and how far the amounts miss their difference."""
    what = "The number" if row["label"] is None else f"Log-odds of {row['label']}"
    score, nothing = figures.metric(row["score"]), figures.metric(row["baseline_score"])
    text = f"{what}: {score} here, {nothing} for the baseline ({row['baseline']})."
    if row["gap"] is None or row["sum"] is None:
        return text
    steps = f"In {figures.count(row['steps'])} steps the" if row["steps"] else "The"
    total = f"{row['sum']:+.6g}".replace("-", "−")
    return f"{text} {steps} amounts add up to {total}: gap {gap_text(row['gap'], row['relative_gap'])}."


def rough(row: Row) -> Markup | None:
    """A note where the amounts do not add up, or not all was read."""
    notes: list[Child] = []
    if row["rough"]:
        notes.append("The amounts miss the difference of the two scores: more steps come closer.")
    if row["cut_tokens"]:
        notes.append(f"{figures.count(row['cut_tokens'])} tokens at the end did not fit and were not read.")
    return tag("div", *(tag("p", note) for note in notes), class_="note", role="note") if notes else None
