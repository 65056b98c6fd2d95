"""`groundup profile RECIPE`: where the time of a training step goes, in words and in one picture."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from groundup.cli.terminal import Painter, format_count, table, wrap


def profile(arguments: argparse.Namespace) -> int:
    """Profile a few steps, write the picture, print the three largest costs; 0 when done."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler says on stderr that it starts and stops
    from groundup.report.profile import LARGEST, write_profile
    from groundup.run.entry import read_recipe
    from groundup.run.profile import profile_recipe

    painter = Painter()
    recipe = read_recipe(arguments.recipe, arguments.overrides)
    place = Path(arguments.out or f"profile-{recipe.name}.html")
    trace = Path(arguments.trace) if arguments.trace else None
    for path in (place, *([trace] if trace else [])):
        path.parent.mkdir(parents=True, exist_ok=True)  # now, and not when the work is done
    found = profile_recipe(
        recipe,
        steps=arguments.steps,
        trace=trace,
        say=(lambda line: None) if arguments.json else painter.print,
    )
    told = found.as_dict()
    picture = write_profile(told, place)
    if arguments.json:
        print(json.dumps({**told, "picture": str(picture)}))
        return 0
    painter.print()
    painter.print(
        f"{found.seconds:.3f} s a step, {format_count(found.units_per_second)} {found.unit}/s, "
        f"{100 * found.ceiling_share:.0f} % of the machine's ceiling in matrix products"
    )
    rows = [[name, f"{1000 * seconds:,.1f} ms"] for name, seconds in found.parts.items()]
    painter.print(table(rows, ["part of a step", ""], align="<>", width=painter.width))
    painter.print()
    rows = [[cost.kind, f"{1000 * cost.seconds:,.1f} ms", f"{100 * found.share(cost):.1f} %"] for cost in found.costs]
    painter.print(table(rows, ["operations", "", ""], align="<>>", width=painter.width))
    painter.print()
    painter.print(painter.paint("The largest costs", "bold"))
    for number, cost in enumerate(found.costs[:LARGEST], start=1):
        first, *more = wrap(found.words(cost), painter.width - 5)
        painter.print("\n".join([f"  {number}. {first}", *(f"     {line}" for line in more)]))
    painter.print(f"\npicture: {picture}" + (f", trace: {arguments.trace}" if arguments.trace else ""))
    return 0
