"""How cost grows: seconds of a training step against batch, context, depth, width and vocabulary, with one core and
two, and seconds of a checkpoint against its size. `ours` is the measured exponent, `theirs` the one that is expected;
see docs/performance.md for why. The points are kept in results/scaling_points.json, for the picture."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sides import RESULTS, THREADS, Comparison, compared, compared_less
from step import SMALL, Side, side

BASE = SMALL | {"layers": 4, "width": 256, "heads": 4, "hidden": 704, "batch": 4, "context": 256}
AXES: dict[str, tuple[tuple[int, ...], float]] = {
    "batch": ((2, 4, 8, 16), 1.0),
    "context": ((128, 256, 512, 1024), 1.1),
    "layers": ((2, 4, 8, 16), 0.8),
    "width": ((128, 256, 512), 1.5),
    "vocabulary": ((2048, 8192, 32768), 0.6),
}
"""Values, and the exponent that the operations alone foretell for this shape."""


def operations(shape: dict[str, int]) -> float:
    from ceilings import flops_per_step

    return flops_per_step(shape)


def seconds(shape: dict[str, int], rounds: int, threads: int, python: str) -> float:
    worker = side("ours", shape, {"precision": "float32"}, python)
    if threads != THREADS:
        worker.close()
        worker = Side([*worker.process.args], threads)  # type: ignore[misc]
    worker.work(steps=1)
    found = statistics.median(worker.work(steps=1)["seconds"] for _ in range(rounds))
    worker.close()
    return found


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of the straight line through the points' logarithms (least squares)."""
    x, y = [math.log(a) for a, _ in points], [math.log(b) for _, b in points]
    mean = statistics.fmean(x)
    return sum((a - mean) * b for a, b in zip(x, y, strict=True)) / sum((a - mean) ** 2 for a in x)


def grown(axis: str, value: int) -> dict[str, int]:
    shape = BASE | {axis: value}
    if axis == "width":
        shape |= {"heads": value // 64, "hidden": value * 11 // 4}
    return shape


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    kept: dict[str, list[tuple[float, float]]] = {}
    for axis, (values, _) in AXES.items():
        if small and axis != "batch":
            continue
        points = [
            (float(value), seconds(grown(axis, value), rounds, THREADS, python))
            for value in values[: 2 if small else None]
        ]
        kept[axis] = points
        expected = exponent([(value, operations(grown(axis, int(value)))) for value, _ in points])
        yield compared_less(f"time against {axis}", "its operations", [(exponent(points), expected)], "exponent")
    if small:
        return
    one, two = (seconds(BASE, rounds, threads, python) for threads in (1, 2))
    yield compared("two threads", "one thread", [(1 / two, 1 / one)], "steps/s")
    kept["checkpoint, MB"] = points = [(float(size), saved(size, rounds)) for size in (16, 64, 256)]
    yield compared_less("checkpoint against its size", "its bytes", [(exponent(points), 1.0)], "exponent")
    RESULTS.joinpath("scaling_points.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def saved(megabytes: int, rounds: int) -> float:
    """Seconds that a checkpoint of so many megabytes takes to be on the disk, whole and listed."""
    import torch

    from groundup import checkpoint

    tensors = {f"part{number}": torch.randn(megabytes * 250_000 // 8) for number in range(8)}
    times = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            checkpoint.save_model(Path(place) / f"model-{number}", tensors=tensors, files={})
            times.append(time.perf_counter() - began)
    return statistics.median(times)
