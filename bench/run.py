"""The measurements that the documentation quotes: `make bench`, or `python bench/run.py [NAME …] [--rounds N]`.

Both sides work in turns on one machine, several rounds; what is kept is the median of the ratios with the lowest and
the highest, above 1 where ours is better, in bench/results/NAME.json and docs/performance.md. The data sets are those
of the tests (see tests/shared.py); what is absent is said and left out. `--small` only shows that each bench works.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator

import ceilings
import page
import peers
from sides import Comparison, write

Measure = Callable[..., Iterator[Comparison]]
BENCHES: dict[str, tuple[str, str]] = {
    "step": ("step", "measure"),
    "learn": ("learn", "measure"),
    "corpus": ("learn", "corpus"),
    "lora": ("tuning", "lora"),
    "sft": ("tuning", "sft"),
    "full": ("tuning", "full"),
    "prepare": ("prepare", "measure"),
    "generate": ("generation", "measure"),
    "serve": ("serving", "measure"),
    "startup": ("startup", "measure"),
    "scaling": ("scaling", "measure"),
    "company": ("company", "measure"),
    "plans": ("plans", "measure"),
}
SMALL = ("step", "startup", "prepare", "scaling", "plans")
"""What needs no peers' environment and no large model, and so can be tried by the tests."""


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="only show that each bench works; nothing is kept")
    asked = parser.parse_args(words)
    names = [part for name in asked.names for part in name.split(",") if part]
    unknown = [name for name in names if name not in BENCHES]
    if unknown or asked.rounds < 1:
        print(
            f"no bench called {', '.join(unknown)}; there are {', '.join(BENCHES)}"
            if unknown
            else "--rounds is below 1"
        )
        return 2
    python = sys.executable if asked.small else peers.python()
    print(f"{'case':38} {'against':38} {'ours':>9} {'theirs':>9} {'unit':10} {'ratio':>6} [lowest, highest]")
    for name in names or (SMALL if asked.small else BENCHES):
        module, function = BENCHES[name]
        measure: Measure = vars(importlib.import_module(module))[function]
        found, machine = [], {} if asked.small else ceilings.describe()
        for one in measure(python, 1 if asked.small else asked.rounds, small=asked.small):
            found.append(one)
            print(one, flush=True)
            if not asked.small:  # one after the other: what is broken off keeps what it has
                write(name, found, machine)
                page.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
