"""A disk that is full, failing or read-only during a save: a typed error, and everything older untouched."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.checkpoint import SaveError, load, load_model, newest, save, save_model, verify
from groundup.errors import GroundupError

CALLS = ("mkdir", "rename", "replace", "fsync", "open")


def save_step(root: Path, step: int, *, size: int = 10) -> None:
    groups = {"model": {"w": torch.full((size,), float(step))}}
    save(root, step=step, tensors=groups, state={"step": step}, files={"recipe.yaml": b"a: 1\n"})


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class FaultyDisk:
    """Lets `os` calls of `CALLS` through until number `at`, which fails (and all later ones if `lasting`)."""

    def __init__(self, patch: pytest.MonkeyPatch, code: int, at: int, *, lasting: bool = False) -> None:
        self.count, self.failed = 0, ""
        for name in CALLS:
            original = os.__dict__[name] if name != "fsync" else lambda descriptor: None
            patch.setattr(os, name, self._wrap(name, original, code, at, lasting))

    def _wrap(self, name: str, original: Callable[..., Any], code: int, at: int, lasting: bool) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            self.count += 1
            if self.count == at or (lasting and self.count > at):
                self.failed = self.failed or name
                raise OSError(code, os.strerror(code), str(args[0]))
            return original(*args, **keywords)

        return call


def test_K2_a_fault_at_any_point_of_a_save_leaves_the_old_ones_whole(tmp_path: Path) -> None:
    root = tmp_path / "c"
    save_step(root, 1)
    save_step(root, 2)
    before = snapshot(root)
    failed = []
    for at in range(1, 100):
        code = (errno.ENOSPC, errno.EIO, errno.EROFS)[at % 3]
        with pytest.MonkeyPatch.context() as patch:
            disk = FaultyDisk(patch, code, at)
            try:
                save_step(root, 3)
            except SaveError as error:
                assert error.code == "E-CKPT-002"
                assert errno.errorcode[code] in error.what
                assert "step 3" in error.what
                assert error.where and error.why and error.fix
        if not disk.failed:
            break
        failed.append(disk.failed)
        found = newest(root)
        assert found.path is not None
        assert not found.rejected
        assert load(found.path).state == {"step": found.step}
        if found.step == 2:
            assert snapshot(root) == before, "a failed save left something behind"
        else:  # the new one was in place already: only the pointer or the clearing up failed
            shutil.rmtree(root)
            save_step(root, 1)
            save_step(root, 2)
    else:
        pytest.fail("the save never got through")
    assert failed.count("fsync") >= 5
    assert {"mkdir", "rename", "replace"} <= set(failed)


def test_K2_a_disk_that_stays_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_step(tmp_path, 1)
    before = snapshot(tmp_path)
    for _ in range(2):
        with monkeypatch.context() as patch:
            FaultyDisk(patch, errno.EROFS, 1, lasting=True)
            with pytest.raises(SaveError, match="EROFS"):
                save_step(tmp_path, 2)
        assert snapshot(tmp_path) == before
    save_step(tmp_path, 2)
    assert newest(tmp_path).step == 2


def test_K2_a_write_that_the_kernel_refuses_half_way(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    before = snapshot(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(SaveError, match="EFBIG"):
            save_step(tmp_path, 2, size=50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert snapshot(tmp_path) == before


def test_K2_free_space_is_checked_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_step(tmp_path, 1)
    before = snapshot(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5_000_000))
    with pytest.raises(SaveError) as caught:
        save_step(tmp_path, 2, size=1_000_000)
    assert caught.value.code == "E-CKPT-001"
    assert "4,00" in caught.value.what
    assert "5,000,000 free" in caught.value.what
    assert snapshot(tmp_path) == before
    save_step(tmp_path, 2)  # a small one still fits


def test_K2_a_fault_while_a_model_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, tensors={"w": torch.zeros(3)}, files={})
    before = snapshot(tmp_path)
    for at in range(1, 50):
        with pytest.MonkeyPatch.context() as patch:
            disk = FaultyDisk(patch, errno.EIO, at)
            with contextlib.suppress(SaveError):
                save_model(folder, tensors={"w": torch.ones(3)}, files={})
        if not disk.failed:
            break
        assert not verify(folder)
        if load_model(folder)[0]["w"].sum() == 0:
            assert snapshot(tmp_path) == before
        save_model(folder, tensors={"w": torch.zeros(3)}, files={})
    assert load_model(folder)[0]["w"].sum() == 3


def test_a_folder_that_is_not_a_model_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(GroundupError) as caught:
        save_model(tmp_path, tensors={}, files={})
    assert caught.value.code == "E-CKPT-012"
    assert (tmp_path / "thesis.txt").exists()


def test_everything_is_durable_before_the_name_that_makes_it_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    rename = os.rename

    def recorded_fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.split(".tmp-")[0])

    def recorded_rename(source: Path, target: Path) -> None:
        events.append(f"rename to {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    save_step(tmp_path / "root", 1)
    files = ["model.safetensors", "recipe.yaml", "state.json", "manifest.json"]
    folders = ["step-000001", "rename to step-000001", "root"]
    assert events == [*files, *folders, "latest", "root"]
