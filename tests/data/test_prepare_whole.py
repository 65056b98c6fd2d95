"""Preparation from end to end: the same bytes for any number of workers, after any kill, in any locale."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.corpora import ByteEncoder, corpus_of, options, sentence, tree

from groundup.data import files as data_files
from groundup.data import prepare as preparation
from groundup.data import segments
from groundup.data.corpus import Corpus
from groundup.data.prepare import clean_corpus, prepare
from groundup.data.shards import TokenSet
from groundup.data.tokens import tokenize_corpus
from groundup.data.workers import Task, run_tasks
from groundup.errors import GroundupError

ROOT = Path(__file__).resolve().parents[2]
SPLIT = {"kind": "hash", "held_out": {"held_out": 0.2}}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of several formats with repeats, faults and other scripts; about five chunks."""
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [json.dumps({"text": sentence(i % 900)}) for i in range(1000)] + ['{"text": 1}'] * 5
    (folder / "a.jsonl").write_text("\n".join(rows))
    (folder / "b.txt").write_text("床前明月光，疑是地上霜。\n舉頭望明月，低頭思故鄉。\n" * 3, encoding="utf-8")
    (folder / "c.jsonl.gz").write_bytes(gzip.compress("\n".join(rows[100:300]).encode(), mtime=0))
    (folder / "d.csv").write_text("text\n" + "\n".join(sentence(i) + " almost" for i in range(50)))
    return folder


def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "chunk_bytes", lambda total: 60_000)
    monkeypatch.setattr(segments, "BLOCK", 40_000)


def test_D12_the_same_bytes_for_1_2_and_4_workers(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    results = []
    for workers in (1, 2, 4):
        out = tmp_path / f"out-{workers}"
        prepare(options(mixed, split=SPLIT), ByteEncoder(), out, workers=workers)
        results.append(tree(out))
    assert results[0] == results[1] == results[2]
    assert len([name for name in results[0] if name.endswith(".tokens")]) > 4
    assert not [name for name in results[0] if "work" in name or "tmp" in name]


COMMAND = """
import sys
from pathlib import Path
from tests.data.corpora import ByteEncoder, options
from groundup.data import prepare as preparation
from groundup.data import segments
segments.BLOCK = 40_000
preparation.chunk_bytes = lambda total: 60_000
preparation.prepare(options(sys.argv[1], split={split!r}), ByteEncoder(), Path(sys.argv[2]), workers=1)
assert "torch" not in sys.modules
"""


def run(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_D12_other_locale_time_zone_and_hash_seed(mixed: Path, tmp_path: Path) -> None:
    code = COMMAND.format(split=SPLIT)
    one = run(code, mixed, tmp_path / "1", LC_ALL="C", TZ="UTC", PYTHONHASHSEED="1", PYTHONUTF8="0")
    two = run(code, mixed, tmp_path / "2", LC_ALL="C.UTF-8", TZ="Asia/Shanghai", PYTHONHASHSEED="2")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


KILLED = """
import os
from groundup.data import files
from groundup.data import corpus, parts, prepare, shards, tokens
real, count = files.write_atomic, 0
def dying(path, content):
    global count
    count += 1
    if count == {moment}:
        path.parent.mkdir(exist_ok=True)
        path.with_name(path.name + ".tmp-1").write_bytes(content[: len(content) // 2])
        os._exit(9)
    real(path, content)
for module in (corpus, parts, prepare, shards, tokens):
    module.write_atomic = dying
"""


def test_D11_killed_during_any_write_and_resumed(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    prepare(options(mixed, split=SPLIT), ByteEncoder(), tmp_path / "straight", workers=1)
    straight = tree(tmp_path / "straight")
    for moment in (1, 4, 9, 16, 26, 40):  # from the first part to the last token shard
        out = tmp_path / f"killed-{moment}"
        killed = run(KILLED.format(moment=moment) + COMMAND.format(split=SPLIT), mixed, out)
        assert killed.returncode == 9, killed.stderr
        prepare(options(mixed, split=SPLIT), ByteEncoder(), out, workers=1)
        assert tree(out) == straight


def test_D11_finished_chunks_are_not_done_again(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    real, cleaned = preparation.clean_chunk, []

    def counted(work: Any, chunk: Any) -> None:
        if len(cleaned) == 2:
            raise KeyboardInterrupt
        cleaned.append(chunk.number)
        real(work, chunk)

    monkeypatch.setattr(preparation, "clean_chunk", counted)
    with pytest.raises(KeyboardInterrupt):
        corpus_of(tmp_path / "out", mixed)
    assert cleaned == [0, 1]
    stopped = len(cleaned)

    def recorded(work: Any, chunk: Any) -> None:
        cleaned.append(chunk.number)
        real(work, chunk)

    monkeypatch.setattr(preparation, "clean_chunk", recorded)
    corpus_of(tmp_path / "out", mixed)
    assert cleaned == list(range(len(cleaned))) and len(cleaned) > stopped + 2


def test_D11_full_disk_is_an_error_and_resumable(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    real, writes = os.fsync, []

    def full(number: int) -> None:
        writes.append(number)
        if len(writes) == 3:
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(data_files.os, "fsync", full)
    with pytest.raises(GroundupError) as caught:
        corpus_of(tmp_path / "out", mixed)
    assert caught.value.code == "E-DATA-012" and "disk is full" in caught.value.what
    assert not [name for name in tree(tmp_path / "out") if "tmp" in name]
    assert corpus_of(tmp_path / "out", mixed).digest == corpus_of(tmp_path / "other", mixed).digest


def test_D11_free_space_is_checked_first(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(GroundupError) as caught:
        data_files.check_free_space(tmp_path / "not" / "there", 1 << 62)
    assert caught.value.code == "E-DATA-012" and "MB free" in caught.value.what


def test_changed_input_or_options_are_prepared_anew_and_failure_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(sentence(1))
    first = corpus_of(tmp_path / "out", path)
    assert corpus_of(tmp_path / "out", path).digest == first.digest
    path.write_text(sentence(2))
    assert list(corpus_of(tmp_path / "out", path).texts("train")) == [sentence(2)]
    with pytest.raises(GroundupError):
        corpus_of(tmp_path / "out", path, filters={"minimum_characters": 10_000})
    assert list(Corpus.open(tmp_path / "out").texts("train")) == [sentence(2)]


def test_tokens_hold_the_texts_and_are_found_again(mixed: Path, tmp_path: Path) -> None:
    encoder = ByteEncoder()
    corpus, sets = prepare(options(mixed, split=SPLIT), encoder, tmp_path / "out", workers=1)
    for name, tokens in sets.items():
        texts = list(corpus.texts(name))
        assert tokens.num_documents == len(texts) == corpus.card["splits"][name]["documents"]
        assert tokens.num_bytes == corpus.card["splits"][name]["bytes"]
        for number, text in enumerate(texts):
            assert tokens.document(number).tolist() == [1, *encoder.encode(text), 2]
    seen: list[str] = []
    tokenize_corpus(corpus, encoder, tmp_path / "out" / "tokens", progress=seen.append)
    assert seen == ["the tokens are already there and unchanged"]


def test_D6_a_changed_corpus_is_refused(mixed: Path, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "out", mixed)
    (shard,) = (tmp_path / "out" / "clean").glob("train-*.jsonl")
    shard.write_text(shard.read_text(encoding="utf-8").replace("w", "v", 1), encoding="utf-8")
    with pytest.raises(GroundupError) as caught:
        tokenize_corpus(corpus, ByteEncoder(), tmp_path / "tokens")
    assert caught.value.code == "E-DATA-004" and shard.name in caught.value.what


def test_T4_tokens_of_another_tokenizer_are_replaced_not_mixed(mixed: Path, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "out", mixed)
    tokenize_corpus(corpus, ByteEncoder(), tmp_path / "tokens")
    other = ByteEncoder()
    other.digest = "other"  # type: ignore[misc]
    tokenize_corpus(corpus, other, tmp_path / "tokens")
    with pytest.raises(GroundupError) as caught:
        TokenSet.open(tmp_path / "tokens", "train", tokenizer_digest="bytes")
    assert caught.value.code == "E-DATA-016"


def die(shared: int, argument: int) -> int:
    if argument == 3:
        os._exit(shared)
    return argument


def refuse(shared: int, argument: int) -> int:
    raise GroundupError("E-DATA-001", "what", "where", "why", "fix")


def test_R12_a_crashed_worker_is_named_with_its_work() -> None:
    tasks = [Task(f"chunk {number}", number) for number in range(5)]
    with pytest.raises(GroundupError) as caught:
        list(run_tasks(die, 7, tasks, 2))
    assert caught.value.code == "E-DATA-013"
    assert "exit code 7" in caught.value.what and "chunk 3" in caught.value.where
    with pytest.raises(GroundupError) as caught:
        list(run_tasks(refuse, 0, tasks[:1], 2))
    assert (caught.value.code, caught.value.fix) == ("E-DATA-001", "fix")


def test_D10_copies_of_held_out_text_leave_training(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"text": sentence(i)}) for i in range(20)))
    held_out = [sentence(3), sentence(4) + " A little more.", sentence(50)]
    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in held_out))
    split = {"kind": "files", "held_out_files": [str(tmp_path / "test.jsonl")]}
    corpus = corpus_of(tmp_path / "out", tmp_path / "train.jsonl", split=split)
    assert list(corpus.texts("held_out")) == held_out
    assert list(corpus.texts("train")) == [sentence(i) for i in range(20) if i not in (3, 4)]
    assert corpus.card["held_out_overlap"] == {"policy": "remove", "found": 2}
    aside = corpus.card["ledger"]["set_aside"]
    assert aside["duplicate of a held-out document"]["documents"] == 1
    assert aside["near duplicate of a held-out document"]["documents"] == 1
    with pytest.raises(GroundupError) as caught:
        corpus_of(tmp_path / "no", tmp_path / "train.jsonl", split=split | {"overlap": "refuse"})
    assert caught.value.code == "E-DATA-011" and "train.jsonl:4" in caught.value.where
    kept = corpus_of(tmp_path / "keep", tmp_path / "train.jsonl", split=split | {"overlap": "keep"})
    assert len(list(kept.texts("train"))) == 20 and kept.card["held_out_overlap"]["found"] == 2


ROW = st.one_of(
    st.builds(lambda text: json.dumps({"text": text}), st.text(max_size=60)),
    st.sampled_from(["same", "words here"]).map(lambda text: json.dumps({"text": text})),
    st.sampled_from(['{"text": 1}', "{", "", "null", '"bare text"', '{"text": "\\ud800"}', '{"a":1,"a":2}']),
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"").decode("latin-1")),
)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(ROW, max_size=25), tail=st.booleans(), policy=st.sampled_from(["replace", "set_aside"]))
def test_ledger_adds_up_for_any_rows(rows: list[str], tail: bool, policy: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes("\n".join(rows).encode("latin-1", "replace"))
        split = {"kind": "tail", "held_out": {"held_out": 0.5}} if tail else {"kind": "none"}
        try:
            corpus = corpus_of(Path(folder) / "out", path, split=split, utf8=policy, malformed_limit=1.0)
        except GroundupError as error:
            assert error.code == "E-DATA-001"
            return
        ledger = corpus.card["ledger"]
        lines = (corpus.folder / "quarantine.jsonl").read_bytes().decode().split("\n")
        aside = [json.loads(line) for line in lines if line]
        assert ledger["documents"] == sum(bool(row.strip(" \t\r\x0b\x0c")) for row in rows)
        assert ledger["documents"] == ledger["kept"]["documents"] + len(aside)
        texts = [text for name in corpus.shards for text in corpus.texts(name)]
        assert ledger["kept"]["bytes"] == sum(len(text.encode()) for text in texts)
        counts: dict[str, int] = {}
        for row in aside:
            counts[row["reason"]] = counts.get(row["reason"], 0) + 1
        assert counts == {reason: entry["documents"] for reason, entry in ledger["set_aside"].items()}


def test_clean_text_passes_through_unchanged_and_twice_is_once(tmp_path: Path) -> None:
    samples = {
        "code.py": "def f(x):\n\tif x:\n\t\treturn {\n\t\t\t'a': 1,  \n\t\t}\n\n\n",
        "poem.txt": "靜夜思\n\n床前明月光，\n疑是地上霜。\n",
        "list.md": "- a\n- b\n\n| x | y |\n|---|---|\n| 1 | 2 |\n",
        "emoji.txt": "👩‍👩‍👧 नमस्ते می‌خواهم\n",
    }
    for name, text in samples.items():
        (tmp_path / name).write_bytes(text.encode())
    corpus = corpus_of(tmp_path / "out", *[tmp_path / name for name in samples])
    assert list(corpus.texts("train")) == list(samples.values())
    assert corpus.card["ledger"]["cleaned_bytes"] == 0 and corpus.card["repairs"] == {}


def test_contradicting_options_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    for split in (
        {"kind": "files"},
        {"kind": "hash", "held_out_files": ["x"]},
        {"kind": "hash", "group_field": "g"},
        {"kind": "hash", "held_out": {"a": 0.6, "b": 0.6}},
        {"kind": "hash", "held_out": {"train": 0.1}},
        {"kind": "hash", "held_out": {"../x": 0.1}},
    ):
        with pytest.raises(GroundupError) as caught:
            clean_corpus(options(tmp_path / "a.txt", split=split), tmp_path / "out")
        assert caught.value.code == "E-DATA-015" and caught.value.exit_code == 2
