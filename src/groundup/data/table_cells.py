"""One cell of a table: a number, a category, or missing. Nothing is guessed: text that is no number is none."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import numpy as np

from groundup.errors import printable

Cell = float | str | None
"""A number (NaN where it is missing, infinite where it is beyond float32), a category, or a missing category."""

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
EMPTY = ("", "na", "n/a", "nan", "null")
"""What stands in a column of numbers, in lower case, where there is none."""

LARGEST = float(np.finfo(np.float32).max)


def number_of(value: Any) -> float:
    """A cell as a number: NaN where it is missing, infinite where it is too large for float32.

    Raises:
        ValueError: it is no number. Thousands separators, decimal commas, units and truth values are none.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return math.nan
    if type(value) is float and -LARGEST <= value <= LARGEST:
        return value  # nearly every cell, and tables have many
    if isinstance(value, str):
        text = value.strip()
        if text.casefold() in EMPTY:
            return math.nan
        if not NUMBER.fullmatch(text) and not INFINITE.fullmatch(text):
            raise ValueError(f"not a number: {shown(value)}")
        number = float(text)
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
    else:
        raise ValueError(f"not a number: {shown(value)}")
    return number if math.isnan(number) or abs(number) <= LARGEST else math.copysign(math.inf, number)


def category_of(value: Any) -> str | None:
    """A cell as a category, None where it is missing; numbers and truth values as they are written in a table.

    Raises:
        ValueError: it is a list, an object or a date.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, str | int | float | Decimal):
        return str(value).strip() or None
    raise ValueError(f"neither text nor a number: {shown(value)}")


def is_missing(cell: Cell) -> bool:
    """Whether there is nothing to compute with: empty, NaN or infinite."""
    return cell is None or (isinstance(cell, float) and not math.isfinite(cell))


def shown(value: Any) -> str:
    """A value, safe to print."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "empty or NaN"
    return printable(repr(value), 60)
