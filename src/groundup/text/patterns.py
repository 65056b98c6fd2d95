"""Whether a regular expression from outside may be trusted with a text of any length.

A tokenizer.json brings expressions that the `tokenizers` library hands to a backtracking engine (Oniguruma).
Some of them take exponential time on a short text, and nothing inside this process could stop them. So an
expression is read here before it is used, and refused unless its shape bounds the work: repeated groups of
fixed length, few ways to divide a text, no references. Every cut of the known byte-level tokenizers (GPT-2,
GPT-4, Llama 3, Qwen, DeepSeek, Mistral) has such a shape. Nothing is matched here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 20_000  # characters of an expression
DEEPEST = 8  # groups inside groups
MANY = 64  # a repetition that may go on for longer counts as one without end
WAYS = 4096  # in which the bounded parts of one alternative may divide a text
UNBOUNDED = 2  # repetitions without end in one alternative; nothing that can fail may follow the second

_QUANTIFIER = re.compile(r"([*+?]|\{(\d{1,9})?(,)?(\d{1,9})?\})[?+]?")
_GROUP = re.compile(r"\((?:\?(?:[imx]*(?:-[imx]+)?:|=|!|<=|<!|>))?(?!\?)")
_ESCAPE = re.compile(
    r"\\(?:[pP]\{\^?[\w ]{1,40}\}|x\{[0-9a-fA-F]{1,8}\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[^1-9kgQEKXR])", re.S
)
_LITERAL = re.compile(r"[^\\\[(|)*+?]", re.S)


class Refused(ValueError):
    """Why an expression is not used."""


@dataclass
class _Shape:
    """What a part of an expression may do: in how many ways it divides a text, whether it can match nothing,
    whether its length is fixed, and how many repetitions without end have been met up to its end."""

    ways: int = 1
    empty: bool = True
    fixed: bool = True
    unbounded: int = 0


def check_regex(pattern: str) -> None:
    """Read an expression without running it.

    Raises:
        Refused: its shape does not bound the work, or it is written in a way that is not understood here.
    """
    if len(pattern) > LONGEST:
        raise Refused(f"it has {len(pattern)} characters, at most {LONGEST} are read")
    end, _ = _alternatives(pattern, 0, 0, 0)
    if end != len(pattern):
        raise Refused(f"a closing bracket too many at character {end}")


def _alternatives(pattern: str, at: int, met: int, depth: int) -> tuple[int, _Shape]:
    """Read alternatives up to a closing bracket or the end, coming after `met` repetitions without end."""
    if depth > DEEPEST:
        raise Refused(f"its groups are nested deeper than {DEEPEST}")
    whole, branches = _Shape(0, False, True, met), 0
    while True:
        at, branch = _sequence(pattern, at, met, depth)
        branches += 1
        whole.ways += branch.ways
        whole.empty |= branch.empty
        whole.fixed &= branch.fixed
        whole.unbounded = max(whole.unbounded, branch.unbounded)
        if at == len(pattern) or pattern[at] == ")":
            whole.fixed &= branches == 1
            return at, whole
        at += 1


def _sequence(pattern: str, at: int, met: int, depth: int) -> tuple[int, _Shape]:
    shape = _Shape(unbounded=met)
    while at < len(pattern) and pattern[at] not in "|)":
        start = at
        at, part = _atom(pattern, at, shape.unbounded, depth)
        at, least, most = _quantifier(pattern, at)
        if most != 1 and not part.fixed:
            raise Refused(f"{pattern[start:at][:60]!r} repeats what has no fixed length")
        endless = most is None or most > MANY
        required = least > 0 and not part.empty
        if shape.unbounded >= UNBOUNDED and (required or part.unbounded > shape.unbounded or endless):
            raise Refused(f"{pattern[start:at][:60]!r} follows {UNBOUNDED} repetitions without end")
        shape.ways *= part.ways * (1 if most is None or endless else most - least + 1)
        if shape.ways > WAYS:
            raise Refused(f"up to {pattern[start:at][:60]!r} it divides a text in more than {WAYS} ways")
        shape.unbounded = part.unbounded + endless
        shape.empty &= not required
        shape.fixed &= part.fixed and least == most
    return at, shape


def _atom(pattern: str, at: int, met: int, depth: int) -> tuple[int, _Shape]:
    one = _Shape(empty=False, unbounded=met)
    if pattern[at] == "(":
        return _group(pattern, at, met, depth)
    if pattern[at] == "[":
        return _characters(pattern, at), one
    if found := (_ESCAPE if pattern[at] == "\\" else _LITERAL).match(pattern, at):
        return found.end(), one
    raise Refused(f"{pattern[at : at + 10]!r} is a reference or is not understood")


def _group(pattern: str, at: int, met: int, depth: int) -> tuple[int, _Shape]:
    if not (opening := _GROUP.match(pattern, at)):
        raise Refused(f"the group {pattern[at : at + 10]!r} is of a kind that is not known")
    end, inner = _alternatives(pattern, opening.end(), 0, depth + 1)
    if end == len(pattern):
        raise Refused("a group is not closed")
    if _quantifier(pattern, end + 1)[1:] == (0, 1):  # where it fails it is left out, and nothing is tried again
        inner.unbounded += met
    else:
        _, inner = _alternatives(pattern, opening.end(), met, depth + 1)
    # a look around takes no text, but it can fail, so it counts as something that must be there
    inner.empty &= opening[0][1:] not in ("?=", "?!", "?<=", "?<!")
    return end + 1, inner


def _characters(pattern: str, at: int) -> int:
    """The end of a set of characters, which may hold sets; they match one character whatever they hold."""
    depth = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            depth += 1
            at += pattern.startswith("^", at + 1)
            at += pattern.startswith("]", at + 1)  # the first one is the character itself
        elif pattern[at] == "]":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise Refused("a set of characters is not closed")


def _quantifier(pattern: str, at: int) -> tuple[int, int, int | None]:
    """How often the part before `at` is matched: at least and at most; one quantifier after another is refused."""
    found = _QUANTIFIER.match(pattern, at)
    if not found or found[1] in ("{}", "{,}"):
        return at, 1, 1
    if _QUANTIFIER.match(pattern, found.end()):
        raise Refused(f"{pattern[at : found.end() + 3]!r} repeats a repetition")
    if found[1] in "*+?":
        return found.end(), int(found[1] == "+"), 1 if found[1] == "?" else None
    least = int(found[2] or 0)
    return found.end(), least, least if not found[3] else int(found[4]) if found[4] else None
