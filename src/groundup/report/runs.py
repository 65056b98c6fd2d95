"""Many runs at once: finding them below a folder, one line for each, and two of them side by side."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import GroundupError, printable
from groundup.report.collect import RunRecord, collect, is_run
from groundup.report.reading import flatten, mappings, read_object
from groundup.report.summary import SCHEMA, data_ledger, headline, less_is_better, summarize

INSIDE_A_RUN = frozenset({"checkpoints", "model", "data"})


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side: `recipe` lists {field, first, second}, `metrics` the evaluations that both
    have as {data, metric, first, first_low, first_high, second, …, verdict}, `notes` what to keep in mind."""

    first: str
    second: str
    recipe: list[dict[str, str]]
    metrics: list[dict[str, Any]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The comparison for `--json`."""
        return dict(vars(self))


def find_runs(folder: Path | str) -> list[Path]:
    """All run folders at or below `folder`, sorted by path; hidden folders and links are not entered.

    Raises:
        GroundupError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise GroundupError(
            code="E-REPORT-003",
            what="no such folder to look for runs in",
            where=printable(str(folder)),
            why="runs are found by looking through a folder and all folders below it",
            fix="groundup runs DIR   with the folder that holds your runs, such as the --out of a training",
            exit_code=2,
        )
    found = []
    for place, below, _ in os.walk(folder):
        here = Path(place)
        run = is_run(here)
        if run:
            found.append(here)
        below[:] = [name for name in below if not name.startswith(".") and not (run and name in INSIDE_A_RUN)]
    return sorted(found)


def stages_of(folder: Path | str) -> list[Path]:
    """The runs directly below a folder that is no training run itself, in the order in which they started."""
    folder = Path(folder)
    if not folder.is_dir() or (folder / "events.jsonl").exists():
        return []
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and is_run(path)]
    return sorted(below, key=lambda path: (summarize(collect(path))["started"] or "~", path.name))


def require_run(folder: Path | str) -> None:
    """Refuse a folder that holds other things than a run; an empty folder counts as a run not yet begun.

    Raises:
        GroundupError: nothing of a run is in this folder or directly below it.
    """
    folder = Path(folder)
    if not folder.is_dir() or is_run(folder) or stages_of(folder) or not any(folder.iterdir()):
        return
    raise GroundupError(
        code="E-REPORT-004",
        what="this folder is not a run",
        where=printable(str(folder)),
        why="a run folder holds events.jsonl, recipe.yaml, results.json, plan.json or sessions.jsonl; "
        "this one holds none of them, and nothing was written to it",
        fix=f"groundup runs {printable(str(folder))}   (lists the runs below it)",
        exit_code=2,
    )


def run_line(folder: Path, below: Path) -> dict[str, Any]:
    """One run as `groundup runs` lists it: name, outcome, steps, what it saw, the leading metric, time, date.

    `report.json` is believed if it is no older than the events; else the run is read anew.
    """
    summary = recent_summary(folder) or summarize(collect(folder, stages=stages_of(folder)))
    row = headline(summary)
    name = folder.relative_to(below).as_posix()
    return {
        "name": folder.resolve().name if name == "." else name,
        "path": str(folder),
        "outcome": summary["outcome"],
        "steps": summary["steps"],
        "unit": summary["unit"],
        "tokens": summary["tokens"],
        "metric": row["metric"] if row else None,
        "value": row["after"] if row else summary["final"]["loss"],
        "low": row["low"] if row else None,
        "high": row["high"] if row else None,
        "seconds": summary["seconds"],
        "started": summary["started"],
        "recipe_digest": summary["recipe_digest"],
    }


def recent_summary(folder: Path) -> dict[str, Any] | None:
    """The content of `report.json` if it is whole, of this version, and as new as what it reports."""
    try:
        written = (folder / "report.json").stat().st_mtime_ns
        for name in ("events.jsonl", "results.json", "sessions.jsonl"):
            path = folder / name
            if path.exists() and path.stat().st_mtime_ns > written:
                return None
    except OSError:
        return None
    summary = read_object(folder / "report.json", [])
    needed = {"outcome", "steps", "unit", "tokens", "seconds", "started", "recipe_digest", "evaluations", "final"}
    whole = summary.get("schema") == SCHEMA and needed <= summary.keys() and isinstance(summary["final"], dict)
    return summary if whole else None


def compare(first: Path | str, second: Path | str) -> Comparison:
    """The differences of two runs' recipes, and their common evaluations with a verdict on the second.

    The verdict is "better" or "worse" when the two confidence intervals do not meet and "within noise" when
    they do (a cautious test: two intervals that just touch differ at well below the level of each). Without
    intervals there is no verdict, and none on losses per token between different tokenizers.

    Raises:
        GroundupError: one of the two is no run.
    """
    for folder in (first, second):
        require_run(folder)
    records = [collect(folder, stages=stages_of(folder)) for folder in (first, second)]
    one, other = (flatten(record.recipe) for record in records)
    recipe = [
        {"field": field, "first": one.get(field, ""), "second": other.get(field, "")}
        for field in dict.fromkeys([*one, *other])
        if field and one.get(field) != other.get(field)
    ]
    notes = []
    tokenizers = [digest(record.folder / "model" / "tokenizer.json") for record in records]
    same_tokenizer = None in tokenizers or tokenizers[0] == tokenizers[1]
    if not same_tokenizer:
        notes.append("The tokenizers differ: loss and perplexity per token cannot be compared, bits per byte can.")
    ledgers = [json.dumps(data_ledger(record), sort_keys=True) for record in records]
    if ledgers[0] != ledgers[1]:
        notes.append("The data differ, perhaps the held-out part too: compare the data cards before the metrics.")
    rows = [latest_rows(record) for record in records]
    metrics = [side_by_side(key, rows[0][key], rows[1][key], same_tokenizer) for key in rows[0] if key in rows[1]]
    return Comparison(records[0].name, records[1].name, recipe, metrics, notes)


def latest_rows(record: RunRecord) -> dict[tuple[str, str], dict[str, Any]]:
    """The evaluations of a run by data and metric; of several stages the last counts."""
    rows = mappings(summarize(record)["evaluations"])
    return {(row["data"], row["metric"]): row for row in rows if row["after"] is not None}


def side_by_side(
    key: tuple[str, str], first: dict[str, Any], second: dict[str, Any], same_tokenizer: bool
) -> dict[str, Any]:
    """One metric of two runs with the verdict on the second."""
    data, metric = key
    verdict = ""
    ends = [row[name] for row in (first, second) for name in ("low", "high")]
    per_token = metric in ("loss", "perplexity")
    if per_token and not same_tokenizer:
        verdict = "not comparable"
    elif None not in ends:
        direction = less_is_better(metric)
        if ends[0] <= ends[3] and ends[2] <= ends[1]:
            verdict = "within noise"
        elif direction is None:
            verdict = "changed"
        else:
            verdict = "better" if (second["after"] < first["after"]) == direction else "worse"
    return {
        "data": data,
        "metric": metric,
        "first": first["after"],
        "first_low": ends[0],
        "first_high": ends[1],
        "second": second["after"],
        "second_low": ends[2],
        "second_high": ends[3],
        "verdict": verdict,
    }


def digest(path: Path) -> str | None:
    """SHA-256 of a file, None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
