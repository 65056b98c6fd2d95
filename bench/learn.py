"""What a fixed time buys: the characters of Shakespeare after minutes of training, beside the well-known small GPT."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sides import THREADS, Comparison, compared_less

import shared

SIDE = str(Path(__file__).with_name("learn_side.py"))


def ours(text: Path, minutes: float, out: Path) -> float:
    """Nats a character over the whole last tenth."""
    recipe = str(shared.RECIPES / "shakespeare_char.yaml")
    words = [recipe, f"data.files=[{text}]", f"budget.minutes={minutes}", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "groundup", "train", *words], check=True, capture_output=True)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return float(next(line["after"] for line in report["evaluations"] if line["metric"] == "loss"))


def theirs(python: str, text: Path, minutes: float) -> float:
    command = [python, "-W", "ignore", SIDE, str(text), str(minutes), str(THREADS)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    """Three and ten minutes of each; a round takes 26 minutes, so one is the default."""
    text = shared.found("text/tinyshakespeare.txt")
    if text is None:
        return
    with tempfile.TemporaryDirectory() as place:
        for minutes in (0.02,) if small else (3.0, 10.0):
            found = [
                (ours(text, minutes, Path(place) / f"{minutes}-{number}"), theirs(python, text, minutes))
                for number in range(max(1, rounds // 7))
            ]
            yield compared_less(f"Shakespeare, {minutes:g} minutes", "GPT-2 4 × 128", found, "nats")
