"""How a verb's words are checked: an argument parser whose faults have five parts, and the types of flags.

Only the standard library is imported here. Arguments are checked for what can be known from their text alone
(numbers, ranges, words of a list).
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from groundup.errors import GroundupError, nearest, printable


class Parser(argparse.ArgumentParser):
    """An argument parser whose faults are `GroundupError`s, not argparse's usage dump."""

    def __init__(self, verb: str, summary: str) -> None:
        super().__init__(f"groundup {verb}", description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
        self.add_argument("--debug", action="store_true", help="show the traceback of a fault")

    def error(self, message: str) -> NoReturn:
        """What argparse found wrong, with the verb's usage as the fix."""
        named = re.match(r"argument ([^:]+): (.*)", message, re.DOTALL)
        guess = "a value that was bent until it fits would not be the one that was meant"
        missing = message.removeprefix("the following arguments are required: ")
        if named:
            code, what, why = "E-USE-004", f"{named[1].split('/')[-1]} {named[2]}", guess
        elif missing != message:
            code, what, why = "E-USE-003", f"{self.prog} needs {missing}", "the verb cannot work without it"
        else:
            code, what, why = "E-USE-004", message, guess
        raise GroundupError(
            code,
            printable(what, 500),
            where="the command line",
            why=why,
            fix=self.usage_line(),
            exit_code=2,
        )

    def usage_line(self) -> str:
        """How to call this verb, in one line."""
        return " ".join(self.format_usage().removeprefix("usage: ").replace("[-h] [--debug]", "").split())

    def flags(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Flags and other arguments in any order; what fits nowhere is an error with the nearest flag."""
        known, unknown = self.parse_known_intermixed_args(arguments)
        if not unknown:
            return known
        word = unknown[0].split("=")[0] if unknown[0].startswith("-") else unknown[0]
        if word.startswith("-") and word != "--":
            meant = nearest(word, self.flags())
            raise GroundupError(
                "E-USE-002",
                f'{self.prog} has no flag "{printable(word)}"',
                where="the command line",
                why="a flag that was ignored would change what the command does",
                fix=(f"did you mean {meant}?\n" if meant else "") + self.usage_line(),
                exit_code=2,
            )
        raise GroundupError(
            "E-USE-006",
            f'{self.prog} has no place for "{printable(word)}"',
            where="the command line",
            why="it takes fewer arguments than were given; a text with spaces needs quotes",
            fix=self.usage_line(),
            exit_code=2,
        )


def require_fit(arguments: argparse.Namespace, flags: Sequence[str], made_for: str) -> None:
    """None of these flags was given, which are made for something else than what was asked. Raises E-USE-041."""
    said = {name: vars(arguments)[name] for name in flags}
    given = [f"--{name.replace('_', '-')}" for name, value in said.items() if value is not None and value is not False]
    if given:
        raise GroundupError(
            "E-USE-041",
            f"{', '.join(given)} cannot be used here",
            where="the command line",
            why=f"{'these flags are' if len(given) > 1 else 'this flag is'} for {made_for}",
            fix=f"leave out {', '.join(given)}",
            exit_code=2,
        )


def whole(low: int | None = None, high: int | None = None) -> Callable[[str], int]:
    """The type of a flag that takes a whole number, from `low` to `high` where these are given."""
    legal = "a whole number"
    if low is not None:
        legal += f" from {low:,} to {high:,}" if high is not None else f" of at least {low:,}"

    def convert(text: str) -> int:
        # int() alone would also take 1_000 and digits of other scripts, and refuse thousands of digits oddly.
        value = int(text) if re.fullmatch(r"\s*[-+]?[0-9]{1,18}\s*", text, re.ASCII) else None
        if value is None or (low is not None and value < low) or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f'is "{printable(text, 40)}", expected {legal}')
        return value

    return convert


def number(*, above: float | None = None, least: float | None = None) -> Callable[[str], float]:
    """The type of a flag that takes a number, never NaN or infinity, `above` or at `least` a bound."""
    legal = "a number" + (f" above {above:g}" if above is not None else "")
    legal += f" of at least {least:g}" if least is not None else ""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        low = (above is not None and value <= above) or (least is not None and value < least)
        if low or not math.isfinite(value):
            raise argparse.ArgumentTypeError(f'is "{printable(text, 40)}", expected {legal}')
        return value

    return convert


def shares(text: str) -> tuple[float, ...]:
    """The type of a flag that takes shares above 0 and up to 1, divided by commas."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(0 < share <= 1 for share in found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(
            f'is "{printable(text, 40)}", expected different shares above 0 and up to 1, such as 0.1,0.3,1.0'
        )
    return tuple(found)


def choice(*words: str) -> Callable[[str], str]:
    """The type of a flag that takes one of a few words."""

    def convert(text: str) -> str:
        if text in words:
            return text
        meant = nearest(text, words)
        raise argparse.ArgumentTypeError(
            f'is "{printable(text, 40)}", expected one of {", ".join(words)}'
            + (f"; did you mean {meant}?" if meant else "")
        )

    return convert
