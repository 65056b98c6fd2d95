"""What `inspect` counts, on texts small enough to count by hand."""

from __future__ import annotations

import argparse
import json

import pytest

from groundup.cli import tokenizer as verb
from groundup.errors import GroundupError
from groundup.text.inspect import describe, inspect, runs, script_of
from groundup.text.options import TokenizerOptions
from groundup.text.train import train_tokenizer


def test_scripts_by_hand() -> None:
    assert [script_of(c) for c in "aé秦ж7 ,+あ한"] == [
        *(
            "Latin",
            "Latin",
            "Han",
            "Cyrillic",
            "digits",
            "space",
            "punctuation",
            "symbols",
            "Hiragana",
            "Hangul",
        )
    ]
    assert runs("ab 秦川12, e\u0301") == [
        *(("Latin", "ab"), ("Han", "秦"), ("Han", "川"), ("digits", "12"), ("punctuation", ",")),
        ("Latin", "e\u0301"),
    ]


def test_counts_by_hand() -> None:
    tokenizer = train_tokenizer([], TokenizerOptions(kind="byte"))
    found = inspect(tokenizer, ["ab 秦 <|end|>", "bad \ud800"])
    assert (found["documents"], found["tokens"], found["bytes"], found["characters"]) == (2, 14, 14, 12)
    assert found["tokens_per_byte"] == 1.0
    assert found["scripts"]["Han"] == {
        "words": 1,
        "characters": 1,
        "bytes": 3,
        "tokens": 3,
        "tokens_per_word": 3.0,
    }
    assert found["special_looking"] == {"<|end|>": 1}
    assert found["unused"]["count"] == 256 - 12  # all but those of "ab 秦<|end>"
    [failure] = found["round_trip_failures"]
    assert failure["document"] == 2
    assert "U+D800" in failure["reason"]
    text = describe(found)
    assert "tokens per byte 1.0000" in text
    assert "<|end|>" in text
    json.dumps(found)


def test_nothing_to_measure() -> None:
    tokenizer = train_tokenizer([], TokenizerOptions(kind="byte"))
    assert inspect(tokenizer, [])["tokens_per_byte"] == 0
    assert describe(inspect(tokenizer, []))


def test_verbs(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(verb, "texts_of", lambda files: iter(["the fox and the dog " * 20]))
    out = str(tmp_path / "made here")
    made = argparse.Namespace(files=["x"], vocab=270, kind="bpe", out=out, json=True, mask=False)
    assert verb.train(made) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["vocabulary"] == 270
    with pytest.raises(GroundupError, match="already") as caught:
        verb.train(made)
    assert caught.value.code == "E-TOKEN-008"
    measured = argparse.Namespace(folder=out, files=["x"], json=True)
    assert verb.inspect(measured) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == printed["digest"]
    measured.json = False
    assert verb.inspect(measured) == 0
    assert "tokens per byte" in capsys.readouterr().out
