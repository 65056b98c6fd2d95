"""Watching memory: peaks are seen, by the kernel's mark and by the sampler."""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from groundup.machine import memory as room
from groundup.machine.memory import (
    PeakMemory,
    current_memory_bytes,
    parse_status,
    peak_memory_bytes,
    reset_peak,
)

MIB = 1 << 20


@contextmanager
def held(size: int) -> Iterator[None]:
    """Hold `size` bytes of touched pages, straight from the system: an allocator may have some left over."""
    with mmap.mmap(-1, size) as block:
        for start in range(0, size, MIB):
            block[start : start + MIB] = b"x" * MIB
        yield


def hold(size: int) -> None:
    """Take `size` bytes, touch every page, give them back."""
    with held(size):
        pass


def test_the_peak_is_read_in_bytes() -> None:
    assert parse_status("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n") == 2 * MIB
    assert parse_status("Name:\tpython\n") is None
    assert 5 * MIB < current_memory_bytes() <= peak_memory_bytes() + MIB < 1 << 40


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak")
def test_a_short_peak_is_seen_and_can_be_reset() -> None:
    if not reset_peak():
        pytest.skip("this kernel or container does not let a process reset its peak")
    before = peak_memory_bytes()
    hold(64 * MIB)
    assert peak_memory_bytes() >= before + 60 * MIB
    assert reset_peak()
    assert peak_memory_bytes() < before + 32 * MIB


def test_a_peak_that_cannot_be_reset_is_said(tmp_path: Path) -> None:
    assert reset_peak(tmp_path / "absent" / "clear_refs") is False


def test_peak_memory_of_a_block() -> None:
    with PeakMemory() as watched:
        hold(64 * MIB)
        inside = watched.peak
    assert watched.baseline + 60 * MIB <= inside <= watched.peak
    assert 60 * MIB <= watched.added < 128 * MIB
    assert watched.accelerator_peak == watched.accelerator_baseline == 0


def test_what_happens_after_the_block_does_not_count() -> None:
    with PeakMemory() as watched:
        pass
    after = watched.peak
    hold(64 * MIB)
    assert watched.peak == after


def test_an_inner_block_does_not_wipe_the_peak_of_the_outer() -> None:
    with PeakMemory() as outer:
        hold(64 * MIB)
        with PeakMemory() as inner:
            pass
    assert outer.added >= 60 * MIB
    assert inner.added < 32 * MIB


def test_the_sampler_sees_a_peak_where_the_kernel_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SAMPLING_SECONDS", 0.001)
    monkeypatch.setattr(room, "reset_peak", lambda: False)
    with PeakMemory() as watched:
        deadline = time.monotonic() + 5
        with held(64 * MIB):
            while watched._highest < watched.baseline + 60 * MIB and time.monotonic() < deadline:
                pass
    assert watched.added >= 60 * MIB


def test_an_error_inside_the_block_ends_the_watch() -> None:
    with pytest.raises(ValueError, match="inside"), PeakMemory(sample=True) as watched:
        raise ValueError("inside")
    assert watched._sampler is not None and not watched._sampler.is_alive()
    assert watched not in room._active
