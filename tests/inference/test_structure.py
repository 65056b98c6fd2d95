"""Structured output: whatever is drawn among the allowed tokens follows the structure, for tokenizers of every kind."""

from __future__ import annotations

import json
import random
import re
import sys
import time
from functools import cache
from typing import Any

import jsonschema
import pytest
import torch
from tests.text.test_foreign import SMOL, ForeignTokenizer, pieces, small_file, smol
from tests.text.test_tokenizer import small

from groundup.errors import GroundupError
from groundup.inference import structure
from groundup.inference.structure import MAX_SCHEMA_DEPTH, Constraint, Grammar, Kind, Vocabulary, compile_structure
from groundup.text.tokenizer import AnyTokenizer

OWN = ("bpe", "unigram", "wordpiece", "char", "byte")
NAMES = (*OWN, "foreign", "pieces")
BEYOND = 7
"""Ids that the model has and the tokenizer has not."""


@cache
def tokenizer(name: str) -> AnyTokenizer:
    if name == "foreign":
        return ForeignTokenizer(small_file(), SMOL)
    return {"pieces": pieces, "smol": smol}[name]() if name in ("pieces", "smol") else small(name)


@cache
def vocabulary(name: str) -> Vocabulary:
    made = tokenizer(name)
    return Vocabulary(
        [made.token_bytes(id) for id in range(made.vocabulary)],
        special_ids=frozenset(made.specials.values()),
        end_ids=made.end_ids,
        encode=lambda text: made.encode(text.decode()),
        size=made.vocabulary + BEYOND,
    )


@cache
def compiled(name: str, kind: Kind, source: str) -> Grammar:
    return compile_structure(vocabulary(name), kind, source)


def draw(name: str, kind: Kind, source: str, seed: int, limit: int = 200) -> str | None:
    """A text drawn at random among the allowed tokens; None if it was not ended within `limit` tokens.

    Few alternatives are looked at in turn, and the end is liked, so that texts stay short."""
    chance, known = random.Random(seed), vocabulary(name)
    constraint = compiled(name, kind, source).start()
    data = b""
    for _ in range(limit):
        mask_V = constraint.mask_V()
        check(constraint, mask_V, known)
        ids = mask_V.nonzero().flatten().tolist()
        ends = [id for id in ids if id in known.end_ids]
        if ends and (len(ends) == len(ids) or chance.random() < 0.5):
            constraint.accept(chance.choice(ends))
            assert constraint.ended()
            return data.decode()
        rest = [id for id in ids if id not in known.end_ids]
        closing = [id for id in rest if tokenizer(name).token_bytes(id).strip(b" \n") in (b'"', b"}", b"]", b"0")]
        chosen = chance.choice(closing if closing and chance.random() < 0.3 else rest)
        constraint.accept(chosen)
        data += tokenizer(name).token_bytes(chosen)
    return None


def check(constraint: Constraint, mask_V: torch.Tensor, known: Vocabulary) -> None:
    """What holds of every mask."""
    assert mask_V.dtype == torch.bool
    assert mask_V.shape == (known.size,)
    assert mask_V.any()
    assert not mask_V[-BEYOND:].any()
    allowed = set(mask_V.nonzero().flatten().tolist())
    assert known.end_ids <= allowed or known.end_ids.isdisjoint(allowed)
    assert constraint.ended() == (allowed <= known.end_ids)


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "年龄": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["红", "a b", 'quo"te', "🤷🏽"]}, "maxItems": 3},
        "size": {"anyOf": [{"type": "null"}, {"type": "number", "multipleOf": 0.25}]},
        "date": {"type": "string", "format": "date"},
    },
    "required": ["name", "年龄", "size"],
    "additionalProperties": {"type": "boolean"},
}
SHAPE = {
    "$defs": {
        "circle": {"properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}, "required": ["kind", "r"]},
        "group": {
            "properties": {"kind": {"const": "group"}, "of": {"type": "array", "items": {"$ref": "#/$defs/shape"}}},
            "required": ["kind", "of"],
        },
        "shape": {"type": "object", "oneOf": [{"$ref": "#/$defs/circle"}, {"$ref": "#/$defs/group"}]},
    },
    "$ref": "#/$defs/shape",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schema", [PERSON, SHAPE], ids=["person", "shape"])
def test_C18_json_of_a_schema_is_valid(name: str, schema: dict[str, Any]) -> None:
    texts = [draw(name, "json_schema", json.dumps(schema), seed) for seed in range(8)]
    ended = [text for text in texts if text is not None]
    assert len(ended) >= 3
    for text in ended:
        jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", NAMES)
def test_C18_any_json_object_parses(name: str) -> None:
    texts = [draw(name, "json_object", "", seed) for seed in range(8)]
    ended = [text for text in texts if text is not None]
    assert len(ended) >= 3
    assert all(isinstance(json.loads(text), dict) for text in ended)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("expression", [r"[0-9]{3}-[a-c]+", r"(yes|no)( because .{1,20})?", r"[一-龥]{2,4}。", ""])
def test_a_regular_expression_matches_the_whole_text(name: str, expression: str) -> None:
    texts = [draw(name, "regex", expression, seed) for seed in range(8)]
    assert None not in texts
    assert all(re.fullmatch(expression, text) for text in texts if text is not None)


CHOICES = ["yes", "yes, but", "no", "不知道", "秦川", "🤷🏽‍♀️", 'a "b"\n\\n /c/', ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_is_one_of_the_texts(name: str) -> None:
    source = json.dumps(CHOICES)
    found = {draw(name, "choice", source, seed) for seed in range(30)}
    assert found <= set(CHOICES)
    assert len(found) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_each_choice_can_be_reached_by_its_own_ids(name: str) -> None:
    """The ids that a model learned to write a text with are allowed, and the end where it may end."""
    made = tokenizer(name)
    for choice in CHOICES:
        constraint = compiled(name, "choice", json.dumps(CHOICES)).start()
        ids = made.encode(choice)
        if b"".join(map(made.token_bytes, ids)).decode() != choice:
            continue  # a space that decoding drops
        for id in ids:
            assert constraint.mask_V()[id]
            constraint.accept(id)
        assert constraint.mask_V()[made.end_id]
        assert constraint.ended() == (choice not in ("", "yes"))


def test_a_character_split_over_tokens_stays_whole() -> None:
    made, constraint = tokenizer("byte"), compiled("byte", "json_schema", '{"type": "string"}').start()
    for id in made.encode('"秦')[:-1]:
        constraint.accept(id)
    allowed = {made.token_bytes(id) for id in constraint.mask_V().nonzero().flatten().tolist()}
    assert allowed == {bytes([byte]) for byte in range(0x80, 0xC0)}  # what continues a character, and no quote
    for id in (made.encode("秦")[-1], made.encode('"')[0]):
        constraint.accept(id)
    assert constraint.ended()


def test_white_space_in_json_has_an_end() -> None:
    constraint, made = compiled("byte", "json_object", "").start(), tokenizer("byte")
    constraint.accept(made.encode("{")[0])
    for _ in range(32):
        constraint.accept(made.encode(" ")[0])
    assert not constraint.mask_V()[made.encode(" ")[0]]


def test_answers_of_one_grammar_know_nothing_of_each_other() -> None:
    grammar, made = compiled("byte", "regex", "ab?"), tokenizer("byte")
    one, other = grammar.start(), grammar.start()
    before = other.mask_V()
    one.accept(made.encode("a")[0])
    assert torch.equal(other.mask_V(), before)
    assert torch.equal(grammar.start().mask_V(), before)
    assert not torch.equal(one.mask_V(), before)


def test_the_same_draws_give_the_same_text() -> None:
    for name in ("bpe", "wordpiece"):
        again = compile_structure(vocabulary(name), "json_schema", json.dumps(PERSON))
        first = draw(name, "json_schema", json.dumps(PERSON), 5)
        assert first == draw(name, "json_schema", json.dumps(PERSON), 5)
        assert torch.equal(again.start().mask_V(), compiled(name, "json_schema", json.dumps(PERSON)).start().mask_V())


def test_tokens_of_equal_bytes_are_allowed_together() -> None:
    """A WordPiece token at a word's beginning and the one within it write the same."""
    made, known = tokenizer("wordpiece"), vocabulary("wordpiece")
    spelled = [made.token_bytes(id) for id in range(made.vocabulary)]
    ids = [id for id, token in enumerate(spelled) if token == b"a"]
    assert len(ids) == 2
    for id in ids:
        constraint = compile_structure(known, "regex", "aa").start()
        assert constraint.mask_V().nonzero().flatten().tolist() == [
            id for id, token in enumerate(spelled) if token in (b"a", b"aa")
        ]
        constraint.accept(id)
        constraint.accept(ids[0])
        assert constraint.ended()


def test_special_tokens_are_never_part_of_a_text() -> None:
    made = tokenizer("bpe")
    constraint = compile_structure(vocabulary("bpe"), "regex", r"(?s:.*)").start()
    mask_V = constraint.mask_V()
    assert [id for id in made.specials.values() if mask_V[id]] == [made.end_id]
    # a text may name them, as any other
    for id in made.encode("<|end|>"):
        constraint.accept(id)


SCHEMAS = {
    "not JSON": "{",
    "a number": "5",
    "an unknown type": '{"type": "objct"}',
    "contradiction": '{"type": "integer", "minimum": 5, "maximum": 1}',
    "nothing": "false",
    "unknown keyword": '{"type": "array", "uniqueItems": true}',
    "itself": '{"$ref": "#"}',
    "no such place": '{"$ref": "#/$defs/a"}',
    "elsewhere": '{"$ref": "http://example.org/schema"}',
    "look-around": '{"type": "string", "pattern": "(?=a)b"}',
    "too deep": '{"items":' * (MAX_SCHEMA_DEPTH + 1) + "{}" + "}" * (MAX_SCHEMA_DEPTH + 1),
    "far too deep": '{"items":' * 7000 + "{}" + "}" * 7000,
    "too large": json.dumps({"enum": ["x" * 70_000]}),
    "too many fields": json.dumps({"properties": {f"p{i}": {} for i in range(600)}}),
    "too many values": json.dumps({"enum": list(range(9000))}),
    "an automaton too large": '{"type": "integer", "multipleOf": 999983}',
    "many automata": json.dumps({"anyOf": [{"type": "integer", "multipleOf": 9973}] * 9}),
    "half a character": '{"const": "\\ud800"}',
    "no number": '{"const": NaN}',
    "a bomb": json.dumps({"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "null"}}} for j in range(4)]}
                                    for i in range(12)]}),
}  # fmt: skip
OTHERS: dict[str, tuple[str, str]] = {
    "open group": ("regex", "a("),
    "back reference": ("regex", r"(a)\1"),
    "look-behind": ("regex", "(?<=a)b"),
    "long expression": ("regex", "a" * 9000),
    "deep expression": ("regex", "(" * 4000 + ")" * 4000),
    "control characters": ("regex", "(\x1b[31m"),
    "surrogate": ("regex", "\ud800"),
    "no grammar": ("lark", "%%%"),
    "unknown rule": ("lark", "start: a"),
    "long grammar": ("lark", 'start: "a"' + " " * 70_000),
    "schema inside": ("lark", 'start: %json {"multipleOf": 999983}'),
    "special token": ("lark", 'start: <|begin|> "a"'),
    "no list": ("choice", '{"a": 1}'),
    "empty list": ("choice", "[]"),
    "numbers": ("choice", "[1, 2]"),
    "many": ("choice", json.dumps([str(i) for i in range(2000)])),
    "half a character": ("choice", '["\\udfff"]'),
    "unknown kind": ("yaml", ""),
}


@pytest.mark.parametrize(
    ("kind", "source"),
    [pytest.param("json_schema", source, id=name) for name, source in SCHEMAS.items()]
    + [pytest.param(*pair, id=name) for name, pair in OTHERS.items()],
)
def test_what_cannot_be_followed_is_refused_quickly(kind: Kind, source: str) -> None:
    known, began = vocabulary("bpe"), time.perf_counter()
    with pytest.raises(GroundupError) as caught:
        compile_structure(known, kind, source)
    assert time.perf_counter() - began < 2.0
    assert caught.value.code == "E-GEN-010"
    assert len(str(caught.value)) < 1000
    assert caught.value.what.isprintable()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {f"property{i}": {"type": "string"} for i in range(512)}},
        {"anyOf": [{"type": "string", "pattern": f"^(a|b)*a(a|b){{{i}}}$"} for i in range(400)]},
        {"type": "array", "minItems": 50_000, "items": {"type": "string", "maxLength": 100_000}},
        {"type": "integer", "multipleOf": 9973},
        {"enum": [f"value {i}" for i in range(4000)]},
    ],
    ids=["properties", "patterns", "items", "multiple", "values"],
)
def test_the_largest_that_are_taken_are_compiled_in_time(schema: dict[str, Any]) -> None:
    known, began = vocabulary("bpe"), time.perf_counter()
    compile_structure(known, "json_schema", json.dumps(schema)).start().mask_V()
    assert time.perf_counter() - began < 3.0


def test_a_schemas_own_orders_to_the_library_do_nothing() -> None:
    schema = {"type": "object", "x-guidance": {"whitespace_pattern": "x", "lenient": True, "item_separator": ";"}}
    plain = compile_structure(vocabulary("byte"), "json_object", "").start()
    ordered = compile_structure(vocabulary("byte"), "json_schema", json.dumps(schema)).start()
    for id in tokenizer("byte").encode('{"a":1'):
        plain.accept(id)
        ordered.accept(id)
    assert torch.equal(plain.mask_V(), ordered.mask_V())
    assert not ordered.mask_V()[tokenizer("byte").encode("x")[0]]


def test_a_token_that_was_not_allowed_is_refused() -> None:
    made = tokenizer("byte")
    for wrong in (made.encode("x")[0], made.end_id):
        constraint = compiled("byte", "regex", "ab").start()
        with pytest.raises(GroundupError) as caught:
            constraint.accept(wrong)
        assert caught.value.code == "E-GEN-012"


def test_a_constraint_at_fault_does_not_allow_the_end() -> None:
    constraint = compiled("byte", "regex", "ab").start()
    with pytest.raises(GroundupError):
        constraint.accept(tokenizer("byte").encode("x")[0])
    with pytest.raises(GroundupError):
        constraint.mask_V()
    with pytest.raises(GroundupError):
        constraint.ended()


def test_too_much_work_on_the_way_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "MAX_EXPANDED", 10**9)  # what would be refused at once is let through
    constraint = compiled("byte", "regex", r"(\p{L}|\w|.){1,1000}" * 20).start()
    with pytest.raises(GroundupError) as caught:
        for _ in range(3000):
            constraint.mask_V()
            constraint.accept(tokenizer("byte").encode("a")[0])
    assert caught.value.code == "E-GEN-012"
    assert "E-GEN-012" in str(caught.value)


def test_a_vocabulary_that_cannot_write_it() -> None:
    poor = Vocabulary([b"", b"a", b"b"], special_ids=[0], end_ids=[0], encode=lambda text: [1] * len(text))
    assert compile_structure(poor, "regex", "[ab]").start().mask_V().tolist() == [False, True, True]
    with pytest.raises(GroundupError) as caught:
        compile_structure(poor, "json_object", "")
    assert caught.value.code == "E-GEN-010"
    constraint = compile_structure(poor, "regex", "ac").start()  # which is only seen on the way
    constraint.accept(1)
    with pytest.raises(GroundupError) as caught:
        constraint.mask_V()
    assert caught.value.code == "E-GEN-012"


def test_several_ends_and_none() -> None:
    known = Vocabulary(
        [b"<e>", b"<f>", b"a"], special_ids=[0], end_ids=[0, 1], encode=lambda text: [2] * len(text), size=5
    )
    constraint = compile_structure(known, "regex", "a?").start()
    assert constraint.mask_V().tolist() == [True, True, True, False, False]
    constraint.accept(1)
    assert constraint.ended()
    assert constraint.mask_V().tolist() == [True, True, False, False, False]
    with pytest.raises(ValueError, match="ends"):
        Vocabulary([b"a"], special_ids=[], end_ids=[], encode=lambda text: [])


def test_U3_a_missing_library_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(GroundupError) as caught:
        Vocabulary([b"a"], special_ids=[], end_ids=[0], encode=lambda text: [])
    assert caught.value.code == "E-GEN-013"
    assert caught.value.fix == 'pip install "groundup[structured]"'


def test_a_real_vocabulary() -> None:
    made = tokenizer("smol")
    began = time.perf_counter()
    known = vocabulary("smol")
    assert time.perf_counter() - began < 20.0
    constraint = compile_structure(known, "json_schema", json.dumps(PERSON)).start()
    for id in made.encode('{"name": "王小明", "年龄": 42, "size": 0.25}'):
        assert constraint.mask_V()[id]
        constraint.accept(id)
    assert constraint.ended()


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("regex", "(a{1000}){1000}"),
        ("regex", "((a{100}){100}){100}"),
        ("regex", "(?:[ab]{300}c){1,90}"),
        ("regex", "([)]a{1000}){1000}"),
        ("regex", "(a{ 1000 }){ 1000 }"),
        ("regex", "(a{0000001000}){0000001000}"),
        ("lark", 'start: ("a"~1000)~1000'),
        ("lark", "start: /(a{1000}){1000}/"),
        ("json_schema", json.dumps({"type": "object", "properties": {"a": {"pattern": "(a{1000}){1000}"}}})),
        ("json_schema", json.dumps({"patternProperties": {"(a{1000}){1000}": {"type": "string"}}})),
    ],
)
def test_repetitions_that_multiply_are_refused_before_they_are_compiled(kind: str, source: str) -> None:
    with pytest.raises(GroundupError) as fault:
        compile_structure(vocabulary("byte"), kind, source)  # type: ignore[arg-type]
    assert fault.value.code == "E-GEN-010" and "repetitions" in str(fault.value)


MODEST = ["(ab{3}){20}", r"\{9\}x{5}", "[0-9]{1,64}(,[0-9]{3}){0,40}", "ab{0}", "a{2,}"]


@pytest.mark.parametrize("source", MODEST)
def test_modest_repetitions_are_taken(source: str) -> None:
    compile_structure(vocabulary("byte"), "regex", source)
