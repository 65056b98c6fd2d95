"""Threads that wait give their core away soon, unless someone said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from groundup.machine import waiting

SAID = (waiting.SPIN_COUNT, waiting.POLICY, "THP_MEM_ALLOC_ENABLE")
SHOW = "import groundup, os; print(os.environ.get('GOMP_SPINCOUNT'))"


def said(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in SAID}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_it_is_said_before_torch_is_loaded() -> None:
    assert said(SHOW) == waiting.SPINS


def test_what_the_user_says_stays() -> None:
    assert said(SHOW, GOMP_SPINCOUNT="7") == "7"
    assert said(SHOW, OMP_WAIT_POLICY="ACTIVE") == "None"


def test_a_program_that_has_torch_is_left_alone() -> None:
    code = f"import sys; sys.modules['torch'] = sys; {SHOW}"
    assert said(code) == "None"


@pytest.mark.skipif(sys.platform != "linux", reason="pages of 2 MiB are asked for on Linux alone")
def test_large_pages_are_asked_for_unless_the_environment_says_otherwise() -> None:
    show = "import groundup, os; print(os.environ.get('THP_MEM_ALLOC_ENABLE'))"
    assert said(show) == "1" and said(show, THP_MEM_ALLOC_ENABLE="0") == "0"
    assert said(f"import sys; sys.modules['torch'] = sys; {show}") == "None"


def test_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv(waiting.SPIN_COUNT, "10000")
    assert waiting.how_threads_wait().startswith("10000 spins")
    monkeypatch.delenv(waiting.SPIN_COUNT)
    monkeypatch.setenv(waiting.POLICY, "PASSIVE")
    assert waiting.how_threads_wait().startswith("passive")
    monkeypatch.delenv(waiting.POLICY)
    assert "default" in waiting.how_threads_wait()
