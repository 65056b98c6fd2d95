"""Checkpoints of llama2.c (Karpathy 2023, github.com/karpathy/llama2.c, version 0 of its format) and their
tokenizers.

A checkpoint is seven int32 and then the matrices in float32, each for all layers before the next; nothing in it has a
name. The sizes that it claims are compared with the size of the file before anything is read. Little-endian.

Shapes: V vocabulary, D width, L layers, F hidden width, H query heads, G key-value heads, K head size, T context.
"""

from __future__ import annotations

import json
import math
import struct
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from groundup.errors import GroundupError, printable
from groundup.formats.foreign import ForeignModel, ForeignTokenizer

HEADER = struct.Struct("<7i")
LATER_VERSIONS = struct.pack("<I", 0x616B3432)
"""What the file begins with from version 1 on ("ak42")."""

LIMITS = {"dim": 2**17, "hidden_dim": 2**21, "n_layers": 1024, "n_heads": 4096, "n_kv_heads": 4096}
MAX_VOCABULARY, MAX_CONTEXT, MAX_TOKEN, MAX_TOKENIZER = 10_000_000, 2**20, 4096, 64 * 2**20

UNKNOWN, BEGIN, END, FIRST_BYTE, BYTES = "<unk>", "<s>", "</s>", 3, 256
SPACE = "\u2581"


class Sizes(NamedTuple):
    """The header: V is positive in here, `tied` says what its sign was."""

    width: int
    hidden: int
    layers: int
    heads: int
    groups: int
    vocabulary: int
    context: int
    tied: bool

    @property
    def head_size(self) -> int:
        return self.width // self.heads


def read_llama2c(checkpoint: Path, tokenizer: Path) -> ForeignModel:
    """Read a checkpoint and its tokenizer.

    Args:
        checkpoint: such as stories260K.bin.
        tokenizer: such as tok512.bin.
    Raises:
        GroundupError: E-FORMAT-007 for a file that contradicts its own size, or another version of the format.
    """
    sizes = read_sizes(checkpoint)
    found, oddities = read_tokenizer(tokenizer, sizes.vocabulary)
    return ForeignModel(
        kind="llama2c",
        family="llama",
        options={
            "vocabulary": sizes.vocabulary,
            "context": sizes.context,
            "width": sizes.width,
            "layers": sizes.layers,
            "heads": sizes.heads,
            "key_value_heads": sizes.groups,
            "head_size": sizes.head_size,
            "hidden": sizes.hidden,
            "norm_epsilon": 1e-5,
            "rotary_base": 10000.0,
            "tied": sizes.tied,
        },
        tensors=_read_tensors(checkpoint, sizes),
        tokenizer=found,
        details={
            "architecture": "llama2.c, version 0",
            "files": [{"name": file.name, "bytes": file.stat().st_size} for file in (checkpoint, tokenizer)],
            "dtypes": ["float32"],
            "tokenizer": "BPE",
            "tokens": sizes.vocabulary,
        },
        oddities=tuple(oddities),
    )


def read_sizes(checkpoint: Path) -> Sizes:
    """The header of a checkpoint, compared with the size of the file.

    Raises:
        GroundupError: E-FORMAT-007.
    """
    with _opened(checkpoint) as file:
        start = file.read(HEADER.size)
    if len(start) < HEADER.size:
        raise _contradiction(checkpoint, f"it has {len(start)} bytes, too few for a header of {HEADER.size}")
    if start.startswith(LATER_VERSIONS):
        raise _contradiction(checkpoint, "it is of a later version of the format (ak42); version 0 is read")
    dim, hidden, layers, heads, groups, vocabulary, context = HEADER.unpack(start)
    claimed = {"dim": dim, "hidden_dim": hidden, "n_layers": layers, "n_heads": heads, "n_kv_heads": groups}
    for name, value in claimed.items():
        if not 1 <= value <= LIMITS[name]:
            raise _contradiction(checkpoint, f"{name} is {value:,}, expected 1 to {LIMITS[name]:,}")
    if not FIRST_BYTE + BYTES <= abs(vocabulary) <= MAX_VOCABULARY:
        least = FIRST_BYTE + BYTES
        raise _contradiction(checkpoint, f"vocab_size is {vocabulary:,}, expected {least} to {MAX_VOCABULARY:,}")
    if not 1 <= context <= MAX_CONTEXT:
        raise _contradiction(checkpoint, f"seq_len is {context:,}, expected 1 to {MAX_CONTEXT:,}")
    if dim % heads or heads % groups or dim // heads % 2:
        raise _contradiction(checkpoint, f"{heads} heads and {groups} key-value heads do not divide a width of {dim}")
    sizes = Sizes(dim, hidden, layers, heads, groups, abs(vocabulary), context, vocabulary > 0)
    needed = HEADER.size + 4 * sum(math.prod(shape) for _, shape in _parts(sizes))
    if needed != checkpoint.stat().st_size:
        found = checkpoint.stat().st_size
        raise _contradiction(checkpoint, f"its header needs {needed:,} bytes, the file has {found:,}")
    return sizes


def _parts(sizes: Sizes) -> list[tuple[str, tuple[int, ...]]]:
    """Our name and the shape of each part of the file, in order; with a layer first where every layer has one.
    Names in brackets are skipped: the tables of rotary angles are computed anew."""
    layers, width, hidden, size = sizes.layers, sizes.width, sizes.hidden, sizes.head_size
    keys = sizes.groups * size
    parts: list[tuple[str, tuple[int, ...]]] = [
        ("embedding.weight", (sizes.vocabulary, width)),
        ("input_norm.weight", (layers, width)),
        ("attention.q_proj.weight", (layers, width, width)),
        ("attention.k_proj.weight", (layers, keys, width)),
        ("attention.v_proj.weight", (layers, keys, width)),
        ("attention.o_proj.weight", (layers, width, width)),
        ("post_norm.weight", (layers, width)),
        ("feed_forward.gate_proj.weight", (layers, hidden, width)),
        ("feed_forward.down_proj.weight", (layers, width, hidden)),
        ("feed_forward.up_proj.weight", (layers, hidden, width)),
        ("norm.weight", (width,)),
        ("(cosines)", (sizes.context, size // 2)),
        ("(sines)", (sizes.context, size // 2)),
    ]
    return parts if sizes.tied else [*parts, ("head.weight", (sizes.vocabulary, width))]


def _read_tensors(checkpoint: Path, sizes: Sizes) -> dict[str, Tensor]:
    whole = {"embedding.weight", "norm.weight", "head.weight"}
    rotated = {"attention.q_proj.weight": sizes.heads, "attention.k_proj.weight": sizes.groups}
    tensors: dict[str, Tensor] = {}
    with _opened(checkpoint) as file:
        file.seek(HEADER.size)
        for name, shape in _parts(sizes):
            values = np.fromfile(file, dtype="<f4", count=math.prod(shape)).astype(np.float32, copy=False)
            part = torch.from_numpy(values.reshape(shape))
            if name in whole:
                tensors[name] = part
            elif not name.startswith("("):
                for layer in range(sizes.layers):
                    matrix = part[layer]
                    if name in rotated:
                        matrix = _half_split(matrix, rotated[name])
                    tensors[f"layers.{layer}.{name}"] = matrix.clone()
    return tensors


def _half_split(matrix: Tensor, heads: int) -> Tensor:
    """llama2.c rotates the neighbouring rows 2r and 2r+1 of a head; ours are r and r + K/2."""
    rows, width = matrix.shape
    return matrix.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)


def read_tokenizer(path: Path, vocabulary: int) -> tuple[ForeignTokenizer, list[str]]:
    """Read a tokenizer file as a tokenizer.json that encodes as llama2.c does, and what is odd about it.

    llama2.c puts a space in front of a text, looks each character up (or else its bytes), and merges, as long as
    any two neighbours joined are a token, the pair whose token has the highest score, the leftmost of equals. That
    is BPE in which every way to split a token into two tokens is a merge, ordered by the score of the token. Spaces
    are spelled with Llama's sign U+2581, so that other tools know the tokenizer; a text that holds the sign itself is
    the one exception: llama2.c falls back on its bytes, here and in SentencePiece it is a space.

    Args:
        vocabulary: how many tokens the checkpoint has.
    Raises:
        GroundupError: E-FORMAT-007.
    """
    pieces = _pieces(path, vocabulary)
    names = [UNKNOWN, BEGIN, END, *(f"<0x{byte:02X}>" for byte in range(BYTES))]
    pieces = [(piece.replace(" ", SPACE), score) for piece, score in pieces]
    told = [piece for piece, _ in pieces[FIRST_BYTE : len(names)]]
    if told != names[FIRST_BYTE:]:
        raise _contradiction(path, f"the tokens 3 to 258 are not the bytes <0x00> to <0xFF>: {printable(told[0])} …")
    texts = [*names, *(piece for piece, _ in pieces[len(names) :])]
    ids = {text: id for id, text in enumerate(texts)}
    if len(ids) != len(texts):
        raise _contradiction(path, f"{len(texts) - len(ids)} tokens occur twice")
    learned = range(len(names), len(texts))
    order = sorted(learned, key=lambda id: -pieces[id][1])
    allowed = {texts[id] for id in learned}
    merges = [
        [text[:cut], text[cut:]]
        for text in (texts[id] for id in order)
        for cut in range(1, len(text))
        if text[:cut] in allowed and text[cut:] in allowed
    ]
    oddities = []
    joined = [pieces[ids["".join(pair)]][1] for pair in merges]
    ties = sum(one == other for one, other in pairwise(joined))
    same = sum(one[0] + one[1] == other[0] + other[1] for one, other in pairwise(merges))
    if ties > same:
        oddities.append("tokens share a score: where both could be merged next, another than llama2.c's may be")
    return ForeignTokenizer(_tokenizer_json(ids, merges), BEGIN, (END,), UNKNOWN, True, None), oddities


def _pieces(path: Path, vocabulary: int) -> list[tuple[str, float]]:
    """The text and the score of every token, in the order of their ids."""
    with _opened(path) as file:
        data = file.read(MAX_TOKENIZER + 1)
    if len(data) > MAX_TOKENIZER:
        raise _contradiction(path, f"it is larger than the {MAX_TOKENIZER // 2**20} MiB that are read")
    if len(data) < 4 + 8 * vocabulary:
        raise _contradiction(path, f"it has {len(data):,} bytes, too few for the checkpoint's {vocabulary:,} tokens")
    position, pieces = 4, []
    for id in range(vocabulary):
        if position + 8 > len(data):
            raise _contradiction(path, f"it ends before token {id}")
        score, length = struct.unpack_from("<fi", data, position)
        position += 8
        if not 0 <= length <= min(MAX_TOKEN, len(data) - position) or not math.isfinite(score):
            raise _contradiction(path, f"token {id} claims {length:,} bytes and the score {score:g}")
        try:
            pieces.append((data[position : position + length].decode("utf-8"), score))
        except UnicodeDecodeError as error:
            raise _contradiction(path, f"token {id} is not UTF-8") from error
        position += length
    if position != len(data):
        raise _contradiction(path, f"{len(data) - position:,} bytes follow the last of {vocabulary:,} tokens")
    return pieces


def _tokenizer_json(ids: dict[str, int], merges: list[list[str]]) -> str:
    """The tokenizer in the terms of the `tokenizers` library."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    begin = {"SpecialToken": {"id": BEGIN, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[name], "content": name, **flags} for name in (UNKNOWN, BEGIN, END)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first],
            "pair": [begin, first, begin, second],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [ids[BEGIN]], "tokens": [BEGIN]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": merges,
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _opened(path: Path) -> BinaryIO:
    try:
        if not path.is_file():
            raise _contradiction(path, "it does not exist" if not path.exists() else "it is not a regular file")
        return path.open("rb")
    except OSError as error:
        raise _contradiction(path, f"it cannot be read: {error.strerror or error}") from error


def _contradiction(path: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-FORMAT-007",
        f"{printable(path.name)} is no whole file of llama2.c: {what}",
        where=printable(str(path)),
        why="the file is damaged, cut short, made to mislead, or of another kind; nothing of it was loaded",
        fix="fetch the checkpoint again together with its own tokenizer file (stories260K.bin goes with tok512.bin)",
    )
