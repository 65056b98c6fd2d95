"""The manifest: the last file written into a folder, and the proof that the folder is whole.

`manifest.json` lists size and SHA-256 of every other file and carries a seal, the SHA-256 of its own content.
The fields `schema`, `files` and `seal` and the spelling of the JSON are alike in all versions, so that
whether a folder is whole can be told whatever wrote it. Every tensor file moreover says in its metadata which
part it is, of which step and under which recipe, so that a good file in the wrong folder is found too.

Nothing that loads tensors may enter here, and torch is not imported.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from groundup.checkpoint.disk import Written, write_file
from groundup.checkpoint.header import read_header
from groundup.errors import GroundupError, printable

SCHEMA = 1
"""The version of the layout of checkpoint and model folders that is written."""

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
SUFFIX = ".safetensors"
MAX_MANIFEST = 16 * 2**20  # bytes; a folder holds a handful of files

_STEP_NAME = re.compile(r"step-([0-9]{6,15})(?:\.old-[0-9]+-[0-9a-f]{8})?")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a folder: the file at fault, and what is wrong with it."""

    file: str
    what: str


class FileEntry(BaseModel):
    """What the manifest says of one file."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    size: int = Field(ge=0, description="bytes")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the content")


class Manifest(BaseModel):
    """The content of `manifest.json`. Unknown fields are those of another version and are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    version: int = Field(alias="schema", ge=0, description="version of the layout")
    kind: Literal["checkpoint", "model"] = Field(description="what the folder is")
    step: int | None = Field(default=None, ge=0, description="finished optimizer steps; a model has none")
    files: dict[str, FileEntry] = Field(description="every other file of the folder, by name")

    @property
    def total(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files.values())


def step_of_name(name: str) -> int | None:
    """The step that a checkpoint folder's name says, or None if it is not such a name."""
    match = _STEP_NAME.fullmatch(name)
    return int(match[1]) if match else None


def is_plain_name(name: str) -> bool:
    """Whether `name` can be the name of a file of a folder: no separators, no dots in front, ASCII."""
    return _FILE_NAME.fullmatch(name) is not None


def write_manifest(folder: Path, files: dict[str, Written], *, kind: str, step: int | None) -> None:
    """Write `manifest.json` durably; `files` are all other files of the folder, already on the disk."""
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": kind,
        "step": step,
        "written_by": _groundup_version(),
        "files": {name: files[name]._asdict() for name in sorted(files)},
        "total": sum(entry.size for entry in files.values()),
    }
    content["seal"] = seal_of(content)
    write_file(folder / MANIFEST, [render(content)])


def render(content: dict[str, Any]) -> bytes:
    """The only spelling of a manifest that is accepted, so that no byte of it can change unnoticed."""
    return json.dumps(content, indent=1).encode("ascii") + b"\n"


def _groundup_version() -> str:
    try:
        return importlib.metadata.version("groundup")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was not installed
        return "unknown"


def seal_of(content: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content without its seal, in hexadecimal."""
    unsealed = {key: value for key, value in content.items() if key != "seal"}
    return hashlib.sha256(json.dumps(unsealed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint or model folder, of this version or an older one.

    Raises:
        GroundupError: E-CKPT-005 where it is missing or damaged, E-CKPT-006 where the version is newer.
    """
    path = folder / MANIFEST
    try:
        if not stat.S_ISREG(path.stat().st_mode) or path.stat().st_size > MAX_MANIFEST:
            raise _damaged(path, "is not a manifest")
        raw = path.read_bytes()
        content = json.loads(raw)
        if not isinstance(content, dict) or content.get("seal") != seal_of(content) or raw != render(content):
            raise _damaged(path, "was changed after it was written (its seal does not fit)")
    except FileNotFoundError as error:
        raise _damaged(path, "is missing: the folder was never finished") from error
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"is not valid JSON: {printable(str(error))}") from error
    version = content.get("schema")
    if isinstance(version, int) and version > SCHEMA:
        raise _newer(path, version, str(content.get("written_by", "unknown")))
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = printable(".".join(str(part) for part in first["loc"]))
        raise _damaged(path, f"is not a manifest: {field}: {printable(first['msg'])}") from error


def verify(folder: Path) -> list[Problem]:
    """Everything that is wrong with a checkpoint or model folder; an empty list means that it is whole.

    Every file is read and hashed, so this takes the time of reading the folder once. Nothing is changed.
    """
    try:
        manifest = read_manifest(folder)
        present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    except GroundupError as fault:
        return [Problem(MANIFEST, fault.what)]
    except OSError as error:
        return [Problem(".", f"cannot be read: {error.strerror or error}")]
    problems = []
    named = step_of_name(folder.name)
    if manifest.kind == "checkpoint" and named is not None and named != manifest.step:
        problems.append(Problem(MANIFEST, f"is of step {manifest.step}, the folder's name says {named}"))
    for name in sorted(manifest.files):
        if not is_plain_name(name):
            problems.append(Problem(name, "is not a plain file name"))
        elif name not in present:
            problems.append(Problem(name, "is missing"))
        else:
            problems += [Problem(name, what) for what in _faults(folder / name, manifest)]
    problems += [Problem(name, "does not belong here") for name in sorted(present - set(manifest.files))]
    return problems


def metadata_of(manifest_step: int | None, part: str, recipe_sha256: str) -> dict[str, str]:
    """What the tensor file of a part must say of itself in its metadata."""
    step = "" if manifest_step is None else str(manifest_step)
    return {"format": "pt", "part": part, "step": step, "recipe": recipe_sha256}


def refuse_broken(folder: Path, problems: list[Problem]) -> None:
    """Raise E-CKPT-005 with every problem listed; pass if there is none."""
    if not problems:
        return
    lines = [f"{printable(problem.file)}: {problem.what}" for problem in problems]
    raise GroundupError(
        "E-CKPT-005",
        f"{printable(folder.name)} is not whole: {len(problems)} problem{'s' if len(problems) > 1 else ''}",
        where="\n".join([printable(str(folder)), *lines]),
        why="it was damaged, changed by hand, or never finished; nothing of it was loaded",
        fix="take another checkpoint (groundup verify RUN lists those that are whole),\n"
        "or put the files back as they were",
    )


def _faults(path: Path, manifest: Manifest) -> list[str]:
    """What is wrong with one file that is listed and present."""
    expected = manifest.files[path.name]
    faults = []
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return ["is not a regular file"]
        if status.st_size != expected.size:
            return [f"has {status.st_size:,} bytes, expected {expected.size:,}"]
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return [f"cannot be read: {error.strerror or error}"]
    if found != expected.sha256:
        twin = next((name for name, entry in manifest.files.items() if entry.sha256 == found), None)
        held = f"holds the content of {printable(twin)}" if twin else "its content changed"
        faults.append(f"{held} (SHA-256 {found[:12]}…, expected {expected.sha256[:12]}…)")
    if path.suffix == SUFFIX and manifest.version == SCHEMA:
        faults += _metadata_faults(path, manifest)
    return faults


def _metadata_faults(path: Path, manifest: Manifest) -> list[str]:
    try:
        metadata = read_header(path).metadata
    except GroundupError as fault:
        return [fault.what]
    recipe = manifest.files.get(RECIPE)
    expected = metadata_of(manifest.step, path.stem, recipe.sha256 if recipe else "")
    faults = []
    for key, sentence in (
        ("part", "holds the part {found}, expected {expected}"),
        ("step", "was written at step {found}, the checkpoint is of step {expected}"),
        ("recipe", "was written under another recipe ({found:.12}…, the checkpoint has {expected:.12}…)"),
    ):
        found = printable(metadata.get(key, "unknown"), 80)
        if found != expected[key]:
            faults.append(sentence.format(found=found, expected=expected[key]))
    return faults


def _damaged(path: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-CKPT-005",
        what,
        where=printable(str(path)),
        why="without its manifest nothing says whether a folder is whole, so it is not used",
        fix="take another checkpoint (groundup verify RUN lists those that are whole)",
    )


def _newer(path: Path, version: int, written_by: str) -> GroundupError:
    return GroundupError(
        "E-CKPT-006",
        f"has layout version {version}, this groundup reads up to {SCHEMA}",
        where=printable(str(path)),
        why=f"it was written by groundup {printable(written_by, 40)}; guessing at a newer layout loses state",
        fix=f"install groundup {printable(written_by, 40)} or newer",
    )
