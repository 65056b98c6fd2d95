"""Networks: built from options in a fixed order, written as model folders, and found again by a path.

The order is always: build on the meta device → materialise → initialise or load. A model folder holds
`model.safetensors`, `model.json` (family and options), `tokenizer.json`, and `chat.json` if it can chat.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from groundup import checkpoint
from groundup.adapters import (
    WHOLE,
    AdapterOptions,
    GrowOptions,
    Growth,
    PromptOptions,
    apply,
    is_adapted,
    merge,
    prompt_ids,
)
from groundup.adapters.paths import Adapted
from groundup.errors import GroundupError, nearest, printable
from groundup.models import FAMILIES, NETWORKS, FamilyOptions
from groundup.models.heads import Headed, HeadOptions
from groundup.run.foreign import described, digest_of, kind_of, locate, read_foreign
from groundup.run.model_faults import base_missing, building, malformed, mismatch, unknown_family
from groundup.run.weights import adopt_weights, complete, load_weights
from groundup.text.chat import ChatTemplate
from groundup.text.foreign import ForeignTokenizer, TokenRoles
from groundup.text.tokenizer import AnyTokenizer, Tokenizer

ADAPTER_LIST: TypeAdapter[list[AdapterOptions]] = TypeAdapter(list[AdapterOptions])

MODEL_FILE, TOKENIZER_FILE, CHAT_FILE = "model.json", "tokenizer.json", "chat.json"


@dataclass
class Described:
    """What the files beside the weights say."""

    family: str
    options: FamilyOptions
    tokenizer: AnyTokenizer
    chat: ChatTemplate | None
    head: HeadOptions | None = None
    adapters: list[AdapterOptions] = field(default_factory=list)
    base: Base | None = None


@dataclass(frozen=True)
class Base:
    """The model that adapters belong to: where it was, and what it was."""

    path: str
    digest: str


@dataclass
class Loaded:
    """A model with its weights, and what the files beside them say."""

    said: Described
    model: nn.Module
    folder: Path


def network(family: str, options: FamilyOptions, head: HeadOptions | None = None) -> nn.Module:
    """The network of a family, with a task head around it if there is one. Under torch.device("meta") it takes
    no memory."""
    body = FAMILIES[family][1](options)
    return body if head is None else Headed(body, head)  # type: ignore[arg-type]


def build(family: str, options: FamilyOptions, device: torch.device, head: HeadOptions | None = None) -> nn.Module:
    """A network whose memory is there and whose values are not: initialise or load it next."""
    with torch.device("meta"):
        model = network(family, options, head)
    return materialise(model, device)


def materialise(model: nn.Module, device: torch.device) -> nn.Module:
    """Give a network without memory its memory, in place."""
    tied: dict[Tensor, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in tied:
                tied[parameter] = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device=device))
            module.register_parameter(name, tied[parameter])
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer.to(device), persistent=False)  # computed tables, never empty
    return model


def initialised(
    family: str, options: FamilyOptions, device: torch.device, seed: int, head: HeadOptions | None = None
) -> nn.Module:
    """A new network with freshly drawn weights; equal for equal seeds on every kind of device."""
    model = build(family, options, torch.device("cpu"), head)
    generator = torch.Generator().manual_seed(seed)
    body_of(model).initialise(generator)
    if isinstance(model, Headed):
        model.initialise_head(generator)
    return model.to(device)


def body_of(model: nn.Module) -> Any:
    """The network of a family, without a head around it."""
    return model.body if isinstance(model, Headed) else model


def model_files(said: Described) -> dict[str, bytes]:
    """The small files of a model folder or checkpoint."""
    described: dict[str, Any] = {"family": said.family, "options": said.options.model_dump()}
    if said.head is not None:
        described["head"] = said.head.model_dump(mode="json")
    if said.adapters:
        described["adapters"] = [adapter.model_dump(mode="json") for adapter in said.adapters]
    if said.base is not None:
        described["base"] = {"path": said.base.path, "digest": said.base.digest}
    if isinstance(said.tokenizer, ForeignTokenizer):
        described["roles"] = said.tokenizer.roles.to_dict()
    files = {
        MODEL_FILE: as_json(described),
        TOKENIZER_FILE: said.tokenizer.to_json().encode() + b"\n",
    }
    if said.chat is not None:
        binding = {"template": said.chat.source, "digest": said.chat.digest_with(said.tokenizer)}
        files[CHAT_FILE] = as_json(binding)
    return files


def as_json(value: Any) -> bytes:
    """A small JSON file of a model folder."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def describe(files: dict[str, bytes], folder: Path) -> Described:
    """Read the small files.

    Raises:
        GroundupError: E-MODEL-001 a file is missing or malformed, E-MODEL-002 an unknown family, E-MODEL-003
            tokenizer and weights, or template and tokenizer, do not belong together.
    """
    for name in (MODEL_FILE, TOKENIZER_FILE):
        if name not in files:
            raise malformed(folder / name, "is missing")
    try:
        said = json.loads(files[MODEL_FILE])
        family, fields = said["family"], said["options"]
        if family not in FAMILIES:
            raise unknown_family(folder / MODEL_FILE, str(family), FAMILIES)
        options = FAMILIES[family][0].model_validate(fields)
        head = HeadOptions.model_validate_json(json.dumps(said["head"])) if said.get("head") else None
        adapters = ADAPTER_LIST.validate_json(json.dumps(said.get("adapters", [])))
        base = Base(str(said["base"]["path"]), str(said["base"]["digest"])) if said.get("base") else None
        roles = TokenRoles.from_dict(said["roles"]) if said.get("roles") else None
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise malformed(folder / MODEL_FILE, f"cannot be read: {printable(str(error))}") from error
    text = files[TOKENIZER_FILE].decode("utf-8", errors="replace")
    tokenizer = Tokenizer.from_json(text) if roles is None else ForeignTokenizer(text, roles)
    if tokenizer.vocabulary > options.vocabulary or (roles is None and tokenizer.vocabulary < options.vocabulary):
        raise mismatch(folder, f"the tokenizer has {tokenizer.vocabulary} ids, the model {options.vocabulary}")
    chat = _read_chat(files[CHAT_FILE], tokenizer, folder) if CHAT_FILE in files else None
    learn_prompt(tokenizer, options, adapters)
    return Described(family, options, tokenizer, chat, head, adapters, base)


def learn_prompt(tokenizer: AnyTokenizer, options: FamilyOptions, adapters: Sequence[AdapterOptions]) -> None:
    """Let the tokenizer put the virtual tokens of prompt tuning in front of every text."""
    tokens = sum(adapter.tokens for adapter in adapters if isinstance(adapter, PromptOptions))
    tokenizer.prefix = tuple(range(options.vocabulary, options.vocabulary + tokens))


def names_of(tokenizer: AnyTokenizer) -> TokenRoles | None:
    """What a chat template is told of the tokenizer: nothing, if it is groundup's own."""
    return tokenizer.roles if isinstance(tokenizer, ForeignTokenizer) else None


def _read_chat(content: bytes, tokenizer: AnyTokenizer, folder: Path) -> ChatTemplate:
    try:
        binding = json.loads(content)
        if not isinstance(binding["template"], str):
            raise TypeError("its template is no text")
        chat = ChatTemplate(binding["template"], names=names_of(tokenizer))
        bound = binding["digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise malformed(folder / CHAT_FILE, f"cannot be read: {printable(str(error))}") from error
    now = chat.digest_with(tokenizer)
    if bound != now:
        raise mismatch(folder, f"chat.json was bound as {str(bound)[:12]}, with this tokenizer it is {now[:12]}")
    return chat


def find_model(path: Path) -> Path:
    """What MODEL names: a model folder, a checkpoint, a run's model or newest whole checkpoint, or a foreign
    model (a Hugging Face folder, a GGUF file, a llama2.c checkpoint).

    Raises:
        GroundupError: E-MODEL-004 if there is no model there.
    """
    path = locate(str(path))
    if path.is_file() and kind_of(path) is None and checkpoint.is_pickle(path):
        checkpoint.refuse_pickle(path)
    for folder in (path, path / "model"):
        if (folder / MODEL_FILE).is_file() or (folder / "manifest.json").is_file():
            return folder
    if kind_of(path) is not None:
        return path
    found = checkpoint.newest(path / "checkpoints")
    if found.path is not None:
        return found.path
    if path.is_dir():
        checkpoint.refuse_only_pickles(path)
    near = None
    if path.parent.is_dir():
        others = sorted(entry.name for entry in path.parent.iterdir() if entry != path)
        near = nearest(path.name, others)
    raise GroundupError(
        "E-MODEL-004",
        f"there is no model at {printable(str(path))}",
        where=str(path),
        why="MODEL is a run, checkpoint or model folder, a Hugging Face folder, or a .gguf file",
        fix=f"did you mean {path.parent / near}?" if near else "groundup runs   (lists the runs that are here)",
        exit_code=2,
    )


def load_described(path: Path) -> tuple[Described, Path]:
    """What a model is, without its weights being put anywhere."""
    folder = find_model(path)
    if not (folder / MODEL_FILE).is_file() and (kind := kind_of(folder)) is not None:
        return Described(**described(read_foreign(folder, kind), folder)), folder
    return describe(checkpoint.load_files(folder), folder), folder


def load(path: Path, device: torch.device, *, adapters: bool = True) -> Loaded:
    """The model that `path` names, with its weights and adapters, in evaluation mode.

    Args:
        path: see `find_model`.
        device: where the weights go.
        adapters: False leaves the adapters of the model away and gives their base.
    """
    folder = find_model(path)
    if not (folder / MODEL_FILE).is_file() and (kind := kind_of(folder)) is not None:
        return _load_foreign(folder, kind, device)
    tensors, said = _read(folder)
    if said.base is not None:
        return _load_on_base(said, tensors, folder, device, adapters)
    with building(folder / MODEL_FILE), torch.device("meta"):
        model = network(said.family, said.options, said.head)
    tensors = complete(model, tensors)  # before memory is taken for it
    materialise(model, device).load_state_dict(tensors, strict=True)
    return Loaded(said, model.eval(), folder)


def _read(folder: Path) -> tuple[dict[str, Tensor], Described]:
    """The tensors of a folder of ours, and what it is. Its files are compared with their hashes while the tokenizer is
    made; one that is not whole is told first."""
    with ThreadPoolExecutor(max_workers=1) as beside:
        verified = beside.submit(checkpoint.load_averaged, folder)
        try:
            said = describe(checkpoint.load_files(folder), folder)
        except GroundupError:
            verified.result()
            raise
        return verified.result()[0], said


def _load_foreign(folder: Path, kind: str, device: torch.device) -> Loaded:
    """A model in another tool's format. Its tensors are made while its tokenizer is."""
    foreign = read_foreign(folder, kind)
    with ThreadPoolExecutor(max_workers=1) as beside:
        tensors = beside.submit(dict, foreign.tensors)
        said = Described(**described(foreign, folder))
        model = build(said.family, said.options, device, said.head)
        put = adopt_weights if kind == "gguf" else load_weights  # others may be mapped from their file
        put(model, tensors.result())
    return Loaded(said, model.eval(), folder)


def _load_on_base(
    said: Described, tensors: dict[str, Tensor], folder: Path, device: torch.device, adapters: bool
) -> Loaded:
    """A model that keeps only what was trained: its base is loaded, adapted, and given the trained tensors."""
    assert said.base is not None
    path = Path(said.base.path)
    if not path.exists():
        path = folder / said.base.path
    if not path.exists() or digest_of(path) != said.base.digest:
        raise base_missing(folder, said.base.path, said.base.digest, there=path.exists())
    loaded = load(path, device)
    if is_adapted(loaded.model):
        merge(loaded.model)  # as the run did when it began
    model = with_head(loaded, said.head, seed=0)
    if adapters:
        adapt(model, said.adapters, seed=0, growth=_growth_of(said))
        load_trained(model, tensors)
    return Loaded(said, model.eval(), folder)


def _growth_of(said: Described) -> Growth | None:
    """Where the new tokens of a model stand whose rows are loaded next, whatever they started from."""
    added = sum(adapter.added for adapter in said.adapters if isinstance(adapter, GrowOptions))
    return Growth(said.tokenizer.vocabulary - added, ((),) * added) if added else None


def keeps_base(adapters: Sequence[AdapterOptions]) -> bool:
    """Whether a model with these adapters is kept as what was trained beside its base, which it names."""
    return any(adapter.kind not in WHOLE for adapter in adapters)


def adapt(model: nn.Module, adapters: Sequence[AdapterOptions], *, seed: int, growth: Growth | None = None) -> None:
    """Apply adapters in place. What freezes the base for an adapter's sake leaves a task head trainable: a head
    that was just drawn and stands still would answer at random, and the run would look fine."""
    apply(model, adapters, seed=seed, growth=growth)
    body_of(model).vocabulary += len(prompt_ids(model))  # the ids that it may be given
    if isinstance(model, Headed) and keeps_base(adapters):
        for module in model.head.modules():
            if not isinstance(module, Adapted):  # whose own weights stand still
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(True)


def with_head(loaded: Loaded, head: HeadOptions | None, *, seed: int) -> nn.Module:
    """The model with the head that is asked for: its own where it is the same, else a freshly drawn one."""
    if head is None:
        return body_of(loaded.model)
    if isinstance(loaded.model, Headed) and loaded.model.options == head:
        return loaded.model
    model = Headed(body_of(loaded.model), head)
    model.initialise_head(torch.Generator().manual_seed(seed))
    return model


def load_trained(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back the tensors that were trained; exactly those that are trainable or part of an adapter."""
    expected = {name: tuple(tensor.shape) for name, tensor in trained_tensors(model).items()}
    checkpoint.strict_key_report(expected, {name: tuple(t.shape) for name, t in tensors.items()})
    model.load_state_dict(tensors, strict=False)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that a run on a base may change, by canonical name: all but the frozen ones."""
    # with duplicates, for a head that is tied to a frozen embedding stands still too
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    kept = {name: p for name, p in model.state_dict().items() if name not in frozen}
    quantized = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return {name: tensor for name, tensor in kept.items() if name not in quantized}


def family_of(folder: Path) -> str | None:
    """The family of a model folder that holds no language model; None for one that does."""
    try:
        said = json.loads((folder / MODEL_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    family = str(said.get("family")) if isinstance(said, dict) else None
    return family if family in NETWORKS or family == "transformer" else None
