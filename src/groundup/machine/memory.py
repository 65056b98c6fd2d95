"""How much memory this process takes: the most it ever held, and the most during a stretch of work.

Resident memory is counted as the kernel counts it, files that are mapped and have been read included. Where
the kernel keeps a peak that can be reset (Linux), it is used, because a sampler can miss a short one;
elsewhere a thread samples. torch is imported only for an accelerator.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

SAMPLING_SECONDS = 0.02
_active: list[PeakMemory] = []


def current_memory_bytes() -> int:
    """Bytes of memory that this process holds now (resident set)."""
    return int(psutil.Process().memory_info().rss)


def peak_memory_bytes() -> int:
    """The most bytes that this process held since its start, or since the last `reset_peak` that worked."""
    if sys.platform == "linux":
        peak = parse_status(Path("/proc/self/status").read_text(encoding="ascii", errors="replace"))
        if peak is not None:
            return peak
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    # The same field is in bytes on macOS and in KiB on every other system.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def parse_status(text: str) -> int | None:
    """The peak resident bytes (VmHWM) in the text of /proc/self/status; None where it is not listed."""
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def reset_peak(control: Path = Path("/proc/self/clear_refs")) -> bool:
    """Let `peak_memory_bytes` start again from the present memory; False where the system cannot do it."""
    if sys.platform != "linux":
        return False
    peak = peak_memory_bytes()
    try:
        control.write_text("5", encoding="ascii")
    except OSError:
        return False
    for tracker in _active:  # a stretch of work that began earlier keeps the peak that was just wiped
        tracker.note(peak)
    return True


LARGE_BYTES = 1 << 21
MMAP_THRESHOLD = -3  # glibc's M_MMAP_THRESHOLD


def steady_allocator() -> None:
    """Give large tensors memory of their own, which goes back to the system when they are freed.

    glibc raises the size up to which it cuts allocations out of its heap to 32 MiB as a program goes on, and the
    heap cannot shrink below what still lives in it: LoRA on a 135 M model holds 1.9 GB, and 1.4 GB with this. The
    price is the zeroing of fresh pages: a twelfth of a step there, but half a step of a small network, whose steps
    are short. So it is for large models alone. Elsewhere than on Linux with glibc it does nothing.
    """
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        except AttributeError:
            return


def release_memory() -> int:
    """Give what was freed back to the system where it can be asked to, and return the bytes still held.

    An allocator keeps freed memory for later; a plan that starts from what the process holds would count
    it twice.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = _malloc_trim()
        if trim is not None:
            trim(0)
    return current_memory_bytes()


def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim; None with another C library."""
    try:
        function: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    return function


class PeakMemory:
    """The most memory held inside a `with` block, readable while it runs and afterwards. Blocks may nest.

    Args:
        device: an accelerator whose allocations are watched too; None or the processor watches none.
        sample: use the sampling thread even where the kernel keeps the peak.

    Attributes:
        baseline: bytes held on entry.
        accelerator_baseline: bytes allocated on the accelerator on entry, 0 without one.
    """

    def __init__(self, device: torch.device | None = None, *, sample: bool = False) -> None:
        self.device = None if device is None or device.type == "cpu" else device
        self.baseline = 0
        self.accelerator_baseline = 0
        self._sample = sample
        self._highest = 0
        self._accelerator_highest = 0
        self._kernel_keeps_peak = False
        self._over = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        self._kernel_keeps_peak = not self._sample and reset_peak()
        self.baseline = self._highest = current_memory_bytes()
        if self.device is not None:
            reset_accelerator_peak(self.device)
            self.accelerator_baseline = self._accelerator_highest = accelerator_memory(self.device)
        _active.append(self)
        if not self._kernel_keeps_peak or self.device is not None:
            self._over.clear()
            self._sampler = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
            self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sampler is not None:
            self._over.set()
            self._sampler.join()
        self._look()
        _active.remove(self)

    @property
    def peak(self) -> int:
        """The most bytes held since entry (until exit, or until now inside the block)."""
        if self in _active:
            self._look()
        return self._highest

    @property
    def added(self) -> int:
        """How far the peak rose above the baseline, in bytes."""
        return max(0, self.peak - self.baseline)

    @property
    def accelerator_peak(self) -> int:
        """The most bytes allocated on the accelerator since entry, 0 without one."""
        if self in _active:
            self._look()
        return self._accelerator_highest

    def note(self, peak: int) -> None:
        """Take a peak into account that was seen elsewhere while this block ran."""
        self._highest = max(self._highest, peak)

    def _watch(self) -> None:
        while not self._over.wait(SAMPLING_SECONDS):
            self._look()

    def _look(self) -> None:
        self.note(peak_memory_bytes() if self._kernel_keeps_peak else current_memory_bytes())
        if self.device is not None:
            self._accelerator_highest = max(self._accelerator_highest, accelerator_memory(self.device, peak=True))


def accelerator_memory(device: torch.device, *, peak: bool = False) -> int:
    """Bytes that tensors hold on an accelerator now, or at their peak where the device keeps one."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    if device.type == "xpu":
        return torch.xpu.max_memory_allocated(device) if peak else torch.xpu.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()  # Metal keeps no peak: the sampler finds it
    return 0


def reset_accelerator_peak(device: torch.device) -> None:
    """Let the peak of an accelerator start again from its present allocations."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if device.type == "xpu":
        torch.xpu.reset_peak_memory_stats(device)
