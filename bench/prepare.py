"""Preparation of a corpus: cleaning, exact and near-duplicate removal and tokenization beside the bare tokenizers
library, which is handed the texts and does nothing else; and the memory that it takes as the input grows."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sides import THREADS, Comparison, Side, compared, compared_less

import shared

SIDE = str(Path(__file__).with_name("prepare_side.py"))
MEGABYTES = (50, 500)


def write_rows(path: Path, sources: list[Path], size: int) -> None:
    """Rows of eight sentences in random order, so that no two are near-duplicates, until `size` bytes."""
    text = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    sentences = [part.strip() for line in text.split("\n") for part in line.split(". ") if 30 < len(part) < 400]
    draw, written = random.Random(0), 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            row = ". ".join(draw.choices(sentences, k=8)) + "."
            written += len(row.encode())
            file.write(json.dumps({"text": row}) + "\n")


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    sources = [shared.found(f"text/{name}") for name in ("wiki_demo.txt", "tinyshakespeare.txt")]
    texts = [path for path in sources if path is not None]
    if len(texts) < 2:
        return
    peaks = []
    with tempfile.TemporaryDirectory() as place:
        for size in (1,) if small else MEGABYTES:
            rows, speed, peak = Path(place) / f"{size}.jsonl", [], 0.0
            write_rows(rows, texts, size * 1_000_000)
            for number in range(1 if small or size > MEGABYTES[0] else rounds):
                said = {}
                for kind in ("ours", "bare") if number % 2 else ("bare", "ours"):
                    side = Side([python, SIDE, kind, str(rows), str(Path(place) / f"{size}-{number}")], THREADS)
                    said[kind] = side.work()
                    side.close()
                speed.append((size / said["ours"]["seconds"], size / said["bare"]["seconds"]))
                peak = max(peak, said["ours"]["most"] / 1e6)
            yield compared(f"{size} MB, cleaned and deduplicated", "tokenizers alone", speed, "MB/s")
            peaks.append(peak)
            rows.unlink()
    if len(peaks) == 2:
        grown = f"peak of a process, {MEGABYTES[1]} MB"
        yield compared_less(grown, f"with {MEGABYTES[0]} MB", [(peaks[1], peaks[0])], "MB")
