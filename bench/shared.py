"""Real data sets, which the repository does not carry: where the tests find them too."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.shared import ROOT as DATA  # noqa: E402

RECIPES = ROOT / "recipes"


def found(name: str) -> Path | None:
    """The file, or None and a word about it."""
    path = DATA / name
    if path.exists():
        return path
    print(f"skipped: there is no {path} (set GROUNDUP_SHARED_DATA)")
    return None
