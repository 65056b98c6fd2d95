"""`groundup --help` answers at once: below a quarter of a second, and without any library."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

HEAVY = (
    "torch",
    "numpy",
    "tokenizers",
    "pydantic",
    "yaml",
    "jinja2",
    "safetensors",
    "psutil",
    "rensa",
    "pyarrow",
)
LIMIT = 0.250  # seconds
TRIES = 6


def processor_seconds() -> float:
    """Spent so far by the processes that this one has waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def test_help_is_quick(tmp_path: Path) -> None:
    # As on a user's second call: the files are compiled, whatever the environment of the tests says. The
    # processor's time is taken, because the clock would also measure what else the machine is doing.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    seconds = []
    for _ in range(TRIES):
        before = processor_seconds()
        command = [sys.executable, "-m", "groundup", "--help"]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        seconds.append(processor_seconds() - before)
    assert min(seconds) < LIMIT, f"{min(seconds):.3f} s at best"


def test_help_imports_no_library() -> None:
    script = (
        "import sys\nfrom groundup.cli.main import main\ncode = main(['--help'])\nimport groundup\n"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []"
