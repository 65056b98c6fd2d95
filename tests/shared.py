"""Where the tests find the real data sets that the repository does not carry.

The folder is `$GROUNDUP_SHARED_DATA`, or `shared/data` beside the checkout. A test that needs a file asks
for it here and is skipped, with the reason, where the file is absent.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("GROUNDUP_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def shared(path: str) -> Path:
    """The path of a shared data file, such as `text/tinyshakespeare.txt`; skips the test if it is absent."""
    found = ROOT / path
    if not found.exists():
        pytest.skip(f"needs {path}: set GROUNDUP_SHARED_DATA to a folder that holds it")
    return found
