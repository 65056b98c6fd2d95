"""Whether a process is still at work. The lock of a run and the clean-up of half-written folders both ask it.

Nothing that touches a checkpoint may enter here.
"""

from __future__ import annotations

import psutil


def process_started(pid: int) -> float | None:
    """When process `pid` of this machine started (seconds since 1970), or None if it has ended.

    A number alone does not name a process, because numbers are used again; number and start time do.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time()
    except psutil.NoSuchProcess:
        return None
