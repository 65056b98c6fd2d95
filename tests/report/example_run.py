"""A run folder as training would leave it, made in a moment and the same every time.

The figures are invented but hang together: the loss falls as it would, the ledgers add up, and the clock
runs steadily. Tests damage a copy of it; `python tests/report/example_run.py DIR` writes one to look at.
"""

from __future__ import annotations

import json
import math
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

BEGAN = datetime(2025, 3, 14, 9, 26, 53, tzinfo=UTC)
UNITS_PER_STEP = 16_384
PROMPTS = ("The function textwrap.dedent", "A generator is", "What does `os.path.join` do?")
WRITTEN = (
    "the the of . . self a the , , ``` the in",
    "returns the the string of the object and the file is the a list.",
    "returns a string with the given prefix removed from each line in the text of the file.",
    "removes any common leading whitespace from every line in text. This can be used to make triple-quoted "
    "strings line up with the left edge of the display, while still presenting them in indented form.",
)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_object(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def example_events(
    steps: int = 1200,
    every: int = 1,
    *,
    first: float = 8.3,
    last: float = 2.05,
    seconds: float = 0.27,
    began: datetime = BEGAN,
) -> list[dict[str, Any]]:
    """The lines of events.jsonl of a run that finished."""
    noise = random.Random(7)
    events: list[dict[str, Any]] = []
    used = 0.0

    def add(event: str, step: int, clock: dict[str, Any] | None = None, **fields: Any) -> None:
        time = (began + timedelta(seconds=used)).isoformat(timespec="milliseconds")
        events.append({"event": event, "step": step, **fields, "clock": {"time": time, **(clock or {})}})

    def true_loss(step: int) -> float:
        return last + (first - last) * math.exp(-5.5 * (step / steps) ** 0.45)

    def evaluate(step: int) -> None:
        loss = true_loss(step) + 0.05
        metrics = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": loss * 0.923}
        intervals = {
            "loss": [loss - 0.04, loss + 0.04],
            "perplexity": [math.exp(loss - 0.04), math.exp(loss + 0.04)],
            "bits_per_byte": [(loss - 0.04) * 0.923, (loss + 0.04) * 0.923],
        }
        add("evaluate", step, {"seconds": 1.9}, data="held_out", metrics=metrics, intervals=intervals)

    add(
        "start",
        0,
        recipe_digest="9f2c" * 16,
        steps=steps,
        parameters=4_196_352,
        trainable=4_196_352,
        unit="tokens",
        units_per_step=UNITS_PER_STEP,
        precision="float32",
        compile="off",
        save_every=steps // 4,
    )
    evaluate(0)
    for step in range(1, steps + 1):
        used += seconds * (1 + 0.04 * noise.random())
        if step % every == 0:
            loss = true_loss(step) + noise.gauss(0, 0.07)
            warm = min(step / (0.05 * steps), 1.0)
            spike = step == round(0.62 * steps)
            speed = UNITS_PER_STEP / seconds * (1 - 0.06 * noise.random())
            add(
                "step",
                step,
                {
                    "seconds": round(used, 3),
                    "tokens_per_second": round(speed, 1),
                    "ceiling_share": round(speed / 112_000, 4),
                    "memory_bytes": 1_310_000_000 + 20_000_000 * min(step, 20),
                },
                tokens=step * (UNITS_PER_STEP - 384),
                seen=step * UNITS_PER_STEP,
                loss=loss + 1.9 * spike,
                bits_per_byte=(loss + 1.9 * spike) * 0.923,
                learning_rate=3e-3 * warm * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps))),
                gradient_norm=0.4 + 2.2 * math.exp(-step / 60) + abs(noise.gauss(0, 0.06)) + 7 * spike,
            )
            if spike:
                add("guard", step, kind="spike", detail={"loss": round(loss + 1.9, 3), "window_mean": 2.61})
        if step % max(steps // 12, 1) == 0:
            evaluate(step)
        if step % max(steps // 4, 1) == 0:
            text = WRITTEN[min(len(WRITTEN) - 1, 4 * step // steps - 1)]
            finish = "stop" if step > steps // 2 else "length"
            add("sample", step, samples=[{"prompt": p, "text": text, "finish": finish} for p in PROMPTS])
            add("save", step, path=f"checkpoints/step-{step:06d}")
    add("warning", steps, message="the next checkpoint would need 48 MiB; 1.9 GiB are free")
    add("end", steps, outcome="finished", reason="all steps done")
    return events


CARD = {
    "ledger": {
        "documents": 3412,
        "bytes": 2_310_412,
        "kept": {"documents": 3120, "bytes": 2_180_006},
        "cleaned_bytes": 10_000,
        "malformed": 4,
        "set_aside": {
            "malformed": {"documents": 4, "bytes": 700},
            "near duplicate": {"documents": 29, "bytes": 39_100},
            "repeats": {"documents": 88, "bytes": 71_200},
            "too short": {"documents": 171, "bytes": 9_406},
        },
    },
    "splits": {
        "train": {"documents": 2811, "bytes": 1_968_002, "tokens": 611_204},
        "held_out": {"documents": 309, "bytes": 222_004, "tokens": 69_118},
    },
    "filters": {"length": "at least 40 characters", "repetition": "at most 30 % repeated lines"},
    "tokenizer": {"kind": "bpe", "vocabulary": 4096, "bytes_per_token": 3.22},
    "licence": "PSF-2.0",
}

RECIPE = """\
model:
  family: llama
  depth: 4
  width: 256
  heads: 4
  context: 512
data:
  kind: text
  files: [corpus/train]
  context: 512
objective: {kind: next_token}
optim:
  model: {kind: adamw, lr: 0.003, schedule: {kind: cosine, warmup: 60}}
budget: {steps: 1200, tokens_per_step: 16384}
seed: 7
"""


def example_run(folder: Path, **shape: Any) -> Path:
    """Write a whole run that finished; `shape` goes to `example_events`."""
    events = example_events(**shape)
    write_lines(folder / "events.jsonl", events)
    steps = [event for event in events if event["event"] == "step"]
    evaluations = [event for event in events if event["event"] == "evaluate"]
    first, last = evaluations[0], evaluations[-1]
    seen = steps[-1]["seen"]
    write_lines(
        folder / "sessions.jsonl",
        [
            {
                "time": "2025-03-14T09:26:53+00:00",
                "from_step": 0,
                "process": 4121,
                "command": "groundup train pretrain.yaml",
            },
            {
                "time": "2025-03-14T09:29:10+00:00",
                "from_step": 600,
                "process": 4388,
                "command": "groundup train pretrain.yaml --resume",
            },
        ],
    )
    write_object(folder / "data" / "card.json", CARD)
    write_lines(
        folder / "data" / "quarantine.jsonl",
        [
            {
                "file": "corpus/a.jsonl",
                "line": 17,
                "reason": 'field "text" is a number',
                "text": '{"text": 5}',
            },
            {"file": "corpus/a.jsonl", "line": 90, "reason": "cut mid-record", "text": '{"text": "abc'},
            {"file": "corpus/b.jsonl", "line": 3, "reason": "cut mid-record", "text": '{"te'},
        ],
    )
    write_object(
        folder / "plan.json",
        {
            "predicted": {
                "memory_bytes": 1_540_000_000,
                "seconds": steps[-1]["step"] * 0.25,
                "parameters": 4_196_352,
                "tokens": seen,
                "steps": steps[-1]["step"],
                "disk_bytes": 151_000_000,
                "parts": [
                    {"name": "embedding", "parameters": 1_048_576},
                    {"name": "attention", "parameters": 1_048_576},
                    {"name": "feed_forward", "parameters": 2_097_152},
                    {"name": "norms", "parameters": 2_048},
                ],
            }
        },
    )
    write_object(
        folder / "results.json",
        {
            "evaluations": [
                {
                    "stage": "pretrain",
                    "data": "held_out",
                    "metric": name,
                    "before": first["metrics"][name],
                    "after": last["metrics"][name],
                    "low": last["intervals"][name][0],
                    "high": last["intervals"][name][1],
                }
                for name in ("bits_per_byte", "loss", "perplexity")
            ],
            "samples": [{"prompt": PROMPTS[2], "text": "Joins one or more path segments.", "finish": "stop"}],
            "measured": {
                "memory_bytes": 1_710_000_000,
                "seconds": steps[-1]["clock"]["seconds"],
                "disk_bytes": 149_800_000,
            },
            "ledger": {
                "data": {},
                "tokens": {
                    "seen": seen,
                    "trained": steps[-1]["tokens"],
                    "masked": 0,
                    "padded": seen - steps[-1]["tokens"],
                    "cut": 0,
                },
            },
            "hardware": {
                "cpu": "AMD EPYC 7R13",
                "cores": 2,
                "instructions": ["avx2", "fma"],
                "memory_bytes": 8_254_390_272,
                "torch": "2.6.0",
                "python": "3.11.7",
                "matrix_flops": 1.12e11,
            },
            "command": "groundup train recipes/pretrain.yaml budget.steps=1200 --out runs/pretrain",
            "recipe_digest": "9f2c" * 16,
            "preset_difference": [
                {"field": "budget.steps", "preset": 2000, "here": 1200},
                {"field": "model.depth", "preset": 6, "here": 4},
            ],
        },
    )
    write_object(
        folder / "model" / "model.json",
        {
            "family": "llama",
            "options": {
                "vocabulary": 4096,
                "context": 512,
                "width": 256,
                "depth": 4,
                "heads": 4,
                "tied": True,
            },
        },
    )
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "recipe.source.yaml").write_text("preset: small\nmodel: {depth: 4}\nbudget: {steps: 1200}\n")
    return folder


def example_stages(folder: Path) -> list[Path]:
    """A quickstart folder: two runs, pretraining and fine-tuning."""
    first = example_run(folder / "pretrain", steps=400)
    second = example_run(folder / "finetune", steps=120, first=4.1, last=1.4, began=BEGAN + timedelta(minutes=9))
    results = json.loads((second / "results.json").read_text(encoding="utf-8"))
    for row in results["evaluations"]:
        row.update(stage="finetune", data="held_out answers")
    results["command"] = "groundup train recipes/finetune.yaml --out runs/finetune"
    results["evaluations"].append(
        {
            "stage": "finetune",
            "data": "held_out answers",
            "metric": "ended_share",
            "before": 0.02,
            "after": 0.985,
            "low": 0.96,
            "high": 0.995,
        }
    )
    write_object(second / "results.json", results)
    return [first, second]


if __name__ == "__main__":
    example_run(Path(sys.argv[1]) / "pretrain")
    example_stages(Path(sys.argv[1]) / "quickstart")
