"""Recipe text: the scalars of YAML 1.2, faults with line and column, and a dump that reads back the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import GroundupError
from groundup.recipe.load import decode, read
from groundup.recipe.yaml import dotted, dump, parse, parse_value


def refused(text: str, code: str) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        parse(text, "r.yaml")
    assert caught.value.code == code
    assert caught.value.why and caught.value.fix and caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("~/data", "~/data"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("唐诗", "唐诗"),
        (".inf", float("inf")),
    ],
)
def test_U1_scalars_follow_the_core_schema(text: str, value: object) -> None:
    tree, _ = parse(f"a: {text}\n", "r.yaml")
    assert tree["a"] == value and type(tree["a"]) is type(value)


def test_positions_are_those_of_keys_and_items() -> None:
    _, positions = parse("model:\n  depth: 6\ndata:\n  files: [a, b]\n  mix:\n    - {w: 1}\n", "r.yaml")
    assert positions[("model", "depth")] == (2, 3)
    assert positions[("data", "files", 1)] == (4, 14)
    assert positions[("data", "mix", 0, "w")] == (6, 8)


def test_U1_doubled_keys_are_all_listed_with_both_lines() -> None:
    fault = refused("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n", "E-RECIPE-004")
    assert fault.where == "r.yaml:4:3  b.c\nr.yaml:3:3  (the first)"
    assert len(fault.others) == 1 and "r.yaml:5:1  a" in fault.others[0].where
    assert "line 5 or line 1" in fault.others[0].fix


@pytest.mark.parametrize(
    ("text", "place"),
    [("a:\n\tb: 1\n", "r.yaml:2:1"), ("a: 1\n  \tb: 2\n", "r.yaml:2:3"), ("a: 1\nb:\t2\n", "r.yaml:2:3")],
)
def test_U1_tab_is_named_with_line_and_column(text: str, place: str) -> None:
    fault = refused(text, "E-RECIPE-003")
    assert "a tab" in fault.what and fault.where.startswith(place) and "spaces" in fault.fix


def test_usual_syntax_faults_name_their_cause() -> None:
    fault = refused("prompt: Question: why?\n", "E-RECIPE-003")
    assert "r.yaml:1:17" in fault.where and "prompt: Question" in fault.where and "quotes" in fault.fix
    assert '"*.txt"' in refused("files: [*.txt]\n", "E-RECIPE-003").fix
    assert "second document" in refused("a: 1\n---\nb: 2\n", "E-RECIPE-003").what
    assert refused("a: [1, 2\n", "E-RECIPE-003").where.startswith("r.yaml:2")
    refused("a: 'open\n", "E-RECIPE-003")


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system ['ls']\n", "a: !!str 1\n", "a: ! 1\n", "!x {a: 1}\n"]
)
def test_tags_are_refused(text: str) -> None:
    assert "tag" in refused(text, "E-RECIPE-005").what


def test_aliases_work_but_are_bounded() -> None:
    assert parse("a: &x {b: 1}\nc: *x\n", "r.yaml")[0] == {"a": {"b": 1}, "c": {"b": 1}}
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    assert "20,000" in refused(laughs, "E-RECIPE-005").what
    assert "contains itself" in refused("a: &x [*x]\n", "E-RECIPE-005").what


def test_deep_and_large_texts_are_refused() -> None:
    refused("a: " + "[" * 5000 + "]" * 5000, "E-RECIPE-005")
    refused("# " + "x" * 1_100_000, "E-RECIPE-005")
    refused("a: " + "9" * 5000, "E-RECIPE-005")
    refused("a: 1e999\n", "E-RECIPE-005")
    refused('a: "\\ud800"\n', "E-RECIPE-005")
    refused("? [a, b]\n: 1\n", "E-RECIPE-005")


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "42\n", "just words\n"])
def test_top_level_must_be_a_mapping(text: str) -> None:
    refused(text, "E-RECIPE-006")


def test_empty_text_and_byte_order_mark() -> None:
    assert parse("", "r.yaml")[0] == {} and parse("# nothing\n", "r.yaml")[0] == {}
    assert parse("\ufeffa: 1\n", "r.yaml")[0] == {"a": 1}
    assert decode(b"\xef\xbb\xbfa: 1\n", "r.yaml") == "a: 1\n"


def test_keys_are_text_whatever_they_look_like() -> None:
    assert parse("on: 1\n1: 2\nnull: 3\n", "r.yaml")[0] == {"on": 1, "1": 2, "null": 3}


def test_bytes_that_are_not_text_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(GroundupError, match=r"byte 0xff at offset 8") as caught:
        read(path)
    assert caught.value.code == "E-RECIPE-002" and caught.value.where.endswith("r.yaml:2")
    with pytest.raises(GroundupError, match="UTF-16"):
        decode("a: 1".encode("utf-16"), "r.yaml")
    fault = refused("a: 1\nb: x\x07y\n", "E-RECIPE-002")
    assert "U+0007" in fault.what and fault.where == "r.yaml:2:5"


def test_missing_recipe_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "shakespeare.yaml").write_text("a: 1")
    with pytest.raises(GroundupError, match="No such file") as caught:
        read(tmp_path / "shakespear.yaml")
    assert "shakespeare.yaml?" in caught.value.fix
    with pytest.raises(GroundupError) as caught:
        read(tmp_path)
    assert caught.value.code == "E-RECIPE-001"
    with pytest.raises(GroundupError):
        read(Path("nul\0byte"))


def test_U6_odd_file_names(tmp_path: Path) -> None:
    path = tmp_path / "my recipe 🌱.yaml"
    path.write_text("a: ~/x\n", encoding="utf-8")
    assert parse(read(path), str(path))[0] == {"a": "~/x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-4", 1e-4),
        ("[1, a]", [1, "a"]),
        ("{kind: sgd, lr: 0.1}", {"kind": "sgd", "lr": 0.1}),
        ("*.txt", "*.txt"),
        ("Question: why? # no comment", "Question: why? # no comment"),
        ("'3'", "3"),
        ("!bang", "!bang"),
        ("null", None),
    ],
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value(text, "override") == value


def test_dump_is_readable() -> None:
    tree = {
        "model": {"family": "llama", "depth": 6, "sizes": None},
        "data": {"files": ["a b.txt", "yes", "唐诗/*.txt"], "mix": [{"w": 1.0, "n": []}, {"w": 1e-5}]},
        "empty": {},
        "nested": [[1, 2], []],
        "text": 'two\nlines "quoted"\t\x07',
    }
    text = dump(tree, {("model",): "the\nnetwork", ("model", "depth"): "one dial"})
    assert text == (
        "# the network\nmodel:\n  family: llama\n  depth: 6  # one dial\n  sizes: null\n"
        'data:\n  files: [a b.txt, "yes", 唐诗/*.txt]\n  mix:\n    - w: 1.0\n      n: []\n    - w: 1.0e-05\n'
        'empty: {}\nnested:\n  - [1, 2]\n  - []\ntext: "two\\nlines \\"quoted\\"\\t\\u0007"\n'
    )
    assert parse(text, "r.yaml")[0] == tree


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | st.text()
    | st.text(alphabet="0123456789eEox_.:+-~ynoftrueNUL<=#&*!|>%@` '\"[]{},?\\\n\t", max_size=6)
)
TREES = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    ),
    max_size=5,
)


def same(one: Any, other: Any) -> bool:
    """Equal, type by type, so that 1 and 1.0 and True differ."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(TREES)
def test_dump_reads_back_exactly(tree: dict[str, Any]) -> None:
    text = dump(tree, {(key,): "a remark: {" for key in tree})
    back, _ = parse(text, "r.yaml")
    assert same(back, tree)
    assert dump(back, {(key,): "a remark: {" for key in tree}) == text


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=8) | st.integers(-9, 9), min_size=1))
def test_other_readers_see_the_same(tree: dict[str, Any]) -> None:
    assert pyyaml.safe_load(dump(tree)) == tree


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.text(alphabet="ab:-[]{},#&*!|>'\"%@`?\\ \n\t019.e~", max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse(text, "r.yaml")
    except GroundupError as fault:
        assert fault.why and fault.fix and fault.where


def test_dotted_is_safe_to_print() -> None:
    assert dotted(("a", 0, "b\x1b[31m")) == "a.0.b\\x1b[31m"
