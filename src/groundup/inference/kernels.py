"""The C functions of decoder.c: compiled once for this machine by its own compiler, then loaded.

Where there is no compiler, or it fails, generation takes the plain form (runners.py); `doctor` and the server say
which one is used. What is compiled is the file beside this one and nothing else.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("decoder.c")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-std=gnu11", "-shared", "-fPIC", "-fopenmp")
COMPILE_SECONDS = 120
SWITCH = "GROUNDUP_PLAIN_GENERATION"
"""Set to 1: do without, as if there were no compiler."""


class Unavailable(Exception):
    """Why there are no compiled functions."""


class MatrixStruct(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class LayerStruct(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("input_norm", "post_norm", "query_norm", "key_norm")),
        *((name, MatrixStruct) for name in ("qkv", "out", "gate_up", "down")),
    )


class ModelStruct(ctypes.Structure):
    _fields_ = (
        *((n, ctypes.c_int64) for n in ("layers", "width", "heads", "key_heads", "head_size", "hidden", "window")),
        ("epsilon", ctypes.c_float),
        ("cosine", ctypes.c_void_p),
        ("sine", ctypes.c_void_p),
        ("layer", ctypes.POINTER(LayerStruct)),
        ("embedding", MatrixStruct),
        ("head", MatrixStruct),
        ("norm", ctypes.c_void_p),
    )


class SegmentStruct(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "seen", "capacity", "last")),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
    )


@cache
def functions() -> ctypes.CDLL:
    """The compiled functions.

    Raises:
        Unavailable: there is no compiler, it fails, or the machine is not one that this was written for.
    """
    if os.environ.get(SWITCH) == "1":
        raise Unavailable(f"{SWITCH}=1 is set")
    if sys.platform != "linux" or sys.byteorder != "little":
        raise Unavailable(f"not tried on {sys.platform}")
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise Unavailable("no C compiler (cc, gcc or clang) is installed")
    loaded = ctypes.CDLL(str(_compiled(compiler)))
    loaded.scratch_floats.restype = loaded.run.restype = ctypes.c_int64
    return loaded


def why_not() -> str | None:
    """Why there are no compiled functions; None if there are."""
    try:
        functions()
    except (Unavailable, OSError) as reason:
        return str(reason)
    return None


def _compiled(compiler: str) -> Path:
    """The library in the user's cache, made if it is not there for this source, compiler and processor."""
    source = SOURCE.read_bytes()
    what = (compiler, *FLAGS, _processor(), torch.__version__)
    digest = hashlib.sha256(b"\0".join([source, *(part.encode() for part in what)])).hexdigest()[:24]
    for folder in _folders():
        target = folder / f"decoder-{digest}.so"
        if target.is_file():
            return target
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as place:
                made = Path(place) / "decoder.so"
                _run_compiler([compiler, *FLAGS, "-o", str(made), str(SOURCE), "-lm"])
                made.replace(target)  # whole or not at all, whoever else compiles it now
        except OSError:
            continue  # a read-only home: the next place
        return target
    raise Unavailable("no folder can be written to keep the compiled functions in")


def _run_compiler(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the compiler took more than {COMPILE_SECONDS} seconds") from None
    if done.returncode:
        first = next(iter(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
        raise Unavailable(f"the compiler failed: {first[:200]}")


def _folders() -> Iterator[Path]:
    """Where the library may be kept: the user's own cache, else a new folder that only this user can write."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    own = Path(base) if base and Path(base).is_absolute() else Path("~/.cache").expanduser()
    if own.is_absolute():
        yield own / "groundup"
    yield Path(tempfile.mkdtemp(prefix="groundup-"))


def _processor() -> str:
    """What -march=native looks at, so that a home on several machines keeps a library for each kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown"
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))
