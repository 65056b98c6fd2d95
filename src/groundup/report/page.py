"""The page of a run: its parts come from `sections.py`, `curves.py`, `cards.py` and others; here they are put in
order."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from groundup.report import cards, figures, measures, sections
from groundup.report.classification import classification
from groundup.report.collect import RunRecord
from groundup.report.curves import curves
from groundup.report.decided import decided
from groundup.report.document import asset, document
from groundup.report.episode import episode
from groundup.report.made import made_images
from groundup.report.markup import Child, Markup, join, tag
from groundup.report.summary import summarize
from groundup.report.time_spent import time_spent

Part = tuple[str, str, Markup]


def render(record: RunRecord) -> str:
    """The whole report as HTML text. `record.stages`, if any, become chapters after the closing table."""
    summary = summarize(record)
    script = asset("page.js")
    parts = overall_parts(record, summary) if record.stages else run_parts(record, summary)
    parts = [part for part in parts if part[2]]
    navigation = tag(
        "nav",
        tag("ul", *(tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in parts)),
        aria_label="Sections",
    )
    body = tag(
        "body",
        tag("header", head(record, summary), navigation, class_="top"),
        tag("main", *(chapter(part) for part in parts)),
        tag("footer", tag("p", closing(summary))),
        tag("script", script),
    )
    title = f"{record.title}: {sections.OUTCOMES[summary['outcome']][1].lower()}"
    return document(title, body, join([asset("page.css"), asset("explanation.css")]), script)


def head(record: RunRecord, summary: dict[str, Any]) -> Markup:
    """The first screen: name, outcome, what happened, the key figures, the command."""
    notes = [note for one in (record, *record.stages) for note in one.notes]
    unreadable = (
        tag(
            "div",
            "Parts of this run could not be read and are missing here:",
            tag("ul", *(tag("li", note[:400]) for note in notes[:20])),
            class_="note",
            role="note",
        )
        if notes
        else None
    )
    command = sections.command_line(summary)
    return join(
        [
            tag("p", "groundup report", class_="eyebrow"),
            tag("h1", tag("span", record.title[:200], dir="auto"), sections.badge(summary["outcome"])),
            tag("p", sections.sentence(summary), class_="lead"),
            tag("p", summary["reason"][:2000], class_="failure" if summary["outcome"] == "failed" else "quiet")
            if summary["reason"] and summary["outcome"] != "finished"
            else None,
            sections.key_figures(summary),
            tag("div", command, class_="command-row") if command else None,
            unreadable,
        ]
    )


def run_parts(record: RunRecord, summary: dict[str, Any], prefix: str = "") -> list[Part]:
    """The sections of one run."""
    ledger = join([cards.token_ledger(summary), cards.data_card(record, summary)])
    made = made_images(record)
    empty = made and not summary["evaluations"]  # two players have no number that says how well they do
    return [
        (f"{prefix}results", "Results", Markup("") if empty else sections.results(summary)),
        (f"{prefix}classification", "Classification", classification(record, prefix)),
        (f"{prefix}regression", "Predicted numbers", measures.regression(record, prefix)),
        (f"{prefix}decided", "What decided", decided(record)),
        (f"{prefix}tagging", "Tags", measures.tagging(record)),
        (f"{prefix}retrieval", "Retrieval", measures.retrieval(record)),
        (f"{prefix}translation", "Translation", measures.translation(record)),
        (f"{prefix}made", "Made images", made),
        (f"{prefix}episode", "An episode", episode(record)),
        (f"{prefix}curves", "Curves", curves(record, prefix)),
        (f"{prefix}samples", "Samples", sections.samples(record)),
        (f"{prefix}plan", "Plan and measurement", sections.planned(summary)),
        (f"{prefix}time", "Where the time went", time_spent(record)),
        (f"{prefix}data", "Data", ledger),
        (f"{prefix}events", "Events", sections.incidents(record)),
        (f"{prefix}recipe", "Machine and recipe", sections.environment(record, summary)),
        (f"{prefix}model", "Model card", cards.model_card(record, summary)),
    ]


def overall_parts(record: RunRecord, summary: dict[str, Any]) -> list[Part]:
    """The closing table over all stages, then a chapter for each stage."""
    parts: list[Part] = [
        ("results", "Results of all stages", sections.results(summary)),
        ("plan", "Plan and measurement", sections.planned(summary)),
    ]
    for index, (stage, facts) in enumerate(zip(record.stages, summary["stages"], strict=True)):
        prefix = f"stage-{index + 1}-"
        inner = [part for part in run_parts(stage, facts, prefix) if part[2]]
        own = stage.folder / "report.html"
        link = None
        if own.exists() and stage.folder.parent == record.folder:
            link = tag(
                "p",
                tag("a", "The report of this stage alone", href=f"{quote(stage.folder.name)}/report.html"),
            )
        opening: list[Child] = [
            tag("p", sections.badge(facts["outcome"]), " ", sections.sentence(facts)),
            tag("div", sections.command_line(facts), class_="command-row") if facts["command"] else None,
            link,
        ]
        content = join([*opening, *(chapter(part, level=3) for part in inner)])
        parts.append((f"stage-{index + 1}", stage.title, content))
    return [*parts, ("recipe", "Machine and recipe", sections.environment(record, summary))]


def chapter(part: Part, level: int = 2) -> Markup:
    """A section with its heading."""
    key, title, content = part
    stage = "stage" if key.startswith("stage-") and level == 2 else None
    return tag(
        "section",
        tag(f"h{level}", title, id=f"{key}-heading"),
        content,
        id=key,
        class_=stage,
        aria_labelledby=f"{key}-heading",
    )


def closing(summary: dict[str, Any]) -> str:
    """When the run took place, in UTC."""
    times = [figures.moment(summary[name]) for name in ("started", "ended") if summary[name]]
    ran = f"Ran {' to '.join(dict.fromkeys(times))}. " if times else ""
    return f"{ran}Written by groundup from the files of the run folder; the same figures are in report.json."
