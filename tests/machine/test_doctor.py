"""`groundup doctor`: its report, its JSON, its exit code."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from groundup import selftest
from groundup.cli import doctor as verb
from groundup.cli.terminal import Painter, display_width
from groundup.machine import ceiling


@pytest.fixture(autouse=True)
def quick_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ceiling, "_measured", {})
    monkeypatch.setattr(ceiling, "matrix_ceiling", lambda *_, **__: 8.06e10)
    monkeypatch.setattr(ceiling, "memory_bandwidth", lambda *_, **__: 1.25e10)


def broken(*_: Any, **__: Any) -> list[selftest.Check]:
    return [
        selftest.judge("attention under a mask", 1e-7, 1e-5, "fine"),
        selftest.judge("bfloat16 product", float("nan"), 1.0, "torch cannot run this: no kernel"),
    ]


def test_json_is_one_object_and_the_exit_code_is_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.doctor(argparse.Namespace(json=True)) == 0
    shown = capsys.readouterr().out
    found = json.loads(shown)
    assert shown.count("\n") == 1 and shown.isascii()
    compiled = {"compiled_training", "compiled_generation"}
    assert set(found) == {"machine", "device", "waiting", *compiled, "ceilings", "precision", "selftests", "passed"}
    assert found["passed"] is True and len(found["selftests"]) == 8
    assert found["ceilings"]["cpu"] == {"float32": 8.06e10, "bfloat16": 8.06e10, "bandwidth": 1.25e10}
    assert found["precision"]["name"] in ("float32", "bfloat16") and found["precision"]["reason"]


def test_a_failed_self_test_is_shown_and_exits_with_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "run_selftests", broken)
    assert verb.doctor(argparse.Namespace(json=False)) == 1
    shown = capsys.readouterr().out
    assert "80.6 GFLOP/s" in shown and "12.5 GB/s" in shown
    assert "FAIL  bfloat16 product" in shown and "no kernel" in shown and "do not train" in shown
    assert verb.doctor(argparse.Namespace(json=True)) == 1
    assert json.loads(capsys.readouterr().out)["selftests"][1]["measured"] is None


def test_U2_forty_columns_of_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "run_selftests", broken)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    found = verb.examine()
    found["machine"]["processor"] = "龙芯 3A6000"
    found["machine"]["accelerators"] = [
        {"kind": "cuda", "index": 0, "name": "NVIDIA H100", "memory": 80 << 30, "capability": [9, 0]}
    ]
    verb.show(found, Painter(stream, width=40))
    stream.flush()
    shown = stream.buffer.getvalue().decode("ascii")
    assert all(display_width(line) <= 40 for line in shown.split("\n") if "\\u" not in line)
    assert "capability 9.0" in " ".join(shown.split())
