"""What the page's library has read from files, kept for as long as these stay as they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class _Kept(Generic[Value]):
    """A value read from files, the state of those files, and until when it is good in any case."""

    state: object
    until: float
    value: Value


class Memory(Generic[Value]):
    """Remembers what was read from files as long as these stay as they are.

    What took long to read is believed for twenty times as long, so that a large run that is being written costs a
    small share of one core, however often a page asks.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._kept: dict[object, _Kept[Value]] = {}
        self._lock = threading.Lock()

    def get(self, key: object, state: object, read: Callable[[], Value]) -> Value:
        """The value of `key`; `read` is called if it is not known or `state` is another one."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and (kept.state == state or time.monotonic() < kept.until):
                return kept.value
            began = time.monotonic()
            value = read()
            now = time.monotonic()
            self._kept.pop(key, None)
            self._kept[key] = _Kept(state, now + 20 * (now - began), value)
            if len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]  # what was read longest ago
            return value


def stamp(path: Path) -> tuple[int, int] | None:
    """When a file was written last, and its size; None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
