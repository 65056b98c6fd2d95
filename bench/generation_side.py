"""One side of the generation bench: `python generation_side.py ours|transformers|llama_cpp MODEL PRECISION`.

Works on {"kind": "prefill", "tokens": N}, {"kind": "decode", "tokens": N} (after a prompt of 32) and {"kind":
"streams", "rows": R, "tokens": N}; see sides.py. The prompts are the same for all: ids counted up from 1,000.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sides import serve

PROMPT = 32


def ids(count: int, row: int = 0) -> list[int]:
    return [1000 + row * 97 + place * 7 % 20000 for place in range(count)]


def ours(model: str, precision: str) -> Callable[[dict[str, Any]], None]:
    import torch

    from groundup.inference import SampleOptions
    from groundup.inference.answer import Ask
    from groundup.inference.engine import Engine, EngineOptions
    from groundup.inference.sequences import Memory, Segment
    from groundup.run.engines import runner_for
    from groundup.run.models import load

    runner, form = runner_for(load(Path(model), torch.device("cpu")).model, precision)  # type: ignore[arg-type]
    assert form.kind == "compiled", form

    class Silent:
        def push(self, token_id: int) -> str:
            return ""

        def flush(self) -> str:
            return ""

    def work(piece: dict[str, Any]) -> None:
        if piece["kind"] == "prefill":
            memory = Memory(runner.shape)
            memory.reserve(piece["tokens"])
            tokens = ids(piece["tokens"])
            for start in range(0, len(tokens), 256):
                runner.run([Segment(tokens[start : start + 256], memory)])
            return
        engine = Engine(runner, EngineOptions(rows=piece.get("rows", 1))).start()
        sinks: list[queue.Queue[Any]] = []
        for row in range(piece.get("rows", 1)):
            sinks.append(queue.Queue())
            options = SampleOptions(max_tokens=piece["tokens"])
            engine.ask(Ask(ids(PROMPT, row), options, frozenset(), Silent()), sinks[-1].put)
        for sink in sinks:
            while sink.get().finish is None:
                pass
        engine.close()

    return work


def transformers(model: str, precision: str) -> Callable[[dict[str, Any]], None]:
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, precision)).eval()

    def work(piece: dict[str, Any]) -> None:
        with torch.inference_mode():
            if piece["kind"] == "prefill":
                network(torch.tensor([ids(piece["tokens"])]), logits_to_keep=1)
                return
            rows = [ids(PROMPT, row) for row in range(piece.get("rows", 1))]
            given = torch.tensor(rows)
            network.generate(
                given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=piece["tokens"],
                min_new_tokens=piece["tokens"], pad_token_id=0,
            )  # fmt: skip

    return work


def llama_cpp(model: str, precision: str) -> Callable[[dict[str, Any]], None]:
    sys.path.pop(0)  # this file's folder has a file of that name
    from llama_cpp import Llama

    threads = 2
    network = Llama(model, n_ctx=2048, n_batch=256, n_threads=threads, n_threads_batch=threads, verbose=False)

    def work(piece: dict[str, Any]) -> None:
        network.reset()
        network.eval(ids(piece["tokens"] if piece["kind"] == "prefill" else PROMPT))
        if piece["kind"] == "decode":
            for _ in range(piece["tokens"] - 1):
                network.eval([network.sample(temp=0.0)])
            network.sample(temp=0.0)

    return work


def main() -> None:
    side, model, precision = sys.argv[1:4]
    serve({"ours": ours, "transformers": transformers, "llama_cpp": llama_cpp}[side](model, precision))


if __name__ == "__main__":
    main()
