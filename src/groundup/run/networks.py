"""Networks that are no language models: built, initialised, written as model folders and read again.

Such a folder holds `model.safetensors`, `model.json` (family, options, what goes in and comes out) and
`preparation.json` (how raw rows become what goes in: scales, sizes, labels), if there is anything to prepare.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from groundup import checkpoint
from groundup.data.table_scaler import Preprocessor
from groundup.errors import GroundupError, printable
from groundup.functional import evaluating, spare_the_compiler
from groundup.models import NETWORKS, PREDICTING, NetworkOptions
from groundup.models.categories import CODES, CategoryEmbeddings
from groundup.models.predictor import Predictor
from groundup.run.model_faults import building
from groundup.run.models import MODEL_FILE, as_json, find_model

PREPARATION_FILE = "preparation.json"


@dataclass(frozen=True, kw_only=True)
class NetworkSaid:
    """What the files beside the weights say.

    Attributes:
        family, options: of models.NETWORKS.
        shape: of one input, without the batch.
        outputs: labels, values, actions or numbers of an action; 0 where the network makes inputs of its own.
        kind: what the outputs are: a task of labelled rows, "images" or "actions".
        labels: names of the outputs, if they have any.
        reads: the tensor of a batch that goes in.
        low, high: the range of each number of a continuous action.
        preparation: how raw rows become inputs, as the room of the data wrote it.
        embeddings: of each column of codes that goes in too, how many codes it has and how wide their vectors are.
    """

    family: str
    options: NetworkOptions
    shape: tuple[int, ...]
    outputs: int
    kind: str
    labels: list[str] = field(default_factory=list)
    reads: str = ""
    low: list[float] | None = None
    high: list[float] | None = None
    preparation: dict[str, Any] = field(default_factory=dict)
    embeddings: list[tuple[int, int]] = field(default_factory=list)


def network(said: NetworkSaid) -> nn.Module:
    """The network, its values not yet set."""
    build: Any = NETWORKS[said.family][1]
    # on the CPU, for the numbers are read where the network itself is built without memory
    low, high = (None if one is None else torch.tensor(one, device="cpu") for one in (said.low, said.high))
    if said.family == "soft_actor_critic":
        model: nn.Module = build(said.options, said.shape, low, high)
    elif said.family == "actor_critic":
        model = build(said.options, said.shape, said.outputs, low, high)
    elif said.embeddings:
        embedding = CategoryEmbeddings(said.embeddings)
        body = build(said.options, (math.prod(said.shape) + embedding.width,), said.outputs)
        return Predictor(body, kind=said.kind, labels=said.labels, reads=said.reads, embedding=embedding)
    else:
        model = build(said.options, said.shape, said.outputs)
    if said.family not in PREDICTING:
        return model
    return Predictor(model, kind=said.kind, labels=said.labels, reads=said.reads)


def one_row(said: NetworkSaid, device: torch.device | None = None) -> dict[str, Tensor]:
    """A batch of one row of zeros, as a network that answers rows reads it."""
    row = {said.reads: torch.zeros(1, *said.shape, device=device)}
    if said.embeddings:
        row[CODES] = torch.zeros(1, len(said.embeddings), dtype=torch.int64, device=device)
    return row


def initialised(said: NetworkSaid, device: torch.device, seed: int) -> nn.Module:
    """A new network with freshly drawn weights; equal for equal seeds on every kind of device."""
    model = network(said)
    model.initialise(torch.Generator().manual_seed(seed))  # type: ignore[operator]
    return model.to(device)


def network_files(said: NetworkSaid) -> dict[str, bytes]:
    """The small files of a model folder or checkpoint."""
    described = {
        "family": said.family,
        "options": said.options.model_dump(),
        "network": {
            "shape": list(said.shape),
            "outputs": said.outputs,
            "kind": said.kind,
            "labels": said.labels,
            "reads": said.reads,
            "low": said.low,
            "high": said.high,
            "embeddings": said.embeddings,
        },
    }
    files = {MODEL_FILE: as_json(described)}
    if said.preparation:
        files[PREPARATION_FILE] = as_json(said.preparation)
    return files


def is_network(folder: Path) -> bool:
    """Whether a model folder holds a network that is no language model."""
    try:
        said = json.loads((folder / MODEL_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and str(said.get("family")) in NETWORKS


def describe_network(files: dict[str, bytes], folder: Path) -> NetworkSaid:
    """Read the small files.

    Raises:
        GroundupError: E-MODEL-001 a file is missing or malformed.
    """
    try:
        said = json.loads(files[MODEL_FILE])
        family, told = said["family"], said["network"]
        low, high = (None if told[name] is None else [float(one) for one in told[name]] for name in ("low", "high"))
        preparation = json.loads(files.get(PREPARATION_FILE, b"{}"))
        if not isinstance(preparation, dict):
            raise TypeError(f"{PREPARATION_FILE} is no object")
        return NetworkSaid(
            family=family,
            options=NETWORKS[family][0].model_validate(said["options"]),
            shape=tuple(int(size) for size in told["shape"]),
            outputs=int(told["outputs"]),
            kind=str(told["kind"]),
            labels=[str(label) for label in told["labels"]],
            reads=str(told["reads"]),
            low=low,
            high=high,
            preparation=preparation,
            embeddings=[(int(codes), int(width)) for codes, width in told.get("embeddings", ())],
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, ValidationError) as error:
        raise GroundupError(
            "E-MODEL-001",
            f"{MODEL_FILE} cannot be read: {printable(str(error))}",
            where=printable(str(folder / MODEL_FILE)),
            why="it says which network the weights belong to",
            fix="groundup verify MODEL   (tells whether the folder is as it was written)",
        ) from error


@dataclass
class LoadedNetwork:
    """A network with its weights, and what the files beside them say."""

    said: NetworkSaid
    model: nn.Module
    folder: Path


def load_network(path: Path, device: torch.device) -> LoadedNetwork:
    """The network that `path` names, with its weights, in evaluation mode; see `models.find_model`.

    Raises:
        GroundupError: E-MODEL-006 for a language model; what reading and checking its files raises.
    """
    folder = find_model(path)
    if not is_network(folder):
        raise GroundupError(
            "E-MODEL-006",
            "the model is a language model, and the data is no language",
            where=printable(str(path)),
            why="its weights belong to tokens",
            fix="name a model that was trained on data of this kind",
            exit_code=2,
        )
    tensors, files = checkpoint.load_averaged(folder)
    said = describe_network(files, folder)
    with building(folder / MODEL_FILE), torch.device("meta"):  # before memory is taken for it
        expected = {name: tuple(tensor.shape) for name, tensor in network(said).state_dict().items()}
    checkpoint.strict_key_report(expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    model = network(said)
    model.load_state_dict(tensors)
    return LoadedNetwork(said, model.to(device).eval(), folder)


def require_same_inputs(loaded: LoadedNetwork, said: NetworkSaid) -> None:
    """Refuse data whose inputs a loaded network cannot read.

    Raises:
        GroundupError: E-MODEL-007 if inputs are of another shape or other columns, or actions have another range.
    """
    if (loaded.said.low, loaded.said.high) != (said.low, said.high):
        raise GroundupError(
            "E-MODEL-007",
            f"the model's actions go from {loaded.said.low} to {loaded.said.high}, those of the environment from "
            f"{said.low} to {said.high}",
            where=printable(str(loaded.folder)),
            why="a policy counts its actions in shares of their range",
            fix="go on in an environment with the same range of actions, or start from nothing",
            exit_code=2,
        )
    before, now = (one.preparation.get("columns") for one in (loaded.said, said))
    if before and now and (names := [Preprocessor.from_dict(one).meanings for one in (before, now)])[0] != names[1]:
        other = [f"{a} → {b}" for a, b in zip(*names) if a != b] or [f"{len(names[0])} → {len(names[1])} columns"]
        raise GroundupError(
            "E-MODEL-007",
            "the model reads other columns, or the same in another order",
            where=f"{printable(str(loaded.folder))}: {printable(', '.join(other[:5]))}",
            why="each weight of its first layer belongs to one column, each vector of an embedding to one category",
            fix="name the columns as they were for the model (data.columns), or start from nothing",
            exit_code=2,
        )
    if loaded.said.shape != said.shape:
        raise GroundupError(
            "E-MODEL-007",
            f"the model reads inputs of shape {list(loaded.said.shape)}, the data has {list(said.shape)}",
            where=printable(str(loaded.folder)),
            why="its first layer has one weight for each number that goes in",
            fix="prepare the data as it was for the model (size, channels, columns), or start from nothing",
            exit_code=2,
        )


def go_on(loaded: LoadedNetwork, said: NetworkSaid, *, seed: int) -> nn.Module:
    """A loaded network for new data that it can read: with a freshly drawn head where the outputs are not the same."""
    same = (loaded.said.outputs, loaded.said.labels, loaded.said.kind) == (said.outputs, said.labels, said.kind)
    if same:
        return loaded.model.train()
    fresh = initialised(said, torch.device("cpu"), seed)
    own, learned = fresh.state_dict(), loaded.model.state_dict()
    makes = said.kind == "images"  # a head that makes pixels knows no labels
    kept = {
        name: tensor
        for name, tensor in learned.items()
        if own[name].shape == tensor.shape and (makes or "head" not in name.split("."))
    }
    fresh.load_state_dict({**own, **kept})
    return fresh.train()


def flops_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Floating-point operations of forward and backward for one row: three times those of the matrix products and
    convolutions of its forward pass, counted on the row."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), evaluating(model), FlopCounterMode(display=False) as counter:
        spare_the_compiler(type(counter.mode).__torch_dispatch__)
        model(*inputs)
    return 3.0 * counter.get_total_flops()
