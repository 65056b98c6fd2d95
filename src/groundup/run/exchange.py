"""Models in, merged, looked at, and out again; what goes out is loaded again and compared before it counts (G10)."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from groundup import checkpoint
from groundup.adapters import adapter_names, adapter_tensors, average, merge, set_adapter
from groundup.errors import GroundupError, printable
from groundup.formats.foreign import ForeignTokenizer as ForeignText
from groundup.formats.gguf_blocks import dequantize, quantize
from groundup.formats.gguf_header import read_header as read_gguf_header
from groundup.formats.gguf_layout import gguf_name
from groundup.formats.gguf_write import write_gguf
from groundup.formats.hugging_face_write import write_hugging_face
from groundup.models import READERS
from groundup.run import models
from groundup.run.adapter_files import exported_adapter, on_own_base, read_peft_adapter, write_peft_adapter
from groundup.run.foreign import described, digest_of, kind_of, locate, read_foreign
from groundup.run.models import Described, Loaded
from groundup.run.proof import Proof, compare_weights, new_place, prove, write_proved
from groundup.run.weights import complete, load_weights, to_store

CPU = torch.device("cpu")
MARK = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")
"""What marks the assistant's part in a template of ours; other tools do not know the word."""


def import_foreign(source: str, out: str | None, *, base: str | None = None) -> dict[str, Any]:
    """Bring a model from elsewhere in, as a model folder.

    Args:
        source: a Hugging Face folder, a GGUF file, a llama2.c checkpoint, a PEFT adapter, or hf:ORG/NAME.
        out: the folder; None names it after the source, under models/.
        base: for a PEFT adapter, the model it belongs to.

    Raises:
        GroundupError: E-FORMAT errors for what cannot be read; E-FORMAT-092 for what is no model, E-FORMAT-096 if
            the folder is there already, E-FORMAT-097 a base for what needs none.
    """
    path = locate(source)
    name = path.resolve().name if path.is_dir() else path.name.removesuffix(path.suffix)
    folder = Path(out).expanduser() if out else Path("models") / name
    if path.is_dir() and (path / "adapter_config.json").is_file():
        return _import_adapter(path, folder, base)
    kind = kind_of(path)
    if kind is None:
        raise not_a_model(path)
    if base is not None:
        raise GroundupError(
            "E-FORMAT-097",
            "--base is for adapters, and this is a whole model",
            where=printable(str(path)),
            why="a folder with an adapter holds adapter_config.json; this one would be imported without the base",
            fix=f"groundup import {printable(str(path))} --out DIR   (without --base)",
            exit_code=2,
        )
    with new_place(folder):
        found = read_foreign(path, kind)
        said = Described(**described(found, path))
        with torch.device("meta"):  # for its names and shapes: the tensors go from file to file, not through it
            network = models.network(said.family, said.options, said.head)
        tensors = complete(network, to_store(found.tensors))  # checked before anything is written
        checkpoint.save_model(folder, tensors=tensors, files=models.model_files(said))
    return _summary(folder, said, network, list(found.oddities))


def _import_adapter(path: Path, folder: Path, base: str | None) -> dict[str, Any]:
    if base is None:
        raise GroundupError(
            "E-FORMAT-093",
            "an adapter needs the model that it belongs to",
            where=printable(str(path)),
            why="it is a difference to the weights of one base",
            fix=f"groundup import {printable(str(path))} --base MODEL --out DIR",
            exit_code=2,
        )
    loaded = models.load(Path(base), CPU)
    if loaded.said.adapters:
        raise GroundupError(
            "E-ADAPT-024",
            "the base has adapters of its own",
            where=f"--base {printable(base)}",
            why="an adapter is a difference to one model that stands alone; its digest would not fit",
            fix=f"groundup merge {printable(base)} --out DIR   (and name DIR as the base), or name the base alone",
            exit_code=2,
        )
    digest = digest_of(loaded.folder)
    with new_place(folder):
        options = read_peft_adapter(path, loaded.model, loaded.said, digest)
        whole = models.Base(str(loaded.folder.resolve()), digest)
        said = replace(loaded.said, adapters=[options], base=whole)
        checkpoint.save_model(folder, tensors=models.trained_tensors(loaded.model), files=models.model_files(said))
    return _summary(folder, said, loaded.model, [])


def _summary(folder: Path, said: Described, model: nn.Module, oddities: list[str]) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "family": said.family,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "options": said.options.model_dump(),
        "chat": said.chat is not None,
        "generates": said.head is None and said.family not in READERS,
        "head": said.head.model_dump() if said.head else None,
        "oddities": oddities,
    }


def not_a_model(path: Path) -> GroundupError:
    """The error for a path at which there is no model of any kind."""
    if path.is_file() and checkpoint.is_pickle(path):
        checkpoint.refuse_pickle(path)
    if path.is_dir():
        checkpoint.refuse_only_pickles(path)
    return GroundupError(
        "E-FORMAT-092",
        "there is nothing that can be read as a model" if path.exists() else "there is no such file or folder",
        where=printable(str(path)),
        why="a model is a folder with config.json and .safetensors files, a .gguf file, or a llama2.c .bin file",
        fix="name such a file or folder, or hf:ORG/NAME to fetch one",
        exit_code=2,
    )


class _Whole(NamedTuple):
    """A model without adapters, the one whose answers it must give, and what was done."""

    model: nn.Module
    reference: nn.Module
    said: Described
    what: str


def merge_models(paths: Sequence[str], out: str, *, weights: Sequence[float] | None = None) -> dict[str, Any]:
    """One model with adapters folded into its base, or several of one shape as their average.

    Raises:
        GroundupError: E-ADAPT errors for what cannot be merged; E-FORMAT-095 if the result differs from its source,
            E-FORMAT-096 if the folder is there already.
    """
    folder = Path(out).expanduser()
    with new_place(folder):
        whole = _averaged(paths, weights) if len(paths) > 1 else _folded(paths[0], weights)
        tensors, files = dict(whole.model.state_dict()), models.model_files(whole.said)

        def compare(place: Path) -> Proof:
            again = models.load(place, CPU).model
            weighed = compare_weights(tensors.items(), again.state_dict())
            return prove(whole.reference, again, whole.said, "f32", weighed)

        proof = write_proved(folder, lambda place: checkpoint.save_model(place, tensors=tensors, files=files), compare)
    return {"path": str(folder), "what": whole.what, "proof": proof.as_dict()}


def _folded(path: str, weights: Sequence[float] | None) -> _Whole:
    loaded = models.load(Path(path), CPU)
    names = adapter_names(loaded.model)
    if not loaded.said.adapters:
        raise GroundupError(
            "E-ADAPT-020",
            "the model has no adapters to merge",
            where=printable(path),
            why="it stands alone already",
            fix="name several models to average them, or export this one as it is",
            exit_code=2,
        )
    if weights is not None and len(weights) != len(names):
        raise _miscounted(len(weights), f"{len(names)} adapters: {', '.join(names) or 'none'}")
    if weights is not None:
        set_adapter(loaded.model, dict(zip(names, weights)))
    model, said = _without_adapters(copy.deepcopy(loaded.model), loaded.said)
    what = f"adapters {', '.join(names)} folded into the base" if names else "a plain model of a quantized one"
    return _Whole(model, loaded.model, said, what)


def _averaged(paths: Sequence[str], weights: Sequence[float] | None) -> _Whole:
    if weights is not None and len(weights) != len(paths):
        raise _miscounted(len(weights), f"{len(paths)} models")
    every = []
    for path in paths:
        loaded = models.load(Path(path), CPU)
        every.append(_without_adapters(loaded.model, loaded.said))
    model, said = every[0]
    for path, (_, other) in zip(paths[1:], every[1:]):
        facts = {
            "sizes": (said.family, said.options) == (other.family, other.options),
            "heads": said.head == other.head,
            "tokenizers": said.tokenizer.to_json() == other.tokenizer.to_json(),
        }
        unlike = [name for name, same in facts.items() if not same]
        if unlike:
            raise GroundupError(
                "E-ADAPT-022",
                f"these models have no average: their {' and '.join(unlike)} differ",
                where=f"{printable(paths[0])}\n{printable(path)}",
                why="weights that mean different things are averaged to noise",
                fix="name models of one run, or of runs that began with the same model",
                exit_code=2,
            )
    model.load_state_dict(average([one.state_dict() for one, _ in every], weights))
    return _Whole(model, model, said, f"average of {len(paths)} models")


def _miscounted(weights: int, what: str) -> GroundupError:
    return GroundupError(
        "E-ADAPT-023",
        f"there are {weights} weights for {what}",
        where="--weights",
        why="each gets one weight, in the order named here",
        fix="give as many weights, or none: then all count alike",
        exit_code=2,
    )


def _without_adapters(model: nn.Module, said: Described) -> tuple[nn.Module, Described]:
    """The model with its adapters made part of its weights, in place, and what its files say then."""
    if said.adapters:
        merge(model)
    # an adapted embedding unties the output matrix, and the options of the network say so
    return model.eval(), replace(said, options=models.body_of(model).options, adapters=[], base=None)


def export_model(path: str, out: str, *, to: str, dtype: str = "f32") -> dict[str, Any]:
    """Write a model in a foreign format; it is read again and compared before the file gets its name.

    Args:
        path: MODEL; adapters are merged into the base first, except for "peft".
        out: the file ("gguf", "onnx") or folder ("huggingface", "safetensors", "peft").
        to: the format.
        dtype: f32, f16, bf16; for gguf q8_0 and q4_0 too.

    Raises:
        GroundupError: E-FORMAT-094 a type that the format does not have; E-FORMAT-095 the reloaded model differs;
            E-FORMAT-096 the target is there already; others for a model that the format cannot hold.
    """
    if dtype not in TYPES[to]:
        raise GroundupError(
            "E-FORMAT-094",
            f"{to} cannot hold {dtype}",
            where="--dtype",
            why=f"{to} is written as {', '.join(TYPES[to])}",
            fix=f"--dtype {TYPES[to][0]}",
            exit_code=2,
        )
    target, oddities = Path(out).expanduser(), list[str]()
    with new_place(target):
        loaded = models.load(Path(path), CPU)
        if to != "peft":
            loaded.model, loaded.said = _without_adapters(loaded.model, loaded.said)
        write, compare = WRITERS[to](loaded, dtype, oddities)
        proof = write_proved(target, write, compare)
    files = [target] if target.is_file() else [file for file in target.rglob("*") if file.is_file()]
    return {
        "path": str(target),
        "to": to,
        "dtype": dtype,
        "bytes": sum(file.stat().st_size for file in files),
        "oddities": oddities,
        "proof": proof.as_dict(),
    }


TYPES = {
    "huggingface": ("f32", "f16", "bf16"),
    "safetensors": ("f32",),
    "gguf": ("f32", "f16", "bf16", "q8_0", "q4_0"),
    "onnx": ("f32",),
    "peft": ("f32",),
}
Pair = tuple[Callable[[Path], None], Callable[[Path], Proof]]
"""What writes a model to a path, and what compares what lies there with the model."""
Rounding = Callable[[str, Tensor], Tensor]
"""A tensor by its name and as it is, to what must be read back."""


def _compared(loaded: Loaded, dtype: str, again: nn.Module, rounded: Rounding) -> Proof:
    # the output matrix of a decoder under a head takes no part, and foreign formats leave it out
    own = {name: tensor for name, tensor in loaded.model.state_dict().items() if name != "body.head.weight"}
    source: nn.Module | None = None
    if dtype != "f32":  # the source as the type of the weights leaves it: what was read back must answer just so
        source = copy.deepcopy(loaded.model)
        source.load_state_dict({name: rounded(name, tensor) for name, tensor in own.items()}, strict=False)
    weights = compare_weights(((name, rounded(name, tensor)) for name, tensor in own.items()), again.state_dict())
    return prove(loaded.model, again, loaded.said, dtype, weights, source)


def _safetensors(loaded: Loaded, dtype: str, oddities: list[str]) -> Pair:
    tensors, files = dict(loaded.model.state_dict()), models.model_files(loaded.said)
    return (
        lambda place: checkpoint.save_model(place, tensors=tensors, files=files),
        lambda place: _compared(loaded, dtype, models.load(place, CPU).model, lambda _, tensor: tensor),
    )


def _hugging_face(loaded: Loaded, dtype: str, oddities: list[str]) -> Pair:
    said, options = loaded.said, loaded.said.options.model_dump()
    head = said.head.model_dump() if said.head else None
    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]

    def write(place: Path) -> None:
        tensors, store = dict(loaded.model.state_dict()), checkpoint.write_safetensors
        write_hugging_face(place, said.family, options, tensors, text_of(said), head, dtype=kind, write_tensors=store)

    return write, lambda place: _compared(loaded, dtype, _read_back(place), lambda _, tensor: tensor.to(kind))


def _gguf(loaded: Loaded, dtype: str, oddities: list[str]) -> Pair:
    said, options = loaded.said, loaded.said.options.model_dump()
    if said.head is not None:
        raise GroundupError(
            "E-FORMAT-036",
            f"this model cannot be written as a GGUF file: it has a head of kind {said.head.kind}",
            where="--to gguf",
            why="what is written as GGUF here is read by llama.cpp to write text",
            fix="groundup export MODEL --to huggingface --out DIR   (or --to onnx --out FILE.onnx)",
            exit_code=2,
        )

    def write(place: Path) -> None:
        kind: Any = dtype.upper()
        name = loaded.folder.name.removesuffix(".gguf")
        tensors = dict(loaded.model.state_dict())
        oddities.extend(write_gguf(place, said.family, options, tensors, text_of(said), dtype=kind, name=name))

    def compare(place: Path) -> Proof:
        entries = read_gguf_header(place).tensors

        def rounded(name: str, tensor: Tensor) -> Tensor:
            entry = entries.get(gguf_name(name))
            if entry is None:  # a tied output matrix, which is the embedding
                entry = entries[gguf_name("embedding.weight")]
            return dequantize(entry.kind, quantize(entry.kind, tensor), tuple(tensor.shape))

        return _compared(loaded, dtype, _read_back(place), rounded)

    return write, compare


def _onnx(loaded: Loaded, dtype: str, oddities: list[str]) -> Pair:
    from groundup.formats.onnx import Kind, open_onnx, write_onnx

    said, kind = loaded.said, "decoder"
    if said.head is not None:
        kind = "choice" if said.head.kind == "choice" else "head"
    elif said.family == "bert":
        kind = "body"
    found: Kind = kind  # type: ignore[assignment]
    return (
        lambda place: write_onnx(place, loaded.model, kind=found, context=said.options.context),
        lambda place: prove(loaded.model, open_onnx(place), said, dtype),
    )


def _peft(loaded: Loaded, dtype: str, oddities: list[str]) -> Pair:
    options = exported_adapter(loaded)
    own = adapter_tensors(loaded.model, options.name)

    def compare(place: Path) -> Proof:
        model, name = on_own_base(place, loaded)
        weights = compare_weights(own.items(), adapter_tensors(model, name))
        return prove(loaded.model, model, loaded.said, dtype, weights)

    return lambda place: write_peft_adapter(place, loaded.model, loaded.said, options), compare


WRITERS: dict[str, Callable[[Loaded, str, list[str]], Pair]] = {
    "huggingface": _hugging_face,
    "safetensors": _safetensors,
    "gguf": _gguf,
    "onnx": _onnx,
    "peft": _peft,
}


def _read_back(place: Path) -> nn.Module:
    kind = kind_of(place)
    assert kind is not None
    found = read_foreign(place, kind)
    said = described(found, place)
    model = models.build(said["family"], said["options"], CPU, said["head"])
    load_weights(model, dict(found.tensors))
    return model.eval()


def text_of(said: Described) -> ForeignText:
    """The tokenizer and the template as every foreign format takes them."""
    roles = said.tokenizer.roles
    template = MARK.sub(r"{{\1''\2}}", said.chat.source) if said.chat is not None else None
    return ForeignText(said.tokenizer.to_json(), roles.begin, roles.ends, roles.pad, roles.adds_begin, template)
