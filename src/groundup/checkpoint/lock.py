"""One process at a time in a run folder.

The file `lock` says who works there: process number, start time of that process, host. Where the system has
`flock` the kernel holds the lock and frees it with the process, whatever ended it; elsewhere the file itself
is the lock, and a process that is gone is recognised by its number and start time.

Nothing that touches a checkpoint may enter here.
"""

from __future__ import annotations

import json
import os
import socket
import weakref
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from groundup.checkpoint.disk import disk_faults
from groundup.checkpoint.process import process_started
from groundup.errors import GroundupError, printable

try:
    import fcntl
except ImportError:  # systems without flock
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
_MAX_DRIFT = 5.0  # seconds by which the same start time may read differently after the clock was set


class Holder(NamedTuple):
    """Who wrote a lock file."""

    pid: int
    started: float
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {printable(self.host, 80)}"


class RunLock:
    """Holds a run folder for this process: `with RunLock(folder) as lock: …`.

    Attributes:
        note: after entering, what to tell the user about a lock that was left behind and taken over; or None.

    Raises:
        GroundupError: E-RUN-001 on entering while another process holds the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self.note: str | None = None
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        with disk_faults("the lock of the run", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = _acquire(self.path)
            _held.add(self)
            left = _read_holder(self.path)
            if left is not None:
                self.note = f"took over the lock that {left} left behind when it ended"
            try:
                _write_holder(self._descriptor)
            except OSError:
                self.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Removed while it is still held, so that nobody can lock a file that is about to vanish.
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close this process's handle. In a forked child that leaves the parent's lock in place."""
        _held.discard(self)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _close_in_child() -> None:
    # A worker process that outlives a killed run must not keep the folder locked.
    for lock in list(_held):
        lock.close()


if os.name == "posix":
    os.register_at_fork(after_in_child=_close_in_child)


def _acquire(path: Path) -> int:
    """Open the lock file and make it ours."""
    while True:
        created = True
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            created = False
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:  # removed by its holder a moment ago
                continue
        locked = _flock(descriptor)
        if locked is None:
            locked = created or is_abandoned(path)
        if not locked:
            os.close(descriptor)
            raise _occupied(path)
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)  # the holder before us removed the file between our opening and our locking it


def _flock(descriptor: int) -> bool | None:
    """Whether the kernel gave us the lock; None where the system or the file system has no such locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_abandoned(path: Path) -> bool:
    """Whether the process that wrote the lock file is gone; of another host's process nobody can tell."""
    holder = _read_holder(path)
    return holder is not None and holder.host == socket.gethostname() and not _is_running(holder)


def _is_running(holder: Holder) -> bool:
    started = process_started(holder.pid)
    return started is not None and abs(started - holder.started) <= _MAX_DRIFT


def _read_holder(path: Path) -> Holder | None:
    try:
        content = json.loads(path.read_bytes()[:4096])
        return Holder(int(content["pid"]), float(content["started"]), str(content["host"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _write_holder(descriptor: int) -> None:
    holder = Holder(os.getpid(), process_started(os.getpid()) or 0.0, socket.gethostname())
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder._asdict()).encode("ascii") + b"\n", 0)
    os.fsync(descriptor)


def _occupied(path: Path) -> GroundupError:
    holder = _read_holder(path)
    who = str(holder) if holder else "another process"
    ending = f"wait for it or end it (kill {holder.pid}), or" if holder else "wait for it, or"
    return GroundupError(
        "E-RUN-001",
        f"{who} is at work in this run folder",
        where=printable(str(path)),
        why="two runs in one folder would overwrite each other's checkpoints and events",
        fix=f"{ending} give this run its own folder: --out DIR",
    )
