"""Tensors into networks: names and shapes compared, tied ones completed, then copied or taken over."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from groundup import checkpoint
from groundup.checkpoint import Stored, Unmade
from groundup.errors import GroundupError
from groundup.formats.foreign import MadeOnDemand
from groundup.models.heads import Headed

OneStored = TypeVar("OneStored", bound=Stored)


def to_store(tensors: Mapping[str, Tensor]) -> dict[str, Stored]:
    """Tensors as they are to be written; those that cost memory when they are asked for, one at a time."""
    if not isinstance(tensors, MadeOnDemand):
        return dict(tensors)
    return {name: Unmade(tensors.shape_of(name), torch.float32, partial(tensors.__getitem__, name)) for name in tensors}


def complete(model: nn.Module, tensors: dict[str, OneStored]) -> dict[str, OneStored]:
    """All tensors of a network, a tied head by both its names; every difference in names and shapes is told at once.

    Args:
        model: the network; one without memory will do.
        tensors: by its names.
    """
    tied = model_is_tied(model.get_submodule("body") if isinstance(model, Headed) else model)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for head, table in (("head.weight", "embedding.weight"), ("body.head.weight", "body.embedding.weight")):
        if not tied or head not in expected or table not in tensors:
            continue
        tensors = {**tensors, head: tensors.get(head, tensors[table])}
        if not _same(tensors[head], tensors[table]):
            raise GroundupError(
                "E-MODEL-003",
                "the weights hold an output matrix of its own, and the model's options say that it is the embedding",
                where=f"{head} and {table}",
                why="one of the two would be lost, and the model would answer otherwise than it was trained to",
                fix='set "tied": false in the options of its model.json, or copy the folder again from its source',
            )
    checkpoint.strict_key_report(expected, {name: tuple(t.shape) for name, t in tensors.items()})
    return tensors


def _same(one: Stored, other: Stored) -> bool:
    if one is other or not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return True
    return one.shape != other.shape or torch.equal(one, other)  # other shapes are told with all that do not fit


def load_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy tensors into a network; see `complete`."""
    model.load_state_dict(complete(model, tensors), strict=True)


def adopt_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """As `load_weights`, but the network keeps the tensors themselves where it can: nothing else may hold them."""
    whole, own = complete(model, tensors), dict(model.named_parameters(remove_duplicate=False))
    alike = set(own) == set(whole) and all(
        (p.shape, p.dtype, p.device) == (whole[name].shape, whole[name].dtype, whole[name].device)
        for name, p in own.items()
    )
    if not alike:
        model.load_state_dict(whole, strict=True)
        return
    taken: dict[nn.Parameter, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in taken:
                tensor = whole[f"{path}.{name}".lstrip(".")].contiguous()
                taken[parameter] = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
            module.register_parameter(name, taken[parameter])


def model_is_tied(model: nn.Module) -> bool:
    """Whether the output matrix is the embedding."""
    names = dict(model.named_parameters(remove_duplicate=False))
    return "head.weight" in names and names["head.weight"] is names.get("embedding.weight")
