"""What checkpoint and model folders have in common: parts as safetensors, other files, the manifest last.

How a folder gets its name and its place is not known here (disk.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from groundup.checkpoint.disk import write_file
from groundup.checkpoint.manifest import RECIPE, SUFFIX, is_plain_name, metadata_of, write_manifest
from groundup.checkpoint.tensors import ALIASES, Stored, safetensors_chunks


def write_contents(
    folder: Path,
    parts: Mapping[str, tuple[Mapping[str, Stored], dict[str, str]]],
    files: Mapping[str, bytes],
    *,
    kind: str,
    step: int | None,
) -> None:
    """Write all files of a folder durably, the manifest last.

    Args:
        parts: for each part its tensors and its table of tied names, as `pack_state` gives them.
        files: all other files by name.
        kind: "checkpoint" or "model".
        step: finished optimizer steps; None for a model.
    """
    recipe = hashlib.sha256(files[RECIPE]).hexdigest() if RECIPE in files else ""
    written = {}
    for part, (tensors, aliases) in parts.items():
        metadata = metadata_of(step, part, recipe) | {ALIASES: json.dumps(aliases, sort_keys=True)}
        chunks = safetensors_chunks(tensors, metadata)
        written[f"{part}{SUFFIX}"] = write_file(folder / f"{part}{SUFFIX}", chunks)
    for name, content in files.items():
        written[name] = write_file(folder / name, [content])
    write_manifest(folder, written, kind=kind, step=step)


def require_names(parts: Iterable[str], files: Iterable[str], *, reserved: set[str]) -> None:
    """Refuse names, chosen by the caller's code, that cannot stand beside each other in a folder."""
    for part in parts:
        if not is_plain_name(part):
            raise ValueError(f"the part {part!r} is not a plain name")
    for name in files:
        if not is_plain_name(name) or name in reserved or name.endswith(SUFFIX):
            raise ValueError(f"the file {name!r} is not a plain name, or is written by the folder itself")
