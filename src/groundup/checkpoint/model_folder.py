"""A finished model as a folder: `model.safetensors`, the files that describe it, and a manifest.

It is written and verified like a checkpoint, but has no step and no state: only what is needed to use it.
What the files mean (options, tokenizer, chat template) is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from groundup.checkpoint import disk
from groundup.checkpoint.contents import require_names, write_contents
from groundup.checkpoint.manifest import (
    MANIFEST,
    SUFFIX,
    Problem,
    is_plain_name,
    read_manifest,
    refuse_broken,
    verify,
)
from groundup.checkpoint.pickles import refuse_only_pickles
from groundup.checkpoint.tensors import Stored, num_bytes, pack_state, read_safetensors
from groundup.errors import GroundupError, printable

PART = "model"


def save_model(folder: Path, *, tensors: Mapping[str, Stored], files: Mapping[str, bytes]) -> None:
    """Write a model folder in one step; one that stands there is replaced and readable until then.

    Args:
        tensors: the model's tensors by name; tied ones are stored once, those not made yet are made in turn.
        files: the other files by name: model.json, tokenizer.json, chat.json …

    Raises:
        SaveError: E-CKPT-001 or 002, the disk has no room or refused; what stood there is untouched.
        GroundupError: E-CKPT-004, a tensor cannot be stored exactly; E-CKPT-012, something else stands there.
    """
    require_names([PART], files, reserved={MANIFEST})
    packed = pack_state(tensors)
    needed = num_bytes(packed[0]) + sum(map(len, files.values()))
    with disk.disk_faults("the model", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        disk.sweep(folder.parent, f"{folder.name}.", whole=lambda other: not verify(other))
        _refuse_to_replace_other_things(folder)
        disk.require_space(folder.parent, needed)
        disk.publish(folder, lambda new: write_contents(new, {PART: packed}, files, kind="model", step=None))


def load_model(folder: Path, *, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """Read a model folder, or the model of a checkpoint folder, after verifying it.

    Returns:
        The model's tensors by name, tied ones tied, and the other files by name.

    Raises:
        GroundupError: E-CKPT-005 if it is not whole, E-CKPT-009 if its weights are pickles, E-CKPT-011 if
            there is no model.
    """
    if not folder.exists():
        # A replacement that was killed between its two renames leaves the old model under another name.
        folder = next((old for old in disk.replaced_folders(folder) if not verify(old)), folder)
    if not folder.is_dir():
        raise _absent(folder, "there is no such model folder")
    if not (folder / MANIFEST).exists():
        refuse_only_pickles(folder)
    refuse_broken(folder, verify(folder))
    names = sorted(read_manifest(folder).files)
    if f"{PART}{SUFFIX}" not in names:
        raise _absent(folder, f"the folder has no {PART}{SUFFIX}")
    tensors = read_safetensors(folder / f"{PART}{SUFFIX}", device)
    return tensors, {name: (folder / name).read_bytes() for name in names if not name.endswith(SUFFIX)}


def load_averaged(folder: Path) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """As `load_model`, with the averaged weights of a checkpoint in place of the last ones where it holds an average:
    those are what a run hands out."""
    tensors, files = load_model(folder)
    average = folder / f"average{SUFFIX}"
    if average.is_file():
        tensors.update(read_safetensors(average, "cpu"))
    return tensors, files


def load_files(folder: Path) -> dict[str, bytes]:
    """The small files of a model or checkpoint folder, each compared with the manifest; its weights are not read.

    Raises:
        GroundupError: E-CKPT-005 if one of them is not as it was written, E-CKPT-011 if there is no manifest.
    """
    if not (folder / MANIFEST).is_file():
        refuse_only_pickles(folder)
        raise _absent(folder, "there is no model folder")
    files = {}
    for name, entry in sorted(read_manifest(folder).files.items()):
        if not is_plain_name(name) or name.endswith(SUFFIX):
            continue
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            refuse_broken(folder, [Problem(name, "is not as it was written")])
        files[name] = content
    return files


def _refuse_to_replace_other_things(folder: Path) -> None:
    """A folder that groundup did not write may be somebody's work: it is never replaced."""
    if not folder.exists() or (folder / MANIFEST).is_file():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    raise GroundupError(
        "E-CKPT-012",
        f"{printable(folder.name)} exists and is not a model folder",
        where=printable(str(folder)),
        why="saving there would remove what it holds",
        fix="choose another --out DIR, or move what is there away",
    )


def _absent(folder: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-CKPT-011",
        what,
        where=printable(str(folder)),
        why="nothing can be loaded from there",
        fix="name a model folder (it holds model.safetensors and manifest.json), a checkpoint or a run",
    )
