"""What the objectives of models with a task head share: what they ask of such a model, and the names of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from groundup.contract import Batch
from groundup.errors import GroundupError, nearest, printable


class TaskModel(Protocol):
    """A model with a head: it answers a batch with logits, values or embeddings."""

    kind: str
    labels: list[str]

    def __call__(self, batch: Batch) -> Tensor: ...


class Stateless:
    """The part of contract.Objective that is empty where nothing moves besides the model."""

    turns: tuple[str, ...] = ("model",)

    def after_step(self, step: int) -> None:
        """Nothing moves besides the model."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to carry on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""


def require_head(model: TaskModel, head: str, objective: str) -> None:
    """The model must have the head that the objective trains.

    Raises:
        GroundupError: E-RECIPE-050.
    """
    if model.kind != head:
        raise GroundupError(
            "E-RECIPE-050",
            f"the objective {objective} trains a head of kind {head}, and the model has one of kind {model.kind}",
            where=f"objective.kind: {objective}",
            why="what the head gives is not what the loss is made of",
            fix=f"set the kind of the head to {head}, or choose the objective of a {model.kind} head",
            exit_code=2,
        )


def by_label(weights: Mapping[str, float], labels: Sequence[str], field: str) -> Tensor:
    """The weights in the order of the labels, (L,) float32; a label that is not named has weight 1.

    Raises:
        GroundupError: E-RECIPE-051, all unknown labels at once.
    """
    unknown = [name for name in weights if name not in labels]
    if unknown:
        near = [(name, nearest(name, list(labels))) for name in unknown]
        meant = [f"{printable(name)} → {printable(found)}" for name, found in near if found]
        raise GroundupError(
            "E-RECIPE-051",
            f"{len(unknown)} of {len(weights)} weights are for labels that the head does not have: "
            + printable(", ".join(unknown)),
            where=f"objective.{field}",
            why="a weight that belongs to no label would change nothing",
            fix=f"perhaps you meant {'; '.join(meant)}" if meant else f"labels: {printable(', '.join(labels))}",
            exit_code=2,
        )
    return torch.tensor([weights.get(label, 1.0) for label in labels])
