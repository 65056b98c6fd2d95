"""Which parts of a model a pattern names.

Patterns are those of `fnmatch` over whole dotted names: `*` also passes dots, so `*.q_proj` is every query
projection and `layers.3.*` everything in layer 3. A pattern that matches nothing, or something that cannot be
adapted, is an error: a target that is skipped in silence costs quality that nobody sees. How a part is adapted
may not enter here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from groundup.errors import GroundupError, nearest, printable

MAX_LISTED = 5
"""Names that an error lists of each pattern."""


class Whole(nn.Module):
    """A module that patterns name as a whole: what is inside has no name that a user would know."""


class Adapted(Whole):
    """A module that adapters work in. The module keeps the canonical names of the one it replaced.

    Attributes:
        mixing: the adapters that are on, by name, each with its weight; empty: the base alone.
    """

    mixing: dict[str, float]

    def adapters(self) -> list[str]:
        """The names of all adapters that are there, on or off."""
        raise NotImplementedError


def replace(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the module with that dotted name stands, in the same mode."""
    parent, _, child = name.rpartition(".")
    new.train(model.get_submodule(name).training)
    model.get_submodule(parent).register_module(child, new)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is adapted as a whole: nothing inside it has a name of its own."""
    return isinstance(module, (nn.Linear, nn.Embedding, Whole)) or not any(True for _ in module.children())


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that hold tensors of their own, by name; what adapters put inside them is not listed."""
    found: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        if is_leaf(module):
            if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
                found[name] = module
            inside = (*inside[-1:], f"{name}.")  # modules come in depth-first order: the last one is enough
    return found


def matching(patterns: Sequence[str], names: Iterable[str], *, field: str) -> list[str]:
    """The names that at least one pattern matches, in the order of `names`.

    Args:
        field: the option that the patterns come from, for the error.

    Raises:
        GroundupError: E-ADAPT-001, each pattern that matches nothing.
    """
    known = list(names)
    refuse([unmatched(p, known, field) for p in patterns if not any(fnmatchcase(n, p) for n in known)])
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def targets(
    model: nn.Module, patterns: Sequence[str], kinds: tuple[type[nn.Module], ...], *, field: str
) -> dict[str, nn.Module]:
    """The modules that the patterns name, by name in the order of the model.

    Args:
        kinds: exact types that can be adapted, and `Adapted` types that can be adapted again.
        field: the option that the patterns come from, for the errors.

    Raises:
        GroundupError: E-ADAPT-001, a pattern matches nothing; E-ADAPT-002, it matches what cannot be adapted.
    """
    modules, faults = leaves(model), []
    parameters = dict(model.named_parameters())
    chosen: set[str] = set()
    for pattern in patterns:
        found = [name for name in modules if fnmatchcase(name, pattern)]
        unfit = [_describe(name, modules[name]) for name in found if type(modules[name]) not in kinds]
        owned = tuple(f"{name}." for name in found)
        strays = [name for name in parameters if fnmatchcase(name, pattern) and not name.startswith(owned)]
        unfit += [f"{name} is a parameter of shape {tuple(parameters[name].shape)}" for name in strays]
        if unfit:
            faults.append(_unfit(pattern, unfit, kinds, field))
        elif not found:
            holders = [name for name, _ in model.named_modules() if name and fnmatchcase(name, pattern)]
            unfit = [f"{name} holds no weight itself, only modules: {name}.*" for name in holders]
            faults.append(_unfit(pattern, unfit, kinds, field) if unfit else unmatched(pattern, list(modules), field))
        chosen.update(found)
    refuse(faults)
    return {name: module for name, module in modules.items() if name in chosen}


def first_match(name: str, table: dict[str, int] | dict[str, float], default: float) -> float:
    """The value of the first pattern of `table` that matches."""
    return next((value for pattern, value in table.items() if fnmatchcase(name, pattern)), default)


def layer_of(name: str) -> int | None:
    """The number of the layer that a parameter belongs to, None outside of the layers."""
    found = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
    return int(found[1]) if found else None


def is_embedding(name: str) -> bool:
    """Whether a parameter belongs to what turns ids into states: tables, and the norm right after them."""
    return any(re.fullmatch(r"(\w+_)?embedding(_norm)?", part) for part in name.split("."))


def token_embedding(model: nn.Module) -> str:
    """The name of the table that turns token ids into states."""
    return next(name for name, _ in model.named_modules() if name.rpartition(".")[2] == "embedding")


def adapter_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that adapters added, by name; the weights of the base are not among them."""
    own: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Adapted):
            for key, value in module.named_parameters(prefix=name):
                if key not in (f"{name}.weight", f"{name}.bias"):
                    own[key] = value
    return own


def freeze_base(model: nn.Module, train: Sequence[str], *, field: str) -> None:
    """Freeze everything but the adapters' own parameters and the base parameters that `train` names.

    Raises:
        GroundupError: E-ADAPT-001 for a pattern that matches nothing, E-ADAPT-002 for one that matches the
            frozen weight under an adapter.
    """
    own = adapter_parameters(model)
    base = {name: parameter for name, parameter in model.named_parameters() if name not in own}
    kept = set(matching(train, base, field=field))
    under = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, Adapted))
    clash = sorted(name for name in kept if name.startswith(under)) if under else []
    if clash:
        raise GroundupError(
            "E-ADAPT-002",
            f"{len(clash)} parameters are to be trained in full and adapted at once",
            where=f"{field} matches {', '.join(map(printable, clash[:MAX_LISTED]))}",
            why="an adapter learns the change of a weight that stands still",
            fix="leave them out of `train`, or out of the targets of the adapter",
            exit_code=2,
        )
    for name, parameter in base.items():
        parameter.requires_grad_(name in kept)


def unmatched(pattern: str, names: Sequence[str], field: str) -> GroundupError:
    """The fault of a pattern that names nothing, with the names it may have meant."""
    last = sorted({name.rpartition(".")[2] for name in names})
    close = nearest(pattern.rpartition(".")[2], last) or nearest(pattern, list(names))
    meant = [name for name in names if close and (name == close or name.endswith(f".{close}"))]
    shown = meant or list(names)
    more = f" … {len(shown) - MAX_LISTED} more" if len(shown) > MAX_LISTED else ""
    return GroundupError(
        "E-ADAPT-001",
        f'the pattern "{printable(pattern)}" matches nothing in this model',
        where=f"{field}; {'nearest' if meant else 'there are'}: {', '.join(shown[:MAX_LISTED])}{more}",
        why="a part that is left out in silence would not be adapted, and nobody would know",
        fix=f'write "*.{close}" or a full name; * also passes dots' if meant else "name parts that the model has",
        exit_code=2,
    )


def refuse(faults: list[GroundupError]) -> None:
    """Raise the first fault with the others listed under it, if there are any."""
    if faults:
        faults[0].others = faults[1:]
        raise faults[0]


def _describe(name: str, module: nn.Module) -> str:
    return f"{name} is {'already' if isinstance(module, Adapted) else 'of type'} {type(module).__name__}"


def _unfit(pattern: str, unfit: list[str], kinds: tuple[type[nn.Module], ...], field: str) -> GroundupError:
    more = [f"… and {len(unfit) - MAX_LISTED} more"] if len(unfit) > MAX_LISTED else []
    return GroundupError(
        "E-ADAPT-002",
        f'the pattern "{printable(pattern)}" matches {len(unfit)} parts that cannot be adapted',
        where="\n".join([field, *unfit[:MAX_LISTED], *more]),
        why=f"this adapter works on modules of the types {', '.join(kind.__name__ for kind in kinds)}",
        fix="write a narrower pattern, such as *.q_proj; experts that are stacked in one tensor take no adapter",
        exit_code=2,
    )
