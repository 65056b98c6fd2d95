"""How long a thread that has no work spins before it sleeps. Imports no torch: it must be said before torch is loaded.

GNU's OpenMP, which torch uses on Linux, lets a thread spin for milliseconds after its part of an operation. Alone that
costs nothing. Beside another busy program the spinning thread holds the core that the other half of the operation
waits for, and a training step takes more than twice as long. A short spin still covers the gaps between operations
of one step, and gives the core away in longer ones; figures in notes/log.md and docs/performance.md.
"""

from __future__ import annotations

import os
import sys

SPINS = "10000"
"""Turns of the waiting loop, a few tenths of a millisecond; GNU's own default is 300,000."""
SPIN_COUNT, POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"


def wait_briefly() -> None:
    """Let waiting threads give their core away soon, unless the environment says how to wait, or torch, and with it
    OpenMP, has been loaded."""
    if "torch" not in sys.modules and POLICY not in os.environ:
        os.environ.setdefault(SPIN_COUNT, SPINS)


def how_threads_wait() -> str:
    """In words, for `doctor`."""
    spins, policy = os.environ.get(SPIN_COUNT), os.environ.get(POLICY)
    if sys.platform != "linux":
        return "as torch's threads do by default"
    if spins is not None:
        return f"{spins} spins, then asleep ({SPIN_COUNT})"
    return f"{policy.lower()} ({POLICY})" if policy else "spinning for milliseconds (OpenMP's default)"
