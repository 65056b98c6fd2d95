"""LoRA on SmolLM2 beside peft and transformers: tokens per second and peak memory on the same batch.

    python bench/tuning.py SMOLLM2_FOLDER

SMOLLM2_FOLDER is what `groundup import SmolLM2-135M-Instruct.gguf --out FOLDER` made. Both sides run in processes of
their own, in turns, several rounds: float32 weights on both, bf16 autocast for peft (its usual setting) and what
`precision: auto` chooses for groundup, AdamW, the same rank, targets and ids. The export to Hugging Face's layout is
made by groundup and proved on the way.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, CONTEXT, STEPS, ROUNDS, RANK = 4, 256, 3, 3, 16
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def batch():  # type: ignore[no-untyped-def]
    """The same ids on both sides; the first half of each row is a question that is not learned."""
    import torch

    ids = torch.randint(10, 49000, (ROWS, CONTEXT + 1), generator=torch.Generator().manual_seed(0))
    learned = (torch.arange(CONTEXT) >= CONTEXT // 2)[None].expand(ROWS, -1)
    return ids, learned


def timed(step) -> None:  # type: ignore[no-untyped-def]
    """Run and time steps, the first apart; print seconds, peak bytes and the last loss."""
    step()
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": statistics.median(times), "peak": peak, "loss": loss}))


def ours(folder: str) -> None:
    """One step of groundup: the objective, the adapter and the optimizer that a recipe would build."""
    import torch

    from groundup.adapters import LoraOptions, apply
    from groundup.contract import IGNORE
    from groundup.engine.precision import autocast
    from groundup.machine.ceiling import choose_precision
    from groundup.machine.memory import steady_allocator
    from groundup.objectives.next_token import NextToken, NextTokenOptions
    from groundup.optim.optimizer import Optimizer
    from groundup.optim.options import AdamWOptions
    from groundup.parallel.blocks import recompute_blocks
    from groundup.run import models

    steady_allocator()
    cpu = torch.device("cpu")
    model = models.load(Path(folder), cpu).model.train()
    apply(model, [LoraOptions(kind="lora", rank=RANK, targets=[f"*.{name}" for name in PROJECTIONS])], seed=0)
    recompute_blocks(model.layers)  # as the recipe says: half the memory for a quarter more time
    objective = NextToken(NextTokenOptions(), model)  # type: ignore[arg-type]
    optimizer = Optimizer(model, AdamWOptions(kind="adamw", learning_rate=1e-3), steps=100)
    ids, learned = batch()
    place = torch.arange(CONTEXT)[None].expand(ROWS, -1)
    given = {
        "tokens_BT": ids[:, :-1].contiguous(),
        "target_BT": torch.where(learned, ids[:, 1:], IGNORE),
        "position_BT": place,
        "document_BT": torch.zeros_like(place),
    }
    context = autocast(choose_precision("auto", cpu).name, cpu)

    def step() -> float:
        with context():
            loss = objective.loss("model", given)
        weight = float(objective.weight("model", given))
        (loss.total / weight).backward()
        optimizer.step(0)
        optimizer.zero_grad()
        return float(loss.total.detach()) / weight

    timed(step)


def theirs(folder: str) -> None:
    """One step of peft on transformers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(
        base, LoraConfig(r=RANK, lora_alpha=32, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    ).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids, learned = batch()
    labels = torch.cat([torch.full((ROWS, 1), -100), torch.where(learned, ids[:, 1:], -100)], dim=1)

    def step() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    timed(step)


def main(folder: str) -> None:
    """Both sides in turns, and the ratios."""
    with tempfile.TemporaryDirectory(prefix="groundup-bench-") as scratch:
        exported = str(Path(scratch) / "hf")
        subprocess.run(
            [sys.executable, "-m", "groundup", "export", folder, "--to", "huggingface", "--out", exported],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        found: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
        for round_ in range(ROUNDS):
            for side, place in (("ours", folder), ("theirs", exported)):
                done = subprocess.run([sys.executable, __file__, f"--{side}", place], check=True, capture_output=True)
                found[side].append(json.loads(done.stdout.splitlines()[-1]))
                print(round_, side, found[side][-1], flush=True)
    speed = [t["seconds"] / o["seconds"] for o, t in zip(found["ours"], found["theirs"], strict=True)]
    memory = [o["peak"] / t["peak"] for o, t in zip(found["ours"], found["theirs"], strict=True)]
    tokens = ROWS * CONTEXT / statistics.median(o["seconds"] for o in found["ours"])
    print(f"speed: {statistics.median(speed):.2f} × peft ({min(speed):.2f} to {max(speed):.2f})")
    print(f"{tokens:,.0f} tokens/s")
    print(f"peak memory: {statistics.median(memory):.2f} of peft's (bar: 0.50 at most)")


if __name__ == "__main__":
    if sys.argv[1] == "--ours":
        ours(sys.argv[2])
    elif sys.argv[1] == "--theirs":
        theirs(sys.argv[2])
    else:
        main(sys.argv[1])
