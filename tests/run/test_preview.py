"""`groundup data show` on labelled rows: the ids that the model will read, and the answer beside them."""

from __future__ import annotations

from pathlib import Path

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
    shown, tokenizer, ledger = preview_rows(str(tmp_path / "recipe.yaml"), 3, [])
    assert len(shown) == 3 and ledger["rows"]["kept"] == 40
    for row in shown:
        assert not any(row.trainable) and len(row.turn) == len(row.ids)
        text = tokenizer.decode(row.ids)
        answer = row.text.rpartition("→")[2].strip()
        assert row.text.startswith(text) and answer == ("1" if text.startswith("good") else "0")
