"""What is in a model of any format, from headers and small files alone: nothing in it is run, no tensor is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundup import checkpoint
from groundup.errors import printable
from groundup.formats.gguf_header import read_header as read_gguf_header
from groundup.formats.inspect import describe_folder
from groundup.formats.llama2c import read_sizes
from groundup.formats.outside import read_json
from groundup.run import models
from groundup.run.exchange import not_a_model
from groundup.run.foreign import kind_of, locate
from groundup.run.networks import describe_network, is_network
from groundup.run.translation import is_translator
from groundup.text.tokenizer import Tokenizer

MOST_METADATA = 40
ADAPTER = "adapter_config.json"
FACTS = (
    "family", "architecture", "parameters", "bytes", "types", "tokenizer", "chat", "base", "head",
    "inputs", "outputs", "labels", "preparation",
)  # fmt: skip
"""What is said of every model, null where it has none."""


def inspect_model(source: str) -> dict[str, Any]:
    """What `groundup inspect` prints.

    Returns:
        kind, family, architecture, options, parameters, bytes, types, tokenizer, chat, base, head, inputs, outputs,
        labels, preparation, oddities, and tensors: [{name, shape, type}].

    Raises:
        GroundupError: E-FORMAT errors for files that are malformed; E-FORMAT-092 for what is no model.
    """
    path = locate(source)
    kind = kind_of(path)
    if kind == "gguf":
        return _gguf(next(path.glob("*.gguf")) if path.is_dir() else path)
    if kind == "llama2c":
        sizes = read_sizes(path)
        return _facts(kind, bytes=path.stat().st_size, options=sizes._asdict(), family="llama")
    if kind == "hugging_face":
        found = describe_folder(path, checkpoint.read_header)
        size = sum(file["bytes"] for file in found["files"])
        shown = {**found, "tensors": _safetensors(path.rglob("*.safetensors")), "bytes": size}
        return _facts(**shown, types=found["dtypes"], chat=found["template"])
    if (path / ADAPTER).is_file():
        return _adapter(path)
    if not path.is_dir():
        raise not_a_model(path)
    folder = models.find_model(path)
    tensors = _safetensors([folder / "model.safetensors"])
    if is_network(folder) or is_translator(folder):
        return _network(folder, tensors)
    said = models.describe(checkpoint.load_files(folder), folder)
    return _facts(
        "groundup",
        family=said.family,
        options=said.options.model_dump(),
        head=said.head.model_dump() if said.head else None,
        base={"path": said.base.path, "digest": said.base.digest[:12]} if said.base else None,
        adapters=[adapter.model_dump() for adapter in said.adapters],
        tokenizer={"kind": said.tokenizer.kind, "vocabulary": said.tokenizer.vocabulary},
        chat="yes" if said.chat else None,
        bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        tensors=tensors,
        parameters=sum(math.prod(tensor["shape"]) for tensor in tensors),
        types=dict(Counter(tensor["type"] for tensor in tensors)),
    )


def _network(folder: Path, tensors: list[dict[str, Any]]) -> dict[str, Any]:
    """A network that is no language model: what goes in, what comes out, and how raw rows are prepared."""
    files = checkpoint.load_files(folder)
    shared: dict[str, Any] = {
        "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        "tensors": tensors,
        "parameters": sum(math.prod(tensor["shape"]) for tensor in tensors),
        "types": dict(Counter(tensor["type"] for tensor in tensors)),
    }
    if is_translator(folder):
        options = read_json(folder / models.MODEL_FILE)["options"]
        vocabulary = Tokenizer.from_json(files[models.TOKENIZER_FILE].decode())
        tokenizer = {"kind": vocabulary.kind, "vocabulary": vocabulary.vocabulary}
        return _facts(
            "network",
            family="transformer",
            options=options,
            tokenizer=tokenizer,
            inputs={"reads": "a text", "tokens": options["context"]},
            outputs={"kind": "a translation"},
            **shared,
        )
    said = describe_network(files, folder)
    outputs: dict[str, Any] = {"kind": said.kind, "numbers": said.outputs}
    if said.kind == "images":
        outputs = {"kind": "images", "shape": list(said.shape)}
    if said.low is not None and said.high is not None:
        outputs |= {"low": said.low, "high": said.high}
    return _facts(
        "network",
        family=said.family,
        options={name: value for name, value in said.options.model_dump().items() if name != "family"},
        inputs={"reads": said.reads, "shape": list(said.shape)}
        | ({"embeddings": [list(size) for size in said.embeddings]} if said.embeddings else {}),
        outputs=outputs,
        labels=said.labels,
        preparation=said.preparation,
        **shared,
    )


def _facts(kind: str, **found: Any) -> dict[str, Any]:
    return {"kind": kind, **dict.fromkeys(FACTS), "options": {}, "oddities": [], "tensors": [], **found}


def _safetensors(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [
        {"name": printable(name, 200), "shape": list(entry.shape), "type": entry.dtype}
        for path in sorted(paths)
        for name, entry in checkpoint.read_header(path).tensors.items()
    ]


def _adapter(path: Path) -> dict[str, Any]:
    said = read_json(path / ADAPTER)
    tensors = _safetensors(path.glob("*.safetensors"))
    shown = ("peft_type", "task_type", "r", "lora_alpha", "use_rslora", "use_dora", "target_modules")
    return _facts(
        "peft_adapter",
        base=printable(str(said.get("base_model_name_or_path"))),
        options={name: printable(str(said[name]), 300) for name in shown if said.get(name)},
        bytes=sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
        tensors=tensors,
        parameters=sum(math.prod(tensor["shape"]) for tensor in tensors),
        types=dict(Counter(tensor["type"] for tensor in tensors)),
    )


def _gguf(path: Path) -> dict[str, Any]:
    header = read_gguf_header(path)
    tensors: list[dict[str, Any]] = [
        {"name": printable(name, 200), "shape": list(entry.shape), "type": entry.kind}
        for name, entry in header.tensors.items()
    ]
    plain = {
        printable(key, 100): value if not isinstance(value, str) else printable(value, 80)
        for key, value in header.metadata.items()
        if isinstance(value, str | int | float | bool) and not key.startswith("tokenizer.")
    }
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    tokenizer = {
        "kind": printable(str(header.metadata.get("tokenizer.ggml.model")), 40),
        "pre": printable(str(header.metadata.get("tokenizer.ggml.pre")), 40),
        "vocabulary": len(tokens) if tokens is not None else None,
    }
    template = header.metadata.get("tokenizer.chat_template")
    return _facts(
        "gguf",
        architecture=printable(str(header.metadata.get("general.architecture")), 40),
        parameters=sum(math.prod(tensor["shape"]) for tensor in tensors),
        bytes=path.stat().st_size,
        types=dict(sorted(Counter(tensor["type"] for tensor in tensors).items())),
        tokenizer=tokenizer,
        chat=printable(template, 120) if isinstance(template, str) else None,
        options=dict(list(plain.items())[:MOST_METADATA]),
        tensors=tensors,
    )
