"""GGUF files out: a model and its tokenizer in one file that llama.cpp loads.

The file is written tensor by tensor to a temporary name, made safe on disk and renamed, so that a name that looks
finished is. Numbers are little-endian, version 3, alignment 32. What a network is called on the other side stands in
gguf_layout.py, the blocks in gguf_blocks.py, the tokenizer in gguf_tokenizer_out.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor

from groundup.errors import GroundupError, printable
from groundup.formats.foreign import ForeignTokenizer
from groundup.formats.gguf_blocks import KINDS, quantize
from groundup.formats.gguf_layout import (
    ARCHITECTURES,
    ROPE_FACTORS,
    gguf_name,
    rope_factors,
    rotated_heads,
    to_interleaved,
)
from groundup.formats.gguf_tokenizer_out import tokenizer_metadata
from groundup.formats.keys import require_keys
from groundup.formats.shapes import expected_shapes

ALIGNMENT = 32

FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "BF16": 32}
"""`general.file_type`: what most of the tensors are, by the numbers of llama.h."""

LARGEST = {"F16": 65504.0, "Q8_0": 65504.0 * 127, "Q4_0": 65504.0 * 8}
"""The largest weight of each type whose scale is a half-precision number."""

Dtype = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0"]


def write_gguf(
    path: Path,
    family: str,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    tokenizer: ForeignTokenizer,
    *,
    dtype: Dtype,
    name: str,
) -> tuple[str, ...]:
    """Write a model as a GGUF file.

    Norms, biases, tables of positions and routers stay F32. Matrices whose rows are no multiple of 32 become F16 where
    blocks were asked for, and with Q4_0 the embedding and the output matrix are Q8_0.

    Args:
        path: of the file; a file there is replaced when the new one is whole.
        family: llama, moe or gpt2.
        options: all fields of the family's options.
        tensors: by groundup's own names; a tied head may be there or not.
        tokenizer: with its roles and template.
        dtype: what matrices are stored as.
        name: `general.name`.
    Returns:
        What a careful reader should know, one sentence each.
    Raises:
        GroundupError: E-FORMAT-036 if llama.cpp has no such model, or a weight does not fit the type; E-FORMAT-001 if
            `tensors` are not those of `options`.
        OSError: the disk is full or does not let this user write.
    """
    architecture = _architecture(family, options)
    shapes = expected_shapes(family, options)
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items() if key in shapes or not _is_tied(key, options)}
    require_keys(shapes, given, name)
    facts, notes = tokenizer_metadata(tokenizer, int(options["vocabulary"]))
    metadata = {**_general(architecture, dtype, name), **_sizes(architecture, options), **facts}
    kinds = {key: _kind(key, shape, dtype) for key, shape in shapes.items()}
    plan = [(gguf_name(key), shape, kinds[key]) for key, shape in shapes.items()]
    factors = _factors(options)
    if factors is not None:
        plan.append((ROPE_FACTORS, tuple(factors.shape), "F32"))
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            _write_header(file, metadata, plan)
            for key in shapes:
                tensor = tensors[key]
                heads = rotated_heads(key, options) if ARCHITECTURES[architecture].interleaved else None
                _check_range(key, tensor, kinds[key])
                _write_data(file, tensor if heads is None else to_interleaved(tensor, heads), kinds[key])
            if factors is not None:
                _write_data(file, factors, "F32")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return (*notes, *_exceptions(kinds, dtype))


def _is_tied(key: str, options: Mapping[str, Any]) -> bool:
    return key == "head.weight" and bool(options["tied"])


def _architecture(family: str, options: Mapping[str, Any]) -> str:
    """The name under which llama.cpp has this network."""
    window, scaling = options.get("sliding_window"), options.get("rotary_scaling")
    bias, normed = options.get("attention_bias", False), options.get("query_key_norm", False)
    if family == "gpt2":
        return "gpt2"
    if family == "moe":
        if not options.get("normalise_routes", True):
            _refuse("its routes are not normalised", "llama.cpp's qwen3moe always normalises them")
        return "qwen3moe"
    if family != "llama":
        _refuse(f"the family {printable(family, 40)} is not written", "llama, moe and gpt2 are")
    if window is not None and window < options["context"]:
        _refuse(f"it has a sliding window of {window}", "llama.cpp has none in the architectures that fit otherwise")
    if normed and (bias or scaling is not None):
        both = "biases in attention" if bias else "rotary scaling"
        _refuse(f"it has query-key norm together with {both}", "llama.cpp has no architecture with both")
    if normed:
        return "qwen3"
    square = options["heads"] * options["head_size"] == options["width"]
    return "qwen2" if bias is True and scaling is None and square else "llama"


def _general(architecture: str, dtype: Dtype, name: str) -> dict[str, Any]:
    return {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": name,
        "general.alignment": ALIGNMENT,
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": 2,
    }


def _sizes(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the architecture; counts are whole numbers, the others single-precision floats."""
    sizes: dict[str, Any] = {
        "vocab_size": options["vocabulary"],
        "context_length": options["context"],
        "embedding_length": options["width"],
        "block_count": options["layers"],
        "feed_forward_length": options["hidden"],
        "attention.head_count": options["heads"],
    }
    epsilon = float(options.get("norm_epsilon", 1e-5))
    if architecture == "gpt2":
        sizes["attention.layer_norm_epsilon"] = epsilon
    else:
        sizes |= {
            "attention.head_count_kv": options["key_value_heads"],
            "attention.key_length": options["head_size"],
            "attention.value_length": options["head_size"],
            "attention.layer_norm_rms_epsilon": epsilon,
            "rope.dimension_count": options["head_size"],
            "rope.freq_base": float(options.get("rotary_base", 10000.0)),
        }
    if architecture == "qwen3moe":
        sizes |= {
            "expert_count": options["experts"],
            "expert_used_count": options["experts_per_token"],
            "expert_feed_forward_length": options["hidden"],
        }
    return {f"{architecture}.{key}": value for key, value in sizes.items()}


def _kind(key: str, shape: tuple[int, ...], dtype: Dtype) -> str:
    if len(shape) == 1 or key.endswith("router.weight") or key == "position_embedding.weight":
        return "F32"
    if dtype in ("Q8_0", "Q4_0") and shape[-1] % KINDS[dtype].elements:
        return "F16"
    return "Q8_0" if dtype == "Q4_0" and key in ("embedding.weight", "head.weight") else dtype


def _exceptions(kinds: Mapping[str, str], dtype: Dtype) -> list[str]:
    """Sentences about matrices that are not stored as was asked."""
    notes = []
    narrow = [key for key, kind in kinds.items() if kind == "F16" and dtype in ("Q8_0", "Q4_0")]
    if narrow:
        notes.append(f"{len(narrow)} matrices have rows that are no multiple of 32 and are F16, not {dtype}")
    if dtype == "Q4_0":
        notes.append("the embedding and the output matrix are Q8_0: they suffer most from four bits")
    return notes


def _factors(options: Mapping[str, Any]) -> Tensor | None:
    scaling = options.get("rotary_scaling")
    if scaling is None:
        return None
    return rope_factors(int(options["head_size"]), float(options.get("rotary_base", 10000.0)), scaling)


def _check_range(key: str, tensor: Tensor, kind: str) -> None:
    largest = float(torch.linalg.vector_norm(tensor.detach().float(), float("inf")))
    if not np.isfinite(largest):
        _refuse(f"{key} holds weights that are not finite", "the model was damaged, or its training diverged")
    if largest > LARGEST.get(kind, np.inf):
        _refuse(f"{key} holds {largest:.6g}, {kind} reaches {LARGEST[kind]:.6g}", "it would become infinite")


def _write_header(file: BinaryIO, metadata: Mapping[str, Any], plan: list[tuple[str, tuple[int, ...], str]]) -> None:
    file.write(b"GGUF" + struct.pack("<IQQ", 3, len(plan), len(metadata)))
    for key, value in metadata.items():
        file.write(_text(key) + _value(value))
    offset = 0
    for name, shape, kind in plan:
        number, elements, size = KINDS[kind]
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        file.write(_text(name) + sizes + struct.pack("<IQ", number, offset))
        length = int(np.prod(shape, dtype=np.int64)) // elements * size
        offset += length + -length % ALIGNMENT
    file.write(bytes(-file.tell() % ALIGNMENT))


def _write_data(file: BinaryIO, tensor: Tensor, kind: str) -> None:
    data = quantize(kind, tensor)
    file.write(data.data)
    file.write(bytes(-data.size % ALIGNMENT))


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """Type and value of one piece of metadata."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_text(text) for text in value)
    number = {"int32": 5, "float32": 6}[value.dtype.name]
    return struct.pack("<IIQ", 9, number, len(value)) + value.tobytes()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse(what: str, why: str) -> NoReturn:
    raise GroundupError(
        "E-FORMAT-036",
        f"this model cannot be written as a GGUF file: {what}",
        where="model",
        why=why,
        fix="export it to Hugging Face's layout: groundup export MODEL --to huggingface --out DIR",
        exit_code=2,
    )
