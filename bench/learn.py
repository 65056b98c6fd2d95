"""What a fixed time buys: the characters of Shakespeare after minutes of training, beside the well-known small GPT,
and Python's documentation beside a run of transformers' Trainer."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sides import THREADS, Comparison, compared_less

import shared
from groundup.data.python_docs import write_corpus
from groundup.run.quickstart import PRETRAIN_SHARE, pretraining

SIDE = str(Path(__file__).with_name("learn_side.py"))
TRAINER_SIDE = str(Path(__file__).with_name("trainer_side.py"))
HELD_OUT_BELOW = 26
"""Of 256: a module whose name's hash begins with a smaller byte is held out, about a tenth."""


def ours(words: list[str], out: Path, metric: str) -> float:
    """A figure of the closing table of a run."""
    command = [sys.executable, "-m", "groundup", "train", *words, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return float(next(line["after"] for line in report["evaluations"] if line["metric"] == metric))


def theirs(python: str, side: str, *words: str) -> float:
    command = [python, "-W", "ignore", side, *words, str(THREADS)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def documentation(folder: Path) -> tuple[Path, Path]:
    """Python's documentation as a file to learn from and one of held-out modules."""
    rows = write_corpus(folder / "corpus", code=False).documents.read_text(encoding="utf-8").splitlines()
    sides: tuple[list[str], list[str]] = ([], [])
    for row in rows:
        module = json.loads(row)["module"]
        sides[hashlib.sha256(module.encode()).digest()[0] < HELD_OUT_BELOW].append(row)
    paths = folder / "train.jsonl", folder / "held_out.jsonl"
    for path, lines in zip(paths, sides, strict=True):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def shakespeare(python: str, folder: Path, minutes: float, rounds: int) -> Comparison | None:
    """Nats a character over the whole last tenth."""
    text = shared.found("text/tinyshakespeare.txt")
    if text is None:
        return None
    words = [str(shared.RECIPES / "shakespeare_char.yaml"), f"data.files=[{text}]", f"budget.minutes={minutes}"]
    found = [
        (ours(words, folder / f"s{minutes}-{number}", "loss"), theirs(python, SIDE, str(text), str(minutes)))
        for number in range(rounds)
    ]
    return compared_less(f"Shakespeare, {minutes:g} minutes", "GPT-2 4 × 128", found, "nats")


def python_documentation(python: str, folder: Path, minutes: float, rounds: int) -> Comparison:
    """Bits a byte of the held-out modules, with the recipe of the quickstart."""
    train, held_out = documentation(folder)
    recipe = pretraining(minutes / PRETRAIN_SHARE, [str(train)], own_text=False)
    recipe["data"]["split"] = {"kind": "files", "held_out_files": [str(held_out)]}
    (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")  # YAML reads JSON
    files = str(train), str(held_out)
    found = [
        (
            ours([str(folder / "recipe.json")], folder / f"p{number}", "bits_per_byte"),
            theirs(python, TRAINER_SIDE, *files, str(minutes)),
        )
        for number in range(rounds)
    ]
    return compared_less(f"Python's documentation, {minutes:g} minutes", "Trainer, Llama 4 × 256", found, "bits/byte")


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    """Shakespeare, three and ten minutes of each; a round takes 26 minutes, so one is the default."""
    with tempfile.TemporaryDirectory() as place:
        for minutes in (0.02,) if small else (3.0, 10.0):
            made = shakespeare(python, Path(place), minutes, max(1, rounds // 7))
            if made is not None:
                yield made


def corpus(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    """Python's documentation, ten minutes of each; one round is the default."""
    with tempfile.TemporaryDirectory() as place:
        yield python_documentation(python, Path(place), 0.05 if small else 10.0, max(1, rounds // 7))
