"""`groundup data show` on labelled rows: the ids that the model will read, and the answer beside them."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from groundup.cli.main import main
from groundup.data.text_noise import TextNoiseOptions
from groundup.recipe.yaml import dump
from groundup.run.noise import noise_of
from groundup.run.preview import preview_rows
from groundup.text.foreign import ForeignTokenizer
from groundup.text.tokenizer import TokenRoles


def test_labelled_rows_are_shown_with_their_answers(tmp_path: Path) -> None:
    rows = [f"{'good' if n % 2 else 'bad'} thing number {n}\t{n % 2}" for n in range(40)]
    (tmp_path / "rows.txt").write_text("\n".join(rows) + "\n")
    recipe = {
        "model": {"family": "bert", "width": 16, "layers": 1, "heads": 2},
        "tokenizer": {"kind": "byte"},
        "data": {"kind": "labelled", "files": [str(tmp_path / "rows.txt")]},
        "budget": {"steps": 1},
    }
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    shown, tokenizer, ledger, total = preview_rows(str(tmp_path / "recipe.yaml"), 3, [])
    assert len(shown) == 3 and ledger["rows"]["kept"] == 40 and 3 < total <= 40
    for row in shown:
        assert not any(row.trainable) and len(row.turn) == len(row.ids)
        text = tokenizer.decode(row.ids)
        answer = row.text.rpartition("→")[2].strip()
        assert row.text.startswith(text) and answer == ("1" if text.startswith("good") else "0")


@pytest.mark.parametrize("name", ["tictactoe_alphazero", "connect4_alphazero"])
def test_of_a_game_random_moves_are_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "recipes" / f"{name}.yaml"
    assert main(["data", "show", str(path), "--rows", "40", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == 40 and found["total"] is None and {"won", "drawn", ""} >= {
        row["answer"] for row in found["rows"]
    }
    for before, after in pairwise(found["rows"]):
        stones = ["".join(cell for _, cell in row["cells"][:-1]).replace(" ", "") for row in (before, after)]
        left = [sum(one != "." for one in board) for board in stones]
        assert left[1] == (0 if before["answer"] else left[0] + 1), "a stone is added, or a game begins"
    assert main(["data", "show", str(path), "--rows", "2"]) == 0
    assert "game 1, move 2" in capsys.readouterr().out


def unmarked(line: str, marks: str) -> str:
    return re.sub(marks, r"\1", line.split(maxsplit=1)[1])


@pytest.mark.parametrize("kind", ["labelled", "pairs"])
def test_noise_on_texts_is_shown_before_and_after(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.tsv").write_text("".join(f"some words here and there {n}\tWORT {n}\n" for n in range(60)))
    (tmp_path / "rows.txt").write_text("".join(f"some words here and there {n}\t{n % 2}\n" for n in range(60)))
    recipe = {
        "model": {"family": "transformer"} if kind == "pairs" else {"family": "bert", "depth": 1},
        "tokenizer": {"kind": "char"},
        "data": {"kind": "pairs", "files": [str(tmp_path / "rows.tsv")], "columns": {"source": 1, "target": 2}}
        if kind == "pairs"
        else {"kind": "labelled", "files": [str(tmp_path / "rows.txt")]},
        "budget": {"steps": 1},
    }
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    words = ["data", "show", str(tmp_path / "recipe.yaml"), "--augment"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "data.augment: nothing is changed" in shown and "[-" not in shown and "{+" not in shown
    changes = ["data.augment={drop: 0.2, mask: 0.3}"]
    assert main([*words, *changes]) == 0
    shown = capsys.readouterr().out
    assert "data.augment: drop 0.2, mask 0.3" in shown and "\x1b" not in shown and shown.count("row ") == 3
    assert main([*words, *changes, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["augment"] == {"drop": 0.2, "mask": 0.3} and len(found["rows"]) == 3
    lines = [line for line in shown.splitlines() if line.startswith("  ")]
    for row, before, after in zip(found["rows"], lines[::2], lines[1::2], strict=True):
        text = row["before"]["text"]
        assert "some words here and there" in text and len(row["after"]["ids"]) < len(row["before"]["ids"])
        assert unmarked(before, r"\[-(.*?)-\]") == text and "[-" in before
        assert unmarked(after, r"\{\+(.*?)\+\}") == row["after"]["text"] and "<|mask|>" in after


def test_noise_on_a_table_is_shown_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{n},{2 * n},{'abc'[n % 3]},{n % 2}\n" for n in range(60))
    (tmp_path / "rows.csv").write_text("size,weight,colour,label\n" + rows)
    recipe = {
        "model": {"family": "mlp"},
        "data": {"kind": "table", "files": [str(tmp_path / "rows.csv")]},
        "budget": {"steps": 1},
    }
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    words = ["data", "show", str(tmp_path / "recipe.yaml"), "--rows", "40", "--augment"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "swap 0 of the features" in shown and "in training" in shown and "→" not in shown
    assert main([*words, "data.noise=0.1", "data.preprocessing.categories=embed", "--json"]) == 0
    for row in json.loads(capsys.readouterr().out)["rows"]:
        size, weight, colour = row["cells"]
        assert abs(float(size[3].removeprefix("→ ")) - size[2]) < 0.6 and weight[3] and colour[3] == ""
    assert main([*words, "data.swap=0.5", "--json"]) == 0
    cells = [row["cells"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert 0.3 < sum(bool(line[0][3]) for line in cells) / len(cells) < 0.7
    for line in cells:
        after = [one[2] if one[3] == "" else float(one[3].removeprefix("→ ")) for one in line[2:]]
        assert sorted(after) == [0, 0, 1], "a category is taken whole"


def test_what_has_no_noise_refuses_augment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "shakespeare_char.yaml"
    assert main(["data", "show", str(recipe), "--augment"]) == 2
    assert "E-USE-041" in capsys.readouterr().err


def test_the_token_for_what_is_unknown_hides_where_there_is_no_mask() -> None:
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 99, "vocab": {"[PAD]": 0, "[UNK]": 1, "[SEP]": 2, "a": 3, "b": 4}}  # fmt: skip
    added = [
        {"id": number, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for number, name in enumerate(("[PAD]", "[UNK]", "[SEP]"))
    ]  # fmt: skip
    text = json.dumps(
        {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
         "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None,
         "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False}, "model": model}
    )  # fmt: skip
    tokenizer = ForeignTokenizer(text, TokenRoles(None, ("[SEP]",), "[PAD]", adds_begin=False))
    noise = noise_of(TextNoiseOptions(mask=0.5), tokenizer)
    assert noise is not None and noise.mask_id == 1 and noise.ordinary.tolist() == [False] * 3 + [True] * 2
