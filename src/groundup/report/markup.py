"""HTML and SVG by construction: text is escaped unless it was made by `tag`, so nothing can be forgotten.

Names, samples and messages in a run come from data and models that anybody may have written. The only way
into a page leads through this file: control characters and direction overrides are shown as their escapes
(a terminal that prints the page, or a reader, is not misled), and `<`, `>`, `&` and quotes are escaped.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable

HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "path", "line", "circle", "rect"})


class Markup(str):
    """A piece of HTML or SVG that is safe to put into a page as it is."""

    __slots__ = ()


Child = str | Markup | None


def visible(text: str) -> str:
    """`text` with control characters, surrogates and direction overrides spelled as `\\x1b`, `\\u202e`."""
    return HIDDEN.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def escape(text: str) -> Markup:
    """Text made safe for an element's content and for a quoted attribute."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(text), quote=True))


def join(parts: Iterable[Child], between: str = "") -> Markup:
    """Pieces one after another; None is left out."""
    return Markup(escape(between).join(escape(part) for part in parts if part is not None))


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element. `class_="x"` gives class="x", `data_key=` data-key=; None and False leave one out."""
    shown = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        shown.append(f" {attribute}" if value is True else f' {attribute}="{escape(str(value))}"')
    opened = f"<{name}{''.join(shown)}>"
    if name in VOID:
        return Markup(opened[:-1] + "/>")
    return Markup(f"{opened}{join(children)}</{name}>")


def data_block(value: object, identifier: str) -> Markup:
    """A JSON value inside a page that scripts read; nothing in it can close the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{escape(identifier)}">{text}</script>')


def table(
    caption: str, head: list[str], rows: list[list[Child]], *, numeric: Iterable[int] = (), class_: str = ""
) -> Markup:
    """A table with a caption and column headings; the first column heads its row, `numeric` ones go right."""
    right = frozenset(numeric)

    def side(column: int) -> str | None:
        return "number" if column in right else None

    heading = tag("tr", *(tag("th", name, scope="col", class_=side(i)) for i, name in enumerate(head)))
    lines = [
        tag(
            "tr",
            *(
                tag("th", cell, scope="row", class_=side(i))
                if i == 0
                else tag("td", cell, class_=side(i), data_label=head[i])
                for i, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    whole = tag("table", tag("caption", caption), tag("thead", heading), tag("tbody", *lines), class_=class_ or None)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def pairs(caption: str, rows: Iterable[tuple[str, Child]], class_: str = "pairs") -> Markup:
    """A two-column table of names and values; nothing when there are no rows."""
    kept = [[name, value] for name, value in rows if value not in (None, "")]
    if not kept:
        return Markup("")
    lines = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in kept]
    return tag("table", tag("caption", caption), tag("tbody", *lines), class_=class_)


def details(summary: str, *children: Child, open_: bool = False) -> Markup:
    """A block that opens on demand."""
    return tag("details", tag("summary", summary), *children, open=open_)
