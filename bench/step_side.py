"""One side of the training-step bench: `python step_side.py ours|transformers SHAPE HOW`.

SHAPE is JSON: layers, width, heads, hidden, vocabulary, context, batch. HOW is JSON with `precision` (float32 or
bfloat16), `compile`, and for our side `kernels` (plain: without the compiled functions). A piece of work is
{"steps": N}; see sides.py. Both sides train a Llama with tied embedding on the same random ids with AdamW and clip the
gradient's norm.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from our_step import stepper
from sides import serve

Step = Callable[[], float]
RATE = 1e-3


def ids(shape: dict[str, int]) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, shape["vocabulary"], (shape["batch"], shape["context"] + 1), generator=generator)


def ours(shape: dict[str, int], how: dict[str, Any]) -> Step:
    import torch

    from groundup.models.llama import Llama, LlamaOptions
    from groundup.parallel.blocks import compile_blocks

    heads, width = shape["heads"], shape["width"]
    sizes = {name: shape[name] for name in ("vocabulary", "context", "width", "layers", "heads", "hidden")}
    model = Llama(LlamaOptions(**sizes, key_value_heads=heads, head_size=width // heads))
    model.initialise(torch.Generator().manual_seed(0))
    if how.get("compile"):
        compile_blocks(model.layers)
    given = ids(shape)
    compiled = not how.get("compile") and how.get("kernels") != "plain"
    rows, target = given[:, :-1].contiguous(), given[:, 1:].contiguous()
    return stepper(model, rows, target, how["precision"], rate=RATE, compiled=compiled)


def transformers(shape: dict[str, int], how: dict[str, Any]) -> Step:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape["vocabulary"], hidden_size=shape["width"], intermediate_size=shape["hidden"],
            num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
            num_key_value_heads=shape["heads"], max_position_embeddings=shape["context"], tie_word_embeddings=True,
        )
    ).train()  # fmt: skip
    forward = torch.compile(model) if how.get("compile") else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    given = ids(shape)[:, :-1].contiguous()

    def step() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how["precision"] == "bfloat16"):
            loss = forward(input_ids=given, labels=given).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def main() -> None:
    side, shape, how = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    step = {"ours": ours, "transformers": transformers}[side](shape, how)

    def work(piece: dict[str, Any]) -> dict[str, Any]:
        return {"losses": [step() for _ in range(piece["steps"])]}

    serve(work)


if __name__ == "__main__":
    main()
