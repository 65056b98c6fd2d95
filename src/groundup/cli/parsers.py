"""The verbs of the command line: their names, arguments and where their functions are.

Only the standard library is imported here, and a verb's module only when that verb was chosen. Arguments are
checked for what can be known from their text alone (numbers, ranges, words of a list).
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from groundup.errors import GroundupError, nearest, printable

TOKENIZER_KINDS = ("bpe", "unigram", "wordpiece", "char", "byte")


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


class Verb(NamedTuple):
    """One verb: its function as "module:name", one line about it, and what adds its arguments to a parser."""

    target: str
    summary: str
    arguments: Callable[[Parser], None]


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


def recipe_path(text: str) -> str:
    """The type of RECIPE: an override in its place means that the recipe was forgotten."""
    if "=" in text and not text.endswith((".yaml", ".yml")):
        raise argparse.ArgumentTypeError(f'is "{printable(text, 80)}", an override; the recipe comes first')
    return text


def _json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")


def _recipe(parser: Parser, *, required: bool = True) -> None:
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs=None if required else "?",
        # Where no recipe is needed, overrides may stand in its place.
        type=recipe_path if required else str,
        help="the recipe, a YAML file",
    )
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="fields to override, such as budget.minutes=10",
    )


def _files(parser: Parser, *, required: bool = True) -> None:
    parser.add_argument("--files", metavar="FILE", nargs="+", required=required, help="files, folders and patterns")


def _out(parser: Parser, text: str, *, required: bool = False) -> None:
    parser.add_argument("--out", metavar="DIR", required=required, help=text)


def _quickstart(parser: Parser) -> None:
    parser.add_argument(
        "--minutes",
        metavar="M",
        type=number(above=0),
        default=6.0,
        help="work to spend (default 6)",
    )
    parser.add_argument("--text", metavar="PATH", help="your own text instead of the Python documentation")
    parser.add_argument("--code", action="store_true", help="learn from the standard library's sources too")
    _out(parser, "where everything goes (default: quickstart)")


def _new(parser: Parser) -> None:
    parser.add_argument("kind", metavar="KIND", help="what the recipe is for")
    parser.add_argument("--out", metavar="FILE", help="where to write it (default: KIND.yaml)")


def _plan(parser: Parser) -> None:
    _recipe(parser)
    parser.add_argument("--price", metavar="P", type=number(least=0), help="cost of one hour on this machine")
    parser.add_argument("--fix", action="store_true", help="change what does not fit and write the new recipe")
    _json(parser)


def _prepare(parser: Parser) -> None:
    _recipe(parser, required=False)
    _files(parser, required=False)
    _out(parser, "the folder of the prepared data")
    parser.add_argument("--workers", metavar="N", type=whole(1, 4096), help="processes (default: all cores)")
    parser.add_argument("--tokenizer", metavar="DIR", help="with --files: tokenize with this tokenizer")
    _json(parser)


def _data_check(parser: Parser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="files, folders and patterns")
    _json(parser)


def _data_show(parser: Parser) -> None:
    _recipe(parser)
    parser.add_argument("--rows", metavar="N", type=whole(1, 10_000), default=3, help="rows to show (default 3)")
    _json(parser)


def _tokenizer_train(parser: Parser) -> None:
    _files(parser)
    parser.add_argument(
        "--vocab", metavar="N", type=whole(1, 1_000_000), help="number of tokens (not for char and byte)"
    )
    parser.add_argument("--kind", metavar="|".join(TOKENIZER_KINDS), type=choice(*TOKENIZER_KINDS), default="bpe")
    _out(parser, "the folder of the tokenizer", required=True)
    _json(parser)


def _tokenizer_inspect(parser: Parser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a folder with tokenizer.json, or that file")
    _files(parser)
    _json(parser)


def _train(parser: Parser) -> None:
    _recipe(parser)
    _out(parser, "the run folder (default: runs/ and the recipe's name)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint")
    parser.add_argument("--accept-changes", action="store_true", help="resume although fields of the recipe changed")
    _json(parser)


def _model(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint or a model folder")


def _evaluate(parser: Parser) -> None:
    _model(parser)
    _files(parser)
    parser.add_argument("--metric", metavar="NAME", nargs="+", help="which metrics (default: all that fit the files)")
    parser.add_argument("--against", metavar="MODEL", help="a second model: better, worse or within noise")
    _json(parser)


def _sampling(parser: Parser) -> None:
    # Ranges and defaults are those of the sampling options; None is "not given".
    add = parser.add_argument
    add("--max-tokens", metavar="N", type=whole(), help="the longest answer, in tokens (default 256)")
    add("--temperature", metavar="T", type=number(), help="0 takes the likeliest token (default)")
    add("--top-k", metavar="K", type=whole(), help="draw from the K likeliest; 0 is off (default)")
    add("--top-p", metavar="P", type=number(), help="draw from the likeliest that reach P; 1 is off (default)")
    add(
        "--min-p",
        metavar="P",
        type=number(),
        help="drop what is less likely than this share of the likeliest",
    )
    add(
        "--repetition-penalty",
        metavar="R",
        type=number(),
        help="weaken tokens already there; 1 is off (default)",
    )
    add("--stop", metavar="TEXT", nargs="+", help="texts that end the answer")
    add("--seed", metavar="S", type=whole(), help="seed of the draws (default 0)")


def _generate(parser: Parser) -> None:
    _model(parser)
    parser.add_argument("--prompt", metavar="TEXT", required=True, help="the text to go on from")
    _sampling(parser)
    _json(parser)


def _chat(parser: Parser) -> None:
    _model(parser)
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    _sampling(parser)


def _report(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, or a folder whose folders are stages of one")
    parser.add_argument("--title", metavar="TEXT", default="", help="what the report is called")
    _json(parser)


def _runs(parser: Parser) -> None:
    parser.add_argument("folder", metavar="DIR", nargs="?", default=".", help="where to look (default: here)")
    parser.add_argument("--compare", metavar="RUN", nargs=2, help="two runs: recipe differences and metrics")
    _json(parser)


def _verify(parser: Parser) -> None:
    parser.add_argument("path", metavar="PATH", help="a run, a checkpoint, a model or prepared data")
    _json(parser)


def _explain(parser: Parser) -> None:
    parser.add_argument("code", metavar="CODE", nargs="?", help="such as E-RECIPE-007; without it, all codes")
    _json(parser)


VERBS: dict[str, Verb] = {
    "quickstart": Verb("groundup.cli.quickstart:quickstart", "the whole life of a model, in minutes", _quickstart),
    "new": Verb("groundup.cli.new:new", "write a recipe to start from", _new),
    "plan": Verb("groundup.cli.plan:plan", "memory, time and disk of a recipe, without training", _plan),
    "prepare": Verb("groundup.cli.prepare:prepare", "read, clean, deduplicate, split and tokenize text", _prepare),
    "data check": Verb(
        "groundup.cli.data_check:check", "what is in data files, and what is wrong with it", _data_check
    ),
    "data show": Verb("groundup.cli.data_show:show", "the rows a recipe trains on, with ids and mask", _data_show),
    "tokenizer train": Verb("groundup.cli.tokenizer:train", "learn a tokenizer from text", _tokenizer_train),
    "tokenizer inspect": Verb("groundup.cli.tokenizer:inspect", "how well a tokenizer fits a text", _tokenizer_inspect),
    "train": Verb("groundup.cli.train:train", "train what a recipe says, or go on with it", _train),
    "evaluate": Verb("groundup.cli.evaluate:evaluate", "measure a model, or compare two", _evaluate),
    "generate": Verb("groundup.cli.generate:generate", "continue a text", _generate),
    "chat": Verb("groundup.cli.chat:chat", "talk with a model", _chat),
    "report": Verb("groundup.cli.report:report", "write the report of a run", _report),
    "runs": Verb("groundup.cli.runs:runs", "list the runs of a folder, or compare two", _runs),
    "verify": Verb("groundup.cli.verify:verify", "whether a run or a model is whole, file by file", _verify),
    "doctor": Verb("groundup.cli.doctor:doctor", "what this machine offers, measured and tested", _json),
    "explain": Verb("groundup.cli.explain:explain", "what an error code means", _explain),
}
