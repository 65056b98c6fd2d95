"""The only file that knows YAML: text to plain values with their places, and plain values back to text.

A recipe is written in YAML 1.2 with the core schema and nothing else: mappings, lists and scalars. So `1e-4`
is a number, `on` and `yes` are text, `010` is ten, and the clever parts of the language (tags, merge keys,
several documents) are refused instead of surprising somebody. Nothing here knows a field of the recipe.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from groundup.errors import GroundupError, printable

FieldPath = tuple[str | int, ...]
"""Where a value sits in the tree: `("optim", "model", "lr")`, with integers for places in a list."""
Position = tuple[int, int]
"""Line and column in the text, both counted from 1."""

LARGEST_TEXT = 1_048_576  # characters; a real recipe has a few thousand
LARGEST_TREE = 20_000  # values after aliases are filled in, which bounds "a billion laughs"
DEEPEST = 40
LONGEST_FLOW = 88  # columns that a list may take before it is written one item a line

NULL = re.compile(r"~|null|Null|NULL|")
BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.nan|\.NaN|\.NAN")
PLAIN = re.compile(r"[\w/.~][\w/.~ +@%$()=*-]*")
OLD_RULES = yaml.resolver.Resolver()  # YAML 1.1, which many other readers still follow
TEXT_TAG = "tag:yaml.org,2002:str"
LONGEST_INTEGER = 100  # digits


def parse(text: str, name: str) -> tuple[dict[str, Any], dict[FieldPath, Position]]:
    """Read one YAML mapping.

    Args:
        text: the YAML text, at most `LARGEST_TEXT` characters.
        name: what error messages call it, usually the file's path.

    Returns:
        The tree of dicts, lists and scalars (an empty text is an empty tree), and the place of every field
        (of its key, for a value in a mapping) by its path.

    Raises:
        GroundupError: E-RECIPE-002 (control characters) to E-RECIPE-006; all doubled keys in one error.
    """
    name = printable(name)
    text = text.removeprefix("\ufeff")
    if len(text) > LARGEST_TEXT:
        raise _refusal(name, None, f"the recipe has over {LARGEST_TEXT:,} characters", "split data from settings")
    node = _compose(text, name)
    if node is None:
        return {}, {(): (1, 1)}
    if not isinstance(node, yaml.MappingNode):
        raise GroundupError(
            "E-RECIPE-006",
            f"the recipe is a {'list' if isinstance(node, yaml.SequenceNode) else 'single value'},"
            " expected fields with values",
            where=_place(name, node.start_mark),
            why="a recipe is a mapping: each line at the left edge is `name: value`",
            fix="write fields such as  budget: {minutes: 10}",
            exit_code=2,
        )
    builder = _Builder(name)
    tree = builder.build(node, ())
    if builder.faults:
        first, *others = builder.faults
        first.others = others
        raise first
    return tree, builder.positions


def parse_value(text: str, name: str) -> Any:
    """One value as it is written after `key=` on the command line.

    Only a list `[…]`, a mapping `{…}` and a quoted text are read as YAML; all else is one scalar, so that
    `prompt=Question: why?` and `files=*.txt` mean what they say.
    """
    text = text.strip()
    if text[:1] not in ("[", "{", '"', "'"):
        return _resolve(text, printable(name), None)
    return parse_any(text, name)


def parse_any(text: str, name: str) -> Any:
    """A YAML text, whatever stands at its top; faults as for `parse`, the first of them alone."""
    node = _compose(text, printable(name))
    if node is None:
        return None
    builder = _Builder(printable(name))
    value = builder.build(node, ())
    if builder.faults:
        raise builder.faults[0]
    return value


def dump(tree: Any, comments: Mapping[FieldPath, str] | None = None) -> str:
    """YAML text that `parse` reads back to an equal tree, type by type, and that other readers read alike.

    Args:
        tree: dicts with text keys, lists or tuples, and scalars; the order of the keys is kept.
        comments: a remark for some paths, written behind the value, or above it where it has several lines.
    """
    lines = list(_lines(tree, (), 0, comments or {}))
    return "\n".join(lines) + "\n"


class _Composer(yaml.BaseLoader):
    """Text to nodes with their marks. All plain scalars stay text here; `_resolve` gives them types."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if not isinstance(event, yaml.AliasEvent) and event.tag is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"the tag {printable(event.tag)} is not allowed", event.start_mark
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.constructor.ConstructorError(
                None, None, f"values nested more than {DEEPEST} deep", event.start_mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, name: str) -> Any:
    """The root node of the only document in `text`, None if it is empty."""
    try:
        return _Composer(text).get_single_node()
    except yaml.reader.ReaderError as error:
        # PyYAML counts from the start of the text; a person wants the line.
        before = text[: error.position]
        raise GroundupError(
            "E-RECIPE-002",
            f"the recipe holds a control character, U+{ord(text[error.position]):04X}",
            where=f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}",
            why="it cannot be seen in an editor, and YAML does not allow it",
            fix='delete it, or write it as an escape in double quotes: "\\x07"',
            exit_code=2,
        ) from error
    except yaml.constructor.ConstructorError as error:
        raise _refusal(name, error.problem_mark, str(error.problem), "write the plain value") from error
    except yaml.MarkedYAMLError as error:
        raise _syntax_fault(error, text, name) from error


def _syntax_fault(error: yaml.MarkedYAMLError, text: str, name: str) -> GroundupError:
    """What PyYAML says, in words that name the usual cause."""
    mark = error.problem_mark or error.context_mark
    line = text.split("\n")[mark.line] if mark is not None and mark.line < text.count("\n") + 1 else ""
    problem = str(error.problem or error.context)
    why = "the text cannot be read as YAML"
    fix = "check the indentation, brackets and quotes on this line and the one above"
    indentation = line[: len(line) - len(line.lstrip())]
    column = (mark.column if mark is not None else 0) + 1
    if "\t" in indentation or "'\\t'" in problem:
        column = line.find("\t") + 1
        problem = "a tab, where YAML takes only spaces"
        why = "YAML does not allow tabs in front of a value: editors show them at different widths"
        fix = "replace the tab by spaces (two for each level)"
    elif "mapping values are not allowed" in problem:
        why = "a second `: ` on a line starts a value inside a value, or this line is indented too far"
        fix = 'put text that holds ": " in quotes:  prompt: "Question: why?"'
    elif "undefined alias" in problem or "alias" in str(error.context):
        why = "a `*` at the start of a value refers to an anchor, and none has this name"
        fix = 'put patterns in quotes:  files: ["*.txt"]'
    elif "single document" in str(error.context):
        problem = "a second document begins here"
        why = "a file holds one recipe; `---` would start another"
        fix = "remove the line `---`, or put the second recipe into a file of its own"
    return GroundupError(
        "E-RECIPE-003",
        f"not readable as YAML: {printable(problem)}",
        where=f"{name}:{(mark.line if mark is not None else 0) + 1}:{column}"
        + (f"\n{printable(line.strip(), 100)}" if line.strip() else ""),
        why=why,
        fix=fix,
        exit_code=2,
    )


class _Builder:
    """Nodes to plain values. Remembers where each value stood, and gathers the faults it meets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.positions: dict[FieldPath, Position] = {(): (1, 1)}
        self.faults: list[GroundupError] = []
        self.count = 0
        self.open: set[int] = set()  # nodes being built: an alias to one of them would never end

    def build(self, node: Any, path: FieldPath) -> Any:
        self.positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        self.count += 1
        if self.count > LARGEST_TREE or len(path) > DEEPEST:
            raise _refusal(
                self.name,
                node.start_mark,
                f"aliases unfold to more than {LARGEST_TREE:,} values",
                "write less",
            )
        if isinstance(node, yaml.ScalarNode):
            if node.style is None:
                return _resolve(node.value, self.name, node.start_mark)
            return _text(node.value, self.name, node.start_mark)
        if id(node) in self.open:
            raise _refusal(self.name, node.start_mark, "a value that contains itself", "remove the alias (*name)")
        self.open.add(id(node))
        value: Any
        if isinstance(node, yaml.SequenceNode):
            value = [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        else:
            value = self._mapping(node, path)
        self.open.remove(id(node))
        return value

    def _mapping(self, node: Any, path: FieldPath) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        first: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refusal(self.name, key_node.start_mark, "a key that is a list or a mapping", "use a name")
            key = _text(key_node.value, self.name, key_node.start_mark)
            mark = key_node.start_mark
            if key in first:
                self.faults.append(
                    GroundupError(
                        "E-RECIPE-004",
                        f'the key "{printable(key)}" is there twice',
                        where=f"{_place(self.name, mark)}  {dotted((*path, key))}\n"
                        f"{_place(self.name, first[key])}  (the first)",
                        why="only one of the two values could count, and a reader cannot tell which",
                        fix=f"remove line {mark.line + 1} or line {first[key].line + 1}",
                        exit_code=2,
                    )
                )
                continue
            first[key] = mark
            self.positions[(*path, key)] = (mark.line + 1, mark.column + 1)
            tree[key] = self.build(value_node, (*path, key))
        return tree


def _resolve(value: str, name: str, mark: Any) -> Any:
    """The type of a scalar without quotes, by the core schema of YAML 1.2 (section 10.3.2)."""
    if NULL.fullmatch(value):
        return None
    if BOOLEAN.fullmatch(value):
        return value.lower() == "true"
    if INTEGER.fullmatch(value):
        if len(value) > LONGEST_INTEGER:
            raise _refusal(name, mark, f"a number of {len(value)} digits", "no field takes one so large")
        return int(value, 0) if value[:2] in ("0o", "0x") else int(value)
    if FLOAT.fullmatch(value):
        number = float(value)
        if math.isinf(number):
            raise _refusal(name, mark, f"{printable(value, 40)} is too large for a number", "write a smaller one")
        return number
    if matched := NOT_FINITE.fullmatch(value):
        return float(matched[1] + "inf") if matched[2] else math.nan
    return _text(value, name, mark)


def _text(value: str, name: str, mark: Any) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _refusal(name, mark, "half of a surrogate pair in a text", "write the whole character")
    return value


def _refusal(name: str, mark: Any, what: str, fix: str) -> GroundupError:
    return GroundupError(
        "E-RECIPE-005",
        f"not allowed in a recipe: {what}",
        where=_place(name, mark),
        why="a recipe is plain values, so that it reads the same everywhere and cannot exhaust the memory",
        fix=fix,
        exit_code=2,
    )


def _place(name: str, mark: Any) -> str:
    return name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"


def dotted(path: FieldPath) -> str:
    """`("optim", "model", "lr")` as a person writes it: `optim.model.lr`."""
    return printable(".".join(str(part) for part in path)) or "the recipe"


def _lines(value: Any, path: FieldPath, indent: int, comments: Mapping[FieldPath, str]) -> Iterator[str]:
    """The block form of a mapping or list that is not empty; the flow form of anything else."""
    edge = " " * indent
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _entry(f"{edge}{_quoted(key)}:", item, (*path, key), indent, comments)
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            lines = list(_entry(f"{edge}-", item, (*path, index), indent, comments))
            if lines[0] == f"{edge}-" and lines[1].lstrip()[0] != "#":
                lines[:2] = [f"{edge}- {lines[1].lstrip()}"]  # the first field beside its dash
            yield from lines
    else:
        yield edge + _flow(value)


def _entry(head: str, value: Any, path: FieldPath, indent: int, comments: Mapping[FieldPath, str]) -> Iterator[str]:
    remark = " ".join(comments.get(path, "").split())
    short = _flow(value) if _is_short(value) else None
    if short is not None and len(head) + len(short) < LONGEST_FLOW:
        yield f"{head} {short}" + (f"  # {printable(remark, 1000)}" if remark else "")
        return
    if remark:
        yield f"{' ' * indent}# {printable(remark, 1000)}"
    if isinstance(value, dict | list | tuple) and value:
        yield head
        yield from _lines(value, path, indent + 2, comments)
    else:
        yield f"{head} {_flow(value)}"


def _is_short(value: Any) -> bool:
    """Whether a value reads well on one line: a scalar, or a list of nothing but scalars."""
    if isinstance(value, list | tuple):
        return not any(isinstance(item, dict | list | tuple) for item in value)
    return not isinstance(value, dict) or not value


def _flow(value: Any) -> str:
    """A scalar, or a list of scalars, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(_flow(item) for item in value) + "]"


def _number(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    shown = repr(value)
    # Readers of YAML 1.1 take a number with an exponent for text unless it has a point.
    return shown if "." in shown else shown.replace("e", ".0e")


def _quoted(text: str) -> str:
    """`text` bare where every reader takes it for text, else in double quotes with escapes."""
    if PLAIN.fullmatch(text) and text == text.rstrip() and not text.startswith("...") and _is_text(text):
        return text
    inner = "".join(
        character
        if character.isprintable() and character not in '"\\'
        else json.dumps(character)[1:-1]
        if ord(character) <= 0xFFFF
        else f"\\U{ord(character):08X}"
        for character in text
    )
    return f'"{inner}"'


def _is_text(text: str) -> bool:
    """Whether bare `text` is text by the rules of YAML 1.2 and by those of 1.1 (where `on` is true)."""
    other = any(rule.fullmatch(text) for rule in (NULL, BOOLEAN, INTEGER, FLOAT, NOT_FINITE))
    return not other and OLD_RULES.resolve(yaml.ScalarNode, text, (True, False)) == TEXT_TAG
