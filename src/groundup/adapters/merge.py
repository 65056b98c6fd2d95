"""Adapters as tensors of their own, adapters made part of the weights, and averages of models.

Merging is done in float32 and leaves plain modules, with exactly the names that the model had before it was
adapted. Files may not enter here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters.grow import GrownEmbedding, GrownLinear
from groundup.adapters.lora import LoraEmbedding, LowRank, LowRankLinear
from groundup.adapters.paths import adapter_parameters, replace
from groundup.adapters.prompt import PromptEmbedding
from groundup.adapters.quantize import dequantize, plain_linear
from groundup.adapters.scale import ScaledLinear
from groundup.adapters.switch import adapted_modules, require_adapters, set_adapter
from groundup.errors import GroundupError, printable

PARTS = ("lora_a", "lora_b", "lora_magnitude")


def merge(model: nn.Module, weights: Mapping[str, float] | None = None) -> None:
    """Make adapters part of the weights in place; a quantized base becomes a float32 one.

    The logits are those of the model with these adapters turned on. If the embedding was adapted and the head is
    tied to it, the two are different matrices afterwards and `options.tied` becomes false. All is trainable.

    Args:
        weights: which adapters, each with its weight; None: those that are on.

    Raises:
        GroundupError: E-ADAPT-004, no such adapter; E-ADAPT-007, the adapter is not a change of weights.
    """
    if weights is not None:
        set_adapter(model, weights)
    for name, module in adapted_modules(model).items():
        if isinstance(module, PromptEmbedding):
            raise _cannot("a trained prompt is text, not a change of weights", f"{name}.prompt")
    for name, module in adapted_modules(model).items():
        if isinstance(module, LowRank):
            replace(model, name, _plain(module))
        elif isinstance(module, ScaledLinear):
            replace(model, name, plain_linear(*module.merged()))
        elif isinstance(module, (GrownEmbedding, GrownLinear)):
            replace(model, name, module.plain())
    dequantize(model)
    _untie(model)
    model.requires_grad_(True)


def _plain(module: LowRank) -> nn.Module:
    """An ordinary layer with the adapted weight. Without a change it keeps the very parameter, and stays tied."""
    own = module.base_tensor()
    if module.mixing or not isinstance(own, nn.Parameter):
        own = nn.Parameter(module.merged().T.contiguous() if isinstance(module, LoraEmbedding) else module.merged())
    if isinstance(module, LoraEmbedding):
        embedding = nn.Embedding.from_pretrained(own, padding_idx=module.padding_idx)
        embedding.weight = own
        return embedding
    assert isinstance(module, LowRankLinear)
    return plain_linear(own, module.bias)


def _untie(model: nn.Module) -> None:
    """Say in the options of a network whose head has become a matrix of its own that it has one."""
    for owner in model.modules():
        parts = dict(owner.named_children())
        table, head = parts.get("embedding"), parts.get("head")
        if isinstance(table, nn.Embedding) and isinstance(head, nn.Linear) and head.weight is not table.weight:
            network: Any = owner
            network.options = network.options.model_copy(update={"tied": False})


def _cannot(what: str, where: str) -> GroundupError:
    return GroundupError(
        "E-ADAPT-007",
        f"the adapter cannot be merged: {what}",
        where=where,
        why="the merged model would not be the adapted one",
        fix="use the adapter beside the base, without merging",
        exit_code=2,
    )


def adapter_tensors(model: nn.Module, name: str) -> dict[str, Tensor]:
    """What an adapter consists of, by canonical names without the name of the adapter
    (`layers.0.attention.q_proj.lora_a`), and the base parameters that are trained beside it.

    Raises:
        GroundupError: E-ADAPT-004, no such adapter.
    """
    require_adapters(model, [name])
    own = adapter_parameters(model)
    result = {
        key: parameter.detach() for key, parameter in model.named_parameters()
        if key not in own and parameter.requires_grad
    }  # fmt: skip
    for key, value in own.items():
        module, _, last = key.rpartition(".")
        if module.endswith(tuple(f".{part}" for part in PARTS)):
            if last == name:
                result[module] = value.detach()
        elif name in ("scale", "prompt") and last == name:
            result[key] = value.detach()
    return result


@torch.no_grad()
def load_adapter_tensors(model: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `adapter_tensors` gave, into a model that was adapted with the same options.

    Raises:
        GroundupError: E-ADAPT-008, every missing, unexpected and misshapen tensor together.
    """
    own = adapter_tensors(model, name)
    faults = [f"missing: {key}" for key in sorted(own.keys() - tensors.keys())]
    faults += [f"unexpected: {printable(key)}" for key in sorted(tensors.keys() - own.keys())]
    for key in sorted(own.keys() & tensors.keys()):
        if own[key].shape != tensors[key].shape:
            faults.append(f"{key}: {tuple(tensors[key].shape)}, expected {tuple(own[key].shape)}")
    if faults:
        more = [f"… and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise GroundupError(
            "E-ADAPT-008",
            f'{len(faults)} tensors of the adapter "{printable(name)}" do not fit the model',
            where="\n".join(faults[:20] + more),
            why="an adapter belongs to the base, the targets and the ranks that it was trained with",
            fix="load it into its own base, with the options that are saved beside it",
        )
    for key, target in own.items():
        target.copy_(tensors[key])


def average(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The average of checkpoints of one model (Izmailov et al. 2018, arXiv:1803.05407), each tensor in its own data
    type, summed in float64. Tensors of whole numbers must be equal in all.

    Args:
        weights: one for each state; they are divided by their sum. None: all alike.

    Raises:
        GroundupError: E-ADAPT-009, the states are not those of one model.
    """
    shares = list(weights) if weights is not None else [1.0] * len(states)
    total = sum(shares)
    if not states or len(shares) != len(states) or not total > 0:
        raise _unlike(f"{len(states)} states and {len(shares)} weights with the sum {total}")
    first = states[0]
    for number, state in enumerate(states[1:], start=2):
        differing = sorted(first.keys() ^ state.keys())
        differing += [name for name in first.keys() & state.keys() if first[name].shape != state[name].shape]
        if differing:
            raise _unlike(f"state {number} differs in {len(differing)} names or shapes: {printable(differing[0])}")
    result = {}
    for name, value in first.items():
        if value.is_floating_point():
            parts = [state[name].double() * (share / total) for state, share in zip(states, shares)]
            result[name] = torch.stack(parts).sum(dim=0).to(value.dtype)
        elif all(torch.equal(value, state[name]) for state in states):
            result[name] = value.clone()
        else:
            raise _unlike(f"{name} holds whole numbers that differ: quantized weights have no average")
    return result


def _unlike(what: str) -> GroundupError:
    return GroundupError(
        "E-ADAPT-009",
        "these states have no average",
        where=what,
        why="only states of one and the same model can be averaged, tensor by tensor",
        fix="name checkpoints of one run, or runs that began with the same model",
        exit_code=2,
    )
