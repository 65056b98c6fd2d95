"""How bytes reach the disk so that a kill or a failing disk at any moment leaves something whole behind.

A folder is written beside its final place, made durable, and put there by one rename; a folder that stands
there already steps aside first and is removed last. What a killed process leaves behind carries its process
number in the name (`NAME.tmp-PID-RANDOM` is half-written or half-removed, `NAME.old-PID-RANDOM` is whole and
was being replaced) and is dealt with by the next `sweep`.

Nothing that knows what is in the files may enter here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from groundup.checkpoint.process import process_started
from groundup.errors import GroundupError

SPACE_MARGIN = 4 * 2**20
"""Bytes that must stay free beyond what is written: block rounding, the manifest, the run's own logs."""

_LEFTOVER = re.compile(r"(?P<name>.+)\.(?P<kind>tmp|old)-(?P<pid>[0-9]{1,18})-[0-9a-f]{8}")
_in_progress: set[Path] = set()  # what this process is writing now, so that no sweep takes it for a leftover


class SaveError(GroundupError):
    """A save did not happen, and everything saved before is as it was. A run may go on or stop cleanly."""


class Written(NamedTuple):
    """What a file must contain: its size in bytes and the SHA-256 of its content in hexadecimal."""

    size: int
    sha256: str


_ADVICE = {
    errno.ENOSPC: "free some space or save elsewhere: --out DIR on another disk",
    errno.EDQUOT: "free some of your quota or save elsewhere: --out DIR on another disk",
    errno.EIO: "the disk reports faults: save elsewhere (--out DIR on another disk) and check it",
    errno.EROFS: "mount the file system for writing, or save elsewhere: --out DIR",
    errno.EACCES: "give yourself the right to write there, or save elsewhere: --out DIR",
    errno.EPERM: "give yourself the right to write there, or save elsewhere: --out DIR",
}


@contextmanager
def disk_faults(what: str, path: Path) -> Iterator[None]:
    """Turn a fault of the operating system while writing `path` into a `SaveError`."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        raise SaveError(
            "E-CKPT-002",
            f"{what} could not be saved: {error.strerror or error} ({name})",
            where=str(error.filename or path),
            why="the operating system refused to write; what was saved before is untouched",
            fix=_ADVICE.get(error.errno or 0, "mend the cause and save again, or save elsewhere: --out DIR"),
        ) from error


def require_space(folder: Path, needed: int) -> None:
    """Refuse a save of `needed` bytes for which the disk of `folder` has no room.

    Raises:
        SaveError: E-CKPT-001, before anything was written.
    """
    free = shutil.disk_usage(folder).free
    if free >= needed + SPACE_MARGIN:
        return
    raise SaveError(
        "E-CKPT-001",
        f"not enough free space to save: {needed:,} bytes needed, {free:,} free",
        where=str(folder),
        why=f"{SPACE_MARGIN:,} bytes must stay free beside them; what was saved before is untouched",
        fix=_ADVICE[errno.ENOSPC],
    )


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """Write a new file durably, hashing on the way; an existing file is never overwritten.

    Hashing takes longer than writing where the processor has no instructions for it, so it goes on beside.
    """
    digest = hashlib.sha256()
    size = 0
    with ThreadPoolExecutor(max_workers=1) as beside, path.open("xb") as file:
        hashed: Future[None] | None = None
        for chunk in chunks:
            if hashed is not None:
                hashed.result()  # so that no more than one chunk waits, whose memory nobody else may need
            hashed = beside.submit(digest.update, chunk)
            file.write(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
        if hashed is not None:
            hashed.result()
    return Written(size, digest.hexdigest())


def make_durable(path: Path) -> Written:
    """Hash a file that something else wrote, and make it durable."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return Written(file.tell(), digest)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: without it a file can survive a power cut and its name not."""
    if os.name != "posix":  # other systems cannot open a folder, and order their own metadata
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(final: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder, written by `fill` into an empty folder beside it, in the place `final`.

    A kill at any moment leaves the old folder or the new one, whole, under `final` or under its `.old-` name.
    After any error the old folder is back in place and nothing else is left.
    """
    temporary = _beside(final, "tmp")
    aside = _beside(final, "old")
    with ExitStack() as always, ExitStack() as on_error:
        for path in (temporary, aside):
            _in_progress.add(path)
            always.callback(_in_progress.discard, path)
        on_error.callback(shutil.rmtree, temporary, ignore_errors=True)
        temporary.mkdir()
        fill(temporary)
        sync_folder(temporary)
        if os.path.lexists(final):
            on_error.callback(_put_back, aside, final)
            final.rename(aside)
        temporary.rename(final)
        on_error.pop_all()
        sync_folder(final.parent)
        if os.path.lexists(aside):
            remove(aside)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a small file in one step: readers see the old content or the new one."""
    temporary = _beside(path, "tmp")
    _in_progress.add(temporary)
    try:
        write_file(temporary, [content])
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        _in_progress.discard(temporary)


def remove(entry: Path) -> None:
    """Remove a folder so that a kill in between never leaves half of it under a name that counts.

    Of a link only the link goes: what it points to belongs to whoever put it there.
    """
    if entry.is_symlink() or not entry.is_dir():
        entry.unlink()
        return
    match = _LEFTOVER.fullmatch(entry.name)
    if match is None or match["kind"] != "tmp":
        entry = entry.rename(_beside(entry, "tmp"))
    shutil.rmtree(entry)


def sweep(parent: Path, prefix: str, whole: Callable[[Path], bool]) -> None:
    """Clear up after processes that ended in the middle of a save.

    Args:
        parent: the folder to look through.
        prefix: only entries whose names start so are looked at.
        whole: tells whether a folder is whole; asked only for one that was being replaced.
    """
    for entry in sorted(parent.iterdir()):
        match = _LEFTOVER.fullmatch(entry.name)
        if match is None or not entry.name.startswith(prefix) or _at_work(entry, int(match["pid"])):
            continue
        final = parent / match["name"]
        if match["kind"] == "old" and not final.exists():
            entry.rename(final)
        elif match["kind"] == "tmp" or whole(final):
            remove(entry)


def replaced_folders(final: Path) -> list[Path]:
    """Folders that stood at `final` and stepped aside for a replacement that may not have arrived."""
    found = []
    for entry in sorted(final.parent.iterdir()) if final.parent.is_dir() else []:
        match = _LEFTOVER.fullmatch(entry.name)
        if match is not None and match["kind"] == "old" and match["name"] == final.name:
            found.append(entry)
    return found


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}.{kind}-{os.getpid()}-{secrets.token_hex(4)}")


def _put_back(aside: Path, final: Path) -> None:
    if os.path.lexists(aside) and not os.path.lexists(final):
        aside.rename(final)


def _at_work(entry: Path, pid: int) -> bool:
    if pid == os.getpid():
        # In containers the process before this one often had the same number.
        return entry in _in_progress
    started = process_started(pid)
    # A process that started after the entry was written only shares the number with its writer; two seconds
    # allow for the coarse clocks of some file systems.
    return started is not None and started <= entry.lstat().st_mtime + 2.0
