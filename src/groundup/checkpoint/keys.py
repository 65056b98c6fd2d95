"""Whether the tensors of a file are those of a model: all differences in one report.

Nothing that reads files may enter here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groundup.errors import GroundupError, nearest, printable

MAX_LISTED = 20
"""Names listed of each kind of difference; the counts are always complete."""


def strict_key_report(expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> None:
    """Compare names and shapes of tensors, and list every difference at once.

    Args:
        expected: the shape of each tensor that the model has.
        found: the shape of each tensor that the file has.

    Raises:
        GroundupError: E-CKPT-010, listing missing, unexpected and misshapen tensors together.
    """
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(set(found) - set(expected))
    misshapen = [name for name in sorted(set(expected) & set(found)) if [*expected[name]] != [*found[name]]]
    if not missing and not unexpected and not misshapen:
        return

    def missing_line(name: str) -> str:
        close = nearest(name, unexpected) if len(unexpected) <= MAX_LISTED else None
        return printable(name) + (f"   (nearest unexpected: {printable(close)})" if close else "")

    def shape_line(name: str) -> str:
        return f"{printable(name)}   expected {[*expected[name]]}, found {[*found[name]]}"

    lines = _listed("missing", [missing_line(name) for name in missing[:MAX_LISTED]], len(missing))
    lines += _listed("unexpected", [printable(name) for name in unexpected[:MAX_LISTED]], len(unexpected))
    lines += _listed("misshapen", [shape_line(name) for name in misshapen[:MAX_LISTED]], len(misshapen))
    raise GroundupError(
        "E-CKPT-010",
        f"the weights do not fit the model: {len(missing)} missing, {len(unexpected)} unexpected, "
        f"{len(misshapen)} with another shape",
        where="\n".join(lines),
        why="a model that is only partly loaded runs, and answers nonsense",
        fix="build the model with the options that stand beside the weights (model.json),\n"
        "or name the weights that belong to this model",
    )


def _listed(title: str, lines: list[str], count: int) -> list[str]:
    if not count:
        return []
    rest = [f"    … and {count - len(lines)} more"] if count > len(lines) else []
    return [f"{title} ({count}):", *(f"    {line}" for line in lines), *rest]
