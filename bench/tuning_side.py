"""One side of the fine-tuning bench: `python tuning_side.py lora|peft|full|sft|trl MODEL [ROWS]`; see sides.py.

MODEL is a folder in Hugging Face's layout, which both sides read. lora and peft: the same ids, rank 16 on all
projections, AdamW. full: all layers. sft and trl: rows of ROWS, a file of instruction, input and output, each side by
its own trainer and defaults; ours packs. A piece of work is {"steps": N}; what it gives besides its seconds are
`tokens`, those that are no padding.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from our_step import stepper
from sides import serve

ROWS, CONTEXT, RANK, RATE = 4, 256, 16, 1e-4
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Work = Callable[[dict[str, Any]], dict[str, Any]]


def ids() -> tuple[Any, Any]:
    """The same ids on both sides; the first half of each row is a question that is not learned."""
    import torch

    drawn = torch.randint(10, 49000, (ROWS, CONTEXT + 1), generator=torch.Generator().manual_seed(0))
    return drawn, (torch.arange(CONTEXT) >= CONTEXT // 2)[None].expand(ROWS, -1)


def repeated(step: Callable[[], float]) -> Work:
    return lambda piece: {
        "losses": [step() for _ in range(piece["steps"])],
        "tokens": piece["steps"] * ROWS * CONTEXT,
    }


def recipe_steps(recipe: dict[str, Any]) -> Work:
    """Steps of a recipe by the loop itself; the ledger counts the tokens."""
    from groundup.compiled import training
    from groundup.engine.loop import train
    from groundup.engine.stop import Stop
    from groundup.recipe.resolve import resolve_steps
    from groundup.run.assemble import assemble
    from groundup.run.entry import read_recipe
    from groundup.run.gather import gather
    from groundup.run.hardware import settle

    folder = Path(tempfile.mkdtemp(prefix="groundup-bench-"))
    work = gather(read_recipe(recipe), folder, say=lambda line: None)
    work.recipe = resolve_steps(settle(work), rows_per_epoch=work.rows_per_epoch, seconds_per_step=1.0)
    run, _, _ = assemble(work, folder, listeners=(), stop=Stop())
    run.events = []

    def steps(piece: dict[str, Any]) -> dict[str, Any]:
        before = run.state.source.state_dict()["ledger"]["seen"]
        run.steps = run.state.step + piece["steps"]
        with training.use(work.recipe.hardware.kernels == "compiled"):
            train(run)
        assert run.state.last is not None
        seen = run.state.source.state_dict()["ledger"]["seen"] - before
        return {"losses": [run.state.last.loss], "tokens": seen}

    return steps


def tuned(model: str, *, lora: bool) -> Work:
    """Steps of the model, or of the adapters that a recipe would give it, on the given ids; activations are
    recomputed."""
    import torch

    from groundup.adapters import LoraOptions, apply
    from groundup.contract import IGNORE
    from groundup.machine.ceiling import choose_precision
    from groundup.machine.memory import steady_allocator
    from groundup.parallel.blocks import recompute_blocks
    from groundup.run import models

    steady_allocator()
    cpu = torch.device("cpu")
    network: Any = models.load(Path(model), cpu).model.train()
    if lora:
        targets = [f"*.{name}" for name in PROJECTIONS]
        apply(network, [LoraOptions(kind="lora", rank=RANK, targets=targets)], seed=0)
    recompute_blocks(network.layers)
    drawn, learned = ids()
    target = torch.where(learned, drawn[:, 1:], IGNORE)
    return repeated(stepper(network, drawn[:, :-1].contiguous(), target, choose_precision("auto", cpu).name, rate=RATE))


def sft(model: str, rows: str) -> Work:
    return recipe_steps(
        {
            "model": {"init_from": model},
            "data": {"kind": "chat", "files": [rows], "context": 512},
            "optim": {"model": {"kind": "adamw", "learning_rate": RATE}},
            "budget": {"steps": 100000, "tokens_per_step": 2048, "micro_batch": 2},
            "events": {"evaluate_every": 0, "sample_every": 0, "save_every": 0},
        }
    )


def peft(model: str) -> Work:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=32, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    network = get_peft_model(base, config).train()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=RATE)
    drawn, learned = ids()
    labels = torch.cat([torch.full((ROWS, 1), -100), torch.where(learned, drawn[:, 1:], -100)], dim=1)

    def step() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = network(input_ids=drawn, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return repeated(step)


def trl(model: str, rows: str) -> None:
    """trl's trainer on its defaults, held after each step until the next one is asked for."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    read = json.loads(Path(rows).read_text(encoding="utf-8"))
    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()}],
                "completion": [{"role": "assistant", "content": row["output"]}],
            }
            for row in read
        ]
    )
    asked: dict[str, Any] = {"left": 0, "tokens": 0, "began": 0.0}

    class Held(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if asked["left"] == 0:
                asked.update(json.loads(sys.stdin.readline() or "null") or sys.exit(0))
                asked.update(left=asked["steps"], began=time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            asked["left"] -= 1
            if asked["left"] == 0:
                import resource

                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                said = {"seconds": time.perf_counter() - asked["began"], "tokens": asked["tokens"], "peak": peak}
                print(json.dumps(said), flush=True)
                asked["tokens"] = 0  # batches are made before their step begins

    folder = tempfile.mkdtemp(prefix="groundup-bench-")
    config = SFTConfig(output_dir=folder, max_steps=100000, report_to=[], save_strategy="no", disable_tqdm=True,
                       logging_strategy="no", use_cpu=True)  # fmt: skip
    trainer = SFTTrainer(model, args=config, train_dataset=data, callbacks=[Held()])
    collate = trainer.data_collator

    def counted(features: Any) -> Any:
        batch = collate(features)
        asked["tokens"] += int(batch["attention_mask"].sum())
        return batch

    trainer.data_collator = counted
    print(json.dumps({"ready": True}), flush=True)
    trainer.train()


def main() -> None:
    kind, model, *more = sys.argv[1:]
    if kind == "trl":
        trl(model, *more)
        return
    serve(
        {
            "lora": lambda: tuned(model, lora=True),
            "peft": lambda: peft(model),
            "full": lambda: tuned(model, lora=False),
            "sft": lambda: sft(model, *more),
        }[kind]()
    )


if __name__ == "__main__":
    main()
