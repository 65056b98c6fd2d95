"""transformers' Llama by its Trainer on the documents of a file, for some minutes of training:
`python trainer_side.py TRAIN.jsonl HELD_OUT.jsonl MINUTES THREADS`. Prints the bits per byte of the held-out documents.

What its users do: a byte-level BPE of 4,096 made by `tokenizers` on the same text, documents joined and cut into rows
of 256 tokens, 8 rows a step, 4 layers of width 256, AdamW at 1e-3 with warm-up and cosine decay. The number of steps
comes from the time of a few steps before; neither they nor the Trainer's own start count as time spent.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from operator import sub
from pathlib import Path
from typing import Any

CONTEXT, ROWS, VOCABULARY, TIMED = 256, 8, 4096, 20
END = "<|end|>"


def texts_of(path: str) -> list[str]:
    return [json.loads(line)["text"] for line in Path(path).read_text(encoding="utf-8").splitlines()]


def tokenizer_for(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet)
    )
    return made


def trained(rows: Any, minutes: float) -> Any:
    """A model after so many minutes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *given: Any, **more: Any) -> None:
            times.append(time.perf_counter())

    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=256, intermediate_size=672, num_hidden_layers=4,
                         num_attention_heads=4, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
                         bos_token_id=0, eos_token_id=0)  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    examples = [{"input_ids": row, "labels": row} for row in rows]

    def run(steps: int, rate: float) -> None:
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=ROWS, learning_rate=rate,
            lr_scheduler_type="cosine", warmup_steps=min(20, steps // 10), save_strategy="no", logging_strategy="no",
            report_to=[], use_cpu=True, disable_tqdm=True, seed=0,
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=examples, callbacks=[Clock()]).train()

    torch.manual_seed(0)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(TIMED, 0.0)
    model.load_state_dict(start)
    run(max(1, round(minutes * 60 / statistics.median(map(sub, times[1:], times)))), 1e-3)
    print(f"{len(times) - TIMED} steps in {times[-1] - times[TIMED]:.0f} s", file=sys.stderr)
    return model.eval()


def nats_of(model: Any, ids: list[int]) -> float:
    """Of all tokens but the first, each seen after half a context at least where there is one."""
    import torch

    total, scored = 0.0, 1
    for start in range(0, max(1, len(ids) - 1), CONTEXT // 2):
        window = torch.tensor(ids[start : start + CONTEXT])
        if start + len(window) <= scored:
            break
        with torch.inference_mode():
            logprob = model(input_ids=window[None]).logits[0, :-1].log_softmax(-1)
        own = logprob.gather(1, window[1:, None])[:, 0]
        total -= float(own[scored - start - 1 :].sum())
        scored = start + len(window)
    return total


def main() -> None:
    import torch

    train, held = texts_of(sys.argv[1]), texts_of(sys.argv[2])
    torch.set_num_threads(int(sys.argv[4]))
    tokenizer = tokenizer_for(train)
    stream = [number for one in tokenizer.encode_batch(train) for number in [0, *one.ids]]
    rows = torch.tensor(stream[: len(stream) // CONTEXT * CONTEXT]).view(-1, CONTEXT)
    model = trained(rows, float(sys.argv[3]))
    nats = sum(nats_of(model, [0, *one.ids]) for one in tokenizer.encode_batch(held))
    print(nats / sum(len(text.encode()) for text in held) / math.log(2))


if __name__ == "__main__":
    main()
