"""From the shell's prompt to the first sign of life, each beside its limit in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import smollm2
from sides import Comparison, compared_less

import shared


def groundup(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "groundup", *words], check=True, capture_output=True)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    def limited(case: str, work: Callable[[], float], limit: float, peer: str = "the limit") -> Comparison:
        return compared_less(case, peer, [(work(), limit) for _ in range(rounds)], "s")

    yield limited("--help", lambda: seconds(lambda: groundup("--help")), 0.25)
    if small:
        return
    # Nothing of groundup: what torch itself takes of the figures below.
    load = [sys.executable, "-c", "import torch"]
    yield limited("import torch alone", lambda: seconds(lambda: subprocess.run(load, check=True)), 2.5, "for scale")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        text = shared.found("text/tinyshakespeare.txt")
        if text is not None:
            yield limited("train to its first step", lambda: first_step(folder, text), 10.0)
            words = ("generate", str(folder / "run"), "--prompt", "ROMEO:", "--max-tokens", "1")
            yield limited("generate, small model", lambda: seconds(lambda: groundup(*words)), 2.5)
        yield limited("serve SmolLM2 to ready", ready, 5.0)


def first_step(folder: Path, text: Path) -> float:
    """From the command to the first step's line."""
    out = folder / "run"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    began = time.time()
    nothing = ["budget.steps=1", "events.evaluate_every=0", "events.sample_every=0", "events.save_every=0"]
    groundup(
        "train", str(shared.RECIPES / "shakespeare_char.yaml"), f"data.files=[{text}]", *nothing, "--out", str(out)
    )
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    step = next(line for line in lines if line["event"] == "step")
    return datetime.fromisoformat(step["clock"]["time"]).timestamp() - began


def ready() -> float:
    """From the command until the server says that the model is there."""
    command = [sys.executable, "-m", "groundup", "serve", str(smollm2.gguf()), "--port", "0", "--precision", "int8"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if " is ready" in line:
                break
        found = time.perf_counter() - began
        server.terminate()
    return found
