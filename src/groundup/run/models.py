"""Networks: built from options in a fixed order, written as model folders, and found again by a path.

The order is always: build on the meta device → materialise → initialise or load. A model folder holds
`model.safetensors`, `model.json` (family and options), `tokenizer.json`, and `chat.json` if it can chat.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from groundup import checkpoint
from groundup.errors import GroundupError, nearest, printable
from groundup.models import FAMILIES
from groundup.models.llama import Llama, LlamaOptions
from groundup.text.chat import ChatTemplate
from groundup.text.tokenizer import Tokenizer

MODEL_FILE, TOKENIZER_FILE, CHAT_FILE = "model.json", "tokenizer.json", "chat.json"


@dataclass
class Described:
    """What the files beside the weights say."""

    family: str
    options: LlamaOptions
    tokenizer: Tokenizer
    chat: ChatTemplate | None


@dataclass
class Loaded(Described):
    """A model with its weights."""

    model: Llama
    folder: Path


def build(options: LlamaOptions, device: torch.device) -> Llama:
    """A network whose memory is there and whose values are not: initialise or load it next."""
    with torch.device("meta"):
        model = Llama(options)
    tied: dict[Tensor, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in tied:
                tied[parameter] = nn.Parameter(torch.empty_like(parameter, device=device))
            module.register_parameter(name, tied[parameter])
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer.to(device), persistent=False)  # computed tables, never empty
    return model


def initialised(options: LlamaOptions, device: torch.device, seed: int) -> Llama:
    """A new network with freshly drawn weights; equal for equal seeds on every kind of device."""
    model = build(options, torch.device("cpu"))
    model.initialise(torch.Generator().manual_seed(seed))
    return model.to(device)


def model_files(
    options: LlamaOptions, tokenizer: Tokenizer, chat: ChatTemplate | None, family: str = "llama"
) -> dict[str, bytes]:
    """The small files of a model folder or checkpoint."""
    described = {"family": family, "options": options.model_dump()}
    files = {
        MODEL_FILE: json.dumps(described, indent=2).encode() + b"\n",
        TOKENIZER_FILE: tokenizer.to_json().encode() + b"\n",
    }
    if chat is not None:
        binding = {"template": chat.source, "digest": chat.digest_with(tokenizer)}
        files[CHAT_FILE] = json.dumps(binding, indent=2, ensure_ascii=False).encode() + b"\n"
    return files


def describe(files: dict[str, bytes], folder: Path) -> Described:
    """Read the small files.

    Raises:
        GroundupError: E-MODEL-001 a file is missing or malformed, E-MODEL-002 an unknown family, E-MODEL-003
            tokenizer and weights, or template and tokenizer, do not belong together.
    """
    for name in (MODEL_FILE, TOKENIZER_FILE):
        if name not in files:
            raise _malformed(folder / name, "is missing")
    try:
        said = json.loads(files[MODEL_FILE])
        family, fields = said["family"], said["options"]
        if family not in FAMILIES:
            raise _unknown_family(folder, str(family))
        options = LlamaOptions.model_validate(fields)
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise _malformed(folder / MODEL_FILE, f"cannot be read: {printable(str(error))}") from error
    tokenizer = Tokenizer.from_json(files[TOKENIZER_FILE].decode("utf-8", errors="replace"))
    if tokenizer.vocabulary != options.vocabulary:
        raise _mismatch(
            folder, f"the tokenizer has {tokenizer.vocabulary} ids, the model {options.vocabulary}"
        )
    chat = None
    if CHAT_FILE in files:
        try:
            binding = json.loads(files[CHAT_FILE])
            chat = ChatTemplate(binding["template"])
            bound = binding["digest"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _malformed(folder / CHAT_FILE, f"cannot be read: {printable(str(error))}") from error
        if bound != chat.digest_with(tokenizer):
            raise _mismatch(
                folder,
                f"chat.json was bound as {str(bound)[:12]}, with this tokenizer it is "
                f"{chat.digest_with(tokenizer)[:12]}",
            )
    return Described(family, options, tokenizer, chat)


def find_model(path: Path) -> Path:
    """The folder that holds the model which MODEL names: a model folder, a checkpoint, or a run's model or
    newest whole checkpoint.

    Raises:
        GroundupError: E-MODEL-004 if there is no model there.
    """
    path = path.expanduser()
    if path.is_file() and checkpoint.is_pickle(path):
        checkpoint.refuse_pickle(path)
    for folder in (path, path / "model"):
        if (folder / MODEL_FILE).is_file() or (folder / "manifest.json").is_file():
            return folder
    found = checkpoint.newest(path / "checkpoints")
    if found.path is not None:
        return found.path
    if path.is_dir():
        checkpoint.refuse_only_pickles(path)
    near = None
    if path.parent.is_dir():
        near = nearest(path.name, sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir()))
    raise GroundupError(
        "E-MODEL-004",
        f"there is no model at {printable(str(path))}",
        where=str(path),
        why="MODEL is a run folder, a checkpoint folder or a model folder (with model.json)",
        fix=f"did you mean {path.parent / near}?" if near else "groundup runs   (lists the runs that are here)",
        exit_code=2,
    )


def load_described(path: Path) -> tuple[Described, Path]:
    """What a model is, without its weights being put anywhere."""
    folder = find_model(path)
    _, files = checkpoint.load_model(folder)
    return describe(files, folder), folder


def load(path: Path, device: torch.device) -> Loaded:
    """The model that `path` names, with its weights, in evaluation mode."""
    folder = find_model(path)
    tensors, files = checkpoint.load_model(folder)
    if (folder / "average.safetensors").is_file():
        tensors.update(checkpoint.load(folder, names=("average",)).tensors["average"])
    described = describe(files, folder)
    model = build(described.options, device)
    load_weights(model, tensors)
    return Loaded(**vars(described), model=model.eval(), folder=folder)


def load_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy tensors into a network; every difference in names and shapes is told at once."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    checkpoint.strict_key_report(expected, {name: tuple(t.shape) for name, t in tensors.items()})
    model.load_state_dict(tensors, strict=True)


def parameter_parts(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters by part, tied ones counted once: [{name, parameters}]."""
    counts: dict[str, int] = {}
    layers = 1 + max((int(n.split(".")[1]) for n, _ in model.named_parameters() if n.startswith("layers.")), default=0)
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        if part == "layers":
            part = f"{layers} × {name.split('.')[2]}"
        counts[part] = counts.get(part, 0) + parameter.numel()
    return [{"name": name, "parameters": count} for name, count in counts.items()]


def _malformed(path: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-MODEL-001",
        f"{path.name} {what}",
        where=str(path),
        why="without it the weights cannot be put into a network",
        fix="groundup verify PATH   (says which files are whole); copy the folder again from its source",
    )


def _unknown_family(folder: Path, family: str) -> GroundupError:
    return GroundupError(
        "E-MODEL-002",
        f"the model family {printable(family)!r} is not known",
        where=str(folder / MODEL_FILE),
        why=f"this version can build: {', '.join(FAMILIES)}",
        fix="use the version of groundup that wrote the model",
    )


def _mismatch(folder: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-MODEL-003",
        f"the files of the model do not belong together: {what}",
        where=str(folder),
        why="with another tokenizer every id would mean something else, and the answers would be noise",
        fix="copy tokenizer.json and chat.json from the folder that the weights came from",
    )
