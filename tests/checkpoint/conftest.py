"""What the tests of the checkpoint room share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power cut tells the difference, and no test can cut the power; waiting for the disk is slow."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
