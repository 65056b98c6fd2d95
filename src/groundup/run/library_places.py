"""How the page names what lies on disk, and what of it is never shown: what a link leads to outside."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from groundup.errors import GroundupError


def id_of(name: str) -> str:
    """A name below a root as the page names it: short, and no path."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def unknown(what: str, id: str) -> GroundupError:
    """The error for an id that the listing does not have."""
    return GroundupError(
        "E-SERVE-041",
        f"there is no {what} of this id",
        where=f"/api, id {id[:64]!r}",
        why="ids come from the listing; what they named may have been removed or renamed since",
        fix="load the list again",
    )


def leads_outside(folder: Path, *roots: Path) -> bool:
    """Whether anything at or below `folder` is a link to a place that is below none of `roots`, which are resolved."""
    for place, below, names in os.walk(folder):
        for name in (*below, *names):
            path = Path(place, name)
            if path.is_symlink() and not lies_below(path, roots):
                return True
    return False


def lies_below(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path, its links followed, is at or below one of `roots`, which are resolved. A link that leads in a
    circle leads nowhere."""
    try:
        place = path.resolve()
    except (OSError, RuntimeError):
        return False
    return any(place.is_relative_to(root) for root in roots)


def name_below(path: Path, root: Path) -> str:
    """The path of a run below the folder of runs, which is called by its own name."""
    name = path.relative_to(root).as_posix()
    return root.resolve().name if name == "." else name
