"""Files written so that they are whole or absent, and the hashes that name their content.

Shared by everything in preparation that leaves something on disk; no torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

from groundup.errors import GroundupError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds all of it or does not exist: temporary name, fsync, rename.

    Raises:
        GroundupError: E-DATA-012 if there is no room or the folder cannot be written; nothing half is left.
    """
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> GroundupError:
    """The error for a file that the system would not let us write."""
    full = error.errno in NO_ROOM
    return GroundupError(
        "E-DATA-012",
        "the disk is full" if full else f"cannot write: {error.strerror}",
        where=str(path),
        why="prepared data must be whole; what was finished so far is kept and will be used",
        fix=("make room" if full else "make the folder writable")
        + " and give the same command again,\nor choose another folder with --out",
    )


def check_free_space(folder: Path, needed: int) -> None:
    """Refuse to start what cannot fit: `needed` bytes under `folder` (which may not exist yet)."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise GroundupError(
            "E-DATA-012",
            f"not enough free disk space: about {needed / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free",
            where=str(folder),
            why="preparation keeps the cleaned text beside its working files until it is done",
            fix="make room, or choose another folder with --out",
        )


def canonical_json(value: object) -> bytes:
    """The one spelling of a JSON value that its digest is taken over."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()


def readable_json(value: object) -> bytes:
    """JSON for files that people open: indented, in the order given, ending in a newline."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
