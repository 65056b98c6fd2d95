"""`groundup train RECIPE`: progress on the terminal while it trains, and how it ended."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from groundup.cli.terminal import Painter, format_duration


def train(arguments: argparse.Namespace) -> int:
    """Train; 0 when finished, 130 or 143 when stopped with a checkpoint."""
    from groundup.run.entry import train as run

    painter = Painter(sys.stderr) if arguments.json else Painter()
    progress = Progress(painter)
    progress.say("preparing …" if painter.unicode else "preparing ...")
    result = run(
        arguments.recipe,
        arguments.overrides,
        out=arguments.out,
        resume=arguments.resume,
        accept_changes=arguments.accept_changes,
        command=["groundup", *sys.argv[1:]],
        listeners=(progress,),
        say=progress.say,
    )
    if arguments.json:
        print((result.folder / "report.json").read_text(encoding="utf-8"))
        return result.exit_code
    progress.say("")
    show_evaluations(result.evaluations, painter)
    where = str(result.folder)
    painter.print(f"{result.outcome} after {result.steps} steps, {format_duration(result.seconds)} of training")
    painter.print(f"  report    {where}/report.html")
    if result.outcome == "stopped":
        painter.print(f"  go on     groundup train {where}/recipe.yaml --out {where} --resume")
    else:
        painter.print(f"  try it    {next_command(result.folder)}")
    return result.exit_code


def trained_share(line: dict[str, Any]) -> str:
    """How many parameters are trained, and of how many where most stand still."""
    trained, there = line.get("trainable", line["parameters"]), line["parameters"]
    of = f" of {many(there)}" if trained < 0.9 * there else ""
    return f"{many(trained)}{of} parameters"


def many(number: int) -> str:
    """A number of parameters: 2,114 or 4.16 M."""
    return f"{number / 1e6:.2f} M" if number >= 100_000 else f"{number:,}"


def next_command(folder: Path) -> str:
    """What puts a finished run to use; what was pretrained on hidden tokens is for a task."""
    said = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
    head = (said.get("head") or {}).get("kind")
    if "network" in said:
        kind, family = said["network"]["kind"], said["family"]
        if kind in ("actions", "moves"):
            return f"groundup evaluate {folder} --episodes 100"
        if kind == "images":
            words = f"inspect {folder}" if family == "autoencoder" else f"generate {folder} --out images.png"
            return f"groundup {words}"
        return f"groundup predict {folder} --files FILE"
    if head == "masked":
        return f"a recipe with data.kind=labelled   and   model.init_from={folder}"
    if head or said["family"] == "transformer":
        return f"groundup predict {folder} --files FILE"
    if (folder / "model" / "chat.json").exists():
        return f"groundup chat {folder}"
    return f"groundup generate {folder} --prompt TEXT"


class Progress:
    """Shows each line of the event log: one line that moves on a terminal, plain lines elsewhere."""

    def __init__(self, painter: Painter) -> None:
        self.painter = painter
        self.steps, self.save_every = 0, 0
        self.moving, self.unit = False, "tok"

    def say(self, line: str) -> None:
        """A line that stays."""
        if self.moving:
            self.painter.print()
            self.moving = False
        self.painter.print(line)

    def __call__(self, line: dict[str, Any]) -> None:
        """Show one event."""
        show = {
            "start": self._start,
            "step": self._step,
            "evaluate": self._evaluate,
            "sample": self._sample,
            "guard": self._guard,
            "unfreeze": lambda said: self.say(
                f"step {said['step']}: {many(said['trainable'])} parameters are trained from here on"
            ),
            "plateau": lambda said: self.say(
                f"step {said['step']}: learning rates at {said['factor']:g} of the schedule"
            ),
            "warning": lambda said: self.say(f"warning at step {said['step']}: {said['message']}"),
            "save": lambda said: None,
            "end": lambda said: None,
        }[line["event"]]
        show(line)

    def _start(self, line: dict[str, Any]) -> None:
        self.steps, self.save_every = line["steps"], line.get("save_every") or 0
        self.unit = {"tokens": "tok"}.get(line["unit"], line["unit"])
        self.say(
            f"training {trained_share(line)} for {line['steps']} steps of "
            f"{line['units_per_step']:,} {line['unit']} in {line['precision']}, compile {line['compile']}, "
            f"kernels {line.get('kernels', 'plain')}"
        )

    def _step(self, line: dict[str, Any]) -> None:
        clock = line["clock"]
        done, total = line["step"], self.steps
        left = clock["seconds"] / max(1, done) * max(0, total - done) if total else 0.0
        bits = line["bits_per_byte"]
        parts = [
            f"step {done}/{total}" if total else f"step {done}",
            f"loss {line['loss']:.3f}",
            f"{bits:.3f} bits/byte" if bits is not None else "",
            f"{clock['tokens_per_second']:,.0f} {self.unit}/s",
            f"{clock['ceiling_share']:.0%} of peak",
            f"{format_duration(left)} left",
            f"save at {min(total, (done // self.save_every + 1) * self.save_every)}" if self.save_every else "",
        ]
        text = " · ".join(part for part in parts if part) if self.painter.unicode else "  ".join(filter(None, parts))
        if self.painter.interactive:
            self.painter.print("\r" + text[: self.painter.width - 1].ljust(self.painter.width - 1), end="")
            self.moving = True
        else:
            self.painter.print(text)

    def _evaluate(self, line: dict[str, Any]) -> None:
        shown = []
        for name, value in line["metrics"].items():
            shown.append(f"{name} {value:.4f} {interval_text(*line['intervals'][name])}")
        self.say(f"step {line['step']} {line['data']}: " + ", ".join(shown))

    def _sample(self, line: dict[str, Any]) -> None:
        for sample in line["samples"][:1]:
            text = (sample["prompt"] + self.painter.paint(sample["text"], "cyan")).replace("\n", " ")
            self.say("  " + text[:300])

    def _guard(self, line: dict[str, Any]) -> None:
        self.say(f"guard at step {line['step']}: {line['kind']} {json.dumps(line['detail'])}")


def interval_text(low: float | None, high: float | None) -> str:
    """`[low, high]`, or a word where there was too little to draw from."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "(one unit: no interval)"
    return f"[{low:.4f}, {high:.4f}]"


def show_evaluations(evaluations: list[dict[str, Any]], painter: Painter) -> None:
    """The closing table: each metric before and after, with the interval and the verdict."""
    from groundup.cli.terminal import table

    if not evaluations:
        return
    rows = [
        [
            line["stage"],
            line["data"],
            line["metric"],
            "" if line["before"] is None else f"{line['before']:.4f}",
            f"{line['after']:.4f}",
            interval_text(line["low"], line["high"]),
            line.get("verdict", ""),
        ]
        for line in evaluations
    ]
    headers = ["stage", "data", "metric", "before", "after", "95 % interval", "verdict"]
    painter.print(table(rows, headers, align="<<<>>><", width=painter.width))
