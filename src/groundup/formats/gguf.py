"""GGUF files in: the model in groundup's own names, dequantized to float32 tensor by tensor as it is asked for.

The header is checked before anything else (gguf_header.py); then the metadata is turned into the options of a family,
the names and shapes of all tensors are compared with what those options need, and the tokenizer is built. Only then
is data read. Parsing, block types and names live in the files beside this one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from groundup.errors import GroundupError, nearest, printable
from groundup.formats.foreign import ForeignModel, MadeOnDemand
from groundup.formats.gguf_blocks import dequantize
from groundup.formats.gguf_header import Header, read_header
from groundup.formats.gguf_layout import (
    ARCHITECTURES,
    ROPE_FACTORS,
    from_interleaved,
    gguf_name,
    rotated_heads,
    scaling_from_factors,
)
from groundup.formats.gguf_tokenizer import read_tokenizer
from groundup.formats.keys import require_keys
from groundup.formats.shapes import expected_shapes

MAX_CONTEXT = 2**20
"""Positions, as for the other formats; a claim beyond it would make a table of rotary angles that no memory holds."""


def read_gguf(path: Path) -> ForeignModel:
    """Read a GGUF file.

    The tensors are dequantized when they are taken out of the mapping, each time anew, so that looking at a file is
    cheap and loading it needs memory for one tensor at a time; the file must stay as it is until then.

    Raises:
        GroundupError: E-FORMAT-001 tensors that do not fit the metadata, E-FORMAT-030 and 031 a file that cannot be
            read, 032 an architecture, 033 metadata, 034 a type of tensor, 035 a tokenizer that is not supported.
    """
    path = Path(path)
    header = read_header(path)
    facts = Facts(path, header.metadata)
    name = facts.text("general.architecture")
    facts.check()
    if name not in ARCHITECTURES:
        _unknown_architecture(path, name)
    options = _options(facts, header, name)
    oddities: list[str] = []
    named = _named(path, header, name, options, oddities)
    tensors = _Tensors(header, named, options, ARCHITECTURES[name].interleaved)
    tokenizer, notes = read_tokenizer(path, header.metadata, options["vocabulary"])
    kinds = Counter(entry.kind for entry in header.tensors.values())
    details = {
        "file": path.name,
        "bytes": int(header.data.size),
        "version": header.version,
        "architecture": name,
        "name": header.metadata.get("general.name"),
        "tensors": len(header.tensors),
        "types": dict(sorted(kinds.items())),
        "pre_tokenizer": header.metadata.get("tokenizer.ggml.pre"),
    }
    family = ARCHITECTURES[name].family
    return ForeignModel("gguf", family, options, tensors, tokenizer, details, (*oddities, *notes))


class Facts:
    """Metadata by key and type. A missing or ill-typed value is noted, and `check` reports all of them at once."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path, self.metadata = path, metadata
        self.faults: list[str] = []

    def whole(self, key: str, default: int | None = None, most: int = 2**31) -> int:
        """A whole number from 1 to `most`."""
        value = self.metadata.get(key, default)
        if type(value) is int and 0 < value <= most:
            return value
        self._fault(key, value, f"a whole number from 1 to {most:,}")
        return 1

    def positive(self, key: str, default: float | None = None) -> float:
        """A finite number above zero. Files hold single precision; the shortest decimal with that value is meant."""
        value = self.metadata.get(key, default)
        if type(value) is float and math.isfinite(value) and value > 0:
            return float(str(np.float32(value))) if abs(value) < 1e38 else value
        self._fault(key, value, "a number above zero")
        return 1.0

    def text(self, key: str) -> str:
        value = self.metadata.get(key)
        if isinstance(value, str):
            return value
        self._fault(key, value, "a text")
        return ""

    def _fault(self, key: str, value: Any, expected: str) -> None:
        found = "missing" if value is None else f"{printable(repr(value), 60)}"
        self.faults.append(f"{key} is {found}, expected {expected}")

    def check(self) -> None:
        """Raises: GroundupError: E-FORMAT-033 with every fault that was noted."""
        if self.faults:
            raise GroundupError(
                "E-FORMAT-033",
                f"the metadata does not describe a model that can be built: {self.faults[0]}"
                + (f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""),
                where="\n".join([printable(str(self.path)), *(f"    {fault}" for fault in self.faults)]),
                why="a network built from guesses runs, and answers nonsense",
                fix="fetch the model in another format, or convert it again with today's convert_hf_to_gguf.py",
                exit_code=2,
            )


def _options(facts: Facts, header: Header, name: str) -> dict[str, Any]:
    """The options of the family, from metadata and the shapes that the metadata leaves out."""
    tensors = header.tensors
    if "token_embd.weight" not in tensors or len(tensors["token_embd.weight"].shape) != 2:
        facts.faults.append("the tensor token_embd.weight, a matrix, is missing: it tells the size of the vocabulary")
        facts.check()
    options: dict[str, Any] = {
        "vocabulary": tensors["token_embd.weight"].shape[0],
        "context": facts.whole(f"{name}.context_length", most=MAX_CONTEXT),
        "width": facts.whole(f"{name}.embedding_length"),
        "layers": facts.whole(f"{name}.block_count", most=len(tensors)),
        "heads": facts.whole(f"{name}.attention.head_count"),
        "tied": "output.weight" not in tensors,
    }
    if name == "gpt2":
        options["hidden"] = facts.whole(f"{name}.feed_forward_length")
        options["norm_epsilon"] = facts.positive(f"{name}.attention.layer_norm_epsilon")
        if options["width"] % options["heads"]:
            facts.faults.append(f"{options['heads']} heads do not divide the width {options['width']}")
    else:
        _decoder_options(facts, header, name, options)
    facts.check()
    return options


def _decoder_options(facts: Facts, header: Header, name: str, options: dict[str, Any]) -> None:
    heads, width = options["heads"], options["width"]
    size = facts.whole(f"{name}.attention.key_length", max(1, width // heads))
    options |= {
        "key_value_heads": facts.whole(f"{name}.attention.head_count_kv", heads),
        "head_size": size,
        "rotary_base": facts.positive(f"{name}.rope.freq_base", 10000.0),
        "norm_epsilon": facts.positive(f"{name}.attention.layer_norm_rms_epsilon"),
    }
    if heads % options["key_value_heads"]:
        facts.faults.append(f"{options['key_value_heads']} key-value heads do not divide {heads} heads")
    if size % 2:
        facts.faults.append(f"a head of {size} has no whole pairs to rotate")
    for key in ("attention.value_length", "rope.dimension_count"):
        if facts.whole(f"{name}.{key}", size) != size:
            facts.faults.append(
                f"{name}.{key} is {facts.metadata[f'{name}.{key}']}: only the head size {size} is supported"
            )
    window = facts.metadata.get(f"{name}.attention.sliding_window", 0)
    if window and window != options["context"]:
        facts.faults.append(f"{name}.attention.sliding_window is set: which layers it holds for is not told")
    if name == "qwen3moe":
        options["experts"] = facts.whole(f"{name}.expert_count")
        options["experts_per_token"] = facts.whole(f"{name}.expert_used_count", most=options["experts"])
        options["hidden"] = facts.whole(f"{name}.expert_feed_forward_length")
        options["normalise_routes"] = True  # llama.cpp's graph of this architecture always does
    else:
        if facts.metadata.get(f"{name}.expert_count"):
            facts.faults.append(f"{name}.expert_count is set: a mixture of experts is read as qwen3moe only")
        options["hidden"] = facts.whole(f"{name}.feed_forward_length")
        options["query_key_norm"] = name == "qwen3"
        options["attention_bias"] = _biases(header)
    options |= _scaling(facts, header, name, options)


def _biases(header: Header) -> bool | str:
    if "blk.0.attn_q.bias" not in header.tensors:
        return False
    return "all" if "blk.0.attn_output.bias" in header.tensors else True


def _scaling(facts: Facts, header: Header, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Llama 3's rotary scaling; any other is a fault."""
    kind = facts.metadata.get(f"{name}.rope.scaling.type", "none")
    factor = facts.metadata.get(f"{name}.rope.scaling.factor", facts.metadata.get(f"{name}.rope.scale_linear", 1.0))
    if kind != "none" and not (kind == "linear" and factor == 1.0):
        facts.faults.append(
            f"{name}.rope.scaling.type is {printable(str(kind), 40)}: only Llama 3's scaling is supported"
        )
    elif factor != 1.0:
        facts.faults.append(
            f"rotary positions are scaled by {printable(str(factor), 40)}: only Llama 3's scaling is supported"
        )
    if ROPE_FACTORS not in header.tensors:
        return {}
    if name == "qwen3moe" or header.tensors[ROPE_FACTORS].shape != (options["head_size"] // 2,):
        facts.faults.append(f"{ROPE_FACTORS} does not belong to heads of {options['head_size']} in {name}")
        return {}
    scaling = scaling_from_factors(_weights(header, ROPE_FACTORS), options["head_size"], options["rotary_base"])
    if scaling is None:
        facts.faults.append(f"{ROPE_FACTORS} holds factors that Llama 3's scaling does not give")
        return {}
    return {"rotary_scaling": scaling}


def _named(path: Path, header: Header, name: str, options: dict[str, Any], oddities: list[str]) -> dict[str, str]:
    """GGUF's name of each of our tensors, after all names and shapes of the file were compared with `options`."""
    ours = expected_shapes(ARCHITECTURES[name].family, options)
    expected = {gguf_name(key): shape for key, shape in ours.items()}
    found = {key: entry.shape for key, entry in header.tensors.items() if key != ROPE_FACTORS}
    require_keys(expected, found, str(path))
    named = {key: gguf_name(key) for key in ours}
    # converters once stored GPT-2's tied matrix twice
    if "head.weight" in named and _same_bytes(header, "output.weight", "token_embd.weight"):
        options["tied"] = True
        del named["head.weight"]
        oddities.append("the output matrix is stored, and equal to the embedding: read as tied")
    return named


def _same_bytes(header: Header, name: str, other: str) -> bool:
    one, two = header.tensors[name], header.tensors[other]
    return one.kind == two.kind and header.data[one.begin : one.end].data == header.data[two.begin : two.end].data


def _weights(header: Header, name: str) -> Tensor:
    entry = header.tensors[name]
    return dequantize(entry.kind, header.data[entry.begin : entry.end], entry.shape)


class _Tensors(MadeOnDemand):
    """The tensors of a checked file by our names; each is read and dequantized when it is asked for."""

    def __init__(self, header: Header, named: dict[str, str], options: Mapping[str, Any], interleaved: bool) -> None:
        self._header, self._named, self._options, self._interleaved = header, named, options, interleaved

    def __getitem__(self, name: str) -> Tensor:
        tensor = _weights(self._header, self._named[name])
        heads = rotated_heads(name, self._options) if self._interleaved else None
        return tensor if heads is None else from_interleaved(tensor, heads)

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self._header.tensors[self._named[name]].shape

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)


def _unknown_architecture(path: Path, name: str) -> NoReturn:
    close = nearest(name, list(ARCHITECTURES))
    raise GroundupError(
        "E-FORMAT-032",
        f'the architecture "{printable(name, 60)}" is not supported' + (f' (did you mean "{close}"?)' if close else ""),
        where=printable(str(path)),
        why=f"supported in GGUF files are {', '.join(ARCHITECTURES)}",
        fix="choose a model of one of these architectures",
        exit_code=2,
    )
