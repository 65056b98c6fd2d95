"""The corpus that every Python installation carries: the documentation of its own standard library.

This file finds the docstrings, the `pydoc` topics and (when asked) the sources of the running Python and
writes them as documents. Source files are parsed, never imported; only C extension modules, which have no
source to parse and do nothing when imported, are inspected as objects. Nothing is downloaded, and nothing
here knows about tokens, tensors or training.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

from groundup.data.sides import is_held_out
from groundup.errors import GroundupError

SKIPPED_FOLDERS = {
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib-dynload", "lib2to3", "pydoc_data",
    "site-packages", "test", "tests", "turtledemo",
}  # fmt: skip
"""Folders without documentation of their own: tests, bundled wheels, demonstrations, installed packages."""

SKIPPED_MODULES = {"antigravity", "this", "sitecustomize", "usercustomize"}
"""Two jokes, and two files that belong to this machine rather than to Python."""

PUBLIC_NAME = {
    "_bisect": "bisect", "_bz2": "bz2", "_codecs": "codecs", "_collections": "collections",
    "_collections_abc": "collections.abc", "_contextvars": "contextvars", "_csv": "csv",
    "_datetime": "datetime", "_functools": "functools", "_heapq": "heapq", "_io": "io", "_json": "json",
    "_locale": "locale", "_lzma": "lzma", "_operator": "operator", "_pickle": "pickle",
    "_pydatetime": "datetime", "_pydecimal": "decimal", "_pyio": "io", "_queue": "queue",
    "_random": "random", "_signal": "signal", "_socket": "socket", "_stat": "stat", "_struct": "struct",
    "_thread": "threading", "_tracemalloc": "tracemalloc", "_warnings": "warnings", "_weakref": "weakref",
    "concurrent.futures._base": "concurrent.futures", "email._policybase": "email.policy",
    "importlib.resources._common": "importlib.resources", "pathlib._local": "pathlib", "posix": "os",
    "posixpath": "os.path", "tomllib._parser": "tomllib", "zipfile._path": "zipfile",
    "zoneinfo._zoneinfo": "zoneinfo",
}  # fmt: skip
"""Modules that people know under another name than the one of the file that implements them."""

COMPILED_MODULES = (
    "_bisect", "_bz2", "_codecs", "_collections", "_contextvars", "_csv", "_datetime", "_functools",
    "_heapq", "_io", "_json", "_locale", "_lzma", "_operator", "_pickle", "_queue", "_random", "_signal",
    "_socket", "_stat", "_struct", "_thread", "_tracemalloc", "_warnings", "_weakref", "array", "atexit",
    "binascii", "builtins", "cmath", "errno", "faulthandler", "fcntl", "gc", "grp", "itertools",
    "marshal", "math", "mmap", "posix", "pwd", "resource", "select", "sys", "syslog", "termios", "time",
    "unicodedata", "zlib",
)  # fmt: skip
"""C modules whose import does nothing but make them known; one that this platform lacks is left out."""

SHARED_TEXT = 60
"""A paragraph of at least so many characters that stands in several places counts as copied."""

Kind = Literal["docs", "topic", "code"]


class Entry(NamedTuple):
    """One documented thing: `name` is dotted within its module and empty for the module itself;
    `signature` is the argument list in parentheses, or empty where it is not known."""

    module: str
    name: str
    kind: Literal["module", "class", "function", "method", "attribute"]
    signature: str
    text: str

    @property
    def full_name(self) -> str:
        """The name as it is written after `import module`; builtins stand alone."""
        if self.module == "builtins" and self.name:
            return self.name
        return f"{self.module}.{self.name}" if self.name else self.module


class Document(NamedTuple):
    """One text of the corpus. `module` is what the held-out split goes by: docs, code and questions of
    one module stand on the same side, and so do topics that quote each other."""

    module: str
    text: str
    kind: Kind


class CorpusFiles(NamedTuple):
    """The JSON-lines file that was written, its documents, and the bytes of text by kind."""

    documents: Path
    num_documents: int
    text_bytes: dict[str, int]


def documentation(*, code: bool = False, stdlib: Path | None = None) -> Iterator[Document]:
    """The documents of this Python installation, always in the same order with the same bytes.

    Args:
        code: whether the sources of the modules follow as well (about 9 MB beside 2 MB of documentation).
        stdlib: the folder of the standard library; by default that of the running Python.

    Raises:
        GroundupError: E-DATA-060 if the folder holds no sources.
    """
    folder = stdlib or _own_library()
    by_module: dict[str, list[str]] = {}
    for entry in entries(folder):
        heading = f"{entry.kind} {entry.full_name}{entry.signature}"
        by_module.setdefault(entry.module, []).append(f"{heading}\n\n{entry.text}\n")
    for module, texts in by_module.items():
        yield Document(module, "\n".join(texts), "docs")
    yield from _topics(folder)
    if code:
        for module, path, _ in _source_files(folder):
            yield Document(module, importlib.util.decode_source(path.read_bytes()), "code")


def write_corpus(folder: Path, *, code: bool = False, stdlib: Path | None = None) -> CorpusFiles:
    """Write `documents.jsonl` into `folder`: rows of `text`, `module` and `kind`, to be split by `module`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "documents.jsonl"
    sizes: dict[str, int] = {}
    documents = list(documentation(code=code, stdlib=stdlib))
    for document in documents:
        sizes[document.kind] = sizes.get(document.kind, 0) + len(document.text.encode())
    write_rows(path, (document._asdict() for document in documents))
    return CorpusFiles(path, len(documents), sizes)


@functools.cache
def held_out_module(module: str, fraction: float = 0.1) -> bool:
    """Whether preparation with `split: {kind: group, group_field: module}` holds out a module's documents."""
    return is_held_out(module, fraction)


def write_rows(path: Path, rows: Iterable[object]) -> None:
    """Write JSON lines as UTF-8 with `\\n`, whatever the locale and the platform say."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def entries(stdlib: Path | None = None) -> tuple[Entry, ...]:
    """Everything documented in the standard library, modules in alphabetical order; remembered, since
    documents and questions are both made from it and parsing the whole library takes seconds."""
    return _entries(stdlib or _own_library())


def _own_library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


@functools.lru_cache(maxsize=2)
def _entries(folder: Path) -> tuple[Entry, ...]:
    found: dict[str, list[Entry]] = {}
    for module, path, public in _source_files(folder):
        if public:
            found.setdefault(module, []).extend(_parsed_entries(module, path))
    if not found:
        raise _no_sources(folder)
    for implementation in COMPILED_MODULES:
        module = PUBLIC_NAME.get(implementation, implementation)
        found.setdefault(module, []).extend(_compiled_entries(module, implementation))
    return tuple(_without_copies(entry for module in sorted(found) for entry in found[module]))


def _without_copies(found: Iterable[Entry]) -> Iterator[Entry]:
    """Each name once, and no text that was mostly said before.

    Modules copy docstrings from each other; a copy would stand on both sides of the held-out split and
    flatter its figures.
    """
    names: set[str] = set()
    said: set[str] = set()
    for entry in found:
        paragraphs = _paragraphs(entry.text)
        copied = sum(len(paragraph) for paragraph in paragraphs if paragraph in said)
        if entry.full_name in names or entry.text in said or copied > len(entry.text) // 2:
            continue
        names.add(entry.full_name)
        said.update(paragraphs)
        if len(entry.text) >= SHARED_TEXT:
            said.add(entry.text)
        yield entry


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of a text that are long enough to be recognised elsewhere."""
    return [paragraph for paragraph in re.split(r"\n\s*\n", text.strip()) if len(paragraph) >= SHARED_TEXT]


def _source_files(folder: Path) -> list[tuple[str, Path, bool]]:
    """Each module with a source, sorted: the name to file it under, its path, and whether it is public.

    A private file such as `email/_header_value_parser` goes with its package, but what it defines has no
    public name and so no documentation.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        for name in names:
            path = Path(parent, name)
            parts = path.relative_to(folder).with_suffix("").parts
            if path.suffix != ".py" or parts[0] in SKIPPED_MODULES:
                continue
            if parts[0] == "encodings" and parts[-1] != "__init__":
                continue  # a hundred generated tables with the same docstring
            dotted = ".".join(parts).removesuffix(".__init__")
            private = re.search(r"(^|\.)_(?!_future__$)", dotted)
            if dotted in PUBLIC_NAME:
                found.append((PUBLIC_NAME[dotted], path, True))
            elif not private:
                found.append((dotted, path, True))
            elif private.start():
                found.append((dotted[: private.start()], path, False))
    return sorted(found)


def _no_sources(folder: Path) -> GroundupError:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return GroundupError(
        "E-DATA-060",
        f"the sources of Python's standard library are not installed: 0 modules in {folder}",
        where=f"{sys.executable} (Python {version})",
        why="the corpus is made from the docstrings in those files; a minimal, zipped or bytecode-only "
        "installation does not carry them",
        fix=f"apt install libpython{version}-stdlib   (Debian, Ubuntu), or install Python from python.org\n"
        "or train on your own text: groundup quickstart --text PATH",
    )


def _parsed_entries(module: str, path: Path) -> Iterator[Entry]:
    """The entries of one source file, read without importing it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # templates and deliberately broken files are no modules
    text = _docstring(tree)
    # the docstring of _pydecimal.py or concurrent/futures/_base.py is not that of the public module
    if text and (path.stem in ("__init__", "__future__") or not path.stem.startswith("_")):
        yield Entry(module, "", "module", "", text)
    for node in _definitions(tree.body):
        if isinstance(node, ast.ClassDef):
            yield from _class_entries(module, node)
        else:
            yield from _function_entry(module, node.name, node, "function")


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """Public definitions in the order of the file, those under `if` and `try` included."""
    for node in body:
        if isinstance(node, Definition):
            if not node.name.startswith("_"):
                yield node
        elif isinstance(node, ast.If):
            if "__main__" not in ast.dump(node.test):
                yield from _definitions(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            handled = [statement for handler in node.handlers for statement in handler.body]
            yield from _definitions(node.body + handled + node.orelse)


def _class_entries(module: str, node: ast.ClassDef) -> Iterator[Entry]:
    makers = [
        statement
        for statement in node.body
        if isinstance(statement, ast.FunctionDef) and statement.name in ("__init__", "__new__")
    ]
    text = _docstring(node) or next((_docstring(maker) for maker in makers if _docstring(maker)), "")
    if text:
        signature = _signature(makers[0]) if makers else ""
        yield Entry(module, node.name, "class", signature, text)
    for member in _definitions(node.body):
        if not isinstance(member, ast.ClassDef):
            yield from _function_entry(module, f"{node.name}.{member.name}", member, "method")


def _function_entry(
    module: str,
    name: str,
    node: ast.FunctionDef | ast.AsyncFunctionDef,
    kind: Literal["function", "method"],
) -> Iterator[Entry]:
    text = _docstring(node)
    if not text:
        return
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    if kind == "method" and decorators & {"property", "cached_property", "abstractproperty"}:
        yield Entry(module, name, "attribute", "", text)
    else:
        yield Entry(module, name, kind, _signature(node), text)


def _docstring(node: Definition | ast.Module) -> str:
    return _clean(ast.get_docstring(node, clean=False) or "")


def _clean(text: str) -> str:
    """`inspect.cleandoc`, and no blanks at the ends of lines, which it leaves."""
    return "\n".join(line.rstrip() for line in inspect.cleandoc(text).splitlines()).strip()


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The arguments as a caller writes them: without `self` and `cls`."""
    arguments = ast.unparse(node.args)
    return "(" + re.sub(r"^(self|cls|_cls|mcls|metacls)(, /)?(, |$)", "", arguments) + ")"


def _compiled_entries(module: str, implementation: str) -> Iterator[Entry]:
    """The entries of one C module, from its objects."""
    try:
        found: ModuleType = importlib.import_module(implementation)
    except ImportError:
        return  # not built for this platform
    if found.__doc__ and module == implementation:
        yield Entry(module, "", "module", "", _clean(found.__doc__))
    for name, value in sorted(vars(found).items()):
        if name.startswith("_"):
            continue
        # an alias (IOError is OSError) is documented under its own name
        if inspect.isclass(value) and value.__name__ == name:
            yield from _compiled_entry(module, name, value, "class")
            for member, attribute in sorted(vars(value).items()):
                if member.startswith("_"):
                    continue
                if inspect.isroutine(attribute):
                    yield from _compiled_entry(module, f"{name}.{member}", attribute, "method")
                elif inspect.isdatadescriptor(attribute):
                    yield from _compiled_entry(module, f"{name}.{member}", attribute, "attribute")
        elif inspect.isbuiltin(value) and value.__name__ == name:
            yield from _compiled_entry(module, name, value, "function")


def _compiled_entry(
    module: str, name: str, value: object, kind: Literal["class", "function", "method", "attribute"]
) -> Iterator[Entry]:
    text = value.__doc__
    if not isinstance(text, str) or not text.strip():
        return
    text = _clean(text)
    signature = ""
    if kind != "attribute" and callable(value):
        stated = re.match(rf"\w*\.?{re.escape(name.rpartition('.')[2])}(\([^()]*\))(?=\s|$|:)", text)
        signature = _object_signature(value, kind) or (stated[1] if stated else "")
    yield Entry(module, name, kind, signature, text)


def _object_signature(value: object, kind: str) -> str:
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        # many C functions state theirs only in the docstring; defaults of some cannot be looked up (3.13)
        return ""
    parameters = list(signature.parameters.values())
    if kind == "method" and parameters and parameters[0].name in ("self", "cls", "type"):
        parameters = parameters[1:]
    shown = str(signature.replace(parameters=parameters))
    return "" if "<" in shown else shown  # a default such as <object at 0x7f…> differs in each process


def _topics(folder: Path) -> Iterator[Document]:
    """The topics of `help()`, which are chapters of the language reference.

    A topic that stands whole inside a larger one is left out; topics that share a paragraph are one group
    of the split, so that no held-out text was seen in training.
    """
    path = folder / "pydoc_data" / "topics.py"
    if not path.exists():
        return
    topics: dict[str, str] = {}
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
    group: dict[str, str] = {}  # topic → the first topic with which it shares a paragraph
    owner: dict[str, str] = {}  # paragraph → the topic in which it was first seen
    texts = {name: re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" for name, text in topics.items()}
    for name in sorted(texts, key=lambda name: (-len(texts[name]), name)):
        paragraphs = set(_paragraphs(texts[name]))
        if paragraphs and paragraphs <= owner.keys():
            continue
        joined = {group[owner[p]] for p in paragraphs & owner.keys()} | {name}
        first = min(joined)
        group[name] = first
        group.update({topic: first for topic, other in group.items() if other in joined})
        owner.update(dict.fromkeys(paragraphs - owner.keys(), name))
    for name in sorted(group):
        yield Document(f"topic:{group[name]}", texts[name], "topic")
