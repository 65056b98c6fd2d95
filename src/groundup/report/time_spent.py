"""Where the time of a run went: the parts of its steps, and what came between steps."""

from __future__ import annotations

import math
from collections.abc import Mapping

from groundup.report import figures
from groundup.report.charts import stacked_bar
from groundup.report.collect import STEP_PARTS, RunRecord
from groundup.report.markup import Child, Markup, join, table, tag
from groundup.report.reading import mapping, number, text_of

WORDS = {
    "data_seconds": "making batches",
    "forward_seconds": "forward",
    "backward_seconds": "backward",
    "optimizer_seconds": "optimizer",
}
WAITING = 0.01
"""Share of the steps above which making batches is worth a word."""


def seconds_by_part(record: RunRecord) -> dict[str, float]:
    """Seconds of each part, in the order in which they are shown; parts that took none are left out."""
    parts = {WORDS[name]: math.fsum(x for x in record.columns[name] if math.isfinite(x)) for name in STEP_PARTS}
    saves = [event for event in record.incidents if text_of(event.get("event")) == "save"]
    for name, events in (("evaluation", record.evaluations), ("samples", record.samples), ("checkpoints", saves)):
        # the parts of an evaluation share one clock
        at = {number(event.get("step")): number(mapping(event.get("clock")).get("seconds")) for event in events}
        parts[name] = math.fsum(x for x in at.values() if math.isfinite(x))
    return {name: seconds for name, seconds in parts.items() if seconds > 0}


def time_spent(record: RunRecord) -> Markup:
    """A bar and a table; empty for a run that kept no such clock."""
    parts = seconds_by_part(record)
    steps = math.fsum(parts.get(word, 0.0) for word in WORDS.values())
    if not steps:
        return Markup("")
    return join([shares("Seconds of the run", parts), waiting(parts.get(WORDS["data_seconds"], 0.0) / steps)])


def shares(caption: str, parts: Mapping[str, float]) -> Markup:
    """Seconds by their names: a bar, and the table that is its key."""
    whole = math.fsum(parts.values()) or 1.0
    rows: list[list[Child]] = [
        [tag("span", name, class_=f"key part-{index}"), figures.duration(seconds), figures.percent(seconds / whole)]
        for index, (name, seconds) in enumerate(parts.items())
    ]
    title = ", ".join(f"{name} {figures.duration(seconds)}" for name, seconds in parts.items())
    drawn = table(caption, ["part", "time", "share"], rows, numeric=(1, 2))
    return join([stacked_bar(title, list(parts.items())), drawn])


def waiting(share: float) -> Markup:
    """A word about steps that wait for their data; empty where they hardly do."""
    if share <= WAITING:
        return Markup("")
    return tag("p", f"The steps waited {figures.percent(share)} of their time for their batches.", class_="quiet")
