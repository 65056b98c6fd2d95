"""The header of a GGUF file, read with distrust: metadata and the table of tensors, every number of which is checked
against the size of the file before anything is allocated for it.

Layout (ggml's docs/gguf.md, version 3, little-endian): "GGUF", version, the counts of tensors and of metadata; the
metadata as key, type, value; the tensors as name, dimensions, type, offset; then the data, each tensor at a multiple
of the alignment. The file is mapped, so its data is read only when it is used. What the metadata means is not known
here, and a name is only ever a key: never a path, and escaped before it is shown.
"""

from __future__ import annotations

import mmap
import stat
import struct
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from groundup.errors import GroundupError, printable
from groundup.formats.gguf_blocks import KINDS, OTHER_KINDS

MAX_HEADER = 64 * 2**20
"""Bytes of metadata; the largest vocabularies take about ten million."""

MAX_TEXTS = 2**20
"""Texts in the metadata; the largest vocabularies with their merges have some 700,000."""

MAX_KEYS = 2**16
MAX_TENSORS = 2**17
MAX_NAME = 2**16 - 1
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 2**20

SMALLEST_KEY = 8 + 4 + 1
SMALLEST_TENSOR = 8 + 4 + 8 + 4 + 8
"""Bytes that one entry takes at the very least; a count beyond what they allow is a lie."""

_TEXT, _ARRAY = 8, 9
_SCALARS: dict[int, np.dtype[Any]] = {
    0: np.dtype("u1"),
    1: np.dtype("i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
"""The types of metadata by their numbers; 8 is a text and 9 an array of any of the others."""

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_NUMBERS = {number: kind for kind, (number, _, _) in KINDS.items()}


class Entry(NamedTuple):
    """Where one tensor lies: bytes `begin` to `end` of the file. `shape` has rows first, as torch counts."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """What a file says it holds, found consistent with itself and with its size.

    Attributes:
        metadata: whole numbers, floats, truth values, texts; arrays of numbers as numpy arrays, of texts as lists.
        tensors: by the names of the file, in its order.
        data: the bytes of the whole file, read-only.
    """

    version: int
    metadata: dict[str, Any]
    tensors: dict[str, Entry]
    data: NDArray[np.uint8]


def read_header(path: Path) -> Header:
    """Read and check everything before the data of a GGUF file.

    Raises:
        GroundupError: E-FORMAT-030 a claim of the header that cannot be true, E-FORMAT-031 another format or a
            version that is not read, E-FORMAT-034 a type of tensor that is not read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            refuse(path, "not a regular file")
        if status.st_size < 24:
            refuse(path, f"the file has {status.st_size} bytes, too few for a header")
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        refuse(path, f"the file cannot be read: {error.strerror or error}")
    return _Reader(path, data).header()


class _Reader:
    """A place in the file that moves on, and never past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.size = path, data, len(data)
        self.limit = min(self.size, MAX_HEADER)
        self.position = 0
        self.texts_read = 0

    def header(self) -> Header:
        version = self._version()
        tensor_count, key_count = self._number(_U64, "the count of tensors"), self._number(_U64, "the count of keys")
        self._check_count(key_count, SMALLEST_KEY, MAX_KEYS, "metadata keys")
        self._check_count(tensor_count, SMALLEST_TENSOR, MAX_TENSORS, "tensors")
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self._text("a metadata key", MAX_NAME)
            if key in metadata:
                refuse(self.path, f'the metadata key "{printable(key)}" occurs twice')
            metadata[key] = self._value(f'the value of "{printable(key)}"')
        entries: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
        for _ in range(tensor_count):
            name = self._text("the name of a tensor", MAX_NAME)
            if name in entries:
                refuse(self.path, f'the tensor "{printable(name)}" occurs twice')
            entries[name] = self._tensor(f'tensor "{printable(name)}"')
        alignment = self._alignment(metadata)
        start = -(-self.position // alignment) * alignment
        tensors = {
            name: self._placed(f'tensor "{printable(name)}"', entry, start, alignment)
            for name, entry in entries.items()
        }
        self._check_overlap(tensors)
        return Header(version, metadata, tensors, np.frombuffer(self.data, dtype=np.uint8))

    def _version(self) -> int:
        magic = self.data[:4]
        if magic == b"FUGG":
            _unreadable(
                self.path, "a big-endian GGUF file", "convert the model again with --outtype and no --bigendian"
            )
        if magic != b"GGUF":
            what = f'the file starts with "{printable(repr(magic)[2:-1])}", not with "GGUF"'
            if magic in (b"lmgg", b"fmgg", b"tjgg", b"algg"):
                what = "a ggml file from before GGUF"
            _unreadable(self.path, what, "name a .gguf file; llama.cpp's convert_hf_to_gguf.py makes one of a model")
        self.position = 4
        version = self._number(_U32, "the version")
        if version and version % 2**16 == 0:
            _unreadable(self.path, "a big-endian GGUF file", "convert the model again without --bigendian")
        if version not in (2, 3):
            _unreadable(
                self.path, f"GGUF version {version}, read are 2 and 3", "convert the model again with today's llama.cpp"
            )
        return version

    def _check_count(self, count: int, least: int, most: int, what: str) -> None:
        room = (self.size - self.position) // least
        if count > min(room, most):
            fault = f"the file has room for {room:,}" if count > room else f"at most {most:,} are read"
            refuse(self.path, f"the header claims {count:,} {what}, {fault}")

    def _take(self, length: int, what: str) -> int:
        """Move on by `length` bytes, and return where they begin."""
        begin = self.position
        if length > self.limit - begin:
            if begin + length <= self.size:
                refuse(self.path, f"{what} goes beyond the first {MAX_HEADER:,} bytes, more metadata is not read")
            refuse(self.path, f"{what} takes {length:,} bytes at byte {begin:,} of {self.size:,}")
        self.position = begin + length
        return begin

    def _number(self, form: struct.Struct, what: str) -> int:
        number: int = form.unpack_from(self.data, self._take(form.size, what))[0]
        return number

    def _text(self, what: str, longest: int) -> str:
        length = self._number(_U64, what)
        if length > longest:
            refuse(self.path, f"{what} claims {length:,} bytes, at most {longest:,} are read")
        begin = self._take(length, what)
        try:
            return self.data[begin : begin + length].decode("utf-8")
        except UnicodeDecodeError as error:
            refuse(self.path, f"{what} is not UTF-8: byte {error.start} of {length:,}")

    def _value(self, what: str) -> Any:
        kind = self._number(_U32, what)
        if kind == _TEXT:
            return self._text(what, MAX_HEADER)
        if kind == _ARRAY:
            return self._array(what)
        if kind not in _SCALARS:
            refuse(self.path, f"{what} has the unknown type {kind}")
        return self._scalars(_SCALARS[kind], 1, what)[0].item()

    def _array(self, what: str) -> Any:
        kind = self._number(_U32, what)
        count = self._number(_U64, what)
        if kind == _ARRAY:
            refuse(self.path, f"{what} is an array of arrays, which no known model has")
        if kind == _TEXT:
            return self._texts(count, what)
        if kind not in _SCALARS:
            refuse(self.path, f"{what} is an array of the unknown type {kind}")
        return self._scalars(_SCALARS[kind], count, what)

    def _scalars(self, dtype: np.dtype[Any], count: int, what: str) -> NDArray[Any]:
        begin = self._take(count * dtype.itemsize, what)
        if dtype.kind == "b":
            # any other byte than 0 and 1 would make a truth value that is neither
            return np.frombuffer(self.data, np.uint8, count, begin) != 0
        return np.frombuffer(self.data, dtype, count, begin)

    def _texts(self, count: int, what: str) -> list[str]:
        """`count` texts. This is where a file is read value by value, so it does without the calls above."""
        self._check_count(count, 8, MAX_TEXTS - self.texts_read, f"texts in {what}")
        self.texts_read += count
        data, limit, position, unpack = self.data, self.limit, self.position, _U64.unpack_from
        found = []
        try:
            for _ in range(count):
                begin = position + 8
                if begin > limit:
                    break
                position = begin + unpack(data, begin - 8)[0]
                if position > limit:
                    break
                found.append(data[begin:position].decode("utf-8"))
        except UnicodeDecodeError as error:
            refuse(self.path, f"{what}: text {len(found):,} is not UTF-8: byte {error.start}")
        if len(found) < count:
            refuse(self.path, f"{what}: text {len(found):,} of {count:,} ends past byte {limit:,}")
        self.position = position
        return found

    def _tensor(self, what: str) -> tuple[str, tuple[int, ...], int, int]:
        """Type, shape, bytes and offset that a file claims for a tensor."""
        dimensions = self._number(_U32, what)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            refuse(self.path, f"{what} has {dimensions:,} dimensions, not 1 to {MAX_DIMENSIONS}")
        sizes = [self._number(_U64, what) for _ in range(dimensions)]
        number, offset = self._number(_U32, what), self._number(_U64, what)
        if number not in _NUMBERS:
            _unknown_kind(self.path, what, number)
        kind = KINDS[_NUMBERS[number]]
        elements = 1
        for size in sizes:
            elements *= size
            if not 0 < elements < 2**56:
                refuse(self.path, f"{what} has a shape that no memory can hold: {printable(str(sizes), 100)}")
        if sizes[0] % kind.elements:
            refuse(
                self.path, f"{what}: rows of {sizes[0]:,} are not whole blocks of {kind.elements} ({_NUMBERS[number]})"
            )
        return _NUMBERS[number], tuple(reversed(sizes)), elements // kind.elements * kind.size, offset

    def _alignment(self, metadata: dict[str, Any]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            shown = printable(str(alignment), 40)
            refuse(self.path, f"general.alignment is {shown}, not a power of two up to {MAX_ALIGNMENT:,}")
        return alignment

    def _placed(self, what: str, entry: tuple[str, tuple[int, ...], int, int], start: int, alignment: int) -> Entry:
        kind, shape, length, offset = entry
        if offset % alignment:
            refuse(self.path, f"{what} starts at {offset:,}, which is no multiple of the alignment {alignment}")
        begin = start + offset
        if begin + length > self.size:
            refuse(self.path, f"{what} lies outside the file: bytes {begin:,} to {begin + length:,} of {self.size:,}")
        return Entry(kind, shape, begin, begin + length)

    def _check_overlap(self, tensors: dict[str, Entry]) -> None:
        end, before = 0, ""
        for name, entry in sorted(tensors.items(), key=lambda item: item[1].begin):
            if entry.begin < end:
                refuse(self.path, f'the tensors "{printable(before)}" and "{printable(name)}" overlap')
            end, before = entry.end, name


def refuse(path: Path, what: str) -> NoReturn:
    """A file that contradicts itself or its size."""
    raise GroundupError(
        "E-FORMAT-030",
        what,
        where=printable(str(path)),
        why="the file is damaged, cut short, or was made to mislead; nothing of it was loaded",
        fix="fetch the file again and compare its size and SHA-256 with those at its source",
        exit_code=2,
    )


def _unreadable(path: Path, what: str, fix: str) -> NoReturn:
    raise GroundupError(
        "E-FORMAT-031",
        f"this is not a GGUF file that can be read: {what}",
        where=printable(str(path)),
        why="GGUF versions 2 and 3, little-endian, are read; other layouts would be misread",
        fix=fix,
        exit_code=2,
    )


def _unknown_kind(path: Path, what: str, number: int) -> NoReturn:
    name = OTHER_KINDS.get(number)
    raise GroundupError(
        "E-FORMAT-034",
        f"{what} has the type {name or f'number {number}'}, which is not read",
        where=printable(str(path)),
        why=f"read are {', '.join(KINDS)}",
        fix="fetch the model in one of these types; Q8_0 or F16 lose the least",
        exit_code=2,
    )
