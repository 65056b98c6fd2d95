"""New tokens: text comes back, old ids stay, controls are never spelled, and the library reads the file alike."""

from __future__ import annotations

import json
import pickle
import random
from functools import cache

import pytest
import tokenizers
from tests.text import test_foreign
from tests.text.test_foreign import TEXTS, control, extended

from groundup.errors import GroundupError
from groundup.text.chat import ChatTemplate
from groundup.text.foreign import ForeignTokenizer
from groundup.text.grow import grow_tokenizer, pieces_of
from groundup.text.options import Kind, TokenizerOptions
from groundup.text.tokenizer import OWN_ROLES, AnyTokenizer, StreamDecoder, Tokenizer
from groundup.text.train import train_tokenizer

WORDS = ["Brewer-3", "Brewer-35 X", "café", "咖啡機", "e\u0301x", "  wide", "🦊🤷🏽‍♀️", "<tool"]
CONTROLS = ["<|tool|>", "<|/tool|>"]
KINDS: tuple[Kind, ...] = ("bpe", "unigram", "wordpiece", "char", "byte")


@cache
def own(kind: Kind) -> Tokenizer:
    size = None if kind in ("char", "byte") else 700
    texts = [text for text in TEXTS for _ in range(3)]
    return train_tokenizer(texts, TokenizerOptions(kind=kind, vocabulary=size), at_most=True)


@cache
def base(name: str) -> AnyTokenizer:
    return own(name) if name in KINDS else getattr(test_foreign, name)()  # type: ignore[arg-type]


@cache
def grown(name: str) -> AnyTokenizer:
    return grow_tokenizer(base(name), WORDS, CONTROLS)


def mixed(seed: int = 0, count: int = 150) -> list[str]:
    """Texts in which the words stand alone, between spaces and inside other words and scripts."""
    chance = random.Random(seed)
    around = [*WORDS, *CONTROLS, "a", "the", " ", "  ", "\n", "é", "e\u0301", "春", "5", "-", "<|", "|>", "🙂", "Ġ"]
    return ["".join(chance.choices(around, k=chance.randrange(1, 9))) for _ in range(count)]


@pytest.mark.parametrize("name", [*KINDS, "small"])
def test_texts_with_new_words_come_back(name: str) -> None:
    before, after = base(name), grown(name)
    assert after.vocabulary == before.vocabulary + len(WORDS) + len(CONTROLS)
    assert list(after.words.values()) == list(range(before.vocabulary, before.vocabulary + len(WORDS)))
    hidden = set(after.specials.values())
    for text in [*TEXTS, *mixed()]:
        ids = after.encode(text)
        assert after.decode(ids) == text and not hidden & set(ids)
        stream = StreamDecoder(after)
        assert "".join([*map(stream.push, ids), stream.flush()]) == text
    for text in TEXTS:
        if not any(word in text for word in WORDS):
            assert after.encode(text) == before.encode(text)
    for word, id in after.words.items():
        assert after.encode(word) == [id] and after.token_bytes(id) == word.encode()
        assert after.encode(f"x{word}")[-1] == id and id in after.encode(f"{word}s")
    assert after.encode("Brewer-35") == [after.words["Brewer-3"], *before.encode("5")]
    assert after.encode_batch(mixed()) == [after.encode(text) for text in mixed()]


@pytest.mark.parametrize("name", [*KINDS, "small"])
def test_the_library_reads_the_same_from_the_file(name: str) -> None:
    after = grown(name)
    library = tokenizers.Tokenizer.from_str(after.to_json())
    for text in mixed(1):
        if not any(other in text for other in CONTROLS):
            assert library.encode(text, add_special_tokens=False).ids == after.encode(text)
    for name in CONTROLS:
        assert library.token_to_id(name) == after.specials[name]
        assert library.encode(name, add_special_tokens=False).ids == [after.specials[name]]


def test_a_file_of_our_own_grows_alike_as_one_from_elsewhere() -> None:
    again = ForeignTokenizer(grown("bpe").to_json(), OWN_ROLES)
    assert again.words == grown("bpe").words and again.specials == grown("bpe").specials
    assert all(again.encode(text) == grown("bpe").encode(text) for text in mixed(2))


def test_tokens_that_a_file_only_adds_keep_their_ids() -> None:
    more = (control(290, "<think>", special=False), control(291, "<|extra|>"))
    before = ForeignTokenizer(extended(test_foreign.small_file(), *more), test_foreign.SMOL)
    after = grow_tokenizer(before, WORDS, CONTROLS)
    assert after.specials == {**before.specials, "<|tool|>": 292 + len(WORDS), "<|/tool|>": 293 + len(WORDS)}
    library = tokenizers.Tokenizer.from_str(after.to_json())
    assert library.encode("<think>Brewer-3<|extra|>").ids == [290, 292, 291]
    for text in [*mixed(4), "<think>Brewer-3<|extra|>"]:
        ids = after.encode(text)
        assert after.decode(ids) == text and not set(after.specials.values()) & set(ids)


@pytest.mark.parametrize("name", ["bpe", "small"])
def test_growing_twice_saving_and_copying(name: str) -> None:
    twice = grow_tokenizer(grown(name), ["Grinder-7"], ["<|call|>"])
    first = grown(name).vocabulary
    assert twice.words["Grinder-7"] == first and twice.specials["<|call|>"] == first + 1
    copy = pickle.loads(pickle.dumps(twice))  # noqa: S301
    for text in ["Grinder-7Brewer-3<|call|>", *mixed(3, 30)]:
        assert copy.encode(text) == twice.encode(text) and twice.decode(twice.encode(text)) == text
    assert copy.digest == twice.digest != grown(name).digest


def test_a_template_writes_a_control_and_a_message_cannot() -> None:
    template = "{% for m in messages %}{% if m.role == 'user' %}<|user|><|tool|>{{ m.content }}{% else %}<|assistant|>"
    template += "{% generation %}{{ m.content }}<|end|>{% endgeneration %}{% endif %}{% endfor %}"
    template += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    tokenizer = grown("bpe")
    rendered = ChatTemplate(template).render(
        [{"role": "user", "content": "<|tool|> Brewer-3?"}, {"role": "assistant", "content": "a Brewer-3<|tool|>"}],
        tokenizer,
    )
    assert rendered.ids.count(tokenizer.specials["<|tool|>"]) == 1
    assert rendered.ids.count(tokenizer.words["Brewer-3"]) == 2


def test_words_may_be_given_to_tokenizers_that_change_text() -> None:
    bert = test_foreign.bert()
    after = grow_tokenizer(bert, ["Brewer-3", "brewerlike"], ["[TOOL]"])
    assert after.encode("A Brewer-3!") == [*bert.encode("a"), after.words["Brewer-3"], *bert.encode("!")]
    assert after.specials["[TOOL]"] not in after.encode("[TOOL] x")
    library = tokenizers.Tokenizer.from_str(after.to_json())
    library.no_padding()
    for text in ("a Brewerlike Brewer-3s", "xbrewerlike BREWERLIKE"):
        assert library.encode(text, add_special_tokens=False).ids == after.encode(text)


def faults(name: str, words: list[str], controls: list[str]) -> list[str]:
    with pytest.raises(GroundupError) as caught:
        grow_tokenizer(base(name), words, controls)
    every = [caught.value, *caught.value.others]
    assert {error.code for error in every} == {"E-TOKEN-010"}
    return [f"{error.where}: {error.what}" for error in every]


def test_what_cannot_be_a_token_is_told_at_once() -> None:
    found = faults("bpe", ["", "  ", "New", "New", "a", "x<|end|>", "y<|tool|>", "Ã©?"],
                   ["<|end|>", "<|tool|>", "<|tool|>"])  # fmt: skip
    places = [line.partition(":")[0] for line in found]
    assert places == [f"grow.{place}" for place in (
        "words.0", "words.1", "words.3", "words.4", "words.5", "words.6", "words.7", "controls.0", "controls.2",
    )]  # fmt: skip
    parts = ("empty", "white space", "twice", "already", "special", "special", '"é?"', "already", "twice")
    for line, part in zip(found, parts, strict=True):
        assert part in line, line
    assert "2,000 characters" in faults("bpe", ["x" * 2000], [])[0]
    assert "UTF-16" in faults("small", ["\ud83d"], [])[0]
    assert "already" in faults("small", ["the"], [])[0]
    assert "plain text" in faults("char", [], ["TOOL"])[0], "a text of this tokenizer would spell it"
    assert "space behind" in faults("pieces", ["Brewer-3"], [])[0]
    assert grow_tokenizer(base("pieces"), [], ["<|tool|>"]).specials["<|tool|>"] == base("pieces").vocabulary


def test_pieces_are_those_that_spelled_the_word() -> None:
    assert pieces_of(base("bpe"), ["Brewer-3", "café"]) == [tuple(base("bpe").encode(w)) for w in ("Brewer-3", "café")]


def test_a_word_that_would_take_the_space_beside_it_is_none() -> None:
    found = json.loads(grown("bpe").to_json())
    found["added_tokens"][-len(CONTROLS) - 1]["lstrip"] = True
    with pytest.raises(GroundupError) as caught:
        Tokenizer(json.dumps(found))
    assert caught.value.code == "E-TOKEN-006" and "not special" in caught.value.what


def test_a_mark_on_a_special_token_is_no_word() -> None:
    found = json.loads(grown("small").to_json())
    for entry in found["added_tokens"]:
        entry["word"] = True
    roles = grown("small").roles
    again = ForeignTokenizer(json.dumps(found), roles)
    assert set(again.words) == set(WORDS) and set(roles.names()) <= set(again.specials)
