"""Number formats of a run: weights and sums stay float32; matrix products may run in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch


def autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """A factory of contexts in which matrix products run in `precision` ("float32" or "bfloat16")."""
    if precision == "float32":
        return nullcontext

    def context() -> AbstractContextManager[None]:
        return torch.autocast(device.type, dtype=torch.bfloat16)

    return context
