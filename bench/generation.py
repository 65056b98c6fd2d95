"""Speed of generation with SmolLM2-135M: against transformers, against llama.cpp, and of eight streams against one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import smollm2
from sides import THREADS, Comparison, Side, compare

SIDE = str(Path(__file__).with_name("generation_side.py"))
DECODE, PREFILL = 64, 512


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    """`small`: one round of one comparison."""
    with tempfile.TemporaryDirectory() as place:
        folder, source = Path(place), str(smollm2.gguf())
        smollm2.export("huggingface", folder / "hf")
        yield from against_transformers(source, folder / "hf", python, rounds, small=small)
        if small:
            return
        yield from streams(source, python, rounds)
        for kept, precision in (("q8_0", "int8"), ("q4_0", "int4")):
            file = smollm2.export("gguf", folder / f"{kept}.gguf", "--dtype", kept)
            yield from against_llama_cpp(source, file, precision, python, rounds)


def side(kind: str, model: str, precision: str, python: str) -> Side:
    return Side([python, SIDE, kind, model, precision], THREADS)


def streams(source: str, python: str, rounds: int) -> Iterator[Comparison]:
    """Tokens a second of eight streams against one, in one process each."""
    for precision in ("float32", "int8"):
        many, one = side("ours", source, precision, python), side("ours", source, precision, python)
        work = {"kind": "streams", "rows": 8, "tokens": DECODE}
        pieces = (work, work | {"rows": 1}, (8 * DECODE, DECODE))
        yield compare(f"eight streams, {precision}", "one stream", many, one, pieces, "tokens/s", rounds)
        many.close(), one.close()


def against_transformers(source: str, folder: Path, python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    theirs = side("transformers", str(folder), "bfloat16", python)
    for precision in ("bfloat16", "int8")[: 1 if small else None]:
        ours = side("ours", source, precision, python)
        for kind, tokens in (("decode", DECODE), ("prefill", PREFILL)):
            work = {"kind": kind, "tokens": tokens}
            case = f"{kind} of {tokens}, ours {precision}"
            yield compare(case, "transformers bfloat16", ours, theirs, (work, work, tokens), "tokens/s", rounds)
        ours.close()
    theirs.close()


def against_llama_cpp(source: str, file: Path, precision: str, python: str, rounds: int) -> Iterator[Comparison]:
    theirs, ours = side("llama_cpp", str(file), file.stem, python), side("ours", source, precision, python)
    for kind, tokens in (("decode", DECODE), ("prefill", PREFILL)):
        work = {"kind": kind, "tokens": tokens}
        case = f"{kind} of {tokens}, ours {precision}"
        yield compare(case, f"llama.cpp {file.stem}", ours, theirs, (work, work, tokens), "tokens/s", rounds)
    theirs.close(), ours.close()
