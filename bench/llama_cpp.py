"""What llama.cpp makes of our GGUF files: the same ids for the same text, and the same greedy continuation.

    python bench/llama_cpp.py [MODEL …] [--python PYTHON]

PYTHON is an interpreter that has llama-cpp-python (default: this one); where it has none, the comparison is skipped
and says so. MODEL is anything groundup loads; without one, a toy is trained for the purpose. Each is written as F32 and
as Q8_0. With Q8_0, llama.cpp rounds the activations to eight bits too, so its text parts from ours where two tokens are
almost equally likely: hence each of its tokens is also compared with the one that we choose after the same beginning,
and where they differ, the gap between the two logits of ours is told beside how far that rounding alone moves a logit
of ours (root mean square).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROMPTS = (
    "Once upon a time, there was a little girl who",
    "The capital of France is",
    "def add(a, b):\n    return",
    "Water boils at",
    "春眠不覺曉，",
)
TOKENS = 64


def continuations(file: Path, threads: int) -> list[dict[str, Any]]:
    """What llama.cpp says; runs in the interpreter that has it."""
    sys.path.pop(0)  # this file's folder: it has the name of the library
    from llama_cpp import Llama

    model = Llama(str(file), n_ctx=256, n_threads=threads, n_threads_batch=threads, verbose=False)
    found = []
    for prompt in json.loads(file.with_suffix(".prompts.json").read_text(encoding="utf-8")):
        ids = model.tokenize(prompt["text"].encode(), add_bos=True, special=False)
        new: list[int] = []
        for token in model.generate(prompt["ids"], temp=0.0, top_k=1, repeat_penalty=1.0, reset=True):
            new.append(token)
            if len(new) == TOKENS:
                break
        found.append({"ids": ids, "new": new})
    return found


def toy(folder: Path) -> Path:
    """A small model with a tokenizer of its own, trained on this repository's documentation."""
    import groundup

    root = Path(__file__).resolve().parents[1]
    recipe = {
        "model": {"width": 64, "layers": 2, "heads": 4, "context": 128},
        "tokenizer": {"kind": "bpe", "vocabulary": 512},
        "data": {
            "kind": "text",
            "files": [str(root / "README.md"), str(root / "CONTRIBUTING.md")],
            "documents": "paragraph",
            "context": 128,
        },
        "optim": {"model": {"kind": "adamw", "learning_rate": 0.01}},
        "budget": {"steps": 30, "tokens_per_step": 512},
        "events": {"evaluate_every": 0, "sample_every": 0, "save_every": 0},
    }
    return Path(groundup.train(recipe, out=folder / "toy").folder)


def ours(path: Path, file: Path, dtype: str) -> tuple[list[dict[str, Any]], Any]:
    """Export a model and continue the prompts with what was read back; and that model."""
    import torch

    from groundup.inference import SampleOptions, generate_batch
    from groundup.run import models
    from groundup.run.exchange import export_model
    from groundup.text.rows import opening_ids

    proof = export_model(str(path), str(file), to="gguf", dtype=dtype)["proof"]
    print(
        f"{path.name} {dtype}: {proof['exact']} of {proof['tensors']} tensors exact, largest difference "
        f"{proof['largest_difference']:.3g} (limit {proof['limit']:.3g}), {proof['agreed']} of {proof['tokens']} "
        "greedy tokens agree with the source",
        flush=True,
    )
    loaded = models.load(file, torch.device("cpu"))
    tokenizer = loaded.said.tokenizer
    prompts = [opening_ids(tokenizer, tokenizer.encode(text)) for text in PROMPTS]
    options = SampleOptions(max_tokens=TOKENS, temperature=0.0)
    written = generate_batch(loaded.model, prompts, options, end_ids=())  # type: ignore[arg-type]
    found = [
        {"text": text, "ids": ids, "new": list(new.ids)}
        for text, ids, new in zip(PROMPTS, prompts, written, strict=True)
    ]
    file.with_suffix(".prompts.json").write_text(json.dumps(found), encoding="utf-8")
    return found, loaded.model


def rounded(x: Any) -> Any:
    """Activations in blocks of 32 with a scale each, as llama.cpp rounds them before it multiplies by Q8_0 weights;
    those that do not fill blocks stay, as their weights do."""
    if x.shape[-1] % 32:
        return x
    blocks = x.reshape(*x.shape[:-1], x.shape[-1] // 32, 32)
    scale = blocks.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127
    return ((blocks / scale).round() * scale.half().float()).reshape(x.shape)


def along(model: Any, prompt: list[int], said: list[int]) -> tuple[int, float, float]:
    """How many tokens of a text are our choice after the same beginning, the largest gap between the logit of our
    choice and of the text's token, and how far rounded activations move our logits."""
    import torch

    plain = torch.nn.functional.linear
    ids = torch.tensor([prompt + said])
    with torch.inference_mode():
        logits = model(ids)[0, len(prompt) - 1 : -1]
        torch.nn.functional.linear = lambda x, weight, bias=None: plain(rounded(x), weight, bias)
        try:
            moved = model(ids)[0, len(prompt) - 1 : -1] - logits
        finally:
            torch.nn.functional.linear = plain
    chosen, told = logits.max(dim=-1), logits.gather(1, torch.tensor(said)[:, None])[:, 0]
    alike = int((chosen.indices == torch.tensor(said)).sum())
    return alike, float((chosen.values - told).max()), float(moved.square().mean().sqrt())


def same(one: list[int], two: list[int]) -> int:
    """How many ids agree before the first that differs."""
    return next((n for n, (a, b) in enumerate(zip(one, two)) if a != b), min(len(one), len(two)))


def compare(path: Path, folder: Path, python: str, threads: int) -> None:
    """One model, both types, line by line."""
    for dtype in ("f32", "q8_0"):
        file = folder / f"{path.name}-{dtype}.gguf"
        expected, model = ours(path, file, dtype)
        command = [python, __file__, "--peer", str(file), "--threads", str(threads)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True)
        found = json.loads(answer.stdout)
        for mine, theirs in zip(expected, found, strict=True):
            ids = "same ids" if mine["ids"] == theirs["ids"] else f"ids differ: {mine['ids']} and {theirs['ids']}"
            agreed, text = same(mine["new"], theirs["new"]), repr(mine["text"][:24])
            told = f"  {path.name} {dtype} {text:30} {ids}, {agreed} of {TOKENS} greedy tokens"
            if agreed < TOKENS:
                alike, gap, moved = along(model, mine["ids"], theirs["new"])
                told += f"; token by token {alike} of {TOKENS}, largest gap {gap:.3f}, rounding moves {moved:.3f}"
            print(told, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.peer is not None:
        print(json.dumps(continuations(words.peer, words.threads)))
        return
    looking = subprocess.run([words.python, "-c", "import llama_cpp"], capture_output=True, check=False)
    if looking.returncode:
        print(f"skipped: {words.python} has no llama-cpp-python (pip install llama-cpp-python; --python names another)")
        return
    with tempfile.TemporaryDirectory(prefix="groundup-bench-") as folder:
        for path in words.models or [toy(Path(folder))]:
            compare(path, Path(folder), words.python, words.threads)


if __name__ == "__main__":
    main()
