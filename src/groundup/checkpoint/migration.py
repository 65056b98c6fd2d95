"""Checkpoint folders of older layouts, brought up to the current one.

Each entry of `MIGRATIONS` turns a folder of version N into one of version N + 1. It works on a copy, and the
original stays beside it as `NAME.version-N`, so that a fault in a migration costs nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from groundup.checkpoint import disk
from groundup.checkpoint.manifest import MANIFEST, SCHEMA, Manifest, read_manifest, write_manifest
from groundup.errors import GroundupError, printable

MIGRATIONS: dict[int, Callable[[Path], None]] = {}
"""From a version to the function that changes a copy of a folder into the next version. The function may
add, remove and rewrite files; it leaves the manifest alone. Version 1 is the first, so there is none yet."""


def migrate(folder: Path, version: int) -> None:
    """Replace a whole folder of an older layout by its current form; the original stays as a backup.

    Raises:
        GroundupError: E-CKPT-007 where no migration starts at that version.
        SaveError: E-CKPT-002, the disk refused; the folder is as it was.
    """
    if any(number not in MIGRATIONS for number in range(version, SCHEMA)):
        raise GroundupError(
            "E-CKPT-007",
            f"{printable(folder.name)} has layout version {version}, which can no longer be read",
            where=printable(str(folder)),
            why=f"this groundup reads version {SCHEMA}, with migrations from: {sorted(MIGRATIONS) or 'none'}",
            fix="load it with the groundup that wrote it (written_by in its manifest.json) and save it anew",
        )
    manifest = read_manifest(folder)
    backup = folder.with_name(f"{folder.name}.version-{version}")
    with disk.disk_faults(f"the migrated form of {printable(folder.name)}", folder):
        disk.require_space(folder.parent, 2 * manifest.total)
        if not backup.exists():
            disk.publish(backup, lambda copy: _copy(folder, copy, [*manifest.files, MANIFEST]))
        disk.publish(folder, lambda copy: _migrated(folder, copy, manifest))


def _migrated(source: Path, copy: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        shutil.copyfile(source / name, copy / name)
    for number in range(manifest.version, SCHEMA):
        MIGRATIONS[number](copy)
    written = {path.name: disk.make_durable(path) for path in sorted(copy.iterdir())}
    write_manifest(copy, written, kind=manifest.kind, step=manifest.step)


def _copy(source: Path, copy: Path, names: list[str]) -> None:
    for name in names:
        shutil.copyfile(source / name, copy / name)
        disk.make_durable(copy / name)
