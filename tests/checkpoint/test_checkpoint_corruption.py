"""Checkpoints that were damaged, mixed up, or written by another version; and which ones are kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.checkpoint import load, newest, save, verify
from groundup.checkpoint.manifest import render, seal_of
from groundup.checkpoint.migration import MIGRATIONS
from groundup.errors import GroundupError

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "recipe.yaml", "manifest.json")


def save_step(root: Path, step: int, *, recipe: bytes = b"a: 1\n", keep_every: int | None = None) -> Path:
    value = torch.full((2000,), float(step))
    groups = {"model": {"w": value}, "optimizer": {"m": value + 0.5}}
    files = {"recipe.yaml": recipe}
    return save(root, step=step, tensors=groups, state={"step": step}, files=files, keep_every=keep_every)


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def fill_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def reseal(folder: Path, **changes: object) -> None:
    """Edit a manifest as a tool that knows the format would: sizes, hashes and seal fit again."""
    import hashlib

    content = json.loads((folder / "manifest.json").read_bytes()) | changes
    names = [path.name for path in folder.iterdir() if path.name != "manifest.json"]
    content["files"] = {}
    for name in sorted(names):
        raw = (folder / name).read_bytes()
        content["files"][name] = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    content["seal"] = seal_of(content)
    (folder / "manifest.json").write_bytes(render(content))


@pytest.mark.parametrize("damage", [flip_bit, truncate, fill_with_zeros, empty, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_K3_K4_a_damaged_file_is_named_and_the_previous_checkpoint_found(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    older, newer = save_step(tmp_path, 1), save_step(tmp_path, 2)
    damage(newer / name)
    problems = verify(newer)
    assert {problem.file for problem in problems} == {name}
    found = newest(tmp_path)
    assert (found.path, found.step) == (older, 1)
    assert found.rejected == [(newer, problems)]
    assert (tmp_path / "latest").read_text() == "step-000002\n"  # the pointer is not what decides
    with pytest.raises(GroundupError) as caught:
        load(newer)
    assert caught.value.code == "E-CKPT-005"
    assert name in caught.value.where


def test_K3_every_single_byte_of_the_small_files_is_protected(tmp_path: Path) -> None:
    folder = save_step(tmp_path, 1)
    for name in ("state.json", "recipe.yaml", "manifest.json"):
        original = (folder / name).read_bytes()
        for position in range(0, len(original), 7):
            changed = bytearray(original)
            changed[position] ^= 0x10
            (folder / name).write_bytes(changed)
            assert {problem.file for problem in verify(folder)} == {name}
        (folder / name).write_bytes(original)
    assert not verify(folder)


def test_K3_swapped_shards_are_named_with_what_they_hold(tmp_path: Path) -> None:
    folder = save_step(tmp_path, 1)
    model, optimizer = folder / "model.safetensors", folder / "optimizer.safetensors"
    padded = {path: path.stat().st_size for path in (model, optimizer)}
    model.rename(folder / "x")
    optimizer.rename(model)
    (folder / "x").rename(optimizer)
    problems = verify(folder)
    assert {problem.file for problem in problems} == {"model.safetensors", "optimizer.safetensors"}
    if len(set(padded.values())) == 1:
        assert "holds the content of optimizer.safetensors" in problems[0].what
    reseal(folder)
    assert "holds the part optimizer, expected model" in [problem.what for problem in verify(folder)]


def test_K4_an_extra_file_is_listed(tmp_path: Path) -> None:
    folder = save_step(tmp_path, 1)
    (folder / "model-2.safetensors").write_bytes(b"")
    (folder / "more").mkdir()
    assert [problem.file for problem in verify(folder)] == ["model-2.safetensors", "more"]
    with pytest.raises(GroundupError, match="2 problems"):
        load(folder)


def test_K4_an_optimizer_of_another_step_is_found_although_all_hashes_fit(tmp_path: Path) -> None:
    older, newer = save_step(tmp_path, 90), save_step(tmp_path, 100)
    shutil.copy(older / "optimizer.safetensors", newer)
    reseal(newer)
    (problem,) = verify(newer)
    assert problem.file == "optimizer.safetensors"
    assert problem.what == "was written at step 90, the checkpoint is of step 100"
    assert newest(tmp_path).step == 90


def test_K4_a_part_of_a_run_with_another_recipe_is_found(tmp_path: Path) -> None:
    mine, other = save_step(tmp_path / "a", 5), save_step(tmp_path / "b", 5, recipe=b"a: 2\n")
    shutil.copy(other / "model.safetensors", mine)
    reseal(mine)
    (problem,) = verify(mine)
    assert problem.file == "model.safetensors"
    assert "another recipe" in problem.what


def test_a_checkpoint_under_another_steps_name_is_refused(tmp_path: Path) -> None:
    save_step(tmp_path, 1).rename(tmp_path / "step-000007")
    (problem,) = verify(tmp_path / "step-000007")
    assert problem.what == "is of step 1, the folder's name says 7"
    (tmp_path / "step-000007").rename(tmp_path / "best")
    assert not verify(tmp_path / "best")  # any other name says nothing about the step


def test_links_pipes_and_unfinished_folders_are_not_taken_for_checkpoints(tmp_path: Path) -> None:
    folder = save_step(tmp_path, 1)
    (tmp_path / "step-000002.tmp-1-0123abcd").mkdir()
    (tmp_path / "step-000003").mkdir()
    (tmp_path / "step-000004").write_text("a file")
    found = newest(tmp_path)
    assert found.path == folder
    assert [path.name for path, _ in found.rejected] == ["step-000004", "step-000003"]
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json")  # reading a pipe would wait for ever
    assert [problem.what for problem in verify(folder)] == ["is not a regular file"]
    assert newest(tmp_path / "nowhere") == (None, None, [])


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    folder = save_step(tmp_path, 1)
    content = json.loads((folder / "manifest.json").read_bytes())
    content["files"]["../latest"] = content["files"].pop("recipe.yaml")
    content["seal"] = seal_of(content)
    (folder / "manifest.json").write_bytes(render(content))
    problems = {problem.file: problem.what for problem in verify(folder)}
    assert problems["../latest"] == "is not a plain file name"


def test_K5_a_newer_layout_is_refused_with_the_version_needed(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    newer = save_step(tmp_path, 2)
    reseal(newer, schema=3, written_by="9.1.0")
    assert "layout version 3" in verify(newer)[0].what
    for attempt in (lambda: load(newer), lambda: newest(tmp_path)):
        with pytest.raises(GroundupError) as caught:
            attempt()
        assert caught.value.code == "E-CKPT-006"
        assert "install groundup 9.1.0 or newer" in caught.value.fix


def test_K5_an_older_layout_is_migrated_and_a_backup_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_step(tmp_path, 2)
    (folder / "state.json").rename(folder / "trainer.json")  # as if version 0 had called it so
    reseal(folder, schema=0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(GroundupError) as caught:
        load(folder)
    assert caught.value.code == "E-CKPT-007"

    def from_version_0(copy: Path) -> None:
        (copy / "trainer.json").rename(copy / "state.json")

    monkeypatch.setitem(MIGRATIONS, 0, from_version_0)
    assert newest(tmp_path).path == folder
    assert load(folder).state == {"step": 2}
    assert json.loads((folder / "manifest.json").read_bytes())["schema"] == 1
    assert not verify(folder)
    backup = tmp_path / "step-000002.version-0"
    assert {path.name: path.read_bytes() for path in backup.iterdir()} == before
    assert newest(tmp_path).path == folder
    save_step(tmp_path, 3)
    save_step(tmp_path, 4)
    assert backup.exists()  # retention leaves backups alone


def test_K5_a_migration_that_fails_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_step(tmp_path, 2)
    reseal(folder, schema=0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def broken(copy: Path) -> None:
        (copy / "no such file").rename(copy / "state.json")

    monkeypatch.setitem(MIGRATIONS, 0, broken)
    with pytest.raises(GroundupError) as caught:
        load(folder)
    assert caught.value.code == "E-CKPT-002"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def steps(root: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in root.glob("step-*"))


def test_retention_keeps_the_newest_and_the_milestones(tmp_path: Path) -> None:
    for step in range(0, 80, 10):
        save_step(tmp_path, step, keep_every=30)
    assert steps(tmp_path) == [0, 30, 60, 70]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["latest"]


def test_retention_counts_only_whole_checkpoints(tmp_path: Path) -> None:
    for step in (1, 2):
        save_step(tmp_path, step)
    flip_bit(tmp_path / "step-000002" / "model.safetensors")
    save_step(tmp_path, 3)
    assert steps(tmp_path) == [1, 2, 3]  # 1 and 3 are the two whole ones
    save_step(tmp_path, 4)
    assert steps(tmp_path) == [3, 4]


def test_retention_never_removes_what_was_just_saved(tmp_path: Path) -> None:
    for step in (100, 200, 50):  # after going back to step 0
        save_step(tmp_path, step)
    assert 50 in steps(tmp_path)


def test_saving_a_step_again_replaces_a_broken_one(tmp_path: Path) -> None:
    folder = save_step(tmp_path, 1)
    fill_with_zeros(folder / "manifest.json")
    save_step(tmp_path, 1)
    assert not verify(folder)


def test_an_old_checkpoint_that_is_a_link_loses_only_the_link(tmp_path: Path) -> None:
    root = tmp_path / "c"
    save_step(root, 1).rename(tmp_path / "step-000001")
    (root / "step-000001").symlink_to(tmp_path / "step-000001")
    save_step(root, 2)
    save_step(root, 3)
    assert steps(root) == [2, 3]
    assert not verify(tmp_path / "step-000001")


def test_leftovers_of_living_processes_stay_and_of_dead_ones_go(tmp_path: Path) -> None:
    other = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    try:
        alive = tmp_path / f"step-000001.tmp-{other.pid}-00000000"
        earlier = tmp_path / f"step-000001.tmp-{other.pid}-11111111"
        mine = tmp_path / f"step-000001.tmp-{os.getpid()}-22222222"
        for folder in (alive, earlier, mine):
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"half")
        os.utime(earlier, (1_000_000, 1_000_000))  # older than the process: its number was used again
        save_step(tmp_path, 2)
        assert alive.exists()
        assert not earlier.exists()
        assert not mine.exists()  # this process is not saving it, so an earlier one of the same number was
    finally:
        other.communicate()
    save_step(tmp_path, 3)
    assert not alive.exists()
