"""What is said of a model whose files cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.errors import GroundupError, printable


def malformed(path: Path, what: str) -> GroundupError:
    """A file beside the weights that cannot be used."""
    return GroundupError(
        "E-MODEL-001",
        f"{path.name} {what}",
        where=str(path),
        why="without it the weights cannot be put into a network",
        fix="groundup verify PATH   (says which files are whole); copy the folder again from its source",
    )


def unknown_family(file: Path, family: str, known: Iterable[str]) -> GroundupError:
    """A family that this version does not know."""
    return GroundupError(
        "E-MODEL-002",
        f"the model family {printable(family)!r} is not known",
        where=str(file),
        why=f"this version can build: {', '.join(known)}",
        fix="use the version of groundup that wrote the model",
    )


def mismatch(folder: Path, what: str) -> GroundupError:
    """Files of a model that do not belong together."""
    return GroundupError(
        "E-MODEL-003",
        f"the files of the model do not belong together: {what}",
        where=str(folder),
        why="with another tokenizer every id would mean something else, and the answers would be noise",
        fix="copy tokenizer.json and chat.json from the folder that the weights came from",
    )


def base_missing(folder: Path, path: str, digest: str, *, there: bool) -> GroundupError:
    """The refusal of a model whose base is gone, or is `there` and no longer what it was."""
    return GroundupError(
        "E-MODEL-005",
        "the model that these adapters belong to has changed" if there else "the base model is not there",
        where=f"{printable(str(folder))}: base {printable(path)}, digest {digest[:12]}",
        why="adapters are a difference to one base; on another one they would give noise without a word",
        fix="put the base back where it was, or where the files are: groundup merge MODEL --out DIR "
        "makes a model that stands alone",
    )


@contextmanager
def building(file: Path) -> Iterator[None]:
    """Building what a file describes: sizes that no network can have are its fault."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise malformed(file, f"describes a network that cannot be built: {printable(str(error), 200)}") from error
