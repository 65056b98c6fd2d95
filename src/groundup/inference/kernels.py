"""The C functions of decoder.c and pack.c; see compiled/compiler.py for how they are made.

Where they cannot be, generation takes the plain form (runners.py); `doctor` and the server say which one is used.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from groundup.compiled.compiler import Unavailable, library, refusal

SOURCES = [Path(__file__).with_name(name) for name in ("decoder.c", "pack.c")]
SWITCH = "GROUNDUP_PLAIN_GENERATION"
"""Set to 1: do without, as if there were no compiler."""


class MatrixStruct(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class LayerStruct(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("input_norm", "post_norm", "query_norm", "key_norm")),
        *((name, MatrixStruct) for name in ("qkv", "out", "gate_up", "down")),
    )


class ModelStruct(ctypes.Structure):
    _fields_ = (
        *((n, ctypes.c_int64) for n in ("layers", "width", "heads", "key_heads", "head_size", "hidden", "window")),
        ("epsilon", ctypes.c_float),
        ("cosine", ctypes.c_void_p),
        ("sine", ctypes.c_void_p),
        ("layer", ctypes.POINTER(LayerStruct)),
        ("embedding", MatrixStruct),
        ("head", MatrixStruct),
        ("norm", ctypes.c_void_p),
    )


class SegmentStruct(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "seen", "capacity", "last")),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
    )


@cache
def functions() -> ctypes.CDLL:
    """The compiled functions.

    Raises:
        Unavailable: there is no compiler, it fails, or the machine is not one that this was written for.
    """
    if os.environ.get(SWITCH) == "1":
        raise Unavailable(f"{SWITCH}=1 is set")
    loaded = library("decoder", SOURCES)
    loaded.scratch_floats.restype = loaded.run.restype = ctypes.c_int64
    return loaded


def why_not() -> str | None:
    """Why there are no compiled functions; None if there are."""
    return refusal(functions)
