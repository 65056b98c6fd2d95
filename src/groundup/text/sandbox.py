"""Where chat templates run: Jinja in an immutable sandbox, with every form of unbounded work refused.

A chat template comes from outside, like a data file. Jinja's sandbox keeps it from Python's internals; it
does not keep it from looping for hours or filling memory. Here each rendering has a purse of work: loops,
calls and every intermediate value are paid from it, filters are those on a list, and an operation whose
result may be far larger than its operands is priced before it is done. What the messages of a conversation
are is not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import date
from types import BuiltinMethodType
from typing import Any, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

WORK_PER_RENDERING = 200_000
WORK_PER_CHARACTER = 64
"""A rendering may do this much work: iterations, calls, and characters in intermediate values. The second
is added for each character of the messages, so that long conversations render and short ones cannot burn."""

LARGEST_TEMPLATE = 100_000

ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
    MemoryError,
    SyntaxError,
)
"""What a template can raise while it is compiled or rendered."""

FILTERS = frozenset(
    (
        *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float"),
        *("forceescape", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject"),
        *("rejectattr", "reverse", "round", "safe", "select", "selectattr", "sort", "string", "sum", "title"),
        *("trim", "unique", "upper"),
    )
)
METHODS_REFUSED = frozenset(("center", "expandtabs", "format", "format_map", "ljust", "rjust", "translate", "zfill"))

OPEN, CLOSE = "generation_open", "generation_close"  # variables of the rendering: what to put at the borders

_purse: ContextVar[list[int]] = ContextVar("purse")


def pay(amount: int) -> None:
    """Take `amount` from this rendering's purse; refuse when it is empty."""
    purse = _purse.get()
    purse[0] -= amount
    if purse[0] < 0:
        raise SecurityError("it does more work than a chat template may (an endless loop or a huge value)")


def weigh(value: Any) -> int:
    """Characters and elements in a value, an element that is reached twice counted twice; paid as it goes."""
    if isinstance(value, str):
        pay(len(value))
        return len(value)
    if isinstance(value, dict):
        pay(len(value))
        return len(value) + sum(weigh(key) + weigh(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        pay(len(value))
        return len(value) + sum(weigh(item) for item in value)
    if isinstance(value, int) and abs(value) > 2**63:
        raise SecurityError("it computes a number beyond 64 bits")
    pay(1)
    return 1


class Generation(Extension):
    """`{% generation %} … {% endgeneration %}`: the part of the text that the assistant writes."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares this attribute as a plain set

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)

        def border(name: str) -> nodes.Node:
            return nodes.Output([nodes.Name(name, "load")], lineno=line)

        return [border(OPEN), *body, border(CLOSE)]


class _Bound(NodeTransformer):
    """Puts a price on every loop and every intermediate value of a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filter(node.iter, "bounded_loop")
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        self.generic_visit(node)
        node.node = _filter(node.node, "bounded_value")
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        inner = node.filter or nodes.Filter(None, "string", [], [], None, None, lineno=node.lineno)
        node.filter = _filter(inner, "bounded_value")
        return node

    def _price(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "bounded_value")

    visit_Filter = visit_Concat = visit_Add = visit_List = visit_Tuple = visit_Dict = _price

    def _refuse(self, node: nodes.Node) -> nodes.Node:
        raise jinja2.TemplateSyntaxError("a chat template reads no other template", node.lineno)

    visit_Include = visit_Import = visit_FromImport = visit_Extends = visit_Block = _refuse


def _filter(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast("nodes.Expr", node), name, [], [], None, None, lineno=node.lineno)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment that chat templates are compiled in."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        # not optimized: constant expressions would be computed at compile time, outside any purse
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            autoescape=False,
            extensions=[Generation, "jinja2.ext.loopcontrols"],
            finalize=_printable_value,
        )
        self.filters = {name: self.filters[name] for name in FILTERS}
        self.filters.update(
            bounded_loop=_bounded_loop,
            bounded_value=_bounded_value,
            tojson=_tojson,
            join=_join,
            replace=_replace,
        )
        self.globals = {
            "range": self.globals["range"],
            "namespace": self.globals["namespace"],
            "raise_exception": _raise,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Bound().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`*`, `**` and `%` are for numbers: on text and lists they are ways to make huge values."""
        if not all(isinstance(side, (int, float)) for side in (left, right)) or operator == "**":
            raise SecurityError(f"the operator {operator} is only for numbers, ** for none")
        pay(weigh(left) + weigh(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        pay(10)
        if isinstance(__obj, BuiltinMethodType) and isinstance(__obj.__self__, str):
            if __obj.__name__ == "replace" and len(args) >= 2:
                return _replace(__obj.__self__, *args)
            if __obj.__name__ == "join" and args:
                return _join(args[0], __obj.__self__)
        return _bounded_value(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> None:
        """No formatting method: a width in a format string makes text of any length."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """What Jinja finds safe, less the methods of text that pad to any length."""
        if isinstance(obj, str) and attr in METHODS_REFUSED:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refused aloud, where Jinja would print nothing."""
        raise SecurityError(f"access to {attribute!r} of a {type(obj).__name__} is unsafe")


def render(template: jinja2.Template, variables: dict[str, Any], characters: int) -> str:
    """Run a compiled template on messages with so many characters. Raises one of `ERRORS`."""
    token = _purse.set([WORK_PER_RENDERING + WORK_PER_CHARACTER * characters])
    try:
        parts = []
        for part in template.generate(variables):
            pay(len(part))
            parts.append(part)
        return "".join(parts)
    finally:
        _purse.reset(token)


def _bounded_loop(values: Any) -> Iterator[Any]:
    if isinstance(values, Undefined):
        return
    for value in values:
        pay(10)
        yield value


def _bounded_value(value: Any) -> Any:
    weigh(value)
    return value


def _printable_value(value: Any) -> Any:
    if isinstance(value, (str, int, float, Undefined)) or value is None:
        return value
    raise SecurityError(f"it prints a {type(value).__name__}: only text and numbers are text; use tojson")


def _join(values: Iterable[Any], separator: str = "") -> str:
    parts = [str(_printable_value(value)) for value in values]
    pay(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old)
    pay(len(text) + (found if count < 0 else min(found, count)) * len(new))
    return text.replace(old, new, count)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: the characters themselves, not as Jinja does for HTML, and the same arguments."""
    weigh([value, separators])
    if ensure_ascii:
        raise SecurityError("tojson writes the characters themselves: ensure_ascii would hide special text")
    if indent is not None and not 0 <= indent <= 8:
        raise SecurityError("tojson indents by at most 8")
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_REST_OF_MONTH = ("uary", "ruary", "ch", "il", "", "e", "y", "ust", "tember", "ober", "ember", "ember")
_DAYS = ("Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun")


def calendar(today: date) -> Callable[[str], str]:
    """The function `strftime_now` of chat templates, at midnight of a fixed day and in English.

    The clock and the locale stay out: the same conversation has the same ids today, tomorrow and elsewhere.
    """
    month, day = _MONTHS[today.month - 1], _DAYS[today.weekday()] + "day"
    fields = {"d": f"{today.day:02}", "m": f"{today.month:02}", "Y": f"{today.year:04}", "y": f"{today.year % 100:02}"}
    fields |= {"b": month, "B": month + _REST_OF_MONTH[today.month - 1], "a": day[:3], "A": day}
    fields |= {"H": "00", "M": "00", "S": "00", "%": "%"}

    def strftime_now(form: str) -> str:
        unknown = [name for name in re.findall("%(.?)", form, re.S) if name not in fields]
        if unknown:
            raise SecurityError(f"strftime_now knows {' '.join(fields)} after a %, not {unknown[0]!r}")
        return re.sub("%(.)", lambda found: fields[found[1]], form, flags=re.S)

    return strftime_now


def _raise(message: str) -> Callable[[], None]:
    """What templates call to refuse a conversation."""
    raise jinja2.TemplateError(str(message))
