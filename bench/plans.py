"""What `groundup plan` foresees beside what is measured, on recipes of different size."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sides import Comparison, compared_less

import shared

SIZES = {"small": (2, 120), "medium": (4, 40), "large": (8, 3)}
"""Depth, and steps."""


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    text = shared.found("text/tinyshakespeare.txt")
    if text is None:
        return
    for name, (depth, steps) in {"small": (1, 3)}.items() if small else SIZES.items():
        with tempfile.TemporaryDirectory() as place:
            recipe, out = Path(place) / f"{name}.yaml", Path(place) / name
            recipe.write_text(
                f"name: {name}\nmodel: {{depth: {depth}}}\n"
                f"data: {{kind: text, files: ['{text}'], split: {{kind: tail}}, deduplicate: {{near: false}}}}\n"
                f"budget: {{steps: {steps}}}\nevents: {{evaluate_every: 0, sample_every: 0}}\n",
                encoding="utf-8",
            )
            command = [sys.executable, "-m", "groundup", "train", str(recipe), "--out", str(out)]
            subprocess.run(command, check=True, capture_output=True)
            said = json.loads((out / "report.json").read_text(encoding="utf-8"))
        for quantity, scale, unit in (("memory_bytes", 1e6, "MB"), ("seconds", 1.0, "s")):
            pair = said["measured"][quantity] / scale, said["predicted"][quantity] / scale
            yield compared_less(f"{name} (depth {depth}), {quantity.split('_')[0]}", "as planned", [pair], unit)
