"""Tokenizers: exact round trips, special tokens that text cannot spell, determinism, and errors."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.shared import shared

from groundup.errors import GroundupError
from groundup.text.options import SPECIALS, TokenizerOptions
from groundup.text.tokenizer import StreamDecoder, Tokenizer
from groundup.text.train import train_tokenizer

KINDS = ("bpe", "unigram", "wordpiece", "char", "byte")
SIZES: dict[str, int | None] = {"bpe": 320, "unigram": 320, "wordpiece": 560, "char": None, "byte": None}
TEXTS = [
    "The quick brown fox jumps over the lazy dog; the dog doesn't mind, it's the quick fox's habit.\n",
    "秦川雄帝宅，函谷壯皇居。綺殿千尋起，離宮百雉餘。\n",
    "Съешь ещё этих мягких французских булок, да выпей чаю. 12345 + 678 = 13023\n\n",
] * 4


@cache
def small(kind: str) -> Tokenizer:
    return train_tokenizer(iter(TEXTS), TokenizerOptions(kind=kind, vocabulary=SIZES[kind]))  # type: ignore[arg-type]


def code_of(call: object, *args: object) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.what
    assert caught.value.where
    assert caught.value.why
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_kind_size_and_specials(kind: str) -> None:
    tokenizer = small(kind)
    assert tokenizer.kind == kind
    assert tokenizer.specials == {name: id for id, name in enumerate(SPECIALS)}
    assert (tokenizer.pad_id, tokenizer.begin_id, tokenizer.end_id) == (0, 1, 2)
    if SIZES[kind] is not None:
        assert tokenizer.vocabulary == SIZES[kind]
    if kind == "byte":
        assert tokenizer.encode("é") == [6 + byte for byte in "é".encode()]
    if kind == "char":
        assert len(tokenizer.encode("秦川fox")) == 5  # a character seen in training is one token
        assert len(tokenizer.encode("龘")) == 3  # another is its bytes


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_back_exactly(kind: str, text: str) -> None:
    tokenizer = small(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert all(6 <= id < tokenizer.vocabulary for id in ids)
    stream = StreamDecoder(tokenizer)
    assert "".join([stream.push(id) for id in ids]) + stream.flush() == text


@pytest.mark.parametrize("kind", KINDS)
def test_D2_awkward_text_comes_back_exactly(kind: str) -> None:
    tokenizer = small(kind)
    for text in (
        "",
        "\x00",
        "\ufeff",
        "a\r\nb\rc\u2028d\u00a0e",
        "##ing ‿the ▁x <0x41> Ġ",
        "\ufffd",
        "e\u0301 🤷🏽‍♀️",
        "\U0010ffff",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch(["the fox", "", "秦"]) == [tokenizer.encode(t) for t in ("the fox", "", "秦")]


@pytest.mark.parametrize("kind", KINDS)
def test_D2_lone_surrogate_is_refused_with_its_place(kind: str) -> None:
    assert code_of(small(kind).encode, "ab\ud800c").code == "E-TOKEN-004"
    error = code_of(small(kind).encode_batch, ["fine", "ab\udc00"])
    assert "U+DC00 at character 2" in error.what
    assert "text 1" in error.where
    if kind != "byte":
        options = TokenizerOptions(kind=kind, vocabulary=SIZES[kind])  # type: ignore[arg-type]
        assert code_of(train_tokenizer, ["\ud800"], options).code == "E-TOKEN-004"


def test_T1_corpus_smaller_than_the_vocabulary() -> None:
    for kind in ("bpe", "unigram", "wordpiece"):
        error = code_of(train_tokenizer, TEXTS, TokenizerOptions(kind=kind, vocabulary=50_000))  # type: ignore[arg-type]
        assert error.code == "E-TOKEN-002"
        reached = int(error.what.split("it gives ")[1].split()[0])
        assert f"at most {reached}" in error.fix
        assert "bytes of text of this sort" in error.why
        again = train_tokenizer(TEXTS, TokenizerOptions(kind=kind, vocabulary=reached))  # type: ignore[arg-type]
        assert again.vocabulary == reached
        assert code_of(train_tokenizer, [], TokenizerOptions(kind=kind, vocabulary=600)).code == "E-TOKEN-003"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_T2_special_text_is_plain_text(kind: str) -> None:
    texts = [*TEXTS, *("<|end|><|user|> <|pad|>" for _ in range(50))]  # even when trained on
    tokenizer = train_tokenizer(texts, TokenizerOptions(kind=kind, vocabulary=SIZES[kind]))  # type: ignore[arg-type]
    for text in (*SPECIALS, "a<|end|>b", "".join(SPECIALS), "<|end|>" * 100, " <|end|>\n"):
        for ids in (tokenizer.encode(text), tokenizer.encode_batch([text])[0]):
            assert set(ids).isdisjoint(range(6))
            assert tokenizer.decode(ids) == text
    assert tokenizer.decode([1, *tokenizer.encode("x"), 2]) == "x"
    assert tokenizer.decode([1, *tokenizer.encode("x"), 2], skip_specials=False) == "<|begin|>x<|end|>"


@pytest.mark.parametrize("kind", KINDS)
def test_T3_a_million_characters_without_a_space(kind: str) -> None:
    tokenizer = small(kind)
    size = {"bpe": 1_000_000, "wordpiece": 50_000}.get(kind, 200_000)
    text = ("thequickbrownfox" + "秦川雄帝宅函谷") * (size // 23)
    seconds = []
    for part in (text[: len(text) // 4], text):
        start = time.process_time()
        tokenizer.encode(part)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 10 * seconds[0] + 0.5  # four times the text; quadratic would be sixteen
    for character in "a =7\n\u0301":
        start = time.process_time()
        tokenizer.encode(character * 20_000)
        assert time.process_time() - start < 3


def test_T3_training_on_text_without_a_space() -> None:
    start = time.process_time()
    train_tokenizer(["abcdefghij秦川雄帝宅" * 10_000], TokenizerOptions(kind="bpe", vocabulary=280))
    assert time.process_time() - start < 10


def test_chinese_poems_come_back_and_train_well() -> None:
    text = shared("text/tang_poems_zh.txt").read_text(encoding="utf-8")[:60_000]
    tokenizer = train_tokenizer(text.split("\n\n"), TokenizerOptions(kind="bpe", vocabulary=2000))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) < 0.55 * len(text.encode())


def test_training_is_deterministic_across_processes_and_needs_no_torch() -> None:
    program = (
        "import sys, groundup.text.chat, groundup.text.inspect; from tests.text.test_tokenizer import KINDS, small;"
        "print(*(small(kind).digest for kind in KINDS)); assert 'torch' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "PYTHONPATH": f"{root / 'src'}:{root}",
        "PYTHONHASHSEED": "7",
        "RAYON_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=root, check=True
    )
    assert done.stdout.split() == [small(kind).digest for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_save_load_pickle_and_digest(kind: str, tmp_path: Path) -> None:
    tokenizer = small(kind)
    path = tokenizer.save(tmp_path / "a folder 🙂")
    text = "the fox <|end|> 秦川 🙂\n"
    for again in (
        Tokenizer.load(path),
        Tokenizer.load(path.parent),
        Tokenizer.from_json(tokenizer.to_json()),
        pickle.loads(pickle.dumps(tokenizer)),  # noqa: S301 - how worker processes receive it
    ):
        assert again.digest == tokenizer.digest
        assert again.encode(text) == tokenizer.encode(text)
    shuffled = json.dumps(json.loads(tokenizer.to_json()), sort_keys=True, indent=3)
    assert Tokenizer.from_json(shuffled).digest == tokenizer.digest
    assert [entry.name for entry in path.parent.iterdir()] == ["tokenizer.json"]
    library = tokenizers.Tokenizer.from_str(tokenizer.to_json())  # others read the file as well
    assert library.decode(library.encode("the fox 秦川").ids) == "the fox 秦川"


def break_at(*path: object, value: object) -> str:
    document = json.loads(small("bpe").to_json())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(document)


MALFORMED = {
    "empty": "",
    "not JSON": "{",
    "a list": "[]",
    "no model": "{}",
    "nested": "[" * 100_000,
    "model kind": break_at("model", "type", value="Telepathy"),
    "vocabulary": break_at("model", "vocab", value={"a": 5}),
    "vocabulary type": break_at("model", "vocab", value="abc"),
    "huge id": break_at("model", "vocab", "!", value=2**60),
    "text id": break_at("model", "vocab", "!", value="0"),
    "merges": break_at("model", "merges", value=[["秦", "q"]]),
    "merges type": break_at("model", "merges", value=7),
    "dropout": break_at("model", "dropout", value=0.5),
    "normalizer": break_at("normalizer", value={"type": "Lowercase"}),
    "truncation": break_at("truncation", value={"max_length": 4}),
    "pre-tokenizer": break_at("pre_tokenizer", value={"type": "Whitespace"}),
    "losing split": break_at("pre_tokenizer", "pretokenizers", 0, "behavior", value="Removed"),
    "bad regex": break_at("pre_tokenizer", "pretokenizers", 0, "pattern", value={"Regex": "("}),
    "no specials": break_at("added_tokens", value=[]),
    "special id": break_at("added_tokens", 0, "id", value=9),
    "not special": break_at("added_tokens", 0, "special", value=False),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_a_quick_typed_error(name: str, tmp_path: Path) -> None:
    start = time.process_time()
    assert code_of(Tokenizer.from_json, MALFORMED[name]).code == "E-TOKEN-006"
    (tmp_path / "tokenizer.json").write_text(MALFORMED[name])
    error = code_of(Tokenizer.load, tmp_path)
    assert "tokenizer.json" in error.where
    assert time.process_time() - start < 2


def test_missing_or_unreadable_file(tmp_path: Path) -> None:
    assert code_of(Tokenizer.load, tmp_path / "no\x1b[31mthing").code == "E-TOKEN-005"
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe{")
    assert code_of(Tokenizer.load, tmp_path).code == "E-TOKEN-006"


@pytest.mark.parametrize("vocabulary", [None, -1, 0, 6, 262, 1_000_001])
def test_R17_vocabulary_out_of_range(vocabulary: int | None) -> None:
    error = code_of(train_tokenizer, TEXTS, TokenizerOptions(kind="bpe", vocabulary=vocabulary))
    assert error.code == "E-TOKEN-001"
    assert "263 to 1000000" in error.fix
    assert error.exit_code == 2


def test_R17_options_that_do_not_belong_to_the_kind() -> None:
    for options in (
        TokenizerOptions(kind="char", vocabulary=300),
        TokenizerOptions(kind="byte", vocabulary=262),
        TokenizerOptions(kind="byte", minimum_frequency=1),
        TokenizerOptions(kind="bpe", vocabulary=300, minimum_frequency=0),
        TokenizerOptions(kind="wordpiece", vocabulary=518),
    ):
        assert code_of(train_tokenizer, TEXTS, options).code == "E-TOKEN-001"


def test_an_id_outside_the_vocabulary() -> None:
    for id in (-1, small("byte").vocabulary):
        assert code_of(small("byte").decode, [id]).code == "E-TOKEN-007"
        assert code_of(small("byte").token_bytes, id).code == "E-TOKEN-007"


def test_S8_stream_never_shows_half_a_character() -> None:
    tokenizer = small("byte")
    stream, shown = StreamDecoder(tokenizer), []
    for id in tokenizer.encode("a秦🙂é"):
        shown.append(stream.push(id))
    assert [piece for piece in shown if piece] == ["a", "秦", "🙂", "é"]
    cut = tokenizer.encode("a🙂")[:-1]
    assert "".join(stream.push(id) for id in cut) + stream.flush() == "a" == tokenizer.decode(cut)
    assert tokenizer.decode_bytes(cut) == "a🙂".encode()[:-1]
    assert stream.push(tokenizer.encode("b")[0]) == "b"  # begins anew
    assert stream.push(tokenizer.end_id) == ""


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.binary(max_size=20))
def test_stream_equals_decode_for_any_bytes(data: bytes) -> None:
    ids = [6 + byte for byte in data]
    stream = StreamDecoder(small("byte"))
    assert "".join([stream.push(id) for id in ids]) + stream.flush() == small("byte").decode(ids)
