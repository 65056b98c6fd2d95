"""Which parameters stand still, from the start or until a step.

Frozen parameters get no gradient. One that is unfrozen later is known to the optimizer from the start, but until
then its gradient is None, and torch's optimizers neither touch such a parameter nor make state for it: state
begins with the first gradient. What is trainable is a function of the step alone, so a resume is exact.

The engine calls, in this order: `freeze` before it builds the optimizer; `unfreeze_at(model, options, step)` before
the first step, after a resume, and before each step in `unfreezing_steps`; `evaluate_frozen(model)` after every
`model.train()` and every `unfreeze_at`. All work is done by parameter names; model families may not enter here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from groundup.adapters.paths import is_embedding, layer_of, matching, refuse
from groundup.errors import GroundupError


class UnfreezeStep(BaseModel):
    """From a step on, more is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    step: int = Field(ge=1, description="0-based step from which on these parameters are trained")
    patterns: list[str] = Field(default=[], description="patterns of parameters to unfreeze")
    last_layers: int = Field(default=0, ge=0, description="the last N layers to unfreeze")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.patterns and not self.last_layers:
            raise ValueError("says neither patterns nor last_layers, so it unfreezes nothing")
        return self


class FreezeOptions(BaseModel):
    """Keep parts of the model as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["freeze"]
    patterns: list[str] = Field(default=[], description="patterns of parameters to freeze")
    first_layers: int = Field(default=0, ge=0, description="freeze the first N layers")
    all_but_last: int | None = Field(
        default=None, ge=0, description="freeze the embeddings and all layers but the last N"
    )
    embeddings: bool = Field(default=False, description="freeze the embeddings, and a head that is tied to them")
    train: list[str] = Field(default=[], description="patterns of parameters that are trained in spite of all this")
    unfreeze: list[UnfreezeStep] = Field(default=[], description="gradual unfreezing, in the order of the steps")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not (self.patterns or self.first_layers or self.all_but_last is not None or self.embeddings):
            raise ValueError("freezes nothing: say patterns, first_layers, all_but_last or embeddings")
        steps = [entry.step for entry in self.unfreeze]
        if steps != sorted(set(steps)):
            raise ValueError("the steps of unfreeze must rise")
        return self


def frozen_at(names: Sequence[str], options: FreezeOptions, step: int) -> list[str]:
    """The parameters that stand still in the 0-based step `step`, in the order of `names`.

    Args:
        names: all parameters of the model, by their canonical names.

    Raises:
        GroundupError: E-ADAPT-001, a pattern matches nothing; E-ADAPT-003, the model has fewer layers.
    """
    layers = 1 + max((layer for layer in map(layer_of, names) if layer is not None), default=-1)
    _require_layers(options, layers)
    chosen = set(matching(options.patterns, names, field="freeze.patterns"))
    kept = layers if options.all_but_last is None else options.all_but_last
    for name in names:
        layer = layer_of(name)
        if layer is None:
            frozen = is_embedding(name) and (options.embeddings or options.all_but_last is not None)
        else:
            frozen = layer < options.first_layers or layer < layers - kept
        if frozen:
            chosen.add(name)
    chosen.difference_update(matching(options.train, names, field="freeze.train"))
    for index, entry in enumerate(options.unfreeze):
        freed = set(matching(entry.patterns, names, field=f"freeze.unfreeze[{index}].patterns"))
        numbered = ((name, layer_of(name)) for name in names)
        freed |= {name for name, layer in numbered if layer is not None and layer >= layers - entry.last_layers}
        if step >= entry.step:
            chosen -= freed
    return [name for name in names if name in chosen]


def freeze(model: nn.Module, options: FreezeOptions, *, seed: int) -> None:
    """Freeze for good what is never trained. What is unfrozen later stays trainable for the optimizer to know it:
    `unfreeze_at` freezes it until then.

    Args:
        seed: unused, every adapter has it.

    Raises:
        GroundupError: E-ADAPT-001, a pattern matches nothing; E-ADAPT-003, the model has fewer layers, or a
            step unfreezes nothing.
    """
    parameters = dict(model.named_parameters())
    before = frozen_at(list(parameters), options, 0)
    for index, entry in enumerate(options.unfreeze):
        after = frozen_at(list(parameters), options, entry.step)
        if after == before:
            raise GroundupError(
                "E-ADAPT-003",
                f"nothing is unfrozen at step {entry.step}: all that it names is trained already",
                where=f"freeze.unfreeze[{index}]",
                why="a step of the schedule that changes nothing is most likely a slip",
                fix="name parameters that are frozen until then, or leave the entry out",
                exit_code=2,
            )
        before = after
    for name in before:
        parameters[name].requires_grad_(False)


def unfreeze_at(model: nn.Module, options: FreezeOptions, step: int) -> None:
    """Make exactly those of the scheduled parameters trainable that are trained in step `step`; parameters
    outside of the schedule are not touched. Frozen ones lose the gradient that they may have."""
    parameters = dict(model.named_parameters())
    names = list(parameters)
    if not options.unfreeze:
        return
    last = set(frozen_at(names, options, options.unfreeze[-1].step))
    now = set(frozen_at(names, options, step))
    for name in frozen_at(names, options, 0):
        if name not in last:
            parameters[name].requires_grad_(name not in now)
            if name in now:
                parameters[name].grad = None


def unfreezing_steps(options: FreezeOptions) -> list[int]:
    """The steps before which `unfreeze_at` has something to do, besides the first one of a session."""
    return [entry.step for entry in options.unfreeze]


def evaluate_frozen(model: nn.Module) -> None:
    """Put every module without a trainable parameter into evaluation mode: no dropout, and statistics of norms
    stand still. A module without any parameter goes with the one that it stands in."""
    parameters = list(model.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        model.eval()
        return
    for child in model.children():
        evaluate_frozen(child)


def _require_layers(options: FreezeOptions, layers: int) -> None:
    asked = [("freeze.first_layers", options.first_layers), ("freeze.all_but_last", options.all_but_last or 0)]
    asked += [(f"freeze.unfreeze[{index}].last_layers", e.last_layers) for index, e in enumerate(options.unfreeze)]
    refuse(
        [
            GroundupError(
                "E-ADAPT-003",
                f"{field} is {count}, but the model has {layers} layers",
                where=field,
                why="layers that are not there cannot be frozen or unfrozen",
                fix=f"write a number of at most {layers}",
                exit_code=2,
            )
            for field, count in asked
            if count > layers
        ]
    )
