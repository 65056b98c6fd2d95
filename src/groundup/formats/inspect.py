"""What a Hugging Face folder holds, told from its small files and the headers of its weights: no tensor is loaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from groundup.errors import printable
from groundup.formats.hugging_face import head_of, padding_note, sentence_modules, weight_files
from groundup.formats.hugging_face_config import read_config
from groundup.formats.hugging_face_tokenizer import read_tokenizer

TEMPLATE_HEAD = 400
"""Characters of the chat template that are shown."""


class Entry(Protocol):
    """One tensor of a header: the file's name of its data type, and its shape."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class Header(Protocol):
    """The header of a safetensors file."""

    @property
    def tensors(self) -> Mapping[str, Entry]: ...


def describe_folder(folder: Path, read_header: Callable[[Path], Header]) -> dict[str, Any]:
    """The facts about a folder, plain values in the order in which they are shown.

    Args:
        folder: in Hugging Face's layout.
        read_header: reads the header of one safetensors file, with distrust.
    Raises:
        GroundupError: as `read_hugging_face` does, but for tensors that do not fit the configuration.
    """
    inner, transforms = sentence_modules(folder)
    described = read_config(inner)
    weights = weight_files(inner)
    found = read_tokenizer(inner, described.content)
    entries = [entry for file in weights for entry in read_header(file).tensors.values()]
    dtypes: Counter[str] = Counter()
    for entry in entries:
        dtypes[entry.dtype] += math.prod(entry.shape)
    tokenizer = found.tokenizer
    template = tokenizer.template if tokenizer is not None else None
    return {
        "kind": "hugging_face",
        "architecture": described.architecture,
        "family": described.family,
        "options": described.options,
        "head": head_of(described, transforms, inner),
        "files": [
            {"name": printable(path.name), "bytes": path.stat().st_size}
            for path in sorted(folder.iterdir())
            if path.is_file()
        ],
        "tensors": len(entries),
        "parameters": sum(dtypes.values()),
        "dtypes": dict(sorted(dtypes.items())),
        "tokenizer": None
        if tokenizer is None
        else {
            "kind": found.kind,
            "vocabulary": found.vocabulary,
            "begin": tokenizer.begin,
            "ends": list(tokenizer.ends),
            "pad": tokenizer.pad,
            "adds_begin": tokenizer.adds_begin,
        },
        "template": None if template is None else template[:TEMPLATE_HEAD],
        "oddities": [*described.oddities, *found.oddities, *padding_note(found, described)],
    }
