"""transformers' GPT-2 with 4 layers, 4 heads, width 128 and context 64 on the characters of a text, for some minutes:
`python learn_side.py TEXT MINUTES THREADS`. The last tenth is held out; prints the loss over all of it in nats.

The settings are those of the well-known recipe for CPUs: 12 rows, no dropout, AdamW at 1e-3 with cosine decay to 1e-4
and second beta .99. The decay follows the clock, so that the whole of it fits the minutes.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

CONTEXT, ROWS = 64, 12


def main() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    text, minutes = Path(sys.argv[1]).read_text(encoding="utf-8"), float(sys.argv[2])
    torch.set_num_threads(int(sys.argv[3]))
    torch.manual_seed(0)
    known = {character: number for number, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([known[character] for character in text])
    train, held = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]
    config = GPT2Config(vocab_size=len(known), n_positions=CONTEXT, n_embd=128, n_layer=4, n_head=4,
                        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)  # fmt: skip
    model: Any = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    began, limit = time.perf_counter(), minutes * 60
    while (spent := time.perf_counter() - began) < limit:
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 + 0.5 * (1e-3 - 1e-4) * (1 + math.cos(math.pi * spent / limit))
        start = torch.randint(0, len(train) - CONTEXT - 1, (ROWS,))
        rows = torch.stack([train[place : place + CONTEXT + 1] for place in start.tolist()])
        logits = model(input_ids=rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for part in range(0, len(held) - 1, CONTEXT * 64):
            piece = held[part : part + CONTEXT * 64 + 1]
            for start in range(0, len(piece) - 1, CONTEXT):
                window = piece[start : start + CONTEXT + 1]
                logits = model(input_ids=window[None, :-1]).logits[0]
                total += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
                count += len(window) - 1
    print(total / count)


if __name__ == "__main__":
    main()
