"""A loaded model end to end at toy size: texts and rows from files, answers, comparisons, the commands."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import math
from pathlib import Path

import pytest
import torch

from groundup.api import LoadedModel, read_evaluation_files
from groundup.cli.chat import Talk
from groundup.cli.evaluate import show
from groundup.cli.sampling import sampling_options
from groundup.cli.terminal import Painter
from groundup.errors import GroundupError
from groundup.inference import Piece
from groundup.models.llama import Llama, LlamaOptions
from groundup.text.chat import ChatTemplate
from groundup.text.options import TokenizerOptions
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train_tokenizer

TEXTS = ["The cat sat on the mat.\n", "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(TEXTS * 3), TokenizerOptions(kind="byte"))


def loaded(tokenizer: Tokenizer, seed: int = 0, context: int = 96, chat: bool = True) -> LoadedModel:
    model = Llama(
        LlamaOptions(
            vocabulary=tokenizer.vocabulary, context=context, width=16, layers=1, heads=2, key_value_heads=1,
            head_size=8, hidden=16,
        )
    )  # fmt: skip
    model.initialise(torch.Generator().manual_seed(seed))
    return LoadedModel(
        model=model, tokenizer=tokenizer, chat_template=ChatTemplate() if chat else None, name=f"toy-{seed}"
    )


def write_rows(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_bits_per_byte_count_the_true_bytes_and_every_target(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXTS[0], encoding="utf-8")
    (tmp_path / "b.md.gz").write_bytes(gzip.compress(TEXTS[1].encode()))
    model = loaded(tokenizer)
    with torch.no_grad():
        model.model.head.weight.zero_()  # type: ignore[attr-defined]
    found = model.evaluate([tmp_path])
    size = sum(len(text.encode()) for text in TEXTS)
    assert (found["documents"], found["bytes"]) == (2, size)
    assert found["metrics"]["perplexity"]["value"] == pytest.approx(tokenizer.vocabulary)
    # a byte tokenizer: as many targets as bytes, and an end token for each text
    bits = (size + 2) * math.log2(tokenizer.vocabulary) / size
    assert found["metrics"]["bits_per_byte"]["value"] == pytest.approx(bits)
    assert list(found["metrics"]) == ["loss", "perplexity", "bits_per_byte"]
    json.dumps(found, allow_nan=False)


def test_answers_are_measured_from_rows_and_long_prompts_are_counted(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = [{"instruction": f"{i}?", "output": "yes"} for i in range(9)]
    file = write_rows(tmp_path / "rows.jsonl", [*rows, {"instruction": "x" * 200, "output": "no"}])
    found = loaded(tokenizer).evaluate([file], max_tokens=4)
    assert (found["examples"], found["set_aside"]) == (9, {"prompt fills the context": 1})
    assert list(found["metrics"]) == ["answer_loss", "exact_match", "f1", "ended"]
    assert found["metrics"]["answer_loss"]["value"] == pytest.approx(math.log(262), abs=1.5)
    assert found["metrics"]["exact_match"] == {"value": 0, "low": 0, "high": 0, "unit": "share"}
    assert list(loaded(tokenizer).evaluate([file], ["answer_loss"])["metrics"]) == ["answer_loss"]


def test_a_model_against_itself_is_within_noise_and_a_better_one_better(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "t.jsonl", [{"text": f"{TEXTS[i % 2]} {i}"} for i in range(40)])
    plain, worse = loaded(tokenizer), loaded(tokenizer)
    with torch.no_grad():
        worse.model.norm.weight.mul_(8)  # type: ignore[attr-defined]
    same = plain.evaluate([file], against=loaded(tokenizer))
    assert [row["verdict"] for row in same["comparison"]] == ["within noise"] * 3
    assert same["comparison"][0]["difference"] == {"value": 0, "low": 0, "high": 0}
    found = plain.evaluate([file], ["bits_per_byte"], worse)
    assert [row["verdict"] for row in found["comparison"]] == ["better"]
    out = io.StringIO()
    show(found, Painter(out, colour=False, width=100))
    assert "bits_per_byte" in out.getvalue() and "better" in out.getvalue() and "toy-0" in out.getvalue()


def test_counts_in_tokens_are_not_compared_across_tokenizers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(TEXTS) * 20, encoding="utf-8")
    other = loaded(train_tokenizer(iter(TEXTS * 9), TokenizerOptions(kind="bpe", vocabulary=280)), seed=1)
    found = loaded(tokenizer).evaluate([tmp_path / "a.txt"], against=other)
    assert [row["metric"] for row in found["comparison"]] == ["bits_per_byte"]
    assert found["not_compared"] == ["loss", "perplexity"]


def test_bad_files_are_refused_with_file_and_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"ok \xff")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": \n', encoding="utf-8")
    for name, code, hint in [
        ("bad.txt", "E-EVAL-005", "byte 3"), ("empty.txt", "E-EVAL-004", "nothing"),
        ("rows.jsonl", "E-EVAL-005", "1 of 2 rows"),
    ]:  # fmt: skip
        with pytest.raises(GroundupError) as caught:
            loaded(tokenizer).evaluate([tmp_path / name])
        assert caught.value.code == code and hint in caught.value.what and caught.value.fix
    with pytest.raises(GroundupError, match="no file to read"):
        read_evaluation_files([tmp_path / "missing.txt"])


def test_streamed_text_equals_the_whole_and_chat_needs_a_template(tokenizer: Tokenizer) -> None:
    model = loaded(tokenizer)
    options = {"max_tokens": 30, "temperature": 1.0, "seed": 5}
    pieces = list(model.stream("床前", **options))
    assert "".join(p.text for p in pieces) == model.generate("床前", **options)
    ids = [p.id for p in pieces if p.id is not None]
    assert tokenizer.decode(ids) == "".join(p.text for p in pieces)
    messages = [{"role": "user", "content": "你好"}]
    assert isinstance(model.chat(messages, max_tokens=3), str)
    with pytest.raises(GroundupError) as caught:
        loaded(tokenizer, chat=False).chat(messages)
    assert caught.value.code == "E-GEN-007"


class Reader:
    """Types the lines given; an exception among them is raised instead."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        self.lines = list(lines)

    def __call__(self, prompt: str) -> str:
        line = self.lines.pop(0) if self.lines else EOFError
        if isinstance(line, str):
            return line
        raise line


def talk(model: LoadedModel, *lines: str | type[BaseException]) -> tuple[Talk, str]:
    out = io.StringIO()
    talk = Talk(model, "", {"max_tokens": 5}, Painter(out, colour=False))
    assert talk.run(Reader(*lines)) == 0
    return talk, out.getvalue()


def test_chat_keeps_turns_and_obeys_its_commands(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def echo(self: LoadedModel, messages: list[dict[str, str]], **options: object) -> list[Piece]:
        asked.append([message["content"] for message in messages])
        return [Piece("re: ", 1, 0.0), Piece(messages[-1]["content"], None, None, "length")]

    monkeypatch.setattr(LoadedModel, "stream_chat", echo)
    lines = [
        "hi",
        "  ",
        KeyboardInterrupt,
        "/help",
        "/oops",
        "again",
        "/reset",
        "new",
        "/system Be brief.",
        "end",
    ]
    state, out = talk(loaded(tokenizer), *lines, "/quit", "never read")
    assert asked == [["hi"], ["hi", "re: hi", "again"], ["new"], ["Be brief.", "end"]]
    assert (state.system, [turn["role"] for turn in state.turns]) == ("Be brief.", ["user", "assistant"])
    assert "/reset " in out and "/oops is no command" in out and "leaves" in out
    assert "re: again\n(cut off" in out and "never read" not in out


def test_chat_tells_when_the_context_is_full_and_goes_on(tokenizer: Tokenizer) -> None:
    state, out = talk(loaded(tokenizer), "x" * 300, "hi")
    assert "context is 96: /reset begins anew" in out
    assert all(turn["content"] != "x" * 300 for turn in state.turns)


def test_ctrl_c_stops_the_answer_and_not_the_program(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tokenizer)
    whole = LoadedModel.stream_chat

    def interrupted(self: LoadedModel, messages: object, **options: object) -> object:
        yield next(whole(self, messages, **options))._replace(text="par")  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(LoadedModel, "stream_chat", interrupted)
    state, out = talk(model, "hi", "/quit")
    assert "par\n(stopped)" in out and state.turns[-1] == {"role": "assistant", "content": "par"}


def test_flags_become_options() -> None:
    given = argparse.Namespace(
        temperature=0.0, top_k=0, top_p=None, min_p=None, repetition_penalty=None, max_tokens=7, stop=["a"],
        seed=None, model="m",
    )  # fmt: skip
    assert sampling_options(given) == {"temperature": 0.0, "top_k": 0, "max_tokens": 7, "stop": ["a"]}
