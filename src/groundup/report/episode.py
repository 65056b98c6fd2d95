"""The part of the page that shows an episode of a finished policy, frame by frame, as on a strip of film.

Frames come from `episode` of results.json: {step, action, reward, return} and a picture, `png`, or the first `numbers`
of the observation. What is malformed there is left out; a picture must say that it is a PNG of a size to be shown.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from typing import Any

from groundup.report import figures
from groundup.report.collect import RunRecord
from groundup.report.markup import Child, Markup, join, tag
from groundup.report.reading import known, mapping, mappings, text_of

MOST_FRAMES = 24
MOST_CHARACTERS = 1 << 20
LONGEST_SIDE = 1024
COARSE = 96
"""Pixels up to which a picture is shown with sharp edges when it is enlarged."""
MOST_BARS, MOST_WRITTEN, MOST_ACTIONS = 64, 12, 6
WIDE, HIGH, MARGIN = 160, 90, 6
"""Units of the drawing of an observation; the last is left free above and below."""

Numbers = list[float]


def episode(record: RunRecord) -> Markup:
    """The strip; empty when results.json holds no frames."""
    found = mapping(record.results.get("episode"))
    frames = [frame for frame in mappings(found.get("frames"))[:MOST_FRAMES] if known(frame.get("step")) is not None]
    if not frames:
        return Markup("")
    name, last = text_of(found.get("environment"))[:80], frames[-1]
    pictures = [picture_of(frame.get("png")) for frame in frames]
    numbers = [numbers_of(frame.get("numbers")) for frame in frames]
    scale = scale_of(numbers)
    zero = HIGH / 2 if any(one < 0 for values in numbers for one in values) else HIGH - MARGIN
    shown = [
        tag("li", picture(frame, seen, name) if seen else bars(frame, values, scale, zero), facts(frame))
        for frame, seen, values in zip(frames, pictures, numbers, strict=True)
    ]
    title = f"{figures.count(known(last.get('step')))} steps, return {number(last.get('return'))}"
    how = "the best action each time" if found.get("greedy") is True else "actions drawn as the policy draws them"
    note = f"{name}, played from the first seed of the closing episodes; {how}"
    return tag(
        "figure",
        tag("figcaption", tag("strong", title), " ", tag("span", note, class_="quiet")),
        tag("ol", *shown, class_="film"),
        tag("p", explained(pictures, numbers, frames), class_="quiet small"),
    )


def explained(pictures: Sequence[object], numbers: Sequence[Numbers], frames: Sequence[dict[str, Any]]) -> str:
    """What stands in each frame."""
    told = "Each frame shows the state before a step; below it the action, what it brought, and the return with it."
    if any(pictures) or not any(numbers):
        return told
    size, most = known(frames[0].get("size")), max(map(len, numbers))
    which = f"the first {most} of {figures.count(size)} numbers" if size is not None and size > most else "the numbers"
    return f"{told} There is no picture of this environment: the bars are {which} of its observation."


def facts(frame: dict[str, Any]) -> Markup:
    """Step, action, reward and return, named."""
    rows = [
        ("step", figures.count(known(frame.get("step")))),
        ("action", action_text(frame.get("action"))),
        ("reward", number(frame.get("reward"), signed=True)),
        ("return", number(frame.get("return"))),
    ]
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows))


def number(value: object, *, signed: bool = False) -> str:
    """A number in few digits, an en dash without one."""
    found = known(value)
    return ("+" if signed and found is not None and found > 0 else "") + figures.short(found)


def action_text(action: object) -> str:
    """The number of an action, or its numbers."""
    if not isinstance(action, list):
        return number(action)
    cut = ", …" if len(action) > MOST_ACTIONS else ""
    return ", ".join(figures.short(rounded(known(one))) for one in action[:MOST_ACTIONS]) + cut


def rounded(value: float | None) -> float | None:
    """Two decimals, so that a vector of numbers fits under its frame."""
    return None if value is None else round(value, 2)


def picture_of(value: object) -> tuple[str, int, int] | None:
    """The base64, width and height of a PNG file; None for anything else."""
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        return None
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(data) < 33 or not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    if not (0 < width <= LONGEST_SIDE and 0 < height <= LONGEST_SIDE):
        return None
    return base64.b64encode(data).decode("ascii"), width, height


def picture(frame: dict[str, Any], seen: tuple[str, int, int], name: str) -> Markup:
    """What the environment drew before a step."""
    text, width, height = seen
    return tag(
        "img",
        src=f"data:image/png;base64,{text}",
        alt=f"{name} before step {figures.count(known(frame.get('step')))}",
        width=width,
        height=height,
        class_="coarse" if max(width, height) <= COARSE else None,
    )


def numbers_of(value: object) -> Numbers:
    """The finite numbers of an observation; none if one of them is no number."""
    found = [known(one) for one in value[:MOST_BARS]] if isinstance(value, list) else []
    numbers = [one for one in found if one is not None]
    return numbers if len(numbers) == len(found) else []


def scale_of(numbers: Sequence[Numbers]) -> Numbers:
    """What each number is measured by: the largest of all where they count something, else its own largest size."""
    longest = max(map(len, numbers))
    columns = [[abs(one[place]) for one in numbers if place < len(one)] for place in range(longest)]
    largest = [max(column) for column in columns]
    if all(one.is_integer() for values in numbers for one in values):
        largest = [max(largest, default=0.0)] * longest
    return [one or 1.0 for one in largest]


def bars(frame: dict[str, Any], values: Numbers, scale: Numbers, zero: float) -> Markup:
    """The numbers of an observation as bars up and down from the height of zero; a few numbers are written, too."""
    if not values:
        return Markup("")
    texts = [figures.short(float(f"{value:.2g}")) for value in values[:MOST_WRITTEN]]
    said = ", ".join(texts) + (", …" if len(values) > MOST_WRITTEN else "")
    room = WIDE / len(values)
    marks: list[Child] = [tag("line", class_="base", x1=0, x2=WIDE, y1=zero, y2=zero)]
    for place, value in enumerate(values):
        high = math.copysign(min(1.0, abs(value) / scale[place]), value) * (zero - MARGIN)
        top = zero - max(high, 0.0)
        marks.append(tag("rect", x=f"{(place + 0.15) * room:.1f}", y=f"{top:.1f}", width=f"{0.7 * room:.1f}",
                         height=f"{abs(high):.1f}"))  # fmt: skip
    step = figures.count(known(frame.get("step")))
    drawn = tag(
        "svg", *marks, role="img", aria_label=f"observation before step {step}: {said}", viewBox=f"0 0 {WIDE} {HIGH}"
    )
    written = tag("p", " ".join(texts), class_="numbers", aria_hidden="true") if len(values) <= MOST_WRITTEN else None
    return join([drawn, written])
