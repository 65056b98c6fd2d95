"""Pairs of texts and translations: what is read and set aside, how they are divided, and the stream of batches."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.shared import shared

from groundup.contract import IGNORE
from groundup.data.chat_rows import SetAside
from groundup.data.parallel_options import ParallelOptions
from groundup.data.parallel_stream import EncodedPairs, Pair, ParallelStream, batches, collate, encode_pairs
from groundup.data.parallel_text import ParallelRow, ParallelSet, read_parallel, side_of, source_key
from groundup.errors import CATALOGUE, GroundupError

WHOLE = {"test": 0.0, "validation": 0.0}
NUMBERED = {"source": 1, "target": 2}
PAIRS = [("Hello.", "你好。"), ('"Go," he said.', "“走吧，”他说。"), ("Wait, please!", "请等等！")]


def read(*files: Path, **given: Any) -> tuple[ParallelSet, list[SetAside]]:
    given.setdefault("split", WHOLE)
    aside: list[SetAside] = []
    made = read_parallel(ParallelOptions.model_validate({"files": [str(file) for file in files], **given}), aside)
    counts = made.card["rows"]
    assert counts["rows"] == counts["kept"] + sum(counts["set_aside"].values())
    assert (counts["kept"], sum(counts["set_aside"].values())) == (len(made.rows), len(aside))
    assert counts["rows"] == sum(file["rows"] for file in counts["files"].values())
    assert sum(made.card["sides"].values()) == len(made.rows)
    json.dumps(made.card)
    return made, aside


def refused(*files: Path, **given: Any) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        read(*files, **given)
    for fault in (caught.value, *caught.value.others):
        assert fault.code in CATALOGUE and fault.where and fault.why and fault.fix
    return caught.value


def lines(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def pair_file(folder: Path, suffix: str) -> tuple[Path, dict[str, Any]]:
    """The same three pairs in any format, and the columns that have to be named."""
    path, kind = folder / f"pairs{suffix}", suffix.removesuffix(".gz")
    if kind == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"source": [s for s, _ in PAIRS], "target": [t for _, t in PAIRS]}), path)
        return path, {}
    records = [{"English": source, "Chinese": target} for source, target in PAIRS]
    content = {
        ".tsv": "\ufeff" + "".join(f"{source}\t{target}\tCC-BY\r\n" for source, target in PAIRS),
        ".txt": "".join(f"{source}\t{target}\n\n" for source, target in PAIRS),
        ".csv": "English,Chinese\n" + "".join('"{}","{}"\n'.format(*(x.replace('"', '""') for x in p)) for p in PAIRS),
        ".jsonl": "".join(json.dumps(record) + "\n" for record in records),
        ".json": json.dumps(records),
    }[kind].encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    return path, {".tsv": NUMBERED, ".txt": {}}.get(kind, {"source": "English", "target": "Chinese"})


@pytest.mark.parametrize("suffix", [".tsv", ".txt", ".csv", ".jsonl", ".json", ".parquet", ".tsv.gz", ".jsonl.gz"])
def test_every_format_gives_the_same_pairs(suffix: str, tmp_path: Path) -> None:
    path, columns = pair_file(tmp_path, suffix)
    made, aside = read(path, columns=columns)
    assert [(row.source, row.target) for row in made.rows] == PAIRS and not aside
    assert made.card["rows"]["files"][str(path)]["bytes"] == path.stat().st_size


def test_the_translations_of_tatoeba() -> None:
    path = shared("translate/tatoeba_en_zh.tsv")
    made, aside = read(path, columns=NUMBERED, split={})
    assert made.card["rows"]["rows"] == 21_007 and len(made.rows) == 21_007 and not aside
    assert made.rows[0].source == "Hi." and made.rows[0].target == "嗨。" and made.rows[0].place == f"{path}:1"
    keys = {side: {source_key(row.source) for row in made.side(side)} for side in ("train", "validation", "test")}  # type: ignore[arg-type]
    for first, second in itertools.combinations(keys.values(), 2):
        assert not first & second
    assert made.card["distinct_sources"] == {side: len(found) for side, found in keys.items()}
    assert all(abs(len(keys[side]) / sum(map(len, keys.values())) - 0.1) < 0.01 for side in ("validation", "test"))
    for seed, equal in ((0, True), (1, False)):
        sides = [side_of(row.key, seed, test=0.1, validation=0.1) for row in made.rows]
        assert (sides == [row.side for row in made.rows]) is equal


def test_other_rows_and_their_order_do_not_move_a_source(tmp_path: Path) -> None:
    many = [f"sentence {number}\tSatz {number}" for number in range(300)]
    made, _ = read(lines(tmp_path / "a.tsv", *many), columns=NUMBERED, split={})
    fewer = [*reversed(many[::3]), "SENTENCE  3\tanother translation"]
    side = {row.source: row.side for row in made.rows}
    for row in read(lines(tmp_path / "b.tsv", *fewer), columns=NUMBERED, split={})[0].rows:
        assert row.side == side[row.source.lower()]


def test_rows_are_cleaned_and_bad_ones_set_aside_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    good = "".join(f"s{number}\tt{number}\n" for number in range(20))
    path.write_bytes(
        b"\xef\xbb\xbfcafe\xcc\x81  \x07 one\ttarget\r\n"  # decomposed, a bell, two spaces
        b"only one side\n\n  \ttarget\nsource\t\xe3\x80\x80\nbad \xff\tbytes\n" + good.encode()
    )
    made, aside = read(path, columns=NUMBERED, malformed_limit=0.1)
    assert made.rows[0].source == "café one" and made.rows[0].target == "target"
    assert [(item.line, item.reason, item.malformed) for item in aside] == [
        (2, "the target is missing: 1 fields, none is '2'", True),
        (4, "the source is empty", False),
        (5, "the target is empty", False),
        (6, "not valid UTF-8", True),
    ]
    assert all(item.file == str(path) for item in aside)
    assert made.card["rows"]["malformed"] == 2
    fault = refused(path, columns=NUMBERED)
    assert fault.code == "E-DATA-003" and f"{path}:2" in fault.where and "2 of 25" in fault.what


def test_values_that_are_no_text_are_malformed(tmp_path: Path) -> None:
    rows = [{"source": "a", "target": "b"}] * 8 + [{"source": 3, "target": "b"}, {"source": None, "target": "b"}]
    path = lines(tmp_path / "rows.jsonl", *(json.dumps(row) for row in [*rows, {"source": "a"}]), "{broken")
    made, aside = read(path, malformed_limit=0.5)
    assert len(made.rows) == 8
    assert [(item.line, item.reason.split(":")[0]) for item in aside] == [
        (9, "the source is not text"), (10, "the source is empty"), (11, "the target is missing"), (12, "not JSON"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        ("Hi\t你好\nHo\t嗬\n", {}, "none are known"),
        ("english\tchinese\nHi\t你好\n", {"source": "englisch", "target": "chinese"}, "no column 'englisch'"),
        ("Hi\t你好\n", {"source": 0, "target": 1}, "count from 1"),
        ("Hi\t你好\n", {"source": 1, "target": 1}, "two of them"),
        ("Hi\t你好\n", {"source": 1}, "names one side"),
        ("Hi\t你好\n", {"source": 1, "target": "chinese"}, "one by number"),
    ],
)
def test_columns_are_never_guessed(content: str, columns: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text(content, encoding="utf-8")
    fault = refused(path, columns=columns)
    assert fault.code == "E-DATA-105" and expected in fault.what and fault.exit_code == 2


def test_numbered_columns_are_for_lines_without_names(tmp_path: Path) -> None:
    assert refused(lines(tmp_path / "rows.csv", "a,b"), columns=NUMBERED).code == "E-DATA-105"
    assert refused(lines(tmp_path / "rows.jsonl", "{}"), columns=NUMBERED).code == "E-DATA-105"
    empty = refused(lines(tmp_path / "rows.tsv"), columns=NUMBERED)
    assert empty.code == "E-DATA-001" and "no pair is left in the train set" in empty.what


def test_sets_with_files_of_their_own_share_no_source(tmp_path: Path) -> None:
    train = lines(tmp_path / "train.tsv", *(f"s{n}\tt{n}" for n in range(10)))
    validation = lines(tmp_path / "validation.tsv", "S3\tx", "s4\ty", "new\tz")
    test = lines(tmp_path / "test.tsv", "s4\tw", "s5\tv")
    made, aside = read(train, validation_files=[str(validation)], test_files=[str(test)], columns=NUMBERED)
    assert made.card["sides"] == {"train": 7, "validation": 2, "test": 2}
    assert sorted(item.reason for item in aside) == [
        "its source also stands in the test set", "its source also stands in the test set",
        "its source also stands in the test set", "its source also stands in the validation set",
    ]  # fmt: skip
    fault = refused(train, columns=NUMBERED, split={"test": 0.6, "validation": 0.4})
    assert fault.code == "E-DATA-015"


def test_repeated_training_pairs_are_counted_and_removed_on_demand(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.tsv", "a\tb", "A\tb", "a\tc")
    assert read(path, columns=NUMBERED)[0].card["repeated_training_rows"] == 1
    made, aside = read(path, columns=NUMBERED, remove_duplicates=True)
    assert [row.target for row in made.rows] == ["b", "c"] and aside[0].line == 2
    assert made.card["repeated_training_rows"] == 0


def rows_of(*pairs: tuple[str, str]) -> list[ParallelRow]:
    return [
        ParallelRow(source=source, target=target, key=source_key(source), file="f.tsv", line=line)
        for line, (source, target) in enumerate(pairs, start=1)
    ]


def encoded(*pairs: tuple[str, str], **given: Any) -> EncodedPairs:
    """Characters as ids from 3 on; 1 begins, 2 ends."""
    options = {"begin_id": 1, "end_id": 2, "max_length": 6} | given
    return encode_pairs(rows_of(*pairs), lambda text: [ord(c) - ord("a") + 3 for c in text.strip("?")], **options)


def test_pairs_become_ids_and_long_ones_are_counted() -> None:
    pairs = [("ab", "cde"), ("abcdefg", "a"), ("a", "abcdef"), ("??", "a"), ("aaaaaa", "bbbbb")]
    made = encoded(*pairs)
    assert made.indices == [0, 4]
    first = made.pairs[0]
    assert (first.source.tolist(), first.tokens.tolist(), first.target.tolist()) == ([3, 4], [1, 5, 6, 7], [5, 6, 7, 2])
    assert made.fit == {
        "rows": 5, "whole": 2, "cut": 0, "dropped": 2, "no_tokens": 1, "source_tokens": 8, "target_tokens": 10,
    }  # fmt: skip
    cut = encoded(*pairs, over_long="cut")
    assert cut.indices == [0, 1, 2, 4] and cut.fit["cut"] == 2 and len(cut.pairs[1].source) == 6
    # what is cut does not end there, so no end is taught
    assert (cut.pairs[2].tokens.tolist(), cut.pairs[2].target.tolist()) == ([1, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8])
    with pytest.raises(GroundupError) as caught:
        encoded(*pairs, over_long="refuse")
    assert caught.value.code == "E-DATA-106" and "f.tsv:2" in caught.value.where and "2 of 5" in caught.value.what
    with pytest.raises(GroundupError) as caught:
        encoded(("abcdefg", "a"))
    assert caught.value.code == "E-DATA-107"


def some_pairs(number: int) -> list[Pair]:
    random = np.random.default_rng(7)
    made = []
    for _ in range(number):
        source, target = (random.integers(3, 50, size=random.integers(1, 20)) for _ in range(2))
        made.append(Pair(source, np.concatenate([[1], target]), np.concatenate([target, [2]])))
    return made


def test_a_batch_is_padded_and_its_parts_fit() -> None:
    pairs = some_pairs(5)
    batch = collate(pairs, pad_id=0)
    for row, pair in enumerate(pairs):
        for name, document, ids in (("source_BS", "source_document_BS", pair.source),
                                    ("tokens_BT", "document_BT", pair.tokens)):  # fmt: skip
            real = batch[document][row] == 0
            assert batch[name][row][real].tolist() == ids.tolist()
            assert not batch[name][row][~real].any() and bool((batch[document][row][~real] == -1).all())
        assert batch["target_BT"][row][batch["target_BT"][row] != IGNORE].tolist() == pair.target.tolist()
    assert batch["target_BT"].shape == batch["tokens_BT"].shape


def test_an_epoch_holds_each_pair_once_and_the_ledger_adds_up() -> None:
    pairs = some_pairs(205)
    stream = ParallelStream(pairs, rows=4, pad_id=0, seed=3)
    assert stream.batches_per_epoch == 52
    drawn = [stream.indices(0, number) for number in range(52)]
    assert sorted(np.concatenate(drawn).tolist()) == list(range(205))
    assert not np.array_equal(drawn[0], stream.indices(1, 0))
    sizes = [tuple(stream.next("model")["tokens_BT"].shape) for _ in range(52)]
    assert [rows for rows, _ in sizes].count(4) == 51
    ledger = stream.ledger
    assert ledger["seen"] == ledger["trained"] + ledger["masked"] + ledger["padded"]
    assert ledger["trained"] == sum(len(pair.target) for pair in pairs)
    assert ledger["masked"] == sum(len(pair.source) for pair in pairs)
    alone = collate(pairs, 0)
    assert ledger["padded"] < 0.5 * sum(int((alone[name] < 0).sum()) for name in ("source_document_BS", "document_BT"))
    assert stream.epoch == 0 and stream.next("model") and stream.epoch == 1


def test_the_stream_goes_on_where_it_stood() -> None:
    pairs = some_pairs(30)
    whole, first = (ParallelStream(pairs, rows=4, pad_id=0, seed=3) for _ in range(2))
    expected = [whole.next("model") for _ in range(20)]
    for _ in range(9):
        first.next("model")
    state = json.loads(json.dumps(first.state_dict()))
    second = ParallelStream(pairs, rows=4, pad_id=0, seed=3)
    second.load_state_dict(state)
    for batch in expected[9:]:
        found = second.next("model")
        assert all(bool((found[name] == batch[name]).all()) for name in batch)
    assert second.state_dict() == whole.state_dict()


def test_evaluation_takes_each_pair_once_the_longest_first() -> None:
    pairs = some_pairs(11)
    found = list(batches(pairs, rows=4, pad_id=0))
    assert sorted(index for _, chosen in found for index in chosen) == list(range(11))
    lengths = [batch["tokens_BT"].shape[1] for batch, _ in found]
    assert lengths == sorted(lengths, reverse=True) and len(found) == 3
