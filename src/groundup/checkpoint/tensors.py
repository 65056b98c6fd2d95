"""Tensors to and from safetensors files: every dtype exactly, tied tensors once.

The writer streams tensor by tensor, so that saving needs no second copy of the model in memory, and the
faults of the disk arrive as the errors they are. Reading checks the header first (header.py) and leaves the
rest to the safetensors library.

What a checkpoint consists of is not known here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from groundup.checkpoint.disk import write_file
from groundup.checkpoint.header import Header, read_header
from groundup.checkpoint.pickles import is_pickle, refuse_pickle
from groundup.errors import GroundupError, printable

ALIASES = "aliases"
"""The key of a file's metadata under which tied names are listed, as a JSON object {name: stored name}."""

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}


class Unmade(NamedTuple):
    """A tensor that is made when it is its turn to be written, and forgotten then: not all of them need memory at once.

    Attributes:
        shape, dtype: of the tensor that `make` gives.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]


Stored = Tensor | Unmade


def pack_state(state: Mapping[str, Stored]) -> tuple[dict[str, Stored], dict[str, str]]:
    """Separate the tensors of a state dict from the names that are only another name of one of them.

    Two names are tied when they show the same memory in the same way (offset, shape, strides, dtype); the
    first name in the order of `state` is stored. Views that overlap in any other way are stored in full. One that is
    not made yet is tied to itself alone.

    Returns:
        The tensors to store, and for each tied name the name it is stored under.
    """
    tensors: dict[str, Stored] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in state.items():
        _require_storable(name, tensor)
        if math.prod(tensor.shape) == 0:  # empty tensors have no memory to share
            tensors[name] = tensor
            continue
        memory: tuple[object, ...] = (id(tensor),)
        if isinstance(tensor, Tensor):
            memory = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        stored = first.setdefault(memory, name)
        if stored == name:
            tensors[name] = tensor
        else:
            aliases[name] = stored
    return tensors, aliases


def unpack_state(tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> dict[str, Tensor]:
    """The inverse of `pack_state`: tied names are the same tensor object again."""
    return {**tensors, **{name: tensors[stored] for name, stored in aliases.items()}}


def num_bytes(tensors: Mapping[str, Stored]) -> int:
    """Bytes that the data of `tensors` takes in a file."""
    return sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors.values())


def safetensors_chunks(tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file: the header, then each tensor. Equal input gives equal bytes.

    Args:
        tensors: any strided tensors on any device, contiguous or not; those not made yet are made in turn.
        metadata: texts for the header.
    """
    # Widest elements first, so that every tensor is aligned to its own element size.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name in order:
        tensor = tensors[name]
        end = position + math.prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        flat = _made(tensors[name]).detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def _made(stored: Stored) -> Tensor:
    if isinstance(stored, Tensor):
        return stored
    tensor = stored.make()
    if (tuple(tensor.shape), tensor.dtype) != (stored.shape, stored.dtype):
        raise ValueError(f"{tuple(tensor.shape)} of {tensor.dtype} was made where the header says {stored[:2]}")
    return tensor


def read_safetensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Load a safetensors file after its header was found consistent; tied tensors come back tied.

    Args:
        path: the file. A name within it is only ever a key, never a path.
        device: where the tensors are put.

    Raises:
        GroundupError: E-CKPT-008 for a file that contradicts itself, E-CKPT-009 for a pickle.
    """
    if path.is_file() and is_pickle(path):
        refuse_pickle(path)
    header = read_header(path)
    aliases = read_aliases(path, header)
    try:
        tensors: dict[str, Tensor] = load_file(path, device=device)
    except (safetensors.SafetensorError, OSError) as error:
        raise _damaged(path, f"the file cannot be loaded: {printable(str(error))}") from error
    return unpack_state(tensors, aliases)


def read_aliases(path: Path, header: Header) -> dict[str, str]:
    """The table of tied names in the metadata of a file, checked against the tensors that it holds."""
    try:
        aliases = json.loads(header.metadata.get(ALIASES, "{}"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"the tied names are not valid JSON: {printable(str(error))}") from error
    if not isinstance(aliases, dict):
        raise _damaged(path, "the tied names are not an object")
    for name, stored in aliases.items():
        if name in header.tensors or not isinstance(stored, str) or stored not in header.tensors:
            raise _damaged(path, f'the tied name "{printable(name)}" does not refer to a tensor of the file')
    return aliases


def _require_storable(name: str, tensor: Stored) -> None:
    if isinstance(tensor, Tensor) and tensor.layout is not torch.strided:
        fault = f"has the layout {tensor.layout}"
    elif isinstance(tensor, Tensor) and tensor.is_meta:
        fault = "has no data (it is on the meta device)"
    elif tensor.dtype not in DTYPE_NAMES:
        fault = f"has the dtype {tensor.dtype}"
    elif name == "__metadata__":
        fault = "has a name that the file format keeps for itself"
    else:
        return
    raise GroundupError(
        "E-CKPT-004",
        f'tensor "{printable(name)}" cannot be saved: it {fault}',
        where=f"shape {tuple(tensor.shape)}",
        why="a safetensors file holds dense tensors with data, of the dtypes "
        + ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPE_NAMES),
        fix="convert the tensor in state_dict(): .to_dense(), .to(dtype), or leave it out",
    )


def _damaged(path: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-CKPT-008",
        what,
        where=printable(str(path)),
        why="the file is damaged or was made to mislead; nothing of it was loaded",
        fix="fetch or save the file again; groundup verify FOLDER shows which of a folder's files are whole",
    )


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A new safetensors file by itself, written durably; equal input gives equal bytes."""
    write_file(path, safetensors_chunks(tensors, metadata))
