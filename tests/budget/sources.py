"""The project's own Python files, parsed once, for the tests that hold its budgets."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "groundup"


class File(NamedTuple):
    """One source file; `name` is its path below src/groundup, such as `data/pack.py`."""

    name: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The folder it is in, empty for the files at the top."""
        return self.name.split("/")[0] if "/" in self.name else ""

    @property
    def module(self) -> str:
        parts = ["groundup", *self.name.removesuffix(".py").split("/")]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def files() -> tuple[File, ...]:
    """Every file of the package, in the order of their names."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(File(path.relative_to(PACKAGE).as_posix(), text, ast.parse(text, str(path))))
    return tuple(found)


def imports(file: File, *, only_at_import: bool = False) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, with the line; `from a import b` gives `a` and `a.b`.

    Args:
        only_at_import: leave out what is imported inside functions or under `if TYPE_CHECKING`.
    """
    for node in at_import(file.tree) if only_at_import else ast.walk(file.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = file.module.split(".")
                kept = len(package) - node.level + file.name.endswith("__init__.py")
                base = ".".join([*package[:kept], *([base] if base else [])])
            yield base, node.lineno
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import(child)


def functions(file: File) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the last one."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def dotted(node: ast.expr) -> str:
    """`a.b.c` for such an expression, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""
