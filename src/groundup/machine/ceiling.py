"""How fast this machine is at best: matrix products, memory traffic, and which precision pays.

A ceiling is what a large matrix product reaches here with nothing else around it; the share of it that a
training run reaches says how much is left to win. Ceilings are measured once per process and may be kept in
a cache folder per kind of hardware; a folder that cannot be written is no reason to fail. The random numbers
come from a private generator, so a measurement never moves the random state of a run.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from groundup.errors import GroundupError, printable
from groundup.machine.describe import accelerators, describe, memory, processor

PRECISIONS = ("auto", "float32", "bfloat16")
BFLOAT16_INSTRUCTIONS = ("AMX-BF16", "AVX512-BF16", "ARM-BF16")
WORTHWHILE = 1.3
"""Least measured speed of bfloat16 over float32 that makes it worth its rounding."""
SHORTEST_TIMING = 0.004
"""Seconds that one timing lasts at least, so that the clock and the launch of a kernel do not count."""
SIZES = {"cpu": (256, 512, 1024, 2048), "accelerator": (1024, 2048, 4096, 8192)}

_measured: dict[str, float] = {}


class Precision(NamedTuple):
    """The precision that a run computes in, "float32" or "bfloat16", and why, in one sentence."""

    name: str
    reason: str


class Bfloat16Facts(NamedTuple):
    """What decides about bfloat16 on a device.

    Attributes:
        hardware: what in the hardware multiplies bfloat16 ("AMX-BF16", "CUDA capability 9.0"), "" if nothing.
        speedup: measured speed of bfloat16 over float32; 0.0 where the hardware already says no.
    """

    hardware: str
    speedup: float


def resolve_device(wish: str = "auto") -> torch.device:
    """The device that a run uses: "auto" takes the first of CUDA, XPU, MPS that is there, else the processor.

    Raises:
        GroundupError: E-MACHINE-001 when `wish` is not a device of this machine.
    """
    present = ["cpu"]
    for found in accelerators():
        present += [found["kind"]] * (found["index"] == 0) + [f"{found['kind']}:{found['index']}"]
    if wish == "auto":
        return torch.device(present[min(1, len(present) - 1)])
    if wish not in present:
        raise GroundupError(
            "E-MACHINE-001",
            what=f'this machine has no device "{printable(wish)}"',
            where=f"torch {torch.__version__} sees: {', '.join(present)}",
            why="a run on another device than the one asked for would be slower or would not fit",
            fix='choose "auto" or one of the devices above; groundup doctor lists them',
            exit_code=2,
        )
    return torch.device(wish)


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done all its work, so that a clock read now counts it."""
    wait: dict[str, Callable[[], None]] = {
        "cuda": torch.cuda.synchronize,
        "xpu": torch.xpu.synchronize,
        "mps": torch.mps.synchronize,
    }
    if device.type in wait:
        wait[device.type]()


def matrix_ceiling(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seconds: float = 0.5,
    *,
    cache: Path | None = None,
    fresh: bool = False,
) -> float:
    """The best FLOP/s that square matrix products reach on `device` with torch's present settings.

    Sizes grow until one product would take more than its part of the time; each is warmed up first and the
    fastest timing of all counts, because whatever else the machine did can only have slowed it down.

    Args:
        dtype: of both factors and the product.
        seconds: about how long to measure.
        cache: a folder of earlier measurements (`cache_folder()`), read and added to; None uses none.
        fresh: measure even if the answer is known. What is kept is the larger of the two.
    """
    device = torch.device(device)

    def measure() -> float:
        sizes = SIZES["cpu" if device.type == "cpu" else "accelerator"]
        return measure_matrix_products(device, dtype, seconds, sizes)

    settings = f"threads {torch.get_num_threads()} matmul {torch.get_float32_matmul_precision()}"
    return remember(f"matrix {device} {dtype} {settings}", measure, cache, fresh)


def measure_matrix_products(
    device: torch.device, dtype: torch.dtype, seconds: float, sizes: tuple[int, ...]
) -> float:
    """FLOP/s of the fastest product of two matrices of any of `sizes`; the first size is always measured."""
    generator = torch.Generator(device).manual_seed(0)
    best, end = 0.0, time.perf_counter() + seconds
    for size in sizes:
        expected = 2 * size**3 / max(best, 1.0)
        if best and expected > (end - time.perf_counter()) / 3:  # one to warm up, two to measure
            break
        left = torch.randn(size, size, generator=generator, device=device).to(dtype)
        right = torch.randn(size, size, generator=generator, device=device).to(dtype)
        product = torch.empty_like(left)
        share = (end - time.perf_counter()) / 2 if size != sizes[-1] else end - time.perf_counter()
        best = max(best, 2 * size**3 / fastest(lambda: torch.mm(left, right, out=product), share, device))  # noqa: B023
    return best


def memory_bandwidth(
    device: torch.device | str = "cpu",
    seconds: float = 0.3,
    *,
    cache: Path | None = None,
    fresh: bool = False,
    size: int | None = None,
) -> float:
    """Bytes per second that a copy of a large tensor moves on `device`, reads and writes both counted
    (the Copy kernel of STREAM, McCalpin 1995).

    Args:
        size: bytes of the tensor; by default 256 MiB on the processor, 1 GiB on an accelerator, and never
            more than a sixteenth of the memory that is free.
    """
    device = torch.device(device)

    def measure() -> float:
        chosen = size or min(1 << (28 if device.type == "cpu" else 30), memory()["available"] // 16)
        source = torch.zeros(max(1, chosen), dtype=torch.uint8, device=device)
        target = torch.ones_like(source)  # written once, so that its pages exist before the clock starts
        return 2 * source.numel() / fastest(lambda: target.copy_(source), seconds, device)

    return remember(f"bandwidth {device} threads {torch.get_num_threads()}", measure, cache, fresh)


def fastest(work: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Seconds that one call of `work` takes at best; at least one warm-up and one timing are made."""
    end = time.perf_counter() + seconds

    def timing(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            work()
        synchronize(device)
        return time.perf_counter() - start

    with torch.no_grad():
        once = timing(1)
        calls = max(1, round(SHORTEST_TIMING / max(once, 1e-7)))
        best = timing(calls) / calls
        while time.perf_counter() + best * calls < end:
            best = min(best, timing(calls) / calls)
    return best


def bfloat16_facts(device: torch.device | str, *, cache: Path | None = None) -> Bfloat16Facts:
    """Whether the hardware of `device` multiplies bfloat16, and if so, how much faster than float32 it is."""
    device = torch.device(device)
    hardware = bfloat16_hardware(device)
    if not hardware:
        return Bfloat16Facts("", 0.0)
    half = matrix_ceiling(device, torch.bfloat16, 0.2, cache=cache)
    return Bfloat16Facts(hardware, half / matrix_ceiling(device, torch.float32, 0.2, cache=cache))


def bfloat16_hardware(device: torch.device) -> str:
    """The part of the hardware that multiplies bfloat16, "" if there is none."""
    if device.type == "cpu":
        return next((name for name in BFLOAT16_INSTRUCTIONS if name in processor()[1]), "")
    if device.type == "cuda":
        if torch.version.hip:  # AMD numbers its devices otherwise; torch knows which have it
            return "ROCm" if torch.cuda.is_bf16_supported(including_emulation=False) else ""
        major, minor = torch.cuda.get_device_capability(device)
        return f"CUDA capability {major}.{minor}" if major >= 8 else ""
    if device.type == "xpu":
        return "XPU" if torch.xpu.is_bf16_supported() else ""
    return ""


def choose_precision(
    wish: str,
    device: torch.device | str = "cpu",
    *,
    cache: Path | None = None,
    facts: Bfloat16Facts | None = None,
) -> Precision:
    """The precision that a recipe's `auto`, `float32` or `bfloat16` means on `device`, with the reason.

    An explicit wish is granted without measuring; weights and optimizer stay in float32 in either case.

    Args:
        facts: what is known about bfloat16 there; None looks it up and measures.

    Raises:
        GroundupError: E-MACHINE-002 when `wish` is none of the three.
    """
    if wish not in PRECISIONS:
        raise GroundupError(
            "E-MACHINE-002",
            what=f'unknown precision "{printable(wish)}"',
            where="hardware.precision",
            why="the activations are computed in a precision that torch and this tool both support",
            fix=f"choose one of {', '.join(PRECISIONS)}",
            exit_code=2,
        )
    if wish != "auto":
        return Precision(wish, "the recipe asks for it")
    hardware, speedup = facts or bfloat16_facts(device, cache=cache)
    if not hardware:
        return Precision("float32", f"{torch.device(device)} has no instructions that multiply bfloat16")
    measured = f"{hardware}: bfloat16 measured at {speedup:.1f} times the speed of float32"
    if speedup >= WORTHWHILE:
        return Precision("bfloat16", measured)
    return Precision("float32", f"{measured}, under the {WORTHWHILE} that pays for its rounding")


def cache_folder() -> Path | None:
    """Where measurements may be kept: `$XDG_CACHE_HOME/groundup`, else `~/.cache/groundup`, else None.

    A relative XDG_CACHE_HOME is ignored, as its specification demands. Nothing is created here.
    """
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if chosen and Path(chosen).is_absolute():
        return Path(chosen) / "groundup"
    try:
        return Path.home() / ".cache" / "groundup"
    except RuntimeError:  # no HOME and no entry in the password file, as in some containers
        return None


def remember(key: str, measure: Callable[[], float], cache: Path | None, fresh: bool) -> float:
    """The value known under `key` in this process or in the cache folder, else `measure()`, kept in both."""
    if key in _measured and not fresh:
        return _measured[key]
    known = load_cache(cache)
    if key in known and not fresh:
        _measured[key] = known[key]
        return known[key]
    measured = measure()
    _measured[key] = known[key] = max(measured, known.get(key, 0.0), _measured.get(key, 0.0))
    store_cache(cache, known)
    return measured


def cache_file(cache: Path) -> Path:
    """The file of this kind of hardware and this torch."""
    return cache / f"ceilings-{describe()['digest']}-torch-{torch.__version__}.json"


def load_cache(cache: Path | None) -> dict[str, float]:
    """What the cache folder knows; a missing, unreadable or damaged file knows nothing."""
    if cache is None:
        return {}
    try:
        known = json.loads(cache_file(cache).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: float(value) for key, value in known.items() if isinstance(value, int | float) and value > 0}


def store_cache(cache: Path | None, known: dict[str, float]) -> None:
    """Write the cache file whole or not at all; a folder that cannot be written is left alone."""
    if cache is None:
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=cache, suffix=".tmp", delete=False, encoding="utf-8"
        ) as file:
            json.dump(known, file, indent=1, sort_keys=True)
        Path(file.name).replace(cache_file(cache))
    except OSError:
        return
