"""Printing: what a terminal, a file and an ASCII-only stream each get to see."""

from __future__ import annotations

import io

import pytest

from groundup.cli.terminal import (
    Painter,
    cut,
    display_width,
    format_bytes,
    format_count,
    format_duration,
    format_rate,
    pad,
    table,
    wrap,
)


class Terminal(io.TextIOWrapper):
    """A stream over memory that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def stream(encoding: str, *, terminal: bool = False, errors: str = "strict") -> io.TextIOWrapper:
    kind = Terminal if terminal else io.TextIOWrapper
    return kind(io.BytesIO(), encoding=encoding, errors=errors, newline="\n")


def written(target: io.TextIOWrapper) -> str:
    target.flush()
    return target.buffer.getvalue().decode(target.encoding)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Painter(stream("utf-8", terminal=True)).paint("x", "red", "bold") == "\x1b[31;1mx\x1b[0m"
    assert Painter(stream("utf-8")).paint("x", "red") == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Painter(stream("utf-8", terminal=True)).paint("x", "red") == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert Painter(stream("utf-8", terminal=True)).paint("x", "red") == "x"


@pytest.mark.parametrize("errors", ["strict", "replace", "surrogateescape"])
def test_U2_an_ascii_stream_gets_ascii_and_no_crash(errors: str) -> None:
    painter = Painter(stream("ascii", errors=errors))
    painter.print(f"{painter.symbol('pass')} ±1 × 2 … 床 \udc80 {painter.bar(0.5, 4)}")
    assert written(painter.stream) == "ok +-1 x 2 ... \\u5e8a \\udc80 ##--\n"


def test_a_utf8_stream_gets_the_symbols() -> None:
    painter = Painter(stream("utf-8"))
    painter.print(painter.symbol("fail") + painter.bar(2.0, 2) + " 床前")
    assert written(painter.stream) == "✗██ 床前\n"


def test_width_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert Painter(stream("utf-8")).width == 40


def test_wide_characters_marks_and_colour_are_measured() -> None:
    assert display_width("abc") == 3
    assert display_width("床前") == 4
    assert display_width("e\u0301") == 1
    assert display_width("\x1b[31m床\x1b[0m") == 2
    assert pad("床", 5, ">") == "   床" and pad("a", 4, "^") == " a  "
    assert cut("床前明月", 5) == "床前…" and cut("abc", 3) == "abc" and cut("abcd", 1) == "…"


def test_wrap_keeps_every_character() -> None:
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("床前明月光", 4) == ["床前", "明月", "光"]
    assert wrap("ab\n\nabcdef", 4) == ["ab", "", "abcd", "ef"]


def test_table_aligns_wide_characters_and_numbers() -> None:
    assert table([["床前", 7], ["ab", 123]], ["name", "value"]) == (
        "name  value\n----  -----\n床前      7\nab      123"
    )
    assert table([["a", None]], align="><", indent=2) == "  a"
    assert table([]) == ""
    assert table([], ["a", "b"]) == "a  b\n-  -"


def test_U2_a_table_fits_forty_columns_and_loses_nothing() -> None:
    words = "a long explanation of many words that cannot possibly fit beside the name"
    shown = table([["instruction sets", words], ["cores", 2]], ["what", "found"], width=40)
    assert max(display_width(line) for line in shown.split("\n")) <= 40
    assert all(word in shown for word in words.split())


def test_numbers_for_people() -> None:
    assert [format_bytes(n) for n in (0, 512, 1023.99, 1536, 3 << 30, 1 << 50)] == [
        "0 B",
        "512 B",
        "1.0 KiB",
        "1.5 KiB",
        "3.0 GiB",
        "1024.0 TiB",
    ]
    assert [format_count(n) for n in (0, 950, 12_345, 999_999, 4.2e6, 1e12)] == [
        "0",
        "950",
        "12.3k",
        "1.00M",
        "4.20M",
        "1.00T",
    ]
    assert [format_rate(n, "B/s") for n in (12, 8.06e10)] == ["12 B/s", "80.6 GB/s"]
    assert [format_duration(s) for s in (0, 2e-5, 0.0123, 8.25, 59.99, 61, 3599.9, 3725, 90_000, -5)] == [
        "0 ms",
        "20 us",
        "12 ms",
        "8.2 s",
        "1 min",
        "1 min 1 s",
        "1 h",
        "1 h 2 min",
        "1 d 1 h",
        "-5.0 s",
    ]
