"""How a run is asked to stop: SIGTERM and the first SIGINT finish the step and save; a second SIGINT ends the
process at once, with the last checkpoint intact."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

EXIT_CODES = {"interrupted": 130, "terminated": 143}


class Stop:
    """`reason` is empty until somebody asks the run to stop."""

    def __init__(self) -> None:
        self.reason = ""
        self.interrupts = 0

    def request(self, reason: str) -> None:
        """Stop after the present step; the first reason given counts."""
        self.reason = self.reason or reason

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.interrupts:
                os._exit(EXIT_CODES["interrupted"])
            self.interrupts += 1
        name = "interrupted" if number == signal.SIGINT else "terminated"
        self.request(name)
        # Not through sys.stderr: the signal may have come in the middle of a write to it.
        said = f"\n{name}: finishing this step and saving (again Ctrl-C: stop at once)\n"
        with suppress(OSError):
            os.write(2, said.encode("ascii"))

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Within the block the signals of this process ask for a stop; the old handlers come back after."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, previous, strict=True):
                signal.signal(number, handler)
