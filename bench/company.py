"""A machine that is not idle: a training step and a generation alone, beside a second program that keeps both cores
busy, and what waiting briefly costs when there is nobody else."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import smollm2
from sides import THREADS, Comparison, Side, compare, compared
from step import SMALL, side

BUSY = "import torch\na = torch.randn(768, 768)\nwhile True:\n    b = torch.relu(a @ a)\n"
SPINNING = {"GOMP_SPINCOUNT": "300000"}
"""What GNU's OpenMP does by default."""


@contextmanager
def busy(python: str) -> Iterator[None]:
    """A two-thread torch program in torch's default setting."""
    environment = {"OMP_NUM_THREADS": str(THREADS), "PATH": "/usr/bin:/bin"}
    program = subprocess.Popen([python, "-c", BUSY], env=environment)
    time.sleep(8)  # torch is loaded by then
    try:
        yield
    finally:
        program.kill()
        program.wait()


def kept(case: str, peer: str, worker: Side, piece: dict[str, object], python: str, rounds: int) -> Comparison:
    """Its speed in company as a share of its speed alone."""
    worker.work(**piece)
    alone = statistics.median(worker.work(**piece)["seconds"] for _ in range(rounds))
    with busy(python):
        together = [worker.work(**piece)["seconds"] for _ in range(rounds)]
    return compared(case, peer, [(1 / seconds, 1 / alone) for seconds in together], "a second")


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    shape = SMALL | ({"layers": 1, "width": 64, "heads": 2, "batch": 1} if small else {"batch": 4})
    how, piece = {"precision": "float32"}, {"steps": 1}
    brief = side("ours", shape, how, python)
    spinning = Side([*brief.process.args], THREADS, SPINNING)  # type: ignore[misc]
    yield compare(
        "a step, waiting briefly", "spinning, both alone", brief, spinning, (piece, piece, 1), "a second", rounds
    )
    yield kept("a step beside another program", "itself alone", brief, piece, python, rounds)
    if small:
        brief.close(), spinning.close()
        return
    yield kept("the same, spinning", "itself alone", spinning, piece, python, rounds)
    brief.close(), spinning.close()
    theirs = side("transformers", shape, how, python)
    yield kept("transformers, its default", "itself alone", theirs, piece, python, rounds)
    theirs.close()
    program = str(Path(__file__).with_name("generation_side.py"))
    writer = Side([python, program, "ours", str(smollm2.gguf()), "int8"], THREADS)
    yield kept(
        "generation beside another program", "itself alone", writer, {"kind": "decode", "tokens": 64}, python, rounds
    )
    writer.close()
