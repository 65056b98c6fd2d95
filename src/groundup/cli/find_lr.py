"""`groundup find-lr RECIPE`: which learning rates a recipe bears, tried for a moment."""

from __future__ import annotations

import argparse
import json

from groundup.cli.terminal import Painter, table


def find_lr(arguments: argparse.Namespace) -> int:
    """Try the rates and print the curve and the suggestion; 0 when done."""
    from groundup.run.find_rate import find_rate

    painter = Painter()
    quiet = arguments.json
    found = find_rate(
        arguments.recipe,
        arguments.overrides,
        steps=arguments.steps,
        say=(lambda line: None) if quiet else painter.print,
    )
    if quiet:
        print(json.dumps(found))
        return 0
    lowest = min(point["smooth"] for point in found["points"])
    highest = max(point["smooth"] for point in found["points"])
    rows = []
    for point in found["points"][:: max(1, len(found["points"]) // 20)]:
        filled = round(24 * (point["smooth"] - lowest) / max(1e-12, highest - lowest))
        mark = " ←" if point["rate"] == found["nearest"] else ""
        rows.append([f"{point['rate']:.2e}", f"{point['smooth']:.4f}", "█" * filled + mark])
    painter.print(table(rows, ["learning rate", "loss", ""], width=painter.width))
    painter.print()
    painter.print(painter.paint(f"suggested  optim.model.learning_rate={found['suggested']:.2e}", "bold"))
    painter.print(f"  lowest loss at {found['at_lowest']:.2e}; the suggestion is a third of it, which leaves room")
    if found["diverged"] is not None:
        painter.print(f"  diverged at {found['diverged']:.2e}")
    return 0
