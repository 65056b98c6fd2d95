"""Each bench that needs neither peers nor a large model, on a toy: that it works, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_every_small_bench_measures_something() -> None:
    done = bench("--small")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines()[1:] if "skipped" not in line]
    assert len(lines) >= 4 and all("[" in line for line in lines)


def test_the_step_bench_measures_something() -> None:
    done = bench("step", "--small", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "transformers" in done.stdout and "our plain form" in done.stdout and "ceiling" in done.stdout


def test_an_unknown_bench_is_named_with_those_there_are() -> None:
    done = bench("stpe")
    assert done.returncode == 2 and "stpe" in done.stdout and "generate" in done.stdout


def test_comparisons_and_the_page() -> None:
    """The median of the ratios is not the ratio of the medians; less is better where it is said."""
    code = (
        "import json, sides, page;"
        "one = sides.compared('c', 'p', [(10.0, 5.0), (8.0, 2.0), (9.0, 9.0)], 'u');"
        "two = sides.compared_less('c', 'p', [(2.0, 4.0)], 's');"
        "print(json.dumps([vars(one), vars(two)])); print(page.table([vars(one)]));"
        "print(page.bars([('t', [vars(one)])]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCH, capture_output=True, text=True, check=True)
    first, rest = done.stdout.split("\n", 1)
    one, two = json.loads(first)
    assert (one["ratio"], one["low"], one["high"], one["ours"], one["theirs"]) == (2.0, 1.0, 4.0, 9.0, 5.0)
    assert (two["ratio"], two["ours"], two["theirs"]) == (2.0, 2.0, 4.0)
    assert "**2.00**" in rest and "<svg" in rest and "2.00 ×" in rest
