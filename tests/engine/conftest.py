"""What the tests of this folder share."""

from __future__ import annotations

import pytest
from tests.contract.toy_run import quick


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
