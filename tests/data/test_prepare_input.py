"""Bad input to preparation: each case is refused or set aside with its reason and place, and counted."""

from __future__ import annotations

import builtins
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from tests.data.corpora import corpus_of, options, sentence

from groundup.data import sources
from groundup.data.corpus import Corpus
from groundup.data.prepare import clean_corpus
from groundup.errors import GroundupError


def refused(code: str, out: Path, *files: Path | str, **rest: Any) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        clean_corpus(options(*files, **rest), out, workers=1)
    assert caught.value.code == code, caught.value
    assert caught.value.where and caught.value.why and caught.value.fix
    assert not (out / "card.json").exists()
    return caught.value


def aside(corpus: Corpus) -> list[dict[str, Any]]:
    lines = (corpus.folder / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rows(tmp_path: Path, *lines: str | bytes, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def good(number: int) -> str:
    return json.dumps({"text": sentence(number)})


def test_D1_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    assert "no documents" in refused("E-DATA-001", tmp_path / "out", tmp_path / "a.txt").what


def test_D1_all_rows_filtered_says_by_what(tmp_path: Path) -> None:
    path = rows(tmp_path, good(1), good(2), '{"text": "  "}')
    error = refused("E-DATA-001", tmp_path / "out", path, filters={"minimum_characters": 10_000})
    assert "all 3" in error.what and "filter: too few characters: 2" in error.where and "empty: 1" in error.where


def test_D1_empty_held_out_set(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one document only")
    error = refused("E-DATA-001", tmp_path / "out", tmp_path / "a.txt", split={"kind": "hash"})
    assert "is empty" in error.what and "tail" in error.fix


def test_D1_no_such_file_and_empty_folder(tmp_path: Path) -> None:
    refused("E-DATA-002", tmp_path / "out", tmp_path / "nothing.txt")
    refused("E-DATA-002", tmp_path / "out", str(tmp_path / "*.txt"))
    (tmp_path / "folder").mkdir()
    refused("E-DATA-002", tmp_path / "out", tmp_path / "folder")


BROKEN = b"fine " * 30 + b"\xff\xfe end"


def test_D2_invalid_utf8_replaced_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(BROKEN)
    corpus = corpus_of(tmp_path / "out", tmp_path / "a.txt")
    assert next(corpus.texts("train")).endswith("\ufffd\ufffd end")
    repair = corpus.card["repairs"]["invalid UTF-8 replaced"]
    assert repair["documents"] == 1 and repair["first"].endswith("a.txt:1")


def test_D2_invalid_utf8_set_aside_or_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(BROKEN)
    (tmp_path / "b.txt").write_text(sentence(1))
    files = (tmp_path / "a.txt", tmp_path / "b.txt")
    corpus = corpus_of(tmp_path / "out", *files, utf8="set_aside", malformed_limit=0.5)
    assert [row["reason"] for row in aside(corpus)] == ["malformed: invalid UTF-8"]
    assert corpus.card["ledger"]["malformed"] == 1
    error = refused("E-DATA-006", tmp_path / "other", *files, utf8="error")
    assert "a.txt" in error.where and "byte 150" in error.what


def test_D2_byte_order_mark_nul_and_lone_surrogates(tmp_path: Path) -> None:
    bom = b"\xef\xbb\xbf"
    path = rows(tmp_path, bom + good(1).encode(), r'{"text": "half \ud800 pair, nul \u0000 gone"}')
    (tmp_path / "a.txt").write_bytes(bom + b"nul \x00 and bell \x07 and mark \xef\xbb\xbf in text")
    texts = list(corpus_of(tmp_path / "out", path, tmp_path / "a.txt").texts("train"))
    assert texts == [sentence(1), "half \ufffd pair, nul  gone", "nul  and bell  and mark  in text"]


def test_D2_utf16_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("text".encode("utf-16"))
    error = refused("E-DATA-009", tmp_path / "out", tmp_path / "a.txt")
    assert "UTF-16" in error.what and "iconv" in error.fix


def test_D3_mixed_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a\r\nb\rc\nd\u2028e\x85f".encode())
    assert list(corpus_of(tmp_path / "out", tmp_path / "a.txt").texts("train")) == ["a\nb\nc\nd\ne\nf"]
    kept = corpus_of(tmp_path / "other", tmp_path / "a.txt", newlines=False)
    assert "a\r\nb\rc\n" in next(kept.texts("train"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt"])
def test_D3_one_endless_line_is_set_aside_unread(tmp_path: Path, name: str, monkeypatch: Any) -> None:
    first = good(1) if name.endswith("jsonl") else sentence(1)
    last = good(2) if name.endswith("jsonl") else sentence(2)
    path = rows(tmp_path, first, b'{"text": "' + b"x" * 3_000_000 + b'"}', last, name=name)
    read = sources.ByteStream.read
    largest = 0

    def watched(stream: sources.ByteStream, size: int) -> bytes:
        nonlocal largest
        largest = max(largest, size)
        return read(stream, size)

    monkeypatch.setattr(sources.ByteStream, "read", watched)
    corpus = corpus_of(tmp_path / "out", path, documents="line", max_document_bytes=4096, malformed_limit=0.5)
    assert list(corpus.texts("train")) == [sentence(1), sentence(2)]
    (row,) = aside(corpus)
    assert (row["line"], row["byte"], row["reason"]) == (2, len(first) + 1, "malformed: too long")
    assert largest <= 1 << 20


def test_D3_nested_json(tmp_path: Path) -> None:
    path = rows(tmp_path, good(1), '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", good(2))
    corpus = corpus_of(tmp_path / "out", path, malformed_limit=0.5)
    assert aside(corpus)[0]["detail"] == "not JSON: nested too deeply" and aside(corpus)[0]["line"] == 2
    assert corpus.card["ledger"]["kept"]["documents"] == 2


BAD_ROWS = [
    ('{"text": "cut of', "cut off"),
    ('{"text": "a",}', "not JSON"),
    ('{"text": "a", "text": "b"}', "appears twice"),
    ('{"text": 3}', "is a number, expected text"),
    ('{"text": null}', "is null, expected text"),
    ('{"texts": "a"}', 'did you mean "texts"?'),
    ("[1, 2]", "is a list, expected text"),
    ("{'text': 'a'}", "not JSON"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_ROWS)
def test_D4_bad_rows_are_set_aside_with_their_line(tmp_path: Path, line: str, reason: str) -> None:
    path = rows(tmp_path, good(1), line, good(2))
    corpus = corpus_of(tmp_path / "out", path, malformed_limit=0.5)
    (row,) = aside(corpus)
    assert row["line"] == 2 and row["byte"] == len(good(1)) + 1 and reason in row["detail"]
    assert row["text"] == line and row["file"] == str(path)


def test_D4_over_the_limit_stops_and_keeps_the_rows(tmp_path: Path) -> None:
    path = rows(tmp_path, *[good(i) for i in range(20)], '{"text": "cut of')
    error = refused("E-DATA-003", tmp_path / "out", path)
    assert "1 of 21 (4.76 %, limit 1 %)" in error.what and "line 21" in error.where
    assert (tmp_path / "out" / "quarantine.jsonl").read_text().count("\n") == 1
    corpus_of(tmp_path / "out", path, malformed_limit=0.05)


def test_D4_json_array_csv_and_wrapped_list(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"text": sentence(1)}, {"text": 5}]))
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "data": [{"text": sentence(2)}]}))
    (tmp_path / "c.csv").write_text(f'id,text\n1,"{sentence(3)}\nsecond ""line"""\n2\n3,{sentence(4)}\n')
    (tmp_path / "d.tsv").write_text(f"text\tid\n{sentence(5)}\t1\n")
    files = [tmp_path / name for name in ("a.json", "b.json", "c.csv", "d.tsv")]
    corpus = corpus_of(tmp_path / "out", *files, malformed_limit=0.5)
    third = f'{sentence(3)}\nsecond "line"'
    assert list(corpus.texts("train")) == [sentence(1), sentence(2), third, sentence(4), sentence(5)]
    assert [(row["line"], row["detail"]) for row in aside(corpus)] == [
        (2, 'field "text" is a number, expected text'),
        (4, "1 fields, the header has 2"),
    ]


def test_D4_csv_unbalanced_quote_costs_one_row(tmp_path: Path) -> None:
    lines = ['"never closed', *[sentence(i) for i in range(200)]]
    (tmp_path / "c.csv").write_text("text\n" + "\n".join(lines) + "\n")
    corpus = corpus_of(tmp_path / "out", tmp_path / "c.csv", max_document_bytes=2000, malformed_limit=0.5)
    assert corpus.card["ledger"]["malformed"] == 1 and corpus.card["ledger"]["kept"]["documents"] > 150


def test_D4_missing_csv_column(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,body\n1,a\n")
    error = refused("E-DATA-010", tmp_path / "out", tmp_path / "c.csv")
    assert "id, body" in error.where and "data.text_field" in error.fix


def parquet(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_D5_parquet_null_text_and_order(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", text=[sentence(1), None, sentence(2)], id=[1, 2, 3])
    corpus = corpus_of(tmp_path / "out", path, malformed_limit=0.5)
    assert list(corpus.texts("train")) == [sentence(1), sentence(2)]
    assert aside(corpus)[0]["line"] == 2 and "is null" in aside(corpus)[0]["detail"]


def test_D5_truncated_footer_is_named_and_others_go_on_if_asked(tmp_path: Path) -> None:
    path = parquet(tmp_path / "bad.parquet", text=[sentence(1)])
    path.write_bytes(path.read_bytes()[:-6])
    (tmp_path / "good.txt").write_text(sentence(2))
    files = (path, tmp_path / "good.txt")
    assert "bad.parquet" in refused("E-DATA-009", tmp_path / "out", *files).what
    corpus = corpus_of(tmp_path / "out", *files, on_bad_file="skip", malformed_limit=0.5)
    assert list(corpus.texts("train")) == [sentence(2)]
    assert "bad.parquet" in aside(corpus)[0]["detail"]


def test_D5_wrong_schema(tmp_path: Path) -> None:
    assert "expected text" in refused("E-DATA-010", tmp_path / "out", parquet(tmp_path / "a.parquet", text=[1, 2])).what
    assert "no column" in refused("E-DATA-010", tmp_path / "out", parquet(tmp_path / "b.parquet", t=["a"])).what


def test_parquet_inside_gzip(tmp_path: Path) -> None:
    plain = parquet(tmp_path / "a.parquet", text=[sentence(1)])
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert list(corpus_of(tmp_path / "out", tmp_path / "b.parquet.gz").texts("train")) == [sentence(1)]


def test_U3_parquet_without_pyarrow(tmp_path: Path, monkeypatch: Any) -> None:
    path = parquet(tmp_path / "a.parquet", text=["a"])
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert refused("E-DATA-014", tmp_path / "out", path).fix == "pip install 'groundup[parquet]'"


def test_D7_archive_bomb(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "RATIO_FROM", 1 << 20)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"0" * 8_000_000))
    error = refused("E-DATA-007", tmp_path / "out", tmp_path / "a.txt.gz", documents="line")
    assert "200 times" in error.what


def test_D7_archives_are_refused_by_name_and_by_content(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("../../escape.txt")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    for name in ("a.tar", "a.tar.gz", "a.tgz", "a.zip"):
        (tmp_path / name).write_bytes(buffer.getvalue())
        assert "archive" in refused("E-DATA-008", tmp_path / "out", tmp_path / name).what
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(buffer.getvalue()))
    assert "tar archive" in refused("E-DATA-009", tmp_path / "out", tmp_path / "a.txt.gz").what


def test_truncated_and_false_gzip(tmp_path: Path) -> None:
    packed = gzip.compress("\n".join(good(i) for i in range(2000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "b.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "c.jsonl").write_bytes(packed)
    for name in ("a.jsonl.gz", "b.jsonl.gz", "c.jsonl"):
        assert name in refused("E-DATA-009", tmp_path / "out", tmp_path / name).what


def test_U6_spaces_emoji_and_home(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "my texts 🦊"
    folder.mkdir()
    (folder / "a [1].txt").write_text(sentence(1))
    (folder / "ignored.bin").write_text("x")
    corpus = corpus_of(tmp_path / "out 层", "~/my texts 🦊", str(folder / "a [1].txt"))
    assert list(corpus.texts("train")) == [sentence(1)]
    assert corpus.card["ignored_files"] == 1 and len(corpus.card["sources"]) == 1


def test_plain_text_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\n\none\ntwo\n\n \nthree\r\n\r\nfour\n\n\n")
    for cut, expected in (
        ("file", ["\n\none\ntwo\n\n \nthree\n\nfour\n\n\n"]),
        ("paragraph", ["one\ntwo", "three", "four"]),
        ("line", ["one", "two", "three", "four"]),
    ):
        corpus = corpus_of(tmp_path / cut, tmp_path / "a.txt", documents=cut)
        assert list(corpus.texts("train")) == expected


def test_a_long_file_is_cut_at_paragraphs_and_nothing_is_lost(tmp_path: Path) -> None:
    text = "\n\n".join(sentence(i) for i in range(100))
    (tmp_path / "a.txt").write_text(text)
    texts = list(corpus_of(tmp_path / "out", tmp_path / "a.txt", max_document_bytes=4096).texts("train"))
    assert len(texts) > 5 and "".join(texts) == text
    assert all(part.endswith("\n\n") for part in texts[:-1])


def test_a_header_that_is_not_csv_is_refused(tmp_path: Path) -> None:
    path = rows(tmp_path, b"text\rsource", "a,b", name="rows.csv")
    assert "header" in str(refused("E-DATA-009", tmp_path / "out", path))
