"""Files that could run code when opened, and the refusal to open them.

Nothing here opens such a file for more than its first bytes, and nothing here may ever unpickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from groundup.errors import GroundupError, printable

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_FIRST_BYTES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def is_pickle(path: Path) -> bool:
    """Whether a file has the suffix or the first bytes of a pickle or of torch's archive around one."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return True
    with path.open("rb") as file:
        start = file.read(16)
    # A safetensors file whose header is 640 bytes long also starts with 0x80 0x02: its ninth byte decides.
    return start.startswith(_FIRST_BYTES) and start[8:9] != b"{"


def refuse_pickle(path: Path) -> NoReturn:
    """Say why a pickle is not opened and how its owner can convert it.

    Raises:
        GroundupError: always, E-CKPT-009.
    """
    shown = printable(str(path))
    converted = printable(path.with_suffix(".safetensors").name)
    raise GroundupError(
        "E-CKPT-009",
        f"{printable(path.name)} is a pickle and is not opened",
        where=shown,
        why="opening a pickle can run any program that its author put into it",
        fix="take the .safetensors file if its publisher offers one; or, if you trust the file, convert it:\n"
        "in Python, read it with torch's own loader (weights_only=True, map_location='cpu')\n"
        f"and write the dict with safetensors.torch.save_file(weights, '{converted}')",
    )


def refuse_only_pickles(folder: Path) -> None:
    """Refuse a model folder whose weights are there only as pickles; any other folder passes.

    Raises:
        GroundupError: E-CKPT-009 for the first pickle by name.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    pickles = [path for path in files if path.suffix.lower() in PICKLE_SUFFIXES]
    if pickles and not any(path.suffix == ".safetensors" for path in files):
        refuse_pickle(pickles[0])
