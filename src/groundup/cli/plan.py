"""`groundup plan RECIPE`: what a run will need, on the screen or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from groundup.cli.terminal import Painter, format_bytes, format_count, format_duration, table


def plan(arguments: argparse.Namespace) -> int:
    """0 if the recipe fits this machine (or was made to), 1 if not."""
    from groundup.run.entry import read_recipe
    from groundup.run.plan import fix, plan_recipe

    painter = Painter(sys.stderr) if arguments.json else Painter()
    overrides = list(arguments.overrides)
    if arguments.price is not None:
        overrides.append(f"hardware.price_per_hour={arguments.price}")
    recipe = read_recipe(arguments.recipe, overrides)
    found = plan_recipe(recipe, say=painter.print)
    changed: dict[str, Any] = {}
    if not found.fits and arguments.fix:
        mended = fix(recipe)
        if mended is not None:
            fixed, changed = mended
            path = write_fixed(Path(arguments.recipe), fixed)
            found = plan_recipe(fixed, say=painter.print)
            painter.print(f"wrote {path} with " + ", ".join(f"{k}={v}" for k, v in changed.items()))
    if arguments.json:
        said = {**found.numbers, "fits": found.fits, "lacking": found.lacking, "changed": changed}
        print(json.dumps({**said, "memory_there": found.memory_there, "disk_there": found.disk_there}))
    else:
        show(found.numbers, painter)
        advise(found.lacking, found.numbers, painter)
    return 0 if found.fits else 1


def write_fixed(path: Path, recipe: Any) -> Path:
    """Write the mended recipe beside the old one, which stays as it is."""
    from groundup.recipe import to_yaml

    target = path.with_name(f"{path.stem}.fixed.yaml")
    target.write_text(to_yaml(recipe), encoding="utf-8")
    return target


def show(numbers: dict[str, Any], painter: Painter) -> None:
    """The plan as two small tables."""
    parts = [[part["name"], format_count(part["parameters"])] for part in numbers["parts"]]
    painter.print(table([*parts, ["all", format_count(numbers["parameters"])]], ["parameters", ""], align="<>"))
    painter.print()
    memory = [[name, format_bytes(size)] for name, size in numbers["memory"].items()]
    memory.append(["at the peak", format_bytes(numbers["memory_bytes"])])
    painter.print(table(memory, ["memory", ""], align="<>"))
    if "seconds" not in numbers:
        return
    painter.print()
    passes = "" if numbers["epochs"] is None else f" ({numbers['epochs']:.2f} passes over the data)"
    rows = [
        ["steps", f"{numbers['steps']:,} of {numbers['tokens_per_step']:,} {numbers['unit']}"],
        [numbers["unit"], format_count(numbers["tokens"]) + passes],
        ["time", f"{format_duration(numbers['seconds'])} ({numbers['seconds_per_step']:.2f} s a step, measured)"],
        ["disk", format_bytes(numbers["disk_bytes"])],
    ]
    if "cost" in numbers:
        rows.append(["cost", f"{numbers['cost']:.2g}"])
    painter.print(table(rows, ["run", ""]))


def advise(lacking: str, numbers: dict[str, Any], painter: Painter) -> None:
    """What to change when it does not fit."""
    if not lacking:
        painter.print("\nit fits this machine")
        return
    painter.print(f"\nit does not fit: {lacking}")
    rows = numbers["micro_batch"]
    if rows > 1:
        painter.print(f"  budget.micro_batch={max(1, rows // 2)}   halves the activations; the result is the same")
    if numbers.get("unit", "tokens") != "tokens":
        painter.print("  a smaller network")
        return
    painter.print("  hardware.recompute=true   keeps less for backward, about a third slower")
    painter.print("  a smaller model.depth or data.context")
    painter.print("  add --fix to have the first of these that is enough written to a new recipe")
