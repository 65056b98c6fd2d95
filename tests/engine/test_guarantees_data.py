"""D8 and D9 as far as text and one process know them: what a loss could not take is refused before training,
and fewer rows than a step asks for never hang a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.contract.toy_run import events, run, text_recipe

from groundup.data.chat_rows import ChatLedger, ChatOptions, Row, SetAside, read_chat
from groundup.data.options import PrepareOptions
from groundup.data.prepare import clean_corpus
from groundup.data.shards import TokenSet, write_token_folder
from groundup.errors import GroundupError


def test_D8_an_id_outside_the_vocabulary_never_reaches_a_loss(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside 0 … 9"):
        write_token_folder(tmp_path / "bad", {"train": [([1, 10, 2], 3)]}, tokenizer_digest="d", vocabulary=10)
    folder = tmp_path / "changed"
    write_token_folder(folder, {"train": [([1, 9, 2], 3)]}, tokenizer_digest="d", vocabulary=10)
    np.array([1, 10, 2], dtype="<u2").tofile(next(folder.glob("*.tokens")))
    with pytest.raises(GroundupError, match=r"changed|hash"):
        TokenSet.open(folder, "train")
    trusted = TokenSet.open(folder, "train", trust_changed=True)
    assert trusted.num_documents == 0 and "left out" in trusted.changes[0]


def test_D8_not_a_number_where_an_answer_should_be(tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"question {n}", "response": f"answer {n}"}) for n in range(200)]
    rows[7] = '{"prompt": "question", "response": NaN}'
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows) + "\n")
    ledger = ChatLedger()
    found = list(read_chat([path], ChatOptions(), ledger))
    (aside,) = [item for item in found if isinstance(item, SetAside)]
    assert (aside.line, ledger.rows, ledger.kept) == (8, 200, 199)
    assert sum(isinstance(item, Row) for item in found) == 199


def test_D8_a_split_with_nothing_on_one_side_is_told_before_training(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("a single document cannot stand on both sides\n")
    with pytest.raises(GroundupError) as caught:
        clean_corpus(PrepareOptions(files=[str(path)]), tmp_path / "out", workers=1)
    assert caught.value.code.startswith("E-DATA") and caught.value.fix


def test_D9_fewer_rows_than_a_step_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("three short\n\nlines of\n\ntext only\n")
    recipe = text_recipe(path, data__documents="paragraph", data__split={"kind": "none"}, budget__steps=3)
    recipe["events"] = {"evaluate_every": 0, "sample_every": 0, "save_every": 0}
    result = run(recipe, tmp_path / "run")
    assert (result.outcome, result.steps) == ("finished", 3)
    last = events(tmp_path / "run", "step")[-1]
    assert last["seen"] == 3 * 128 and 0 < last["tokens"] < last["seen"]
