"""The training step: a Llama as groundup trains it, beside transformers and beside our own plain form.

The cases are the shapes of the documentation's table; each is compared with transformers in float32 (its default), in
bf16 autocast, and in bf16 autocast under torch.compile with a warm cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ceilings import choose, flops_per_step
from sides import THREADS, Comparison, Side, compare, compared

SIDE = str(Path(__file__).with_name("step_side.py"))
SMALL = {"layers": 6, "width": 384, "heads": 6, "hidden": 1024, "vocabulary": 8192, "context": 512, "batch": 8}
SHAPES = {
    "6 × 384, 8 rows of 512": SMALL,
    "6 × 384, 2 rows of 2048": SMALL | {"context": 2048, "batch": 2},
    "30 M, 4 rows of 512": SMALL | {"layers": 8, "width": 512, "heads": 8, "hidden": 1408, "batch": 4},
    "135 M, 2 rows of 512": {
        "layers": 30, "width": 576, "heads": 9, "hidden": 1536, "vocabulary": 49152, "context": 512, "batch": 2,
    },
}  # fmt: skip
PEERS: dict[str, dict[str, Any]] = {
    "transformers, float32": {"precision": "float32"},
    "transformers, bf16 autocast": {"precision": "bfloat16"},
    "transformers, bf16 autocast, compiled": {"precision": "bfloat16", "compile": True},
}


def side(kind: str, shape: dict[str, int], how: dict[str, Any], python: str) -> Side:
    return Side([python, "-W", "ignore", SIDE, kind, json.dumps(shape), json.dumps(how)], THREADS)


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    """Each shape beside each peer; `small` is a toy that only shows that it works."""
    precision = choose()
    shapes = {"toy": {**SMALL, "layers": 1, "width": 64, "heads": 2, "hidden": 64, "context": 32}} if small else SHAPES
    for name, shape in shapes.items():
        tokens = shape["context"] * shape["batch"]
        ours = side("ours", shape, {"precision": precision}, python)
        piece = {"steps": 1}
        for peer, how in list(PEERS.items())[: 1 if small else None]:
            if how.get("compile") and shape is not SMALL:
                continue  # minutes of compiling for each shape
            theirs = side("transformers", shape, how, python)
            yield compare(name, peer, ours, theirs, (piece, piece, tokens), "tokens/s", rounds)
            theirs.close()
        if precision == "float32":
            plain = side("ours", shape, {"precision": precision, "kernels": "plain"}, python)
            yield compare(name, "our plain form", ours, plain, (piece, piece, tokens), "tokens/s", rounds)
            plain.close()
        yield share_of_ceiling(name, shape, precision, ours, rounds)
        ours.close()


def share_of_ceiling(name: str, shape: dict[str, int], precision: str, ours: Side, rounds: int) -> Comparison:
    """FLOP/s of our step beside the best matrix product, in turns."""
    ceiling = Side([*ours.process.args[:3], str(Path(__file__).with_name("ceilings.py")), precision], THREADS)  # type: ignore[index]
    rates = []
    for _ in range(rounds):
        seconds = ours.work(steps=1)["seconds"]
        rates.append((flops_per_step(shape) / seconds / 1e9, ceiling.work()["flops"] / 1e9))
    ceiling.close()
    return compared(name, f"matrix ceiling, {precision}", rates, "GFLOP/s")
