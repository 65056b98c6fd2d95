"""Parameter groups by path: which rate and which decay each parameter gets.

A rate is a multiple of the player's learning rate. It falls from layer to layer towards the input
(layer-wise decay: Howard & Ruder 2018, ULMFiT, arXiv:1801.06146, section 3.2) and can be set by pattern; the
first pattern that matches a name counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from groundup.errors import GroundupError, nearest

EMBEDDING_PARTS = ("embedding", "head.", "prompt.")
"""Parameters whose rows are looked up, are added to what is, or compete in a softmax: no decay, and no map between
spaces."""

ADAPTER_PARTS = ("lora_a.", "lora_b.")
"""Low-rank factors: AdamW moves them, since orthogonal updates of a thin factor are not what Muon is for."""

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class GroupOptions(BaseModel):
    """Parameters chosen by path that learn at another rate or with another decay."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pattern: str = Field(min_length=1, description='parameter names, with * for any part: "*.bias", "layers.0.*"')
    rate: float = Field(default=1.0, gt=0.0, le=1000.0, allow_inf_nan=False, description="multiple of learning_rate")
    weight_decay: float | None = Field(default=None, ge=0.0, le=1.0, description="instead of the player's")
    l1: float | None = Field(default=None, ge=0.0, le=10.0, description="instead of the player's")


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter maps hidden states to hidden states: what decays, and what Muon updates."""
    return parameter.dim() >= 2 and not any(part in name for part in EMBEDDING_PARTS)


def is_muons(name: str, parameter: Tensor) -> bool:
    """Whether Muon updates a parameter: hidden matrices, one or a stack of them; no kernels of convolutions."""
    return is_hidden_matrix(name, parameter) and parameter.dim() < 4 and not any(p in name for p in ADAPTER_PARTS)


def penalised(name: str, parameter: Tensor, *, looks_up: bool) -> bool:
    """Whether decay and L1 apply to a parameter. A head is spared only where the model `looks_up` rows of a table:
    there it holds a row for each token, elsewhere it is a layer like the others."""
    is_layer = parameter.dim() >= 2 and "embedding" not in name
    return is_hidden_matrix(name, parameter) or (not looks_up and is_layer)


def rates(names: list[str], layer_decay: float | None) -> dict[str, float]:
    """The multiple of the learning rate for each name: `layer_decay` to the power of the distance from the
    top; the embedding, or what first reads an image, lies below layer 0, what is in no layer at the top."""
    layers = 1 + max((int(found[1]) for name in names if (found := LAYER.search(name))), default=-1)
    multiples = {}
    for name in names:
        found = LAYER.search(name)
        below = found is None and ("embedding" in name or "stem." in name or "patch_proj." in name)
        distance = layers - 1 - int(found[1]) if found else layers if below else 0
        multiples[name] = 1.0 if layer_decay is None else layer_decay**distance
    return multiples


def match_groups(names: list[str], groups: Iterable[GroupOptions], player: str) -> dict[str, GroupOptions]:
    """The first group that matches each name.

    Raises:
        GroundupError: E-RECIPE-041 patterns that match no trainable parameter, all of them.
    """
    groups = list(groups)
    matched: dict[str, GroupOptions] = {}
    idle = []
    for group in groups:
        hits = [name for name in names if fnmatchcase(name, group.pattern)]
        if not hits:
            near = nearest(group.pattern.replace("*", ""), names)
            idle.append(f'"{group.pattern}"' + (f" (did you mean {near}?)" if near else ""))
        for name in hits:
            matched.setdefault(name, group)
    if idle:
        raise GroundupError(
            "E-RECIPE-041",
            f"{len(idle)} of {len(groups)} parameter groups match no trainable parameter",
            where=f"optim.{player}.groups: " + ", ".join(idle),
            why="a group without parameters changes nothing, which is hardly what was meant",
            fix="groundup plan RECIPE   (lists the parts), or look at the names: " + ", ".join(names[:4]) + " …",
            exit_code=2,
        )
    return matched
