"""`groundup serve` without its libraries: what it says must be a command that works where it is said."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from groundup.cli import serve
from groundup.errors import GroundupError


def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(sys.modules, "fastapi", None)  # as if it were not installed
    with pytest.raises(GroundupError) as caught:
        serve.require_extra()
    assert caught.value.code == "E-USE-025"
    return shlex.split(caught.value.fix)


def test_from_a_clone_the_clone_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    *command, what = refused(monkeypatch)
    assert command == [sys.executable, "-m", "pip", "install", "-e"]
    folder = Path(what.removesuffix("[serve]"))
    assert what.endswith("[serve]") and (folder / "pyproject.toml").is_file()
    assert (folder / "src" / "groundup" / "cli" / "serve.py").samefile(serve.__file__)


def test_from_a_package_the_package_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serve, "__file__", str(tmp_path / "site-packages" / "groundup" / "cli" / "serve.py"))
    assert refused(monkeypatch)[-2:] == ["install", "groundup[serve]"]
