"""docs/performance.md and its pictures, from bench/results: written anew after every bench."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE, PICTURES = ROOT / "bench" / "results", ROOT / "docs" / "performance.md", ROOT / "docs" / "images"
TITLES = {
    "step": "A training step",
    "learn": "What a fixed time buys",
    "corpus": "What a fixed time buys: a small corpus",
    "lora": "LoRA",
    "sft": "Fine-tuning on real short rows",
    "full": "Fine-tuning all layers",
    "prepare": "Preparing a corpus",
    "generate": "Generation",
    "serve": "The server under load",
    "startup": "Starting",
    "scaling": "How cost grows",
    "company": "A machine that is not idle",
    "plans": "Plans",
}
HEAD = Path(__file__).with_name("performance_head.md")


def write() -> None:
    """The page with what there is; a bench that was never run is left out."""
    parts = [HEAD.read_text(encoding="utf-8").rstrip()]
    machines = json.loads((RESULTS / "machine.json").read_text(encoding="utf-8"))
    for name, title in TITLES.items():
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        rows = json.loads(path.read_text(encoding="utf-8"))
        about = Path(__file__).with_name("performance_notes.json")
        notes = json.loads(about.read_text(encoding="utf-8"))
        parts += [f"## {title}", *notes.get(name, []), table(rows), f"`make bench ONLY={name}`, {on(machines[name])}."]
    compared = [(title, rows) for name, title in TITLES.items() if (rows := drawn(name))]
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "performance.svg").write_text(bars(compared), encoding="utf-8")
    points = RESULTS / "scaling_points.json"
    if points.exists():
        picture = lines(json.loads(points.read_text(encoding="utf-8")))
        (PICTURES / "scaling.svg").write_text(picture, encoding="utf-8")
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def on(machine: dict[str, Any]) -> str:
    """The machine in a few words."""
    ceilings = ", ".join(f"{machine[key]} {key}" for key in machine if "GFLOP/s" in key or "GB/s" in key)
    told = ceilings or "ceilings not measured in this run"
    return f"on {machine['processor']}, {machine['cores']} cores ({told})"


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| case | against | ours | theirs | unit | ratio | lowest, highest |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        ours, theirs = (
            f"{row[side]:,.4g}" if row[side] < 10000 else f"{row[side]:,.0f}" for side in ("ours", "theirs")
        )
        spread = f"{row['low']:.2f}, {row['high']:.2f}" if row["rounds"] > 1 else "one round"
        words = (row["case"], row["peer"], ours, theirs, row["unit"], f"**{row['ratio']:.2f}**", spread)
        lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines)


def drawn(name: str) -> list[dict[str, Any]]:
    """The comparisons with other systems; limits and our own parts are in the tables alone."""
    path = RESULTS / f"{name}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    others = ("transformers", "peft", "trl", "llama.cpp", "tokenizers", "GPT-2")
    return [row for row in rows if row["peer"].startswith(others)]


def bars(groups: list[tuple[str, list[dict[str, Any]]]]) -> str:
    """A bar for each comparison on a logarithmic axis; the line stands where both sides are equal."""
    left, wide, step = 430, 330, 20
    most = max([row["high"] for _, rows in groups for row in rows] + [2.0])
    least = min([row["low"] for _, rows in groups for row in rows] + [0.5])

    def place(ratio: float) -> float:
        return left + wide * (math.log(ratio) - math.log(least)) / (math.log(most) - math.log(least))

    y, parts = 20, []
    for title, rows in groups:
        parts.append(f'<text x="8" y="{y + 12}" class="title">{escape(title)}</text>')
        y += step
        for row in rows:
            start, end = sorted((place(1.0), place(row["ratio"])))
            kind = "better" if row["ratio"] >= 1 else "worse"
            label = escape(f"{row['case']} / {row['peer']}"[:66])
            middle = y + 8
            parts += [
                f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{label}</text>',
                f'<rect x="{start:.1f}" y="{y + 2}" width="{max(1.0, end - start):.1f}" height="12" class="{kind}"/>',
                f'<path d="M{place(row["low"]):.1f} {middle}H{place(row["high"]):.1f}" class="spread"/>',
                f'<text x="{left + wide + 12}" y="{y + 12}">{row["ratio"]:.2f} ×</text>',
            ]
            y += step
        y += 6
    parts.append(f'<path d="M{place(1.0):.1f} 8V{y}" class="one"/>')
    return svg(left + wide + 80, y + 8, parts)


def lines(points: dict[str, list[list[float]]]) -> str:
    """A small logarithmic panel for each axis: seconds against the quantity."""
    parts, width, height = [], 230, 170
    for number, (name, rows) in enumerate(points.items()):
        left, top = 50 + number % 3 * (width + 40), 30 + number // 3 * (height + 50)
        x, y = [math.log(a) for a, _ in rows], [math.log(b) for _, b in rows]

        def across(value: float, x: list[float] = x, left: int = left) -> float:
            return left + width * (value - x[0]) / (x[-1] - x[0])

        def down(value: float, y: list[float] = y, top: int = top) -> float:
            return top + height * (max(y) - value) / (max(y) - min(y) or 1.0)

        path = " ".join(f"{across(a):.1f},{down(b):.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<text x="{left}" y="{top - 8}" class="title">{escape(name)}</text>')
        parts.append(f'<polyline points="{path}" class="line"/>')
        for (value, seconds), a, b in zip(rows, x, y, strict=True):
            parts.append(f'<circle cx="{across(a):.1f}" cy="{down(b):.1f}" r="3" class="better"/>')
            parts.append(f'<text x="{across(a):.1f}" y="{top + height + 14}" text-anchor="middle">{value:g}</text>')
            parts.append(f'<text x="{across(a) + 6:.1f}" y="{down(b) + 14:.1f}">{seconds:.2g} s</text>')
    return svg(3 * (width + 60), 40 + (len(points) + 2) // 3 * (height + 50), parts)


def svg(width: float, height: float, parts: list[str]) -> str:
    style = (
        "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.better{fill:#2a7}.worse{fill:#c63}"
        ".spread{stroke:#333;stroke-width:1.5}.one{stroke:#333;stroke-dasharray:3 3}"
        ".line{fill:none;stroke:#2a7;stroke-width:2}"
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">\n'
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )
