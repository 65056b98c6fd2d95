"""C sources → a library for this machine, made by its own compiler at first use and kept in the user's cache.

Where there is no compiler, or it fails, the plain form is taken; `doctor` says which one is used. What is compiled are
files of this package and nothing else.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-std=gnu11", "-shared", "-fPIC", "-fopenmp")
COMPILE_SECONDS = 120
HEADERS = Path(__file__).parent
"""Where sources find vectors.h."""


class Unavailable(Exception):
    """Why there are no compiled functions."""


def library(name: str, sources: Sequence[Path]) -> ctypes.CDLL:
    """The functions of `sources`, compiled for this machine.

    Raises:
        Unavailable: there is no compiler, it fails, or the machine is not one that this was written for.
        OSError: the library cannot be loaded.
    """
    if sys.platform != "linux" or sys.byteorder != "little":
        raise Unavailable(f"not tried on {sys.platform}")
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise Unavailable("no C compiler (cc, gcc or clang) is installed")
    return ctypes.CDLL(str(_compiled(name, sources, compiler)))


def refusal(functions: Callable[[], object]) -> str | None:
    """Why `functions`, which asks for a library, gets none; None if it gets one."""
    try:
        functions()
    except (Unavailable, OSError) as reason:
        return str(reason)
    return None


def _compiled(name: str, sources: Sequence[Path], compiler: str) -> Path:
    """The library in the user's cache, made if it is not there for these sources, compiler and processor."""
    texts = [path.read_bytes() for path in (*sources, *sorted(HEADERS.glob("*.h")))]
    what = (compiler, *FLAGS, _processor(), torch.__version__)
    digest = hashlib.sha256(b"\0".join([*texts, *(part.encode() for part in what)])).hexdigest()[:24]
    for folder in _folders():
        target = folder / f"{name}-{digest}.so"
        if target.is_file():
            return target
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as place:
                made = Path(place) / f"{name}.so"
                _run_compiler([compiler, *FLAGS, f"-I{HEADERS}", "-o", str(made), *map(str, sources), "-lm"])
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
