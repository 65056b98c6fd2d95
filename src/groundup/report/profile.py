"""The picture of a profile: one page with the parts of a step and the operations behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.report import figures
from groundup.report.charts import PARTS
from groundup.report.document import asset, document
from groundup.report.markup import Child, Markup, tag
from groundup.report.markup import table as drawn_table
from groundup.report.time_spent import shares

SHOWN = PARTS - 1
"""Kinds of operations with a colour of their own; the rest is drawn together."""
LARGEST = 3
"""Costs that are put into words."""


def write_profile(profile: dict[str, Any], path: Path) -> Path:
    """Write the page.

    Args:
        profile: what `run.profile.Profile.as_dict` gives.
        path: an HTML file in a folder that is there.
    """
    path.write_text(render(profile), encoding="utf-8")
    return path


def render(profile: dict[str, Any]) -> str:
    """The page as HTML text."""
    return document(f"{profile['name']}: where a step's time goes", body(profile), asset("page.css"))


def body(profile: dict[str, Any]) -> Markup:
    """What the page says."""
    costs = profile["costs"]
    words = [tag("li", cost["words"]) for cost in costs[:LARGEST]]
    speed = f"{figures.count(round(profile['units_per_second']))} {profile['unit']}/s"
    return tag(
        "body",
        tag(
            "header",
            tag("h1", f"Where a step's time goes: {profile['name'][:200]}"),
            tag(
                "p",
                f"{figures.duration(profile['seconds'])} a step, {speed}, "
                f"{figures.percent(profile['ceiling_share'])} of the machine's ceiling in matrix products.",
                class_="lead",
            ),
            class_="top",
        ),
        tag(
            "main",
            tag("section", tag("h2", "The largest costs"), tag("ol", *words)),
            tag("section", tag("h2", "Parts of a step"), shares("A step by its parts", profile["parts"])),
            tag("section", tag("h2", "Operations"), shares("A step by its operations", grouped(costs)), listed(costs)),
        ),
    )


def grouped(costs: list[dict[str, Any]]) -> dict[str, float]:
    """The largest kinds of operations, and the others as one."""
    parts = {cost["kind"]: cost["seconds"] for cost in costs[:SHOWN]}
    rest = sum(cost["seconds"] for cost in costs[SHOWN:])
    return parts | ({"the rest": rest} if rest else {})


def listed(costs: list[dict[str, Any]]) -> Markup:
    """The operations behind each kind, as the profiler calls them."""
    rows: list[list[Child]] = [
        [operation["name"], cost["kind"], figures.duration(operation["seconds"]), figures.count(operation["calls"])]
        for cost in costs
        for operation in cost["operations"]
    ]
    head = ["operation", "kind", "time a step", "calls a step"]
    return drawn_table("As the profiler names them", head, rows, numeric=(2, 3))
