"""What the engine refuses, and how an answer fails. Nothing is decided here."""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.errors import GroundupError


def too_long(length: int, context: int) -> GroundupError:
    """The refusal of a prompt that leaves no room for an answer."""
    return GroundupError(
        "E-GEN-003",
        f"the prompt has {length} tokens, the context is {context}",
        where="the prompt",
        why="prompt and answer share the context, and nothing slides out of sight in silence",
        fix=f"shorten the prompt by at least {length - context + 1} tokens",
        exit_code=2,
    )


def not_finite(logits: Tensor, position: int) -> GroundupError:
    """The refusal to draw from logits that are NaN or infinite."""
    return GroundupError(
        "E-GEN-004",
        f"the model's output at position {position} is not finite (NaN or infinity)",
        where=f"{int((~torch.isfinite(logits)).sum())} of {logits.numel()} logits",
        why="the weights are damaged, or the training that made them diverged",
        fix="groundup verify MODEL   (are the files whole?), then use an earlier checkpoint",
    )


def queue_full(waiting: int) -> GroundupError:
    return GroundupError(
        "E-GEN-011",
        f"{waiting} answers wait already",
        where="the engine's queue",
        why="more would wait longer than anyone reads",
        fix="ask again in a moment",
    )


def closing() -> GroundupError:
    return GroundupError(
        "E-GEN-014",
        "the engine is ending",
        where="the engine",
        why="the process was asked to stop; answers under way are finished first",
        fix="ask again when it has started anew",
    )


def failed(error: BaseException) -> GroundupError:
    return GroundupError(
        "E-GEN-015",
        f"computing the answer failed: {type(error).__name__}",
        where=str(error).splitlines()[0][:200] if str(error) else "the network",
        why="the other answers go on",
        fix="groundup verify MODEL   (are the files whole?); please report it if they are",
    )
