"""The header of a safetensors file, read with distrust: every number is checked against the size of the file
before anything is allocated for it.

Layout: 8 bytes with the length of the header (little-endian), the header as a JSON object
`{name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}`, then the data of the tensors without
gaps. Names are only ever keys: they are never used as paths, and they are escaped before they are shown.

Nothing that loads tensors may enter here, and torch is not imported.
"""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from groundup.errors import GroundupError, printable

ITEM_SIZE = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "C64": 8,
}
"""Bytes per element of each dtype that is read and written, by its name in the file."""

MAX_HEADER = 16 * 2**20
"""Bytes; room for more than a hundred thousand tensors, and little enough to parse safely."""

MAX_DIMENSIONS = 64


class Entry(NamedTuple):
    """Where one tensor lies in the data part of the file: bytes `begin` to `end`."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """What a file says it holds, found consistent with itself and with the size of the file."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file; the data is not read.

    Raises:
        GroundupError: E-CKPT-008, saying which claim of the header cannot be true.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            _refuse(path, "not a regular file")
        with path.open("rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                _refuse(path, f"the file has {status.st_size} bytes, too few for the length of a header")
            length = int.from_bytes(prefix, "little")
            if length > status.st_size - 8:
                _refuse(path, f"the header claims {length:,} bytes, the file has {status.st_size:,}")
            if length > MAX_HEADER:
                _refuse(path, f"the header claims {length:,} bytes, at most {MAX_HEADER:,} are read")
            text = file.read(length)
    except OSError as error:
        _refuse(path, f"the file cannot be read: {error.strerror or error}")
    return _check(path, _parse(path, text), data_size=status.st_size - 8 - length)


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            raise ValueError(f'the name "{printable(twice)}" occurs twice')
        return content

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON value")

    if not text.startswith(b"{"):
        _refuse(path, "the header does not start with {")
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"the header is not valid JSON: {printable(str(error))}")
    assert isinstance(content, dict)  # it starts with a brace
    return content


def _check(path: Path, content: dict[str, Any], data_size: int) -> Header:
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(path, "__metadata__ is not an object of texts")
    entries = {name: _entry(path, name, value, data_size) for name, value in content.items()}
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            fault = "overlaps the tensor before it" if entry.begin < position else "leaves a gap before it"
            _refuse(path, f'tensor "{printable(name)}" {fault}: starts at {entry.begin:,}, not {position:,}')
        position = entry.end
    if position != data_size:
        _refuse(path, f"the tensors take {position:,} bytes, the file has {data_size:,} bytes of data")
    return Header(entries, metadata)


def _entry(path: Path, name: str, value: Any, data_size: int) -> Entry:
    shown = f'tensor "{printable(name)}"'
    if not _is_text(name):
        _refuse(path, f"{shown} has a name that is not valid Unicode")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"{shown} does not have exactly the fields dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZE:
        named = printable(dtype, 40) if isinstance(dtype, str) else f"of type {type(dtype).__name__}"
        _refuse(path, f"{shown} has an unknown dtype {named}")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        _refuse(path, f"{shown} has a shape that is not at most {MAX_DIMENSIONS} whole numbers from 0 up")
    if not _are_counts(offsets) or len(offsets) != 2:
        _refuse(path, f"{shown} has data_offsets that are not two whole numbers from 0 up")
    begin, end = offsets
    if not begin <= end <= data_size:
        where = f"{printable(str(begin), 24)} to {printable(str(end), 24)}"
        _refuse(path, f"{shown} lies outside the file: bytes {where} of {data_size:,}")
    elements = extent = 1
    for size in shape:
        elements *= size
        extent *= max(size, 1)
        # Zeros do not save a shape whose strides no integer can hold.
        if extent >= 2**56:
            _refuse(path, f"{shown} has a shape that no memory can hold: {printable(str(shape), 80)}")
    if elements * ITEM_SIZE[dtype] != end - begin:
        needed = f"{elements:,} elements of {dtype} need {elements * ITEM_SIZE[dtype]:,} bytes"
        _refuse(path, f"{shown} does not fit its data: {needed}, it has {end - begin:,}")
    return Entry(dtype, tuple(shape), begin, end)


def _are_counts(value: Any) -> bool:
    # bool is a kind of int in Python, and true is not a size.
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse(path: Path, what: str) -> NoReturn:
    raise GroundupError(
        "E-CKPT-008",
        what,
        where=printable(str(path)),
        why="the file is damaged, cut short, or was made to mislead; nothing of it was loaded",
        fix="fetch or save the file again; groundup verify FOLDER shows which of a folder's files are whole",
    )
