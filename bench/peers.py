"""What groundup is compared with, in an environment of its own: `.venv-bench` beside `.venv`, made at first use.

It holds the libraries that are compared, and groundup itself, so that both sides have the same torch. llama.cpp is
built from source with this machine's compiler, without what its processor lacks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv-bench"
PEERS = ("transformers", "peft", "trl==1.16.0", "accelerate", "datasets", "llama-cpp-python==0.3.36")


def python() -> str:
    """The interpreter of that environment. GROUNDUP_PEERS names another one to be used instead."""
    given = os.environ.get("GROUNDUP_PEERS")
    if given:
        return given
    stamp, interpreter = FOLDER / ".installed", FOLDER / "bin" / "python"
    wanted = "\n".join(PEERS)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return str(interpreter)
    print(f"making {FOLDER.name}: {', '.join(PEERS)} (minutes)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    install = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    flags = os.environ.get("PIP_FLAGS", "").split()
    built = os.environ | {"CMAKE_ARGS": os.environ.get("CMAKE_ARGS", "-DGGML_NATIVE=ON")}
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*install, *flags, *constraints, "--editable", str(ROOT), *PEERS], check=True, env=built)
    stamp.write_text(wanted, encoding="utf-8")
    return str(interpreter)
