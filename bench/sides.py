"""Two programs measured in turns: each is started once, loads what it needs, and works when it is told to.

A side is a command that prints a line of JSON when it is ready and then, for each line of JSON on its standard input,
does that piece of work and prints a line of JSON with its `seconds`. Between pieces it waits without computing. So
both sides meet the same moments of a noisy machine, and the ratio of their times says more than either.

Nothing of what is measured enters here.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
THREADS = 2


class Side:
    """A program that works on demand.

    Args:
        command: how it is started.
        threads: how many threads it may use.
    """

    def __init__(self, command: Sequence[str], threads: int, environment: dict[str, str] | None = None) -> None:
        settings = os.environ | {"OMP_NUM_THREADS": str(threads)} | (environment or {})
        self.process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings
        )
        self.ready = self._read()

    def work(self, **piece: Any) -> dict[str, Any]:
        """Do a piece of work; what the program says of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(piece) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended with {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


def serve(work: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """The other end of a `Side`: do each piece of work that is asked for, and say its seconds, the peak of memory so
    far in bytes, and what `work` gives."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        found = work(json.loads(line)) or {}
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak": peak, **found}), flush=True)


@dataclass(frozen=True)
class Comparison:
    """A case in both sides' units (higher is better), with the median ratio and the spread of the rounds."""

    case: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return (
            f"{self.case:34} {self.peer:26} {self.ours:9.1f} {self.theirs:9.1f} {self.unit:10} "
            f"{self.ratio:6.2f} [{self.low:.2f}, {self.high:.2f}]"
        )


def compare(case: str, peer: str, ours: Side, theirs: Side, pieces: Any, unit: str, rounds: int) -> Comparison:
    """Let both work on the same piece in turns, the first of them changing, and compare their rates.

    Args:
        pieces: (work for us, work for them, how many units it is; or a pair of these).
    """
    mine, other, amount = pieces
    own, foreign = amount if isinstance(amount, tuple) else (amount, amount)
    ours.work(**mine), theirs.work(**other)  # once to warm up
    rates: list[tuple[float, float]] = []
    for number in range(rounds):
        order = ((ours, mine), (theirs, other))
        seconds = {side: side.work(**piece)["seconds"] for side, piece in (order if number % 2 else order[::-1])}
        rates.append((own / seconds[ours], foreign / seconds[theirs]))
    return compared(case, peer, rates, unit)


def compared(case: str, peer: str, rates: Sequence[tuple[float, float]], unit: str) -> Comparison:
    """The comparison of pairs of rates that were taken side by side; more is better."""
    ratios = sorted(one / two for one, two in rates)
    return Comparison(
        case, peer, statistics.median(one for one, _ in rates), statistics.median(two for _, two in rates), unit,
        statistics.median(ratios), ratios[0], ratios[-1], len(rates),
    )  # fmt: skip


def compared_less(case: str, peer: str, amounts: Sequence[tuple[float, float]], unit: str) -> Comparison:
    """As `compared`, of amounts of which less is better: seconds, bytes, losses. The ratio is theirs to ours."""
    found = compared(case, peer, [(1 / one, 1 / two) for one, two in amounts], unit)
    own, other = (statistics.median(pair[place] for pair in amounts) for place in (0, 1))
    return Comparison(**(vars(found) | {"ours": own, "theirs": other}))


def write(name: str, found: Sequence[Comparison], machine: dict[str, Any]) -> Path:
    """Keep the comparisons in results/NAME.json, a list, and what they were measured on in results/machine.json."""
    RESULTS.mkdir(exist_ok=True)
    path, machines = RESULTS / f"{name}.json", RESULTS / "machine.json"
    rows = [{key: round(v, 4) if isinstance(v, float) else v for key, v in vars(one).items()} for one in found]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    known = json.loads(machines.read_text(encoding="utf-8")) if machines.exists() else {}
    machines.write_text(json.dumps(known | {name: machine}, indent=1) + "\n", encoding="utf-8")
    return path
