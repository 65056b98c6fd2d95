"""The measurements that the documentation quotes: `make bench`, or `python bench/run.py NAME …`.

Every figure is printed beside its bar. What is compared with something else is measured in turns in one
process tree, several times, and given as a ratio: machines are noisy. The data sets are those of the tests
(see tests/shared.py); a bench whose data is absent says so and is skipped.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.shared import ROOT as DATA

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def say(name: str, figure: str, bar: str) -> None:
    print(f"{name:28} {figure:44} bar: {bar}", flush=True)


def groundup(*words: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "groundup", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)


def start_up(folder: Path) -> None:
    """`groundup --help`, and the time from `groundup train` to the first step."""
    times = []
    for _ in range(7):
        began = time.perf_counter()
        groundup("--help")
        times.append(time.perf_counter() - began)
    say("groundup --help", f"{min(times) * 1000:.0f} ms (median {statistics.median(times) * 1000:.0f})", "< 250 ms")
    text = DATA / "text/tinyshakespeare.txt"
    began, out = time.time(), folder / "first-step"
    small = ["budget.steps=1", "events.evaluate_every=0", "events.sample_every=0", "events.save_every=0"]
    groundup("train", str(RECIPES / "shakespeare_char.yaml"), f"data.files=[{text}]", *small, "--out", str(out))
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    from datetime import datetime

    first = next(line for line in lines if line["event"] == "step")
    seconds = datetime.fromisoformat(first["clock"]["time"]).timestamp() - began
    say("first training step", f"{seconds:.1f} s after the command", "< 10 s")


def preparation(folder: Path) -> None:
    """Cleaning, exact deduplication and tokenization against the bare library's batch encoding."""
    import tokenizers

    from groundup.data.options import PrepareOptions
    from groundup.data.prepare import prepare
    from groundup.text.options import TokenizerOptions
    from groundup.text.train import train_tokenizer

    texts = [(DATA / f"text/{name}").read_text() for name in ("tinyshakespeare.txt", "wiki_demo.txt")]
    paragraphs = [p for text in texts for p in text.split("\n") if p.strip()]
    tokenizer = train_tokenizer(paragraphs, TokenizerOptions(kind="bpe", vocabulary=4096))
    rows = [f"{number} {p}" for number in range(12) for p in paragraphs]
    files = folder / "rows.jsonl"
    files.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    size = sum(len(row.encode()) for row in rows)
    bare = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    options = PrepareOptions(files=[str(files)], deduplicate={"exact": True, "near": False})  # type: ignore[arg-type]
    ours, theirs = [], []
    for round_ in range(3):
        began = time.perf_counter()
        bare.encode_batch(rows, add_special_tokens=False)
        theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        prepare(options, tokenizer, folder / f"prepared-{round_}", workers=0)
        ours.append(time.perf_counter() - began)
    ratios = [t / o for o, t in zip(ours, theirs, strict=True)]
    say(
        "prepare against encode_batch",
        f"{statistics.median(ratios):.2f} × ({size / 1e6 / min(ours):.1f} against {size / 1e6 / min(theirs):.1f} MB/s)",
        ">= 0.5 ×",
    )


def large_file(folder: Path) -> None:
    """Peak memory while a 2 GB file is prepared."""
    line = (DATA / "text/wiki_demo.txt").read_text().split("\n")[0]
    path = folder / "large.txt"
    with path.open("w") as file:
        written, number = 0, 0
        while written < 2_000_000_000:
            number += 1
            written += file.write(f"{number} {line[number % 500 : number % 500 + 2000]}\n\n")
    script = (
        "import sys, resource; from pathlib import Path; from groundup.data.options import PrepareOptions;"
        "from groundup.data.prepare import clean_corpus;"
        "o = PrepareOptions(files=[sys.argv[1]], documents='paragraph', deduplicate={'exact': True, 'near': False});"
        "clean_corpus(o, Path(sys.argv[2]), workers=2);"
        "r = resource.getrusage; print(r(resource.RUSAGE_SELF).ru_maxrss, r(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    began = time.perf_counter()
    command = [sys.executable, "-c", script, str(path), str(folder / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own, child = (int(word) * 1024 for word in done.stdout.split())
    seconds = time.perf_counter() - began
    say("2 GB file", f"{own / 1e6:.0f} MB here, {child / 1e6:.0f} MB a worker, {seconds:.0f} s", "bounded")


def shakespeare(folder: Path) -> None:
    """Character-level Shakespeare: validation loss over the whole last tenth after three minutes."""
    text, out = DATA / "text/tinyshakespeare.txt", folder / "shakespeare"
    groundup("train", str(RECIPES / "shakespeare_char.yaml"), f"data.files=[{text}]", "--out", str(out))
    report = json.loads((out / "report.json").read_text())
    line = next(line for line in report["evaluations"] if line["metric"] == "loss")
    say(
        "Shakespeare, characters",
        f"{line['after']:.4f} nats [{line['low']:.4f}, {line['high']:.4f}] after {report['seconds']:.0f} s",
        "<= 1.65",
    )


def plans(folder: Path) -> None:
    """What `plan` foresees against what was measured, on three recipes of different size."""
    text = DATA / "text/tinyshakespeare.txt"
    for name, depth, steps in (("small", 2, 120), ("medium", 4, 40), ("large", 8, 3)):
        recipe = folder / f"{name}.yaml"
        recipe.write_text(
            f"name: {name}\nmodel: {{depth: {depth}}}\n"
            f"data: {{kind: text, files: ['{text}'], split: {{kind: tail}}, deduplicate: {{near: false}}}}\n"
            f"budget: {{steps: {steps}}}\nevents: {{evaluate_every: 0, sample_every: 0}}\n"
        )
        groundup("train", str(recipe), "--out", str(folder / name))
        report = json.loads((folder / name / "report.json").read_text())
        memory = report["predicted"]["memory_bytes"] / report["measured"]["memory_bytes"]
        seconds = report["predicted"]["seconds"] / report["measured"]["seconds"]
        say(f"plan, {name} (depth {depth})", f"memory {memory:.2f} ×, time {seconds:.2f} ×", "±20 %, ±25 %")


BENCHES: dict[str, Callable[[Path], None]] = {
    "start_up": start_up,
    "preparation": preparation,
    "large_file": large_file,
    "plans": plans,
    "shakespeare": shakespeare,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no bench called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
        return 2
    for name in names or BENCHES:
        with tempfile.TemporaryDirectory(prefix="groundup-bench-") as folder:
            if not DATA.exists():
                print(f"{name}: skipped, there is no data folder {DATA} (set GROUNDUP_SHARED_DATA)")
                continue
            BENCHES[name](Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
