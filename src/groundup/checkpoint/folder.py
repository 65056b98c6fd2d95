"""A checkpoint is a folder, written whole or not at all.

    ROOT/step-000100/   model.safetensors  optimizer.safetensors …  state.json  recipe.yaml …  manifest.json
    ROOT/latest         the name of the newest one, for people and scripts; never trusted here

`save` writes, `newest` finds, `load` reads. A folder counts only if it verifies against its manifest
(manifest.py); what a kill or a failing disk leaves behind is ignored, and cleared up by the next save.

What the tensors and the state mean is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from groundup.checkpoint import disk
from groundup.checkpoint.contents import require_names, write_contents
from groundup.checkpoint.exact import decode_state, encode_state
from groundup.checkpoint.manifest import (
    MANIFEST,
    SCHEMA,
    SUFFIX,
    Manifest,
    Problem,
    read_manifest,
    refuse_broken,
    step_of_name,
    verify,
)
from groundup.checkpoint.migration import migrate
from groundup.checkpoint.tensors import num_bytes, pack_state, read_safetensors
from groundup.errors import GroundupError, printable

STATE = "state.json"
POINTER = "latest"
MIN_KEPT = 2


class CheckpointOptions(BaseModel):
    """Which checkpoints of a run are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    keep: int = Field(default=2, ge=MIN_KEPT, description="newest whole checkpoints kept; 2 or more")
    keep_every: int | None = Field(
        default=None, ge=1, description="checkpoints of steps divisible by this are kept for good; 1 or more"
    )


class Found(NamedTuple):
    """The newest whole checkpoint (None if there is none) and the newer ones that were passed over."""

    path: Path | None
    step: int | None
    rejected: list[tuple[Path, list[Problem]]]


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: `tensors[part][name]`, the state, and the other files by name."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    files: dict[str, bytes]


def save(
    root: Path,
    *,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: dict[str, Any],
    files: Mapping[str, bytes],
    keep: int = MIN_KEPT,
    keep_every: int | None = None,
) -> Path:
    """Write the checkpoint of a step so that a kill at any moment leaves a whole one, old or new.

    Args:
        root: the folder of all checkpoints of a run; created if needed.
        step: finished optimizer steps, 0 or more. A checkpoint of the same step is replaced.
        tensors: for each part ("model", "optimizer" …) its tensors by name: any dtype of `DTYPE_NAMES`, any
            device, contiguous or not. Tensors that share memory are stored once and come back tied.
        state: None, bool, int, float, str, list, tuple and dict; all come back exactly, inf and nan included.
        files: other files, by name. The digest of `recipe.yaml` is noted in every part.
        keep: the newest whole checkpoints that stay, 2 or more; older ones are removed.
        keep_every: checkpoints of steps divisible by this are never removed.

    Returns:
        The folder of the new checkpoint.

    Raises:
        SaveError: E-CKPT-001 or 002, the disk has no room or refused; older checkpoints are untouched.
        GroundupError: E-CKPT-003 or 004, the state or a tensor cannot be stored exactly; nothing was written.
    """
    if step < 0 or keep < MIN_KEPT:
        raise ValueError(f"step {step} must be 0 or more, keep {keep} must be {MIN_KEPT} or more")
    require_names(tensors, files, reserved={STATE, MANIFEST})
    packed = {part: pack_state(group) for part, group in tensors.items()}
    other = {**files, STATE: encode_state(state)}
    needed = sum(num_bytes(stored) for stored, _ in packed.values()) + sum(map(len, other.values()))
    final = root / f"step-{step:06d}"
    with disk.disk_faults(f"the checkpoint of step {step}", final):
        root.mkdir(parents=True, exist_ok=True)
        disk.sweep(root, "", whole=lambda folder: not verify(folder))
        disk.require_space(root, needed)
        disk.publish(final, lambda new: write_contents(new, packed, other, kind="checkpoint", step=step))
        disk.replace_file(root / POINTER, f"{final.name}\n".encode("ascii"))
        _prune(root, final, keep, keep_every)
    return final


def checkpoint_folders(root: Path) -> list[Path]:
    """The folders in `root` that are named as checkpoints, newest first, whole or not.

    A folder that was being replaced when its process was killed comes after its replacement.
    """
    if not root.is_dir():
        return []
    named = [(step_of_name(entry.name), entry) for entry in root.iterdir()]
    steps = [(step, entry) for step, entry in named if step is not None]
    return [entry for _, entry in sorted(steps, key=lambda pair: (-pair[0], len(pair[1].name), pair[1].name))]


def newest(root: Path) -> Found:
    """Find the newest checkpoint that verifies, whatever the pointer says.

    Raises:
        GroundupError: E-CKPT-006 when a newer groundup wrote the newest one: going back to an older one
            would quietly drop work.
    """
    rejected: list[tuple[Path, list[Problem]]] = []
    for folder in checkpoint_folders(root):
        problems = verify(folder)
        if not problems:
            return Found(folder, step_of_name(folder.name), rejected)
        _refuse_newer(folder)
        rejected.append((folder, problems))
    return Found(None, None, rejected)


def load(folder: Path, *, device: str = "cpu", names: tuple[str, ...] | None = None) -> Checkpoint:
    """Read a checkpoint after verifying it. One of an older layout is migrated first; a copy of it stays
    beside it under `NAME.version-N`.

    Args:
        folder: the checkpoint's folder.
        device: where the tensors are put.
        names: the parts to load, such as ("model",); None loads all.

    Raises:
        GroundupError: E-CKPT-005 with every problem if it is not whole, E-CKPT-006 if a newer groundup wrote
            it, E-CKPT-007 if its layout is too old, E-CKPT-011 if there is no such checkpoint or part.
    """
    if not folder.is_dir():
        raise _absent(folder, f"there is no checkpoint {printable(folder.name)}")
    _refuse_newer(folder)
    refuse_broken(folder, verify(folder))
    manifest = read_manifest(folder)
    if manifest.version < SCHEMA:
        migrate(folder, manifest.version)
        refuse_broken(folder, verify(folder))
        manifest = read_manifest(folder)
    if manifest.kind != "checkpoint" or manifest.step is None or STATE not in manifest.files:
        raise _absent(folder, f"{printable(folder.name)} is a {manifest.kind} folder without a run's state")
    parts = sorted(name.removesuffix(SUFFIX) for name in manifest.files if name.endswith(SUFFIX))
    absent = [name for name in names or () if name not in parts]
    if absent:
        raise _absent(folder, f"no part named {printable(absent[0])}; there are {', '.join(parts)}")
    return Checkpoint(
        step=manifest.step,
        tensors={
            part: read_safetensors(folder / f"{part}{SUFFIX}", device)
            for part in parts
            if names is None or part in names
        },
        state=_read_state(folder / STATE),
        files=_read_other_files(folder, manifest),
    )


def _prune(root: Path, saved: Path, keep: int, keep_every: int | None) -> None:
    """Remove what is older than the `keep` newest whole checkpoints, milestones excepted.

    Each of those is verified anew, because a checkpoint that has rotted since must not count as kept.
    """
    whole = 0
    for folder in checkpoint_folders(root):
        step = step_of_name(folder.name)
        assert step is not None  # checkpoint_folders lists no other names
        if whole < keep:
            whole += folder == saved or not verify(folder)
        elif folder != saved and not (keep_every and step % keep_every == 0):
            disk.remove(folder)


def _refuse_newer(folder: Path) -> None:
    try:
        read_manifest(folder)
    except GroundupError as fault:
        if fault.code == "E-CKPT-006":
            raise


def _read_state(path: Path) -> dict[str, Any]:
    try:
        return decode_state(path.read_bytes())
    except ValueError as error:
        refuse_broken(path.parent, [Problem(path.name, f"is not a state: {printable(str(error))}")])
        raise


def _read_other_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    other = [name for name in sorted(manifest.files) if name != STATE and not name.endswith(SUFFIX)]
    return {name: (folder / name).read_bytes() for name in other}


def _absent(folder: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-CKPT-011",
        what,
        where=printable(str(folder)),
        why="nothing can be loaded from there",
        fix="groundup verify RUN lists the checkpoints of a run",
    )
