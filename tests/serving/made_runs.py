"""A folder of runs in every state, made in a moment: for the tests of the page and of what is behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.report.example_run import example_events, example_run, write_lines, write_object

from groundup.data.card import quarantine_lines
from groundup.data.corpus import CLEAN, write_index, write_shard
from groundup.data.shards import write_token_folder
from groundup.text.options import TokenizerOptions
from groundup.text.train import train_tokenizer

HOSTILE = "<img src=x onerror=alert(1)>"
TEXTS = [f"Document {number} says hello." for number in range(25)] + ["A tokenizer cuts text.", "A last one: 你好"]
REASONS = {"exact duplicate": 30, "malformed: not JSON": 1}


def runs_folder(root: Path) -> Path:
    """finished, live, crashed, empty and hostile runs, and one of a classifier."""
    example_run(root / "finished", steps=90, every=1)
    prepared_text(root / "finished" / "data")
    live_run(root / "live", steps=20)
    write_lines(root / "crashed" / "events.jsonl", example_events(steps=40)[:25])
    with (root / "crashed" / "events.jsonl").open("a") as file:
        file.write('{"event": "step", "st')
    write_object(root / "broken" / "results.json", ["not", "an", "object"])
    (root / "broken" / "recipe.yaml").write_text("model: [unclosed\n")
    example_run(root / HOSTILE.replace("/", ""), steps=30)
    classifier_run(root / "judged")
    return root


def live_run(folder: Path, *, steps: int) -> list[dict[str, Any]]:
    """A run of 100 steps that is at step `steps`; gives the events that are still to come."""
    events = example_events(steps=100)
    first = next(i for i, event in enumerate(events) if event["event"] == "step" and event["step"] == steps) + 1
    write_lines(folder / "events.jsonl", events[:first])
    return events[first:]


def append(folder: Path, events: list[dict[str, Any]]) -> None:
    """What training does: lines at the end of the file."""
    with (folder / "events.jsonl").open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in events))


def prepared_text(folder: Path) -> None:
    """Documents with tokens, a card and a quarantine, as preparation leaves them."""
    tokenizer = train_tokenizer(TEXTS, TokenizerOptions(kind="byte"))
    tokenizer.save(folder)
    sets = {"train": TEXTS[:-2], "held_out": TEXTS[-2:]}
    shards = {name: [write_shard_of(folder, name, texts)] for name, texts in sets.items()}
    write_index(folder / CLEAN, shards)
    rows = {
        name: [([tokenizer.begin_id, *tokenizer.encode(text)], len(text.encode())) for text in texts]
        for name, texts in sets.items()
    }
    write_token_folder(
        folder / "tokens", rows, tokenizer_digest=tokenizer.digest, vocabulary=tokenizer.vocabulary
    )  # fmt: skip
    aside = {name: {"documents": number, "bytes": 10 * number} for name, number in REASONS.items()}
    kept = {"documents": len(TEXTS), "bytes": sum(len(text.encode()) for text in TEXTS)}
    ledger = {"documents": len(TEXTS) + 31, "kept": kept, "set_aside": aside}
    splits = {name: {"documents": len(texts), "bytes": 100} for name, texts in sets.items()}
    write_object(folder / "card.json", {"schema": 1, "ledger": ledger, "splits": splits, "scripts": {"Latin": 1.0}})
    records = [
        {"order": i, "file": "a.txt", "line": i + 1, "reason": "exact duplicate", "detail": "", "text": f"copy {i}"}
        for i in range(30)
    ]
    records.append(
        {"order": 30, "file": "a.txt", "line": 31, "reason": "malformed: not JSON", "detail": "", "text": HOSTILE}
    )
    (folder / "quarantine.jsonl").write_bytes(quarantine_lines(records))


def write_shard_of(folder: Path, name: str, texts: list[str]) -> Any:
    (folder / CLEAN).mkdir(parents=True, exist_ok=True)
    return write_shard(folder / CLEAN, f"{name}-00000", texts)


def classifier_run(folder: Path) -> None:
    """A finished run whose results hold a confusion matrix and curves."""
    example_run(folder, steps=40)
    results = json.loads((folder / "results.json").read_text())
    results["classification"] = {
        "data": "test", "rows": 20, "labels": ["cat", "dog"], "confusion": [[0, 0, 9], [0, 1, 1], [1, 1, 10]],
        "headline": {"accuracy": {"value": 0.95, "low": 0.85, "high": 1.0}},
        "curves": {"roc": [{"name": "cat", "area": 0.97, "x": [0, 0, 1], "y": [0, 0.9, 1]}]},
    }  # fmt: skip
    write_object(folder / "results.json", results)
