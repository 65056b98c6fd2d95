"""Which of the adapters in a model are on: one, several with weights, or none. How they compute may not enter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from groundup.adapters.paths import Adapted
from groundup.errors import GroundupError, printable


def adapted_modules(model: nn.Module) -> dict[str, Adapted]:
    """The modules that adapters work in, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapted)}


def adapter_names(model: nn.Module) -> list[str]:
    """The names of all adapters in a model, sorted."""
    return sorted({name for module in adapted_modules(model).values() for name in module.adapters()})


def is_adapted(model: nn.Module) -> bool:
    """Whether anything stands in a model that `merge` would make part of its weights."""
    return bool(adapted_modules(model))


def set_adapter(model: nn.Module, names: str | Mapping[str, float] | None) -> None:
    """Turn adapters on and all others off, from the next forward on. What is trainable does not change.

    Args:
        names: one name; several with the weight of each (their changes of the weights are summed up so); or
            None for the base alone.

    Raises:
        GroundupError: E-ADAPT-004, the model has no adapter of that name.
    """
    mixing = {names: 1.0} if isinstance(names, str) else dict(names or {})
    require_adapters(model, list(mixing))
    for module in adapted_modules(model).values():
        own = module.adapters()
        module.mixing = {name: weight for name, weight in mixing.items() if name in own}


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Within the block the model is its base, such as the reference of a preference objective."""
    modules = adapted_modules(model).values()
    kept = [module.mixing for module in modules]
    for module in modules:
        module.mixing = {}
    try:
        yield
    finally:
        for module, mixing in zip(modules, kept):
            module.mixing = mixing


def require_adapters(model: nn.Module, names: list[str]) -> None:
    """Refuse names that no adapter of the model has (E-ADAPT-004)."""
    known = adapter_names(model)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise GroundupError(
            "E-ADAPT-004",
            f"the model has no adapter named {', '.join(map(printable, unknown))}",
            where=f"its adapters: {', '.join(known) or 'none'}",
            why="only an adapter that was added or loaded can be turned on or merged",
            fix="name one of these adapters, or load the one that is meant",
            exit_code=2,
        )
