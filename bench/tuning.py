"""Fine-tuning SmolLM2-135M: LoRA beside peft, rows of instructions beside trl, all layers; speed and memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import smollm2
from sides import THREADS, Comparison, Side, compared, compared_less

import shared

SIDE = str(Path(__file__).with_name("tuning_side.py"))
FULL_LIMIT = 3e9
"""Bytes that fine-tuning all layers may take."""


def in_turns(ours: Side, theirs: Side, rounds: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(tokens a second, peaks of memory in bytes) of both sides."""
    speed, peak = [], []
    ours.work(steps=1), theirs.work(steps=1)
    for number in range(rounds):
        sides = (ours, theirs) if number % 2 else (theirs, ours)
        said = {side: side.work(steps=1) for side in sides}
        speed.append(tuple(said[side]["tokens"] / said[side]["seconds"] for side in (ours, theirs)))
        peak.append(tuple(float(said[side]["peak"]) for side in (ours, theirs)))
    return speed, peak  # type: ignore[return-value]


def pair(case: str, peer: str, commands: tuple[list[str], list[str]], python: str, rounds: int) -> Iterator[Comparison]:
    ours, theirs = (Side([python, "-W", "ignore", SIDE, *command], THREADS) for command in commands)
    speed, peak = in_turns(ours, theirs, rounds)
    ours.close(), theirs.process.kill()
    yield compared(case, peer, speed, "tokens/s")
    yield compared_less(f"{case}, peak memory", peer, [(a / 1e6, b / 1e6) for a, b in peak], "MB")


def lora(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    """Rank 16 on all projections, 4 rows of 256 tokens; peft in bf16 autocast."""
    with tempfile.TemporaryDirectory() as place:
        model = str(smollm2.export("huggingface", Path(place) / "hf"))
        yield from pair("LoRA, 4 × 256", "peft, bf16 autocast", (["lora", model], ["peft", model]), python, rounds)


def sft(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    """Real short rows, all layers; trl on its defaults, ours packed. Tokens that are no padding count."""
    rows = shared.found("instruct/alpaca_en_demo.json")
    if rows is None:
        return
    with tempfile.TemporaryDirectory() as place:
        model = str(smollm2.export("huggingface", Path(place) / "hf"))
        commands = (["sft", model, str(rows)], ["trl", model, str(rows)])
        yield from pair("instructions, all layers", "trl, defaults", commands, python, rounds)


def full(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    """All layers, 4 rows of 256 tokens: the peak of memory beside its limit."""
    with tempfile.TemporaryDirectory() as place:
        ours = Side([python, SIDE, "full", str(smollm2.export("huggingface", Path(place) / "hf"))], THREADS)
        peaks = [(float(ours.work(steps=1)["peak"]) / 1e6, FULL_LIMIT / 1e6) for _ in range(max(2, rounds))]
        ours.close()
        yield compared_less("all layers, 4 × 256, peak memory", "the limit", peaks, "MB")
