"""`groundup data show`: what is printed for a row with and without colour, and on a poor terminal."""

from __future__ import annotations

import io
from typing import NamedTuple

from groundup.cli import data_show
from groundup.cli.terminal import Painter, display_width


class Shown(NamedTuple):
    ids: list[int]
    trainable: list[bool]
    text: str


class Pieces:
    """A tokenizer whose id is the place of the token in a list."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.vocabulary = len(pieces)

    def decode(self, ids: list[int], *, skip_specials: bool = True) -> str:
        assert skip_specials is False, "special tokens are part of what is shown"
        return "".join(self.pieces[token] for token in ids)


PIECES = Pieces(
    "<|begin|>", "<|user|>", "Hi", " there", "<|end|>", "<|assistant|>", "Hello\n", "you", "\x1b[31m"
)
ROW = Shown(
    [0, 1, 2, 3, 4, 5, 6, 7, 4],
    [False] * 6 + [True] * 3,
    "<|begin|><|user|>Hi there<|end|><|assistant|>Hello\nyou<|end|>",
)


def printed(row: Shown, width: int = 80, colour: bool = False) -> str:
    stream = io.StringIO()
    data_show.show_rows([row], PIECES, stream, width, colour)
    return stream.getvalue()


def test_plain_text_puts_brackets_around_what_is_learned() -> None:
    text = printed(ROW)
    assert text.startswith("row 1: 9 tokens, 3 learned (33.3%)\n")
    assert "<|begin|><|user|>Hi there<|end|><|assistant|>[[Hello\nyou<|end|>]]" in text
    assert "\x1b" not in text


def test_every_token_has_a_cell_with_its_id_and_mask() -> None:
    table = printed(ROW, width=30).split("\n\n")[1].splitlines()
    assert table[0].split() == ["token", "id", "mask"]
    cells = [line.split() for line in table[1:]]
    assert [cell[1] for cell in cells] == [str(token) for token in ROW.ids]
    assert [cell[2] for cell in cells] == [str(int(mask)) for mask in ROW.trainable]
    assert cells[3][0] == "·there" and cells[6][0] == "Hello\\n"


def test_a_wide_terminal_gets_several_columns_that_read_downwards() -> None:
    lines = printed(ROW, width=100).split("\n\n")[1].splitlines()
    assert lines[0].split() == ["token", "id", "mask"] * 3
    assert [line.split()[1] for line in lines[1:]] == ["0", "1", "2"]
    assert all(display_width(line) <= 100 for line in lines)


def test_colour_marks_learned_tokens_green_and_underlined_and_dims_the_rest() -> None:
    text = printed(ROW, colour=True)
    assert "\x1b[32;4mHello\nyou<|end|>\x1b[0m" in text
    assert "\x1b[2m<|begin|><|user|>Hi there" in text
    assert "[[" not in text


def test_terminal_escapes_in_the_data_are_shown_and_not_sent() -> None:
    text = printed(Shown([8, 4], [True, True], "\x1b[31m<|end|>"))
    assert "\x1b" not in text and "\\x1b[31m" in text


def test_U2_an_ascii_stream_of_forty_columns_gets_plain_text() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    row = Shown([0, 1], [False, True], "甲 乙")
    data_show.show_rows([row], Pieces("甲 ", "乙"), stream, 40, False)
    stream.flush()
    text = raw.getvalue().decode("ascii")
    assert "\\u7532 [[\\u4e59]]" in text and "\\u7532_" in text


def test_an_empty_row_is_shown_as_empty() -> None:
    assert printed(Shown([], [], "")).startswith("row 1: 0 tokens, 0 learned\n")


def test_json_holds_text_ids_tokens_mask_and_ledger() -> None:
    found = data_show.as_json([ROW], PIECES, {"rows": 1, "set_aside": {}})
    assert found["ledger"] == {"rows": 1, "set_aside": {}}
    assert found["rows"][0]["ids"] == ROW.ids and found["rows"][0]["trainable"] == ROW.trainable
    assert "".join(found["rows"][0]["tokens"]) == ROW.text


def test_the_ledger_is_a_table_with_nested_names() -> None:
    stream = io.StringIO()
    ledger = {"rows": 10, "set_aside": {"empty answer": 2}, "layouts": {"a.json": "alpaca"}}
    data_show.show_ledger(ledger, Painter(stream, colour=False, width=60))
    lines = [line.split("  ") for line in stream.getvalue().splitlines()]
    assert stream.getvalue().splitlines()[0] == "ledger"
    assert ["set_aside: empty answer", "2"] in [[p.strip() for p in line if p.strip()] for line in lines]
