"""How the verbs print: colour, symbols, tables and numbers that suit the terminal at hand.

Colour appears only on a terminal without NO_COLOR, symbols only where the stream can encode them, and text
that a stream cannot encode is spelled in ASCII instead of ending the program. Nothing here knows what is
printed, and nothing but the standard library is imported.

    painter = Painter()                              # stdout; Painter(sys.stderr) for the other stream
    painter.print(painter.paint("done", "green"))    # coloured on a terminal, plain in a file
    painter.symbol("pass")                           # "✓", or "ok" where that cannot be printed
    painter.print(table([["层", 6], ["width", 384]], ["name", "value"], width=painter.width))
    format_bytes(3_221_225_472)                      # "3.0 GiB"
    format_count(12_345_678)                         # "12.3M"
    format_rate(8.06e10, "FLOP/s")                   # "80.6 GFLOP/s"
    format_duration(3725)                            # "1 h 2 min"
    format_interval({"low": 0.1, "high": 0.25})      # "[0.1000, 0.2500]"
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

STYLES = {
    "bold": "1",
    "dim": "2",
    "underline": "4",
    "reverse": "7",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
SYMBOLS = {
    "pass": ("✓", "ok"),
    "fail": ("✗", "FAIL"),
    "warn": ("⚠", "!"),
    "arrow": ("→", "->"),
    "bullet": ("•", "*"),
    "ellipsis": ("…", "..."),
    "full": ("█", "#"),
    "empty": ("░", "-"),
}
SPELLED = str.maketrans(
    dict(SYMBOLS.values())
    | {"–": "-", "—": "--", "−": "-", "×": "x", "·": "|", "±": "+-", "≤": "<=", "≥": ">=", "µ": "u", "≈": "~"}
    | {"‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " "}
)
VERDICTS = {"better": "green", "worse": "red", "within noise": "dim"}
"""The style of what a comparison says."""
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
NARROWEST_COLUMN = 6


class Painter:
    """One output stream and what it can show.

    Args:
        stream: where `print` writes; None means the standard output at the time of construction.
        colour: force colour on or off; None asks the stream and the environment (NO_COLOR, TERM=dumb).
        width: columns to fill; None asks the terminal (COLUMNS wins), 80 where there is none.
    """

    def __init__(self, stream: TextIO | None = None, *, colour: bool | None = None, width: int | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.interactive = self.stream.isatty()
        allowed = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.colour = (self.interactive and allowed) if colour is None else colour
        self.unicode = can_encode("".join(symbol for symbol, _ in SYMBOLS.values()), self.stream)
        self.width = width or shutil.get_terminal_size((80, 24)).columns

    def paint(self, text: str, *styles: str) -> str:
        """`text` in the named `STYLES` if this stream shows colour, else unchanged."""
        if not self.colour or not styles or not text:
            return text
        return f"\x1b[{';'.join(STYLES[style] for style in styles)}m{text}\x1b[0m"

    def symbol(self, name: str) -> str:
        """The character of `SYMBOLS`, or its ASCII spelling where the stream cannot encode it."""
        symbol, plain = SYMBOLS[name]
        return symbol if self.unicode else plain

    def bar(self, share: float, columns: int = 20) -> str:
        """A horizontal bar filled to `share` (0 to 1) of `columns`."""
        filled = round(min(max(share, 0.0), 1.0) * columns)
        return self.symbol("full") * filled + self.symbol("empty") * (columns - filled)

    def print(self, text: str = "", *, end: str = "\n") -> None:
        """Write `text`, spelling in ASCII whatever the stream cannot encode, and flush."""
        self.stream.write(encodable(text, self.stream) + end)
        self.stream.flush()


def can_encode(text: str, stream: TextIO) -> bool:
    """Whether `stream` can show every character of `text`; replacing one by "?" does not count as showing."""
    try:
        text.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def encodable(text: str, stream: TextIO) -> str:
    """`text` as `stream` can write it: symbols spelled out, other foreign characters as `\\uXXXX`."""
    if can_encode(text, stream):
        return text
    encoding = stream.encoding or "ascii"
    return text.translate(SPELLED).encode(encoding, "backslashreplace").decode(encoding)


def display_width(text: str) -> int:
    """Terminal columns that `text` takes: wide East Asian characters two, combining marks and colour none."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    columns = 0
    for character in ESCAPE.sub("", text):
        if unicodedata.east_asian_width(character) in "WF":
            columns += 2
        elif unicodedata.category(character) not in ("Mn", "Me", "Cf"):
            columns += 1
    return columns


def pad(text: str, columns: int, align: str = "<") -> str:
    """`text` filled with spaces to `columns`; `align` is "<" (left), ">" (right) or "^" (centre)."""
    gap = max(0, columns - display_width(text))
    left = {"<": 0, ">": gap, "^": gap // 2}[align]
    return " " * left + text + " " * (gap - left)


def cut(text: str, columns: int, ellipsis: str = "…") -> str:
    """`text` shortened to `columns`, ending in `ellipsis` if anything was cut; cut text loses its colour."""
    if display_width(text) <= columns:
        return text
    kept, used, room = "", 0, columns - display_width(ellipsis)
    for character in ESCAPE.sub("", text):
        used += display_width(character)
        if used > room:
            break
        kept += character
    return kept + ellipsis if room >= 0 else ellipsis[: max(columns, 0)]


def wrap(text: str, columns: int) -> list[str]:
    """Lines of at most `columns`, broken at spaces, else between characters; what wraps loses its colour."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        if display_width(paragraph) <= columns:
            lines.append(paragraph)
            continue
        line = ""
        for word in ESCAPE.sub("", paragraph).split():
            joined = f"{line} {word}" if line else word
            if display_width(joined) <= columns:
                line = joined
                continue
            if line:
                lines.append(line)
            line = ""
            for character in word:
                if line and display_width(line + character) > columns:
                    lines.append(line)
                    line = ""
                line += character
        lines.append(line)
    return lines


def table(
    rows: Sequence[Sequence[object]],
    headers: Sequence[str] | None = None,
    *,
    align: str | None = None,
    width: int | None = None,
    indent: int = 0,
) -> str:
    """Rows as aligned text columns, two spaces apart, without a newline at the end.

    Args:
        rows: cells in rows of equal length; each is shown by `str`, None as an empty cell. Text that comes
            from a file must have passed `errors.printable` already.
        headers: a heading for each column, underlined by dashes.
        align: one of "<", ">", "^" per column, such as "<>>"; by default numbers go right, the rest left.
        width: columns available in all; the widest columns are wrapped until the table fits, nothing is cut.
        indent: spaces before each line.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not cells and not headers:
        return ""
    columns = len(headers) if headers else len(cells[0])
    shown = ([list(headers)] if headers else []) + cells
    widths = [
        max((display_width(line) for row in shown for line in row[column].split("\n")), default=0)
        for column in range(columns)
    ]
    if width is not None:
        widths = shrink(widths, width - indent - 2 * (columns - 1))
    sides = align or "".join(
        ">" if rows and all(is_number(row[column]) for row in rows) else "<" for column in range(columns)
    )
    lines: list[str] = []
    for index, row in enumerate(shown):
        parts = [wrap(cell, widths[column]) for column, cell in enumerate(row)]
        for line in range(max(len(part) for part in parts)):
            pieces = [
                pad(part[line] if line < len(part) else "", widths[column], sides[column])
                for column, part in enumerate(parts)
            ]
            lines.append((" " * indent + "  ".join(pieces)).rstrip())
        if headers and index == 0:
            lines.append(" " * indent + "  ".join("-" * size for size in widths))
    return "\n".join(lines)


def shrink(widths: list[int], room: int) -> list[int]:
    """Take from the widest column, one by one, until all fit in `room` or none may shrink further."""
    widths = list(widths)
    while sum(widths) > room and max(widths) > NARROWEST_COLUMN:
        widths[widths.index(max(widths))] -= 1
    return widths


def is_number(cell: object) -> bool:
    """Whether a cell belongs on the right: an int or float, not a bool."""
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def format_bytes(size: float) -> str:
    """Bytes in binary units: 512 → "512 B", 1536 → "1.5 KiB", 3 GiB → "3.0 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1023.95 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("the last unit takes every size")


def format_count(number: float) -> str:
    """A count in three significant digits: 950 → "950", 12_345 → "12.3k", 4.2e6 → "4.20M", 1e12 → "1.00T"."""
    if abs(number) < 999.5:
        return f"{number:.0f}" if number == int(number) else f"{number:.3g}"
    for scale, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P")):
        value = number / scale
        if abs(value) < 999.5 or unit == "P":
            break
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{decimals}f}{unit}"


def format_rate(number: float, unit: str) -> str:
    """A speed with the decimal prefix at its unit: (8.06e10, "FLOP/s") → "80.6 GFLOP/s"."""
    count = format_count(number)
    prefix = count[-1] if count[-1].isalpha() else ""
    return f"{count.removesuffix(prefix)} {prefix}{unit}"


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: 0.0123 → "12 ms", 8.25 → "8.2 s", 3725 → "1 h 2 min"."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0005 or seconds == 0 else f"{seconds * 1e6:.0f} us"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if seconds < 86_370:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, rest = divmod(round(seconds / 3600), 24)
    return f"{days} d {rest} h" if rest else f"{days} d"


def format_metric(value: float | None, sign: str = "", digits: int = 4) -> str:
    """A measured number, with "+" as `sign` also where it is positive; "-" where there is none."""
    return "-" if value is None else f"{value:{sign}.{digits}f}"


def format_interval(interval: Mapping[str, Any], sign: str = "") -> str:
    """The bounds `low` and `high` of a measured number."""
    return f"[{format_metric(interval['low'], sign)}, {format_metric(interval['high'], sign)}]"
