"""One page about one prediction: what each column, region or word of the input adds to the score of a label.

It gets what `groundup explain-prediction --json` prints, and pictures as PNG files; no tensor, no model and no file
enters here. The page needs nothing else, neither a network nor a script, and allows none.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from groundup.report import figures
from groundup.report.document import asset, document
from groundup.report.markup import Child, Markup, details, escape, join, pairs, table, tag

SHOWN = 12
"""Parts that are listed before the rest opens on demand."""

WIDTH, HEIGHT = 220, 14
"""Pixels of a bar, from the most against to the most for."""

NAMES = {"table": ("column", "columns"), "image": ("region", "regions"), "text": ("word", "words")}

METHOD_NAMES = {
    "integrated_gradients": "integrated gradients",
    "saliency": "saliency (the size of the gradient)",
    "occlusion": "occlusion",
}

CLOSING = (
    "An attribution says what this score rests on in this network. It does not say that the network is right, nor what "
    "causes what outside it."
)


class Picture(NamedTuple):
    """A PNG file, what stands below it, what it shows in words, and its size on the page."""

    png: bytes
    caption: str
    description: str
    width: int
    height: int


def explanation_page(found: Mapping[str, Any], pictures: Sequence[Picture] = ()) -> str:
    """The page as HTML text."""
    title = f"Why {said(found)}"
    body = tag(
        "body",
        tag("header", tag("p", "groundup explain-prediction", class_="eyebrow"), tag("h1", tag("span", title)),
            tag("p", scored(found), class_="lead"), rough(found), class_="top"),
        tag("main", shown_input(found, pictures), amounts(found), how(found)),
        tag("footer", tag("p", CLOSING)),
        class_="explanation",
    )  # fmt: skip
    return document(title, body, join([asset("page.css"), asset("explanation.css")]))


def said(found: Mapping[str, Any]) -> str:
    """What is explained, in a few words: a label with its probability, or a number."""
    answer, label = found["answer"], found["label"]
    if label is None:
        return f"the model says {figures.metric(answer['value'])}"
    share = answer["probabilities"].get(label)
    likely = f" ({figures.percent(share)})" if share is not None else ""
    if label == answer.get("label") or label in answer.get("labels", ()):
        return f"the model says {label[:200]}{likely}"
    return f"the model does not say {label[:200]}{likely}"


def scored(found: Mapping[str, Any]) -> str:
    """What the attributions are of, and what they lead from and to."""
    what = "the number" if found["label"] is None else f"the log-odds of {found['label'][:200]}"
    score, nothing = figures.metric(found["score"]), figures.metric(found["baseline_score"])
    return f"What is explained is {what}: {score} here, {nothing} for the baseline ({found['baseline']})."


def rough(found: Mapping[str, Any]) -> Markup | None:
    """A note where the attributions do not add up."""
    notes: list[Child] = []
    if found["rough"]:
        missed = found["relative_gap"]
        much = f"by {figures.percent(missed)} of it" if missed is not None else "though there is none"
        notes.append(f"The attributions miss the difference of the two scores {much}: take more --steps.")
    if found["cut_tokens"]:
        notes.append(f"{found['cut_tokens']:,} tokens at the end did not fit into the context and were not read.")
    return tag("div", *(tag("p", note) for note in notes), class_="note", role="note") if notes else None


def shown_input(found: Mapping[str, Any], pictures: Sequence[Picture]) -> Markup:
    """The input itself: pictures, or the words in their colours. A row of a table is its list of amounts."""
    if found["kind"] == "table":
        return Markup("")
    if found["kind"] == "text":
        return tag("section", tag("h2", "The text"), coloured_text(found), legend(found))
    return tag(
        "section",
        tag("h2", "The image"),
        tag("div", *(framed(picture) for picture in pictures), class_="pictures"),
        legend(found),
    )


def framed(picture: Picture) -> Markup:
    """A picture with its caption."""
    image = tag(
        "img",
        src="data:image/png;base64," + base64.b64encode(picture.png).decode("ascii"),
        alt=picture.description,
        width=picture.width,
        height=picture.height,
    )
    return tag("figure", image, tag("figcaption", picture.caption, class_="quiet"))


def coloured_text(found: Mapping[str, Any]) -> Markup:
    """A text with its words in their colours."""
    most = max((abs(part["amount"]) for part in found["parts"]), default=0.0)
    words = [coloured(part["name"], part["amount"], most) for part in found["parts"]]
    return tag("p", *words, class_="words", dir="auto")


def coloured(word: str, amount: float, most: float) -> Markup:
    """A word in its colour, the space around it without."""
    bare = word.strip()
    before, _, after = word.partition(bare) if bare else (word, "", "")
    return join([before, tag("span", bare, class_=shade(amount, most)), after])


def shade(amount: float, most: float) -> str | None:
    """The class of a word: four depths to either side; None where it counts for less than a twentieth of the most."""
    share = abs(amount) / most if most else 0.0
    if share < 0.05:
        return None
    depth = 1 + (share > 0.2) + (share > 0.45) + (share > 0.75)
    return f"{'for' if amount > 0 else 'against'}-{depth}"


def legend(found: Mapping[str, Any]) -> Markup:
    """What the two colours mean."""
    if found["method"] == "saliency":
        return tag("div", tag("span", "moves the score, either way", class_="key for-key"), class_="legend")
    up = "raises the number" if found["label"] is None else f"speaks for {found['label'][:200]}"
    down = "lowers it" if found["label"] is None else "speaks against it"
    if found["kind"] == "text":
        up, down = f"{up} (underlined)", f"{down} (dashed)"
    keys = tag("span", up, class_="key for-key"), tag("span", down, class_="key against-key")
    return tag("div", *keys, class_="legend")


def amounts(found: Mapping[str, Any]) -> Markup:
    """All parts, those that count most first."""
    keys = legend(found) if found["kind"] == "table" else None
    return tag("section", tag("h2", "What counts"), keys, listed(found, SHOWN))


def listed(found: Mapping[str, Any], shown: int) -> Markup:
    """The parts that count most, as many as are to be shown, and a block with the rest that opens on demand."""
    one, many = NAMES[found["kind"]]
    parts = sorted(found["parts"], key=lambda part: -abs(part["amount"]))
    most = abs(parts[0]["amount"]) if parts else 0.0
    first, rest = (listing(found, some, most, f"{many.capitalize()}, what counts most first")
                   for some in (parts[:shown], parts[shown:]))  # fmt: skip
    left = len(parts) - shown
    word = one if left == 1 else many
    more = details(f"{left:,} more {word}" if shown else f"All {left:,} {word}", rest) if left > 0 else None
    return join([first if shown else None, more])


def listing(found: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], most: float, caption: str) -> Markup:
    """Parts with their amounts as numbers and bars."""
    cells = found["kind"] == "table"
    head = [NAMES[found["kind"]][0], *(["cell"] if cells else []), "moves" if found["method"] == "saliency" else "adds"]
    rows: list[list[Child]] = [
        [
            part["name"].strip() or repr(part["name"]),
            *([part["cell"]] if cells else []),
            signed(part["amount"]) if found["method"] != "saliency" else figures.metric(part["amount"]),
            bar(part["amount"], most),
        ]
        for part in parts
    ]
    last = len(head) - 1
    return table(caption, [*head, ""], rows, numeric=[*([1] if cells else []), last], class_="amounts")


def bar(amount: float, most: float) -> Markup:
    """An amount to the left or right of a middle line; the number beside it says the same in words."""
    length = WIDTH / 2 * abs(amount) / most if most else 0.0
    left = WIDTH / 2 - (length if amount < 0 else 0.0)
    return tag(
        "svg",
        tag("line", x1=WIDTH / 2, x2=WIDTH / 2, y1=0, y2=HEIGHT),
        tag("rect", x=f"{left:.1f}", y=2, width=f"{length:.1f}", height=HEIGHT - 4,
            class_="for" if amount > 0 else "against"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        class_="amount",
        aria_hidden="true",
    )  # fmt: skip


def how(found: Mapping[str, Any]) -> Markup:
    """The method, and whether the attributions add up."""
    steps = f", {found['steps']:,} steps" if found["steps"] else ""
    rows: list[tuple[str, Child]] = [
        ("model", found["model"]),
        ("input", found["place"]),
        ("method", METHOD_NAMES[found["method"]] + steps),
        ("baseline", found["baseline"]),
    ]
    if found["gap"] is not None:
        difference = found["score"] - found["baseline_score"]
        rows.append(("sum of all attributions", f"{found['sum']:+.6g}".replace("-", "−")))
        rows.append(("score, less that of the baseline", f"{difference:+.6g}".replace("-", "−")))
        rows.append(("gap", gap_text(found["gap"], found["relative_gap"])))
    return tag("section", tag("h2", "How it was measured"), pairs("What was computed", rows))


def gap_text(gap: float, share: float | None) -> str:
    """How far the attributions miss, and as a share of the difference of the scores where there is one."""
    return (f"{gap:+.2g}" + (f" ({share:.2g} of it)" if share is not None else "")).replace("-", "−")


def signed(value: float) -> str:
    """An amount with its sign."""
    return ("+" if value > 0 else "") + escape(figures.metric(value))
