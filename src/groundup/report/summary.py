"""From a `RunRecord` to the plain dictionary that is `report.json`.

Every figure that the page shows at its top is computed here, so that the page and `report.json` cannot
disagree. No HTML enters this file, and no rounding: the numbers are those of the events.
"""

from __future__ import annotations

import math
import shlex
from typing import Any

from groundup.report.collect import RunRecord, evaluations_of, interval
from groundup.report.reading import known, mapping, mappings, number, text_of

SCHEMA = 1
FROM_WORST = ("failed", "unfinished", "stopped", "empty", "early_stopped", "finished")
LESS_IS_BETTER = ("loss", "perplexity", "bits_per", "error", "nats", "bound")
MORE_IS_BETTER = ("exact", "f1", "accuracy", "ended", "agreement", "score", "rank", "precision", "recall", "return")
LEADING = (
    "bits_per_byte", "loss", "answer_loss", "return", "accuracy", "negative_bound", "pixel_error", "token_loss",
    "masked_loss",
)  # fmt: skip
QUANTITIES = ("memory_bytes", "seconds", "parameters", "tokens", "steps", "disk_bytes")
VERDICTS = ("better", "worse", "within noise")
TOKEN_PARTS = ("trained", "masked", "padded", "cut")


def summarize(record: RunRecord) -> dict[str, Any]:
    """The content of `report.json`: JSON values only, None where the run did not record a figure.

    `tokens` are trained targets; those of `predicted` and `measured` are tokens seen, as a plan counts them. Where
    `unit` says "rows", they are rows of a table, images, or rows of experience, each as often as it was learned from.
    Units: seconds are training seconds, memory and disk are bytes, losses are nats per target, `low` and
    `high` bound the confidence interval of `after`.
    """
    stages = [summarize(stage) for stage in record.stages]
    end = record.end
    measured = measured_figures(record, stages)
    tokens = token_ledger(record, stages)
    summary = {
        "schema": SCHEMA,
        "name": record.name,
        "title": record.title,
        "outcome": outcome(record, stages),
        "reason": text_of(end.get("reason")) or None,
        "command": command(record),
        "recipe_digest": text_of(record.results.get("recipe_digest") or record.start.get("recipe_digest")) or None,
        "steps": measured["steps"],
        "steps_planned": known(record.start.get("steps")),
        "unit": record.unit,
        "tokens": tokens["trained"],
        "seconds": measured["seconds"],
        "started": record.times[0] if record.times else first_of(stages, "started"),
        "ended": record.times[-1] if record.times else first_of(stages[::-1], "ended"),
        "predicted": predicted_figures(record, stages),
        "measured": measured,
        "ledger": {"data": data_ledger(record), "tokens": tokens},
        "hardware": mapping(record.results.get("hardware")) or first_of(stages, "hardware") or {},
        "evaluations": [evaluation_row(row) for row in evaluations_of(record)],
        "held_out": held_out(record),
        "final": {
            name: known(record.last(name))
            for name in ("loss", "bits_per_byte", "learning_rate", "gradient_norm", "tokens_per_second")
        },
        "incidents": {kind: record.counts[kind] for kind in ("guard", "warning", "save", "sample")},
        "sessions": len(record.sessions),
        "model": record.model or first_of(stages[::-1], "model") or {},
        "preset_difference": record.results.get("preset_difference") or [],
        "stages": stages,
        "unreadable": record.notes,
    }
    return plain(summary)


def outcome(record: RunRecord, stages: list[dict[str, Any]]) -> str:
    """finished, early_stopped, stopped, failed; unfinished without an end event; empty without any."""
    if stages and not record.start and not record.columns["step"]:
        return min((stage["outcome"] for stage in stages), key=FROM_WORST.index)
    said = record.end.get("outcome")
    end_step = number(record.end.get("step"))
    if said in FROM_WORST and not (record.columns["step"] and end_step < record.columns["step"][-1]):
        return str(said)
    return "unfinished" if record.start or record.columns["step"] or record.incidents else "empty"


def command(record: RunRecord) -> str:
    """The one line that does this run again: as recorded, else from the stages, else the resolved recipe."""
    for source in (record.results, *record.sessions[::-1]):
        recorded = source.get("command")
        if isinstance(recorded, list) and recorded:
            return shlex.join(text_of(part) for part in recorded)
        if isinstance(recorded, str) and recorded.strip():
            return recorded.strip()
    if record.stages:
        return " && ".join(filter(None, (command(stage) for stage in record.stages)))
    return f"groundup train {shlex.quote(str(record.folder / 'recipe.yaml'))}" if record.recipe_text else ""


def measured_figures(record: RunRecord, stages: list[dict[str, Any]]) -> dict[str, float | None]:
    """What the run took: the recorded figures, else those of the events, else the sum over the stages."""
    recorded = mapping(record.results.get("measured"))
    peaks = [value for value in record.columns["memory_bytes"] if math.isfinite(value)]
    seen: dict[str, float | None] = {
        "memory_bytes": max(peaks) if peaks else None,
        "seconds": known(record.last("seconds")),
        "parameters": known(record.start.get("parameters")),
        "tokens": known(record.last("seen")),
        "steps": known(record.last("step")),
        "disk_bytes": None,
    }
    for name in QUANTITIES:
        value = known(recorded.get(name))
        if value is not None:
            seen[name] = value
        elif seen[name] is None and stages:
            parts = [stage["measured"][name] for stage in stages if stage["measured"][name] is not None]
            combine = sum if name in ("seconds", "tokens", "steps", "disk_bytes") else max
            seen[name] = combine(parts) if parts else None
    return seen


def predicted_figures(record: RunRecord, stages: list[dict[str, Any]]) -> dict[str, Any]:
    """What `groundup plan` expected, with the parameters by part; sums and peaks over the stages."""
    predicted = mapping(record.plan.get("predicted"))
    if not predicted and stages:
        for name in QUANTITIES:
            parts = [known(stage["predicted"].get(name)) for stage in stages]
            whole = [part for part in parts if part is not None]
            combine = sum if name in ("seconds", "tokens", "steps", "disk_bytes") else max
            if whole and len(whole) == len(stages):
                predicted[name] = combine(whole)
    return predicted


def data_ledger(record: RunRecord) -> dict[str, Any]:
    """Rows in = rows kept + rows set aside, as preparation counted them, or such a ledger for each source."""
    recorded = mapping(mapping(record.results.get("ledger")).get("data"))
    if recorded or record.cards:
        return recorded or {name or "main": card.get("ledger", card) for name, card in record.cards.items()}
    return next((ledger for stage in record.stages if (ledger := data_ledger(stage))), {})


def token_ledger(record: RunRecord, stages: list[dict[str, Any]]) -> dict[str, float | None]:
    """Tokens seen = trained + masked + padded + cut. `balanced` is None where a part is unknown."""
    recorded = mapping(mapping(record.results.get("ledger")).get("tokens"))
    if not recorded and not record.columns["step"] and stages:
        tables = [stage["ledger"]["tokens"] for stage in stages]
        for name in ("seen", *TOKEN_PARTS):
            parts = [table[name] for table in tables]
            recorded[name] = None if None in parts else sum(parts)
    ledger = {name: known(recorded.get(name)) for name in ("seen", *TOKEN_PARTS)}
    if ledger["seen"] is None:
        ledger["seen"] = known(record.last("seen"))
    if ledger["trained"] is None:
        ledger["trained"] = known(record.last("tokens"))
    values = [ledger[name] for name in TOKEN_PARTS]
    whole = [value for value in values if value is not None]
    unknown = ledger["seen"] is None or len(whole) < len(values)
    ledger["balanced"] = None if unknown else sum(whole) == ledger["seen"]
    return ledger


def held_out(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The latest value of each metric of each evaluated set: {"held_out loss": {value, low, high, step}}."""
    latest: dict[str, dict[str, Any]] = {}
    for event in record.evaluations:
        data = text_of(event.get("data")) or "held_out"
        for metric, value in mapping(event.get("metrics")).items():
            low, high = interval(event, metric)
            latest[f"{data} {metric}"] = {
                "data": data,
                "metric": metric,
                "value": known(value),
                "low": known(low),
                "high": known(high),
                "step": known(event.get("step")),
            }
    return latest


def evaluation_row(row: dict[str, Any]) -> dict[str, Any]:
    """One evaluation with exactly the promised keys, and the verdict on its change.

    A recorded verdict counts: it was made from both sets of scores, unit by unit, and knows more than the
    interval of one of them.
    """
    numbers = {name: known(row.get(name)) for name in ("before", "after", "low", "high")}
    texts = {name: text_of(row.get(name)) for name in ("stage", "data", "metric")}
    said = row.get("verdict")
    judged = said if said in VERDICTS else verdict(texts["metric"], **numbers)
    return {**texts, **numbers, "verdict": judged}


def less_is_better(metric: str) -> bool | None:
    """Whether a smaller value of a metric is better; None for a metric whose direction is unknown."""
    name = metric.lower()
    if any(word in name for word in MORE_IS_BETTER):
        return False
    return True if any(word in name for word in LESS_IS_BETTER) else None


def verdict(metric: str, before: float | None, after: float | None, low: float | None, high: float | None) -> str:
    """better, worse or within noise: whether `before` lies outside the interval of `after`; "" if unknown."""
    if before is None or after is None or low is None or high is None:
        return ""
    if low <= before <= high:
        return "within noise"
    direction = less_is_better(metric)
    if direction is None:
        return "changed"
    return "better" if (after < before) == direction else "worse"


def headline(summary: dict[str, Any]) -> dict[str, Any] | None:
    """The one metric that stands for a run: the first of LEADING that was measured, else the last evaluation."""
    rows = mappings(summary["evaluations"])
    for wanted in LEADING:
        for row in reversed(rows):
            if row["metric"] == wanted and row["after"] is not None:
                return row
    return next((row for row in reversed(rows) if row["after"] is not None), None)


def counted(summary: dict[str, Any]) -> str:
    """What the figures called `tokens` count, in words; the rows of an environment are rows of experience."""
    experience = "environment" in mapping(summary["ledger"]["data"])
    return f"{summary['unit']} of experience" if experience else str(summary["unit"])


def first_of(stages: list[dict[str, Any]], key: str) -> Any:
    """The first truthy value of a key among the stages, None if there is none."""
    return next((stage[key] for stage in stages if stage[key]), None)


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as strict JSON can hold it: no NaN or infinity, text that UTF-8 can encode, counts whole."""
    if depth > 60:
        return None
    if isinstance(value, dict):
        return {encodable(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 1 << 53 else value
    if value is None or isinstance(value, bool | int):
        return value
    return encodable(str(value))


def encodable(text: str) -> str:
    """`text` with lone surrogates spelled out, since no file in UTF-8 can hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
