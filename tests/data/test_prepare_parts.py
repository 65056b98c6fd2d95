"""The parts of preparation alone: units, duplicates, overlap, split, filters, cleaning, and the two verbs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.corpora import corpus_of, options, sentence
from tests.shared import shared

from groundup.cli.data_check import check
from groundup.cli.prepare import options_from, prepare
from groundup.data.clean import clean_text
from groundup.data.deduplicate import DeduplicateOptions, band_rows, first_equal, signatures
from groundup.data.filters import C4Options, FilterOptions, GopherOptions, reason_to_set_aside
from groundup.data.ledger import Ledger
from groundup.data.overlap import EvaluationIndex, OverlapOptions
from groundup.data.scripts import count_scripts
from groundup.data.split import SplitOptions, assign, cut_tail
from groundup.data.units import CHARACTER, SYMBOL, WORD, units_of
from groundup.errors import GroundupError


def test_units_are_words_symbols_and_single_unspaced_characters() -> None:
    units = units_of(["The cat, the CAT.", "", "明月 don't 明"])
    assert units.kinds[:6].tolist() == [WORD, WORD, SYMBOL, WORD, WORD, SYMBOL]
    assert units.kinds[6:].tolist() == [CHARACTER, CHARACTER, WORD, SYMBOL, WORD, CHARACTER]
    assert units.counts().tolist() == [6, 0, 6]
    the, cat, _, the_again, cat_again, _ = units.hashes[:6]
    assert the == the_again and cat == cat_again and the != cat
    assert units.hashes[6] == units.hashes[11] != units.hashes[7]
    runs, owner = units.of_kind(WORD).runs(2)
    assert owner.tolist() == [0, 0, 0, 2] and runs[0] == runs[2] != runs[1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=30), max_size=6))
def test_units_of_a_batch_are_those_of_each_text(texts: list[str]) -> None:
    together = units_of(texts)
    for number, text in enumerate(texts):
        alone = units_of([text])
        assert together.hashes[together.owner == number].tolist() == alone.hashes.tolist()


def test_minhash_estimates_the_jaccard_similarity() -> None:
    words = sentence(1, 400).split()
    changed = [*words[:300], *sentence(2, 100).split()]
    signature, compared = signatures([" ".join(words), " ".join(changed), "short"], DeduplicateOptions())
    true = 296 / (396 + 396 - 296)  # runs of five words in common, of all runs
    assert abs(float((signature[0] == signature[1]).mean()) - true) < 0.12
    assert compared.tolist() == [True, True, False]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    rows = band_rows(threshold)
    assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99


def test_first_equal_keeps_the_lowest_rank_then_the_first() -> None:
    digests = np.array([[1, 1], [2, 2], [1, 1], [1, 1], [1, 2]], dtype=np.uint64)
    assert first_equal(digests, np.zeros(5, dtype=np.int64)).tolist() == [0, 1, 0, 0, 4]
    assert first_equal(digests, np.array([1, 1, 1, 0, 1])).tolist() == [3, 1, 3, 3, 4]


def jsonl(path: Path, texts: list[str], **fields: list[Any]) -> Path:
    rows = [{"text": text} | {name: values[i] for name, values in fields.items()} for i, text in enumerate(texts)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_exact_and_near_duplicates_in_both_kinds_of_scripts(tmp_path: Path) -> None:
    poem = "".join(chr(0x4E00 + (i * 37) % 3000) for i in range(80))
    texts = [sentence(1), sentence(1).replace(" ", "\n"), sentence(2, 80), sentence(2, 80) + " End", poem, poem + "。"]
    path = jsonl(tmp_path / "a.jsonl", texts)
    corpus = corpus_of(tmp_path / "out", path)
    assert list(corpus.texts("train")) == [texts[0], texts[2], texts[4]]
    assert {name: entry["documents"] for name, entry in corpus.card["duplicates"].items()} == {
        "exact duplicate": 1,
        "near duplicate": 2,
    }
    kept = corpus_of(tmp_path / "all", path, deduplicate={"exact": False, "near": False})
    assert list(kept.texts("train")) == texts


def test_short_rows_that_differ_by_a_sign_are_not_duplicates(tmp_path: Path) -> None:
    sums = [f"{a} {sign} {b} =" for a in range(12) for b in range(12) for sign in "+-*"]
    assert len(list(corpus_of(tmp_path / "out", jsonl(tmp_path / "a.jsonl", sums)).texts("train"))) == len(sums)


def test_overlap_with_evaluation_files(tmp_path: Path) -> None:
    question = " ".join(f"word{i}" for i in range(13))
    chinese = "".join(chr(0x4E00 + i * 13) for i in range(20))
    evaluation = tmp_path / "test.json"
    evaluation.write_text(json.dumps([{"messages": [{"q": question}], "a": chinese}, {"a": "short answer"}]))
    texts = [
        f"before {question.upper().replace(' ', ', ')} after",
        " ".join(question.split()[:12]),
        f"前{chinese}後",
        chinese[:19],
        "Short answer",
        "A short answer",
    ]
    corpus = corpus_of(tmp_path / "out", jsonl(tmp_path / "a.jsonl", texts), overlap={"files": [str(evaluation)]})
    assert list(corpus.texts("train")) == [texts[1], texts[3], texts[5]]
    assert corpus.card["evaluation_overlap"] == {"files": [str(evaluation)], "documents": 3}


def test_overlap_needs_the_whole_run() -> None:
    index = EvaluationIndex(OverlapOptions(words=5))
    index.add("test", ["a b c d e f"])
    index.close()
    assert index.find(["x b c d e f y", "a b c d x e f", "", "f e d c b a"]) == {0: "test"}


def test_tail_split_cuts_at_the_character(tmp_path: Path) -> None:
    text = "".join(f"{i:04d}\n" for i in range(1000))
    (tmp_path / "a.txt").write_text(text)
    corpus = corpus_of(tmp_path / "out", tmp_path / "a.txt", split={"kind": "tail"})
    train, held_out = ("".join(corpus.texts(name)) for name in ("train", "held_out"))
    assert train + held_out == text and len(train) == int(len(text) * 0.9)
    assert corpus.card["documents_cut_between_sets"] == 1


def test_tail_split_of_shakespeare(tmp_path: Path) -> None:
    path = shared("text/tinyshakespeare.txt")
    text = path.read_text()
    corpus = corpus_of(tmp_path / "out", path, split={"kind": "tail"})
    (train,), (held_out,) = corpus.texts("train"), corpus.texts("held_out")
    assert train == text[: int(len(text) * 0.9)] and held_out == text[int(len(text) * 0.9) :]


def test_cut_tail_over_several_sets() -> None:
    split = SplitOptions(kind="tail", held_out={"a": 0.2, "b": 0.1})
    side, pieces = cut_tail(split, np.array([50, 999, 50]), np.array([True, False, True]))
    assert (side[0], side[2]) == (0, 0)
    assert [tuple(piece) for piece in pieces[2]] == [(0, 0, 20), (1, 20, 40), (2, 40, 50)]


def test_hash_split_depends_on_the_document_alone() -> None:
    generator = np.random.default_rng(0)
    digests = generator.integers(0, 1 << 63, size=(5000, 2), dtype=np.uint64)
    split = SplitOptions(held_out={"held_out": 0.1, "test": 0.05})
    nothing = np.zeros(5000, dtype=bool)
    side = assign(split, digests, digests[:, 0], nothing)
    assert np.array_equal(side[::-1], assign(split, digests[::-1], digests[::-1, 0], nothing))
    assert np.bincount(side)[1:] / 5000 == pytest.approx([0.1, 0.05], abs=0.015)
    other = assign(split.model_copy(update={"salt": "2"}), digests, digests[:, 0], nothing)
    assert 0.1 < (side != other).mean() < 0.4


def test_group_split_keeps_groups_together(tmp_path: Path) -> None:
    groups = [f"module {i % 30}" for i in range(300)]
    path = jsonl(tmp_path / "a.jsonl", [f"{g}|{sentence(i)}" for i, g in enumerate(groups)], module=groups)
    split = {"kind": "group", "group_field": "module", "held_out": {"held_out": 0.3}}
    corpus = corpus_of(tmp_path / "out", path, split=split)
    train, held_out = ({text.split("|")[0] for text in corpus.texts(name)} for name in ("train", "held_out"))
    assert train and held_out and not train & held_out and len(train | held_out) == 30


PROSE = "The river was wide and slow that morning. Nobody spoke for a long time. Then the rain began to fall. " * 5
PAIRS = [(a, b) for a in ("Gor", "Mel", "Tas", "Ven", "Lor") for b in ("ban", "dor", "sil")]
NOVEL = " ".join(f"{a}{b} {b}{a}en {a}{a}ing the {b}{b}ers." for a, b in PAIRS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (NOVEL, None),
        ("too short", "too few words"),
        (NOVEL + " 1234" * 40, "too few words with letters"),
        (NOVEL.replace("the ", "the #"), "too many symbols"),
        ("\n".join(f"-{line}." for line in NOVEL.split(". ")), "too many bullet lines"),
        ("\n".join(NOVEL.replace(" the banbaners.", "...|").split("|")), "ellipsis"),
        ("\n".join([NOVEL[:400]] * 3), "too many duplicate lines"),
        ("a b " * 60 + NOVEL[:100], "words too short"),
        (("the same words " * 30) + NOVEL[:300], "repeats of one run"),
        ("白日依山盡黃河入海流" * 10, "repeats of one run"),
    ],
)
def test_gopher_filters(text: str, reason: str | None) -> None:
    found = reason_to_set_aside(text, FilterOptions(gopher=GopherOptions()))
    assert (found is None) if reason is None else (found is not None and reason in found[0]), found
    assert reason_to_set_aside(text, FilterOptions()) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("白日依山盡。黃河入海流。欲窮千里目。", None),
        (PROSE + "{", "curly bracket"),
        (PROSE + "Lorem Ipsum dolor.", "lorem ipsum"),
        ("One. Two.", "too few sentences"),
        ("One. Two. Three. Four\nmenu\nhome\nabout", "terminal punctuation"),
    ],
)
def test_c4_filters(text: str, reason: str | None) -> None:
    found = reason_to_set_aside(text, FilterOptions(c4=C4Options()))
    assert (found is None) if reason is None else (found is not None and reason in found[0]), found


def test_every_filter_can_be_switched_off() -> None:
    off: dict[str, Any] = dict.fromkeys(GopherOptions.model_fields)
    assert reason_to_set_aside("# ", FilterOptions(gopher=GopherOptions(**off))) is None
    mojibake = "\ufffd" * 20 + "text" * 20
    assert reason_to_set_aside(mojibake, FilterOptions()) == ("filter: too many replacement characters", "0.200 > 0.1")
    assert reason_to_set_aside(mojibake, FilterOptions(maximum_replacement_share=None)) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=60), st.text(st.characters(), max_size=40)))
def test_cleaning_is_total_and_idempotent(value: bytes | str) -> None:
    chosen = options("x")
    once = clean_text(value, chosen)
    twice = clean_text(once.text, chosen)
    assert once.problem == "" and once.text == once.encoded.decode()
    assert not set(once.text) & set("\r\x00\x85\u2028\ufeff")
    assert twice.text == once.text and not set(twice.repairs) - {"normalised to NFC"}


def test_ledger_notices_what_does_not_add_up() -> None:
    ledger = Ledger()
    ledger.keep(10, 9)
    ledger.reject("empty", 3)
    ledger.withdraw("exact duplicate", 10, 9)
    ledger.check()
    assert Ledger.from_dict(ledger.as_dict()) == ledger
    ledger.kept_documents += 1
    with pytest.raises(AssertionError):
        ledger.check()


def test_scripts_are_counted_over_letters() -> None:
    assert count_scripts(["abc 12", "Привет 明月 abc!"]) == {"Latin": 6, "Cyrillic": 6, "Han": 2}
    assert count_scripts([]) == {}


def arguments(**values: Any) -> argparse.Namespace:
    base: dict[str, Any] = {"recipe": None, "overrides": [], "files": None, "out": None, "workers": 1, "json": True}
    return argparse.Namespace(**(base | values))


def test_prepare_verb_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl(tmp_path / "a.jsonl", [sentence(i) for i in range(40)])
    given_words = arguments(files=[str(path)], out=str(tmp_path / "out"), overrides=["data.split.kind=tail"])
    assert prepare(given_words) == 0
    assert json.loads(capsys.readouterr().out)["card"]["splits"]["train"]["documents"] >= 36
    assert prepare(arguments(**(vars(given_words) | {"json": False}))) == 0
    assert "= kept" in capsys.readouterr().out


def test_options_on_the_command_line() -> None:
    found = options_from(["a"], ["documents=line", "data.filters.gopher={}", 'split.held_out={"v": 0.2}'])
    assert found.documents == "line" and found.filters.gopher and found.split.held_out == {"v": 0.2}
    for wrong in ("documnts=line", "documents=page", "malformed_limit=2", "split.kind=5"):
        with pytest.raises(GroundupError) as caught:
            options_from(["a"], [wrong])
        assert caught.value.code == "E-DATA-015" and caught.value.exit_code == 2


def test_data_check_reports_every_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: dict[str, list[Any]] = {
        "text": [{"text": sentence(1)}],
        "alpaca": [{"instruction": "a", "input": "", "output": "b"}, {"instruction": "a", "output": 3}],
        "messages": [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}],
        "unknown": [{"body": "a"}],
    }
    for name, values in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, values)))
    (tmp_path / "plain.txt").write_text(sentence(2))
    assert check(argparse.Namespace(files=[str(tmp_path)], json=True)) == 1
    found = json.loads(capsys.readouterr().out)
    by_name = {Path(report["file"]).stem: report for report in found["files"]}
    assert {name: by_name[name]["layout"] for name in rows} == {name: name for name in rows}
    assert by_name["alpaca"]["malformed"] == 1 and by_name["alpaca"]["kept"]["documents"] == 1
    assert "body" in by_name["unknown"]["first"]["malformed: missing field"][0]
    assert check(argparse.Namespace(files=[str(tmp_path / "text.jsonl")], json=False)) == 0
    assert "1 rows, 1 kept" in capsys.readouterr().out
