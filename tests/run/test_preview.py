"""`groundup data show` on labelled rows: the ids that the model will read, and the answer beside them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from groundup.cli.main import main
from groundup.recipe.yaml import dump
from groundup.run.preview import preview_rows


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
