"""Structured output: which tokens may come next when the text of an answer must follow a schema, an expression or a
grammar. The library llguidance (the extra `structured`) follows the text; it is imported when a vocabulary is made.

A vocabulary is plain data that is handed in: no tokenizer enters this file, and no sampling, which takes the masks.
A schema may come from anyone on the network, so what is compiled is bounded in size, depth and work.

Shapes: V ids of the model's vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from groundup.errors import GroundupError, printable

if TYPE_CHECKING:
    from llguidance import LLMatcher

Kind = Literal["json_object", "json_schema", "regex", "lark", "choice"]

MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 64
"""Of the schema as JSON: each level of an object that it describes takes two."""
MAX_SCHEMA_FIELDS = 512
"""Keys of one object; llguidance takes a time quadratic in the properties of an object."""
MAX_SCHEMA_VALUES = 8192
MAX_MULTIPLE = 10_000
"""Sum of the significant digits of all `multipleOf`: each becomes an automaton with so many states."""
MAX_REGEX_BYTES = 8 * 1024
FUEL = 100_000
"""Work that the library may spend on an expression before the first token; it does the rest on the way."""
MAX_EXPANDED = 20_000
"""Characters that an expression is made of once its numbered repetitions are written out."""
MAX_LARK_BYTES = 64 * 1024
MAX_CHOICES = 1024
MAX_CHOICE_BYTES = 64 * 1024
_REPETITION = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}|~\s*(\d+)(?:\s*\.\.\s*(\d+))?")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]")
WHITESPACE = r"[\x20\x0A\x0D\x09]{1,32}"
"""Between the parts of JSON. The library's own default has no end, and a small model may never leave it."""


class Vocabulary:
    """What the tokens of a tokenizer write; made once for each, since it takes up to seconds.

    Args:
        tokens: the bytes that each id adds to a text. Where a tokenizer writes text by rules rather than token by
            token, what comes out may differ from what was followed.
        special_ids: ids that write nothing of a text: they are never allowed, but for those that end it.
        end_ids: ids that end a text; at least one.
        encode: ids of a piece of text in UTF-8, without special ones.
        size: V, where the model has more ids than the tokenizer; ids past `tokens` are never allowed.
    Raises:
        GroundupError: E-GEN-013 llguidance is not installed.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        *,
        special_ids: Collection[int],
        end_ids: Collection[int],
        encode: Callable[[bytes], list[int]],
        size: int | None = None,
    ) -> None:
        library = _library()
        self.size, self.end_ids = size or len(tokens), frozenset(end_ids)
        if not self.end_ids or self.size < len(tokens):
            raise ValueError("a vocabulary needs an id that ends a text, and a size that holds its tokens")
        silent = self.end_ids.union(special_ids)
        writes = [id for id, token in enumerate(tokens) if token and id not in silent]
        # The library lets one of several ids with the same bytes stand for all: WordPiece has such, at a word's
        # beginning and within.
        first = {tokens[id]: id for id in reversed(writes)}
        self.same_V, self.writes_V = torch.arange(self.size), torch.zeros(self.size, dtype=torch.bool)
        self.same_V[writes] = torch.tensor([first[tokens[id]] for id in writes])
        self.writes_V[writes] = True
        self.ends = sorted(self.end_ids)
        spelled = [*tokens, *[b""] * (self.size - len(tokens))]
        plain = _Plain(spelled, sorted(silent), self.ends[0], first, encode)
        self.library = library.LLTokenizer(library.TokenizerWrapper(plain), eos_token=self.ends)


@dataclass
class _Plain:
    """A tokenizer as the library takes it."""

    tokens: list[bytes]
    special_token_ids: list[int]
    eos_token_id: int
    first: dict[bytes, int]
    encode: Callable[[bytes], list[int]]
    bos_token_id: int | None = None

    def __call__(self, text: bytes) -> list[int]:
        """Ids that spell the text byte for byte. The library trusts them, and allows nothing else where a text is
        forced; a tokenizer that puts a space in front or changes letters is not asked, but the longest tokens taken."""
        spelled = [self.tokens[id] for id in self.encode(text)]
        if b"".join(spelled) == text and all(token in self.first for token in spelled):
            return [self.first[token] for token in spelled]
        ids, start = [], 0
        longest = max(map(len, self.first), default=0)
        while start < len(text):
            for end in range(min(start + longest, len(text)), start, -1):
                if text[start:end] in self.first:
                    break
            else:
                break  # no token has this byte
            ids.append(self.first[text[start:end]])
            start = end
        return ids


class Grammar:
    """A structure that was compiled for a vocabulary; made by `compile_structure`, begun by `start` for each answer."""

    def __init__(self, vocabulary: Vocabulary, matcher: LLMatcher) -> None:
        self.vocabulary, self._matcher = vocabulary, matcher

    def start(self) -> Constraint:
        """The structure before the first token; any thread may call it."""
        return Constraint(self.vocabulary, self._matcher.deep_copy())


class Constraint:
    """How far one answer has followed its structure. To be used by one thread at a time."""

    def __init__(self, vocabulary: Vocabulary, matcher: LLMatcher) -> None:
        self.vocabulary, self._matcher = vocabulary, matcher
        self._over = False  # an end id was accepted
        self._mask_V: torch.Tensor | None = None  # of this place

    def mask_V(self) -> torch.Tensor:
        """Which ids may come next, bool (V,), never none; not to be written to. Those that end the text are allowed
        exactly where it may end.

        Raises:
            GroundupError: E-GEN-012 the structure takes too much work here, or no token goes on with it.
        """
        if self._mask_V is None:
            self._mask_V = self._computed()
        return self._mask_V

    def _computed(self) -> torch.Tensor:
        known, matcher = self.vocabulary, self._matcher
        mask_V, may_end = torch.zeros(known.size, dtype=torch.bool), True
        if not self._over and not matcher.is_stopped():
            allowed_V = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8).bool()
            mask_V = allowed_V[known.same_V] & known.writes_V
            may_end = matcher.is_accepting()
        if matcher.is_error():  # which calls itself stopped, and would allow an end
            raise _stuck(matcher.get_error())
        mask_V[known.ends] = may_end
        if not mask_V.any():
            raise _stuck("no token of the vocabulary goes on with it")
        return mask_V

    def accept(self, id: int) -> None:
        """Go on by a token that `mask_V` allowed.

        Raises:
            GroundupError: E-GEN-012 it was not allowed, or the structure takes too much work here.
        """
        self._mask_V = None
        if id in self.vocabulary.end_ids:
            if not (self._over or self._matcher.is_accepting()):
                raise _stuck("the text ended before it was whole")
            self._over = True
            return
        if self._over or not self._matcher.consume_token(int(self.vocabulary.same_V[id])):
            raise _stuck(self._matcher.get_error() or "a token came after the end")

    def ended(self) -> bool:
        """Whether nothing but an end may follow.

        Raises:
            GroundupError: E-GEN-012 as in `mask_V`.
        """
        return not (self.mask_V() & self.vocabulary.writes_V).any()


def compile_structure(vocabulary: Vocabulary, kind: Kind, source: str) -> Grammar:
    """A structure, ready for the tokens of a vocabulary.

    Texts that follow it may still be endless, as in a schema that contains itself: `max_tokens` bounds them.

    Args:
        kind: any JSON object ("json_object", no source), JSON of a schema ("json_schema", given as JSON), a regular
            expression that all of the text matches ("regex"), a grammar of llguidance ("lark"), or one of several
            texts ("choice", given as a JSON list).
    Raises:
        GroundupError: E-GEN-010 the structure cannot be followed: malformed, contradictory, too large, or of
            keywords that llguidance does not know.
    """
    if kind not in get_args(Kind):
        raise _refused(str(kind), f"the kind is not one of {', '.join(get_args(Kind))}")
    library = _library()
    try:
        # the server hands on what came as JSON, where half a surrogate pair can be spelled
        source.encode()
        grammar = _grammar(kind, source)
    except ValueError as error:
        raise _refused(kind, str(error)) from error
    limits = library.LLParserLimits(verbose_errors=False, initial_lexer_fuel=FUEL)
    matcher = library.LLMatcher(vocabulary.library, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise _refused(kind, matcher.get_error())
    compiled = Grammar(vocabulary, matcher)
    try:
        compiled.start().mask_V()
    except GroundupError as error:
        raise _refused(kind, error.why) from error
    return compiled


def _grammar(kind: Kind, source: str) -> str:
    """The grammar in the words of llguidance. Raises ValueError where it is refused here."""
    library = _library()
    if kind == "regex":
        _bounded("the expression", source, MAX_REGEX_BYTES)
        _repeats(source)
        return str(library.LLMatcher.grammar_from_regex(source))
    if kind == "lark":
        _bounded("the grammar", source, MAX_LARK_BYTES)
        if "%json" in source:
            raise ValueError("%json is not taken inside a grammar: give the schema as a schema")
        _repeats(source)
        return str(library.LLMatcher.grammar_from_lark(source))
    if kind == "choice":
        return str(library.LLMatcher.grammar_from_lark(_choices(source)))
    schema = {"type": "object"} if kind == "json_object" else _schema(source)
    options: Any = {"whitespace_pattern": WHITESPACE}
    return str(library.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options))


def _choices(source: str) -> str:
    _bounded("the list of choices", source, MAX_CHOICE_BYTES)
    choices = _json(source)
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
        raise ValueError("the choices are not a JSON list of texts")
    if len(choices) > MAX_CHOICES:
        raise ValueError(f"{len(choices)} choices, at most {MAX_CHOICES} are taken")
    return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)


def _schema(source: str) -> Any:
    """The schema, found small enough. Its own orders to llguidance are left out: they could make the text no JSON,
    or let a keyword go that cannot be kept."""
    _bounded("the schema", source, MAX_SCHEMA_BYTES)
    schema = _json(source)
    multiples = 0
    for count, (value, depth) in enumerate(_values(schema), start=1):
        if depth > MAX_SCHEMA_DEPTH or count > MAX_SCHEMA_VALUES:
            raise ValueError(f"the schema is over {MAX_SCHEMA_DEPTH} levels deep or {MAX_SCHEMA_VALUES} values large")
        if isinstance(value, dict):
            if len(value) > MAX_SCHEMA_FIELDS:
                raise ValueError(f"an object of the schema has {len(value)} fields, at most {MAX_SCHEMA_FIELDS}")
            multiples += _digits(value.get("multipleOf"))
            for pattern in (value.get("pattern"), *_keys(value.get("patternProperties"))):
                _repeats(pattern if isinstance(pattern, str) else "")
    if multiples > MAX_MULTIPLE:
        raise ValueError(f"the digits of all multipleOf come to {multiples}, at most {MAX_MULTIPLE}")
    if isinstance(schema, dict):
        schema.pop("x-guidance", None)
    return schema


def _keys(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _repeats(expression: str) -> None:
    """Refuse an expression that spells out more than it seems to: each number of a repetition multiplies what is
    repeated, groups within groups, and the automaton has a state for each.

    The count is of characters, without regard to what they mean: in a grammar it covers all of its expressions.
    """
    sizes, last, place = [0], 1, 0
    while place < len(expression):
        found = _REPETITION.match(expression, place)
        if found is not None:
            times = max(int(number or "0") for number in found.groups(default="0"))
            sizes[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
            place = found.end()
        elif (inside := _CLASS.match(expression, place)) is not None:  # what stands in brackets is one character
            place, last = inside.end(), 1
            sizes[-1] += 1
        elif expression[place] == "(":
            sizes.append(0)
            place += 1
        elif expression[place] == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
            place += 1
        else:
            place += 2 if expression[place] == "\\" else 1
            last = 1
            sizes[-1] += 1
        if max(sizes[-1], last) > MAX_EXPANDED:
            raise ValueError(f"its repetitions spell out more than {MAX_EXPANDED} characters")


def _values(value: Any, depth: int = 1) -> Iterator[tuple[Any, int]]:
    """Every value of a JSON tree with its depth; stops going down where it is too deep."""
    yield value, depth
    if depth <= MAX_SCHEMA_DEPTH and isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _values(item, depth + 1)


def _digits(number: Any) -> int:
    """The significant digits of a number as a whole one: 25 of 0.025."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return 0
    digits = Decimal(str(number)).normalize().as_tuple().digits
    return int("".join(map(str, digits)))


def _json(source: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        value = json.loads(source, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()  # an escape may spell half a surrogate pair
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    return value


def _bounded(name: str, source: str, limit: int) -> None:
    size = len(source.encode())
    if size > limit:
        raise ValueError(f"{name} has {size} bytes, at most {limit} are taken")


def _refused(kind: str, reason: str) -> GroundupError:
    return GroundupError(
        "E-GEN-010",
        f"the structure cannot be followed: {_shown(reason)}",
        where=f"structure of kind {printable(kind, 40)}",
        why="an answer that ignored a part of it would not be what was asked for",
        fix="simplify it: plain JSON Schema without uniqueItems, not, if/then and remote $ref; a regular expression "
        "without look-around and back references",
        exit_code=2,
    )


def _stuck(reason: str) -> GroundupError:
    return GroundupError(
        "E-GEN-012",
        "the answer cannot go on in its structure",
        where="the next token",
        why=_shown(reason),
        fix="simplify the structure: fewer alternatives that begin alike, shorter repetitions; in a grammar, no "
        "special tokens",
    )


def _shown(message: str) -> str:
    """A message of the library in one bounded line; its drawings of places do not survive that."""
    lines = [line.strip() for line in message.replace("<non-verbose/>", "").splitlines()]
    return printable("; ".join(line for line in lines if line and set(line) - set("^ |")), 300)


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise GroundupError(
            "E-GEN-013",
            "structured output needs the library llguidance, which is not installed",
            where="structure",
            why="it is an optional extra, since most answers are free text",
            fix='pip install "groundup[structured]"',
        ) from error
    return llguidance
