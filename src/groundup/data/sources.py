"""Files to read: what names, folders and globs stand for, and byte streams that cannot flood the machine.

Everything here trusts no file: formats are told by suffix and checked by content, compressed files are read
through caps, archives are refused. No torch.
"""

from __future__ import annotations

import glob
import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from groundup.data.files import file_sha256
from groundup.errors import GroundupError, printable

FORMATS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
    ".py": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
ARCHIVES = (".tar", ".tgz", ".zip", ".7z", ".rar")
MAX_RATIO = 200
"""Unpacked bytes for each packed byte; text packs 3 to 10 times, a log of equal lines perhaps 100."""
RATIO_FROM = 1 << 24
"""Below this many unpacked bytes the ratio is not judged."""
MAX_UNPACKED = 1 << 36


class BadFile(GroundupError):
    """A file that cannot be read to its end. `on_bad_file: skip` goes on with the others."""


@dataclass(frozen=True)
class Source:
    """One file to read.

    Attributes:
        name: how it is shown and recorded: the path as it was asked for.
        group: its path within the folder that was asked for, or its file name: the same on every machine.
    """

    path: Path
    name: str
    group: str
    format: str
    packed: bool
    held_out: bool
    size: int
    sha256: str


def file_format(path: Path) -> tuple[str | None, bool]:
    """The format by suffix (None if there is no reader for it), and whether the file is gzip."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    last = (
        suffixes[-2] if packed and len(suffixes) > 1 else "" if packed else suffixes[-1] if suffixes else ""
    )
    return FORMATS.get(last), packed


def find_files(patterns: list[str], exclude: Path | None = None) -> tuple[list[tuple[Path, str, str]], int]:
    """Expand paths, folders and globs into files, in a fixed order and each once.

    Args:
        exclude: a folder whose content is never input: the output.

    Returns:
        Triples of path, name and group (see `Source`); and how many files in folders have no reader.

    Raises:
        GroundupError: a name matches nothing, or names a file of a kind that has no reader.
    """
    chosen: dict[Path, tuple[Path, str, str]] = {}
    ignored = 0
    for pattern in patterns:
        expanded = Path(pattern).expanduser()
        if expanded.is_dir():
            found, skipped = _files_within(expanded, exclude)
            ignored += skipped
            pairs = [(path, path.relative_to(expanded).as_posix()) for path in found]
        elif expanded.exists():
            pairs = [(expanded, expanded.name)]
        else:
            matches = sorted(glob.glob(str(expanded), recursive=True))  # noqa: PTH207  Path.glob refuses absolute patterns
            pairs = [(Path(match), Path(match).name) for match in matches if Path(match).is_file()]
        if not pairs:
            raise _nothing_found(pattern, expanded)
        for path, group in pairs:
            refuse_unreadable(path)
            chosen.setdefault(path.resolve(), (path, str(path), group))
    return list(chosen.values()), ignored


def _files_within(folder: Path, exclude: Path | None) -> tuple[list[Path], int]:
    found, ignored = [], 0
    for path in sorted(folder.rglob("*"), key=lambda path: path.as_posix()):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file() or (exclude is not None and path.resolve().is_relative_to(exclude)):
            continue
        if file_format(path)[0] is None:
            ignored += 1
        else:
            found.append(path)
    return found, ignored


def _nothing_found(pattern: str, expanded: Path) -> GroundupError:
    folder = expanded.is_dir()
    return GroundupError(
        "E-DATA-002",
        f"no file to read: {printable(pattern)}",
        where=str(expanded),
        why="the folder holds no file of a known kind"
        if folder
        else "neither a file, nor a folder, nor a matching glob",
        fix=f"name files of these kinds (each also .gz): {' '.join(FORMATS)}",
    )


def refuse_unreadable(path: Path) -> None:
    """Refuse archives and kinds of files that have no reader."""
    name = path.name.lower()
    if file_format(path)[0] is not None:
        return
    archive = name.endswith(ARCHIVES) or ".tar." in name
    raise GroundupError(
        "E-DATA-008",
        f"{'an archive' if archive else 'a file of this kind'} cannot be read: {printable(path.name)}",
        where=str(path),
        why="members of an archive can point outside it and unpack without bound, so none is opened"
        if archive
        else f"known kinds, each also .gz: {' '.join(FORMATS)}",
        fix="unpack it yourself and give the folder"
        if archive
        else "convert it to text or .jsonl, or rename it",
    )


def open_sources(
    patterns: list[str], held_out_patterns: list[str], exclude: Path | None = None
) -> tuple[list[Source], int]:
    """Find and hash all input files; files that are held out come from `held_out_patterns` or both lists."""
    listed, ignored = find_files(patterns, exclude)
    held_out = find_files(held_out_patterns, exclude)[0] if held_out_patterns else []
    apart = {path.resolve() for path, _, _ in held_out}
    known = {path.resolve() for path, _, _ in listed}
    listed += [item for item in held_out if item[0].resolve() not in known]
    sources = []
    for path, name, group in listed:
        kind, packed = file_format(path)
        try:
            size, sha256 = path.stat().st_size, file_sha256(path)
        except OSError as error:
            raise unreadable(path, error) from error
        sources.append(Source(path, name, group, str(kind), packed, path.resolve() in apart, size, sha256))
    return sources, ignored


def unreadable(path: Path, error: OSError) -> BadFile:
    """The error for a file that the system would not let us read."""
    return BadFile(
        "E-DATA-002",
        f"cannot read {printable(path.name)}: {error.strerror}",
        where=str(path),
        why="a file that was named is expected to be used",
        fix="make it readable, or leave it out",
    )


def broken(path: Path, what: str, fix: str = "") -> BadFile:
    """The error for a file that is damaged or is not what its name says."""
    return BadFile(
        "E-DATA-009",
        f"{printable(path.name)}: {printable(what)}",
        where=str(path),
        why="a damaged file is usually an incomplete download; what follows the damage is lost",
        fix=fix or "fetch it again, or go on without it: data.on_bad_file=skip",
    )


class ByteStream:
    """The bytes of a source, unpacked if it is gzip, read piece by piece within the caps.

    Raises:
        BadFile: the file is damaged, unpacks too far, or is not what its name says.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.unpacked = 0
        try:
            self._file: BinaryIO = source.path.open("rb")
        except OSError as error:
            raise unreadable(source.path, error) from error
        if source.packed:
            self._file = io.BufferedReader(gzip.GzipFile(fileobj=self._file), 1 << 16)

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        try:
            piece = self._file.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise broken(
                self.source.path, f"not whole gzip data after {self.unpacked:,} bytes: {error}"
            ) from error
        except OSError as error:
            raise unreadable(self.source.path, error) from error
        if self.unpacked == 0:
            self._look_at_head(piece)
        self.unpacked += len(piece)
        if self.source.packed:
            self._check_caps()
        return piece

    def _look_at_head(self, head: bytes) -> None:
        path = self.source.path
        if head[257:262] == b"ustar":
            raise broken(path, "a tar archive under another name", "unpack it yourself and give the folder")
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            fix = "convert it: iconv -f UTF-16 -t UTF-8, or open and save it as UTF-8"
            raise broken(path, "UTF-16 text, expected UTF-8", fix)
        if head[:2] == b"\x1f\x8b":
            raise broken(path, "gzip data under a name without .gz", "add .gz to its name")

    def _check_caps(self) -> None:
        ratio = self.unpacked / max(self.source.size, 1)
        if self.unpacked <= MAX_UNPACKED and (self.unpacked < RATIO_FROM or ratio <= MAX_RATIO):
            return
        raise BadFile(
            "E-DATA-007",
            f"{printable(self.source.path.name)} unpacks too far: {self.source.size:,} bytes became more than "
            f"{self.unpacked:,} (limits: {MAX_RATIO} times, {MAX_UNPACKED:,} bytes)",
            where=str(self.source.path),
            why="a small file that fills the disk or memory is how an archive bomb works",
            fix="if you trust it, unpack it yourself (gunzip) and give the unpacked file",
        )
