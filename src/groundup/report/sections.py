"""The parts of the page about the run itself: its head, results, plan, samples, events and environment.

Each function takes the record and its summary and gives the section's content, or an empty piece when the
run has nothing to say there. Data and model cards are in `cards.py`, curves in `curves.py`.
"""

from __future__ import annotations

import math
from typing import Any

from groundup.report import figures
from groundup.report.charts import Scale, interval_bar, widened
from groundup.report.collect import RunRecord
from groundup.report.curves import spread
from groundup.report.markup import Child, Markup, details, join, pairs, table, tag
from groundup.report.reading import flatten, known, mapping, mappings, number, text_of
from groundup.report.summary import counted, headline

OUTCOMES = {
    "finished": ("good", "Finished"),
    "early_stopped": ("good", "Stopped early, as asked"),
    "stopped": ("fair", "Stopped"),
    "unfinished": ("fair", "Unfinished"),
    "failed": ("bad", "Failed"),
    "empty": ("fair", "Nothing recorded"),
}
VERDICTS = {"better": "good", "worse": "bad", "within noise": "fair", "changed": "fair"}
TILES = ("bits_per_byte", "loss", "f1", "exact_match", "return", "accuracy")
"""The evaluations of the first screen, the first of them that were measured."""
LONGEST_SAMPLE = 1500
MOST_SAMPLES = 8
MOST_PROMPTS = 12
MOST_INCIDENTS = 60
WITHIN = {"memory_bytes": 0.20, "seconds": 0.25}
PLANNED = (
    ("memory_bytes", "Peak memory", figures.size),
    ("seconds", "Training time", figures.duration),
    ("parameters", "Parameters", figures.count),
    ("tokens", "{} seen", figures.count),
    ("steps", "Steps", figures.count),
    ("disk_bytes", "Disk for checkpoints", figures.size),
)


def badge(outcome: str) -> Markup:
    """The outcome as a coloured word."""
    kind, word = OUTCOMES[outcome]
    return tag("span", word, class_=f"badge {kind}")


def sentence(summary: dict[str, Any]) -> str:
    """What happened, in one sentence."""
    steps, tokens = summary["steps"], summary["tokens"]
    parts = []
    if steps:
        planned = summary["steps_planned"]
        of = f" of {figures.count(planned)}" if planned and planned != steps else ""
        parts.append(f"{figures.count(steps)}{of} steps")
    if tokens:
        parts.append(f"{figures.count(tokens)} trained {counted(summary)}")
    if summary["seconds"]:
        parts.append(f"{figures.duration(summary['seconds'])} of training")
    if not parts:
        return "The folder holds no recorded training step."
    done = ", ".join(parts)
    row = headline(summary)
    if row is None:
        return f"{done}."
    name = f"{figures.words(row['data'])} {figures.words(row['metric'])}".strip()
    before, after = figures.metric(row["before"]), figures.metric(row["after"])
    moved = f"from {before} to {after}" if row["before"] is not None else f"at {after}"
    span = figures.between(row["low"], row["high"])
    return f"{done}; {name} {moved}" + (f" (interval {span})." if span else ".")


def key_figures(summary: dict[str, Any]) -> Markup:
    """The tiles of the first screen: the held-out metrics with their intervals, then what they cost."""
    tiles: list[tuple[str, str, str]] = []
    rows = mappings(summary["evaluations"])
    staged = len({row["stage"] for row in rows}) > 1
    leading = leading_rows(rows)
    for row in leading:
        span = figures.between(row["low"], row["high"])
        before = f"before: {figures.metric(row['before'])}" if row["before"] is not None else ""
        title = f"{row['stage'] if staged else ''} {figures.words(row['data'])} {figures.words(row['metric'])}".strip()
        named = row["data"].replace("_", "").isalpha()  # "test" becomes "Test", the id of an environment stays
        title = figures.capital(title) if named or staged else title
        tiles.append((title, figures.metric(row["after"]), "\n".join(filter(None, [span, before]))))
    final = summary["final"]
    if not leading and final["loss"] is not None:
        what = "nats per target, last record" if summary["unit"] == "tokens" else "last record"
        tiles.append(("Training loss", figures.metric(final["loss"]), what))
    seconds, tokens, unit = summary["seconds"], summary["tokens"], summary["unit"]
    speed = f"{figures.count(round(tokens / seconds))} {unit}/s" if seconds and tokens else ""
    seen = summary["ledger"]["tokens"]["seen"]
    more = counted(summary).removeprefix(unit).strip()
    if seen and seen != tokens:
        more = f"{more}, {figures.count(seen)} seen".lstrip(", ")
    family = text_of(summary["model"].get("family"))
    tiles += [
        (f"Trained {unit}", figures.count(tokens), more),
        ("Training time", figures.duration(seconds), speed),
        ("Parameters", figures.count(summary["measured"]["parameters"]), family),
        ("Peak memory", figures.size(summary["measured"]["memory_bytes"]), ""),
    ]
    shown = [
        tag("div", tag("dt", name), tag("dd", tag("b", value), tag("span", note) if note else None))
        for name, value, note in tiles
        if value != figures.MISSING
    ]
    return tag("dl", *shown, class_="tiles") if shown else Markup("")


def leading_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two evaluations for the first screen: one for each of the last two stages, or two of a single one."""
    order = {metric: index for index, metric in enumerate(TILES)}
    usable = sorted(
        (row for row in rows if row["after"] is not None),
        key=lambda row: order.get(row["metric"], len(order)),
    )
    stages = list(dict.fromkeys(row["stage"] for row in rows))[-2:]
    if len(stages) < 2:
        return usable[:2]
    return [row for stage in stages for row in [one for one in usable if one["stage"] == stage][:1]]


def command_line(summary: dict[str, Any]) -> Markup:
    """The line that does this run again."""
    if not summary["command"]:
        return Markup("")
    digest = summary["recipe_digest"]
    return tag(
        "div",
        tag("p", "Run it again", class_="eyebrow"),
        tag("pre", tag("code", summary["command"]), class_="command", tabindex="0"),
        tag("p", "Recipe digest ", tag("code", digest[:16]), class_="quiet small") if digest else None,
    )


def results(summary: dict[str, Any]) -> Markup:
    """Every evaluation before and after, with its interval drawn, and a verdict."""
    rows = mappings(summary["evaluations"])
    if not rows:
        return tag("p", "No evaluation was recorded.", class_="quiet")
    staged = any(row["stage"] for row in rows)
    lines: list[list[Child]] = []
    for row in rows:
        after = row["after"]
        change = after - row["before"] if after is not None and row["before"] is not None else None
        signed = figures.metric(change) if change is None or change <= 0 else f"+{figures.metric(change)}"
        name = f"{row['data']} {row['metric']}: {figures.metric(row['before'])} to {figures.metric(after)}"
        values = [row[key] for key in ("before", "after", "low", "high") if row[key] is not None]
        span = Scale(*widened(min(values, default=0.0), max(values, default=0.0)), 3.0, 97.0)
        bar = None if after is None else interval_bar(name, row["before"], after, row["low"], row["high"], span)
        mark = (
            tag("span", row["verdict"], class_=f"badge {VERDICTS[row['verdict']]}")
            if row["verdict"]
            else figures.MISSING
        )
        lines.append(
            [row["stage"]] * staged
            + [
                figures.words(row["data"]),
                figures.words(row["metric"]),
                figures.metric(row["before"]),
                tag("b", figures.metric(after)),
                figures.between(row["low"], row["high"]) or figures.MISSING,
                signed,
                bar,
                mark,
            ]
        )
    heads = ["stage"] * staged + ["data", "metric", "before", "after", "interval", "change", "", "verdict"]
    right = range(2 + staged, 6 + staged)
    return join(
        [
            table(
                "Evaluations before and after, with the confidence interval of the value after",
                heads,
                lines,
                numeric=right,
                class_="results",
            ),
            tag(
                "p",
                "Hollow mark: before. Dot and bar: after, with its interval; each row has its own scale. ",
                "“Within noise” means that the change is no larger than chance would make it.",
                class_="quiet small",
            ),
        ]
    )


def planned(summary: dict[str, Any]) -> Markup:
    """Predicted beside measured, with how far off the prediction was."""
    predicted, measured = summary["predicted"], summary["measured"]
    whole = summary["outcome"] in ("finished", "empty")
    rows: list[list[Child]] = []
    for name, title, shape in PLANNED:
        expected, found = known(predicted.get(name)), known(measured.get(name))
        if expected is None and (found is None or not predicted):
            continue
        off: Child = figures.MISSING
        if expected is not None and found and (whole or name in ("memory_bytes", "parameters")):
            share = expected / found - 1.0
            limit = WITHIN.get(name)
            kind = "" if limit is None else "good" if abs(share) <= limit else "bad"
            word = "" if limit is None else f" {'within' if abs(share) <= limit else 'beyond'} {figures.percent(limit)}"
            off = join(
                [
                    figures.percent(share, signed=True),
                    tag("span", word.strip(), class_=f"badge {kind}") if word else None,
                ],
                " ",
            )
        title = title.format(figures.capital(summary["unit"]))
        rows.append([title, shape(expected), shape(found), off])
    if not rows:
        return Markup("")
    note = (
        "Off: prediction over measurement, minus one."
        if whole
        else "The run did not reach its planned end, so time, tokens and steps are not compared."
    )
    heads = ["", "predicted", "measured", "off"]
    return join(
        [
            table("The plan beside what was measured", heads, rows, numeric=(1, 2, 3), class_="plan"),
            tag("p", note, class_="quiet small"),
        ]
    )


def samples(record: RunRecord) -> Markup:
    """What the model wrote to the fixed prompts as it learned, earliest first."""
    by_prompt: dict[str, list[tuple[float, str, str]]] = {}
    for event in record.samples:
        for sample in mappings(event.get("samples")):
            entry = (number(event.get("step")), text_of(sample.get("text")), text_of(sample.get("finish")))
            by_prompt.setdefault(text_of(sample.get("prompt")), []).append(entry)
    for sample in mappings(record.results.get("samples")):
        entry = (math.nan, text_of(sample.get("text")), text_of(sample.get("finish")))
        by_prompt.setdefault(text_of(sample.get("prompt")), []).append(entry)
    blocks: list[Child] = []
    for index, (prompt, entries) in enumerate(list(by_prompt.items())[:MOST_PROMPTS]):
        shown = entries
        if len(entries) > MOST_SAMPLES:
            shown = [entries[round(i * (len(entries) - 1) / (MOST_SAMPLES - 1))] for i in range(MOST_SAMPLES)]
        items = [sample_item(step, text, finish) for step, text, finish in shown]
        head = tag("span", prompt[:300] or "(empty prompt)", dir="auto", class_="prompt")
        block = tag("details", tag("summary", head), tag("ol", *items, class_="samples"), open=index < 3)
        blocks.append(block)
    if len(by_prompt) > MOST_PROMPTS:
        blocks.append(tag("p", f"{len(by_prompt) - MOST_PROMPTS} more prompts are in events.jsonl."))
    return join(blocks)


def sample_item(step: float, text: str, finish: str) -> Markup:
    """One sample: when it was drawn, what was written and why it ended."""
    when = "final model" if math.isnan(step) else f"step {figures.count(step)}"
    cut = text if len(text) <= LONGEST_SAMPLE else text[:LONGEST_SAMPLE] + " …"
    return tag(
        "li",
        tag("p", when, f" · {finish}" if finish else "", class_="eyebrow"),
        tag("blockquote", cut or "(nothing)", dir="auto"),
    )


def incidents(record: RunRecord) -> Markup:
    """Guards, warnings, starts and ends in order; checkpoints counted; the processes that worked here."""
    saves = [event for event in record.incidents if event.get("event") == "save"]
    others = [event for event in record.incidents if event.get("event") != "save"]
    parts: list[Child] = []
    total = record.counts["save"]
    if saves:
        step = figures.count(number(saves[-1].get("step")))
        parts.append(tag("p", f"{total:,} checkpoint{'s' if total > 1 else ''} saved, the last at step {step}."))
    rows: list[list[Child]] = [incident_row(event) for event in spread(others, MOST_INCIDENTS)]
    if rows:
        many = record.counts.total() - sum(record.counts[k] for k in ("step", "evaluate", "sample", "start", "save"))
        caption = f"Events: {len(rows)} of {many:,}" if many > len(rows) else "Events"
        parts.append(table(caption, ["step", "event", "detail", "time"], rows, numeric=(0,)))
    elif record.columns["step"]:
        parts.append(tag("p", "No warning, no skipped step and no spike was recorded.", class_="quiet"))
    parts.append(sessions(record))
    return join(parts)


def incident_row(event: dict[str, Any]) -> list[Child]:
    """One event as step, kind, what it said, and when."""
    kind = text_of(event.get("event"))
    said = [text_of(event.get(name)) for name in ("kind", "outcome", "message", "reason", "path")]
    detail = event.get("detail")
    said.append(
        ", ".join(f"{figures.words(k)} {v}" for k, v in flatten(rounded(detail)).items())
        if isinstance(detail, dict)
        else text_of(detail)
    )
    style = {"guard": "bad", "warning": "fair", "end": "plain"}.get(kind, "plain")
    time = mapping(event.get("clock")).get("time")
    return [
        figures.count(number(event.get("step"))),
        tag("span", kind or "unnamed", class_=f"badge {style}"),
        ": ".join(part for part in said if part)[:600],
        figures.moment(text_of(time)),
    ]


def rounded(detail: dict[str, Any]) -> dict[str, Any]:
    """A mapping whose fractions are written with few digits."""
    return {name: figures.short(value) if isinstance(value, float) else value for name, value in detail.items()}


def sessions(record: RunRecord) -> Markup:
    """One row for each process that worked on the run: a resumed run has several."""
    if not record.sessions:
        return Markup("")
    shown = [flatten(session) for session in spread(record.sessions, 40)]
    names = list(dict.fromkeys(key for session in shown for key in session))[:8]
    rows: list[list[Child]] = [
        [str(index + 1), *(session.get(name, "")[:160] for name in names)] for index, session in enumerate(shown)
    ]
    count = len(record.sessions)
    caption = "One process worked on this run" if count == 1 else f"{count:,} processes worked on this run"
    return details(caption, table(caption, ["", *map(figures.words, names)], rows, class_="plain"))


def environment(record: RunRecord, summary: dict[str, Any]) -> Markup:
    """The machine, what the recipe changes from its preset, and the recipe in full."""
    hardware = mapping(summary["hardware"])
    sizes = {name: mapping(hardware.get(name)) for name in ("memory", "disk")}  # bytes in all, and those still free
    hardware |= {
        name: {key: figures.size(known(value)) for key, value in found.items()}
        for name, found in sizes.items()
        if found
    }
    machine = flatten({name: item for name, item in hardware.items() if known(item) is None})
    machine |= {name: figures.shaped(name, item) for name, item in hardware.items() if known(item) is not None}
    machine.pop("", None)
    rows = [(figures.words(name.replace(".", " ")), value[:300]) for name, value in machine.items()]
    for name in ("precision", "compile", "kernels"):
        if text_of(record.start.get(name)):
            rows.append((name, text_of(record.start.get(name))))
    parts: list[Child] = [pairs("Machine", rows)]
    difference = summary["preset_difference"]
    if difference:
        parts.append(difference_table("Differences from the preset", difference))
    if record.recipe_text:
        parts.append(details("The recipe that ran, every value filled in", source(record.recipe_text)))
    if record.source_text:
        parts.append(details("The recipe as it was given", source(record.source_text)))
    return join(parts)


def source(text: str) -> Markup:
    """A file's text as it stands."""
    return tag("pre", tag("code", text[:200_000]), tabindex="0")


def difference_table(caption: str, differences: object) -> Markup:
    """Differences between two recipes: mappings with field and two values, a mapping by field, or lines."""
    if isinstance(differences, dict):
        differences = [{"field": key, "value": value} for key, value in differences.items()]
    entries = differences if isinstance(differences, list) else [differences]
    named = mappings(entries)
    if named:
        names = list(dict.fromkeys(key for entry in named for key in entry))[:5]
        rows: list[list[Child]] = [[text_of(entry.get(name))[:300] for name in names] for entry in named[:500]]
        return table(caption, [figures.words(name) for name in names], rows)
    lines = [tag("li", tag("code", text_of(entry)[:300])) for entry in entries[:500]]
    return join([tag("p", caption, class_="eyebrow"), tag("ul", *lines)])
