"""Layouts of fine-tuning rows, what is set aside and why, the ledger, and the fit to a context."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.shared import shared

from groundup.data.chat_layout import ColumnMapping, Format, Layout, RowFault, detect, normalize
from groundup.data.chat_rows import ChatLedger, ChatOptions, Row, SetAside, fit, read_chat
from groundup.errors import GroundupError


def roles(record: dict[str, Any], format: Format, columns: ColumnMapping | None = None) -> str:
    return " ".join(message["role"][0] for message in normalize(record, format, columns))


def fault(record: dict[str, Any], format: Format, columns: ColumnMapping | None = None) -> RowFault:
    with pytest.raises(RowFault) as caught:
        normalize(record, format, columns)
    return caught.value


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(*files: Path, **options: Any) -> tuple[list[Row], list[SetAside], ChatLedger]:
    ledger = ChatLedger()
    found = list(read_chat(list(files), ChatOptions(**options), ledger))
    rows = [item for item in found if isinstance(item, Row)]
    aside = [item for item in found if isinstance(item, SetAside)]
    assert ledger.rows == ledger.kept + sum(ledger.set_aside.values())
    assert (ledger.kept, sum(ledger.set_aside.values())) == (len(rows), len(aside))
    return rows, aside, ledger


def pair(number: int) -> dict[str, str]:
    return {"prompt": f"What is {number} + 1?", "response": f"It is {number + 1}."}


# ---------------------------------------------------------------------------------------------- layouts


def test_alpaca_joins_instruction_and_input_and_keeps_system_and_history() -> None:
    record = {
        "instruction": "Translate.", "input": "Guten Tag", "output": "Good day", "system": "Be brief.",
        "history": [["Hi", "Hello"]],
    }  # fmt: skip
    assert normalize(record, "alpaca") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Translate.\nGuten Tag"},
        {"role": "assistant", "content": "Good day"},
    ]
    assert normalize({"instruction": "Hi", "output": "Hello"}, "alpaca")[0]["content"] == "Hi"
    assert normalize({"instruction": "", "input": "Hi", "output": "Yo"}, "alpaca")[0]["content"] == "Hi"


def test_sharegpt_names_of_roles() -> None:
    turns = [
        {"from": "system", "value": "s"}, {"from": "human", "value": "h"},
        {"from": "function_call", "value": "{}"}, {"from": "observation", "value": "42"},
        {"from": "gpt", "value": "g"},
    ]  # fmt: skip
    assert roles({"conversations": turns}, "sharegpt") == "s u a u a"


def test_answers_of_tools_are_user_turns_and_several_in_a_row_are_one() -> None:
    found = normalize(say("uq", "acall", "tone", "ttwo", "adone"), "messages")
    assert [message["content"] for message in found] == ["q", "call", "one\ntwo", "done"]
    assert {message["role"] for message in found} == {"user", "assistant"}
    reason = fault(say("uq", "acall", "tone", "uthen", "adone"), "messages").reason
    assert reason == "roles do not alternate: a user turn after a tool turn, expected assistant"


def test_tools_stand_in_the_system_message() -> None:
    turns = [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]
    tools = '[{"name": "search"}]'
    system = normalize({"conversations": turns, "tools": tools}, "sharegpt")[0]
    assert system["role"] == "system" and tools in system["content"]
    both = normalize({"conversations": turns, "tools": tools, "system": "Be kind."}, "sharegpt")[0]
    assert both["content"].startswith("Be kind.\n") and tools in both["content"]
    assert roles({"conversations": turns, "tools": "[]"}, "sharegpt") == "u a"


def test_messages_with_parts_tool_calls_and_weights() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    record = {
        "messages": [
            {"role": "developer", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "3"},
            {"role": "assistant", "content": "x", "weight": 0},
            {"role": "user", "content": "more"},
            {"role": "assistant", "content": "y", "weight": 1},
        ]
    }
    found = normalize(record, "messages")
    assert [m["content"] for m in found[:3]] == ["s", "one two", '{"name": "add", "arguments": "{}"}']
    assert found[4]["train"] is False and found[6]["train"] is True
    assert "train" not in found[2]


def test_columns_by_mapping() -> None:
    columns = ColumnMapping(prompt="frage", response="antwort", system="rolle", input="text")
    record = {"frage": "Warum?", "antwort": "Darum.", "rolle": "Kind", "text": "Himmel"}
    found = [message["content"] for message in normalize(record, "columns", columns)]
    assert found == ["Kind", "Warum?\nHimmel", "Darum."]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": []}, "messages"),
        ({"conversations": [], "tools": ""}, "sharegpt"),
        ({"instruction": "", "output": ""}, "alpaca"),
        ({"question": "", "answer": ""}, "columns (prompt: question, response: answer)"),
        ({"prompt": "", "completion": ""}, "columns (prompt: prompt, response: completion)"),
    ],
)
def test_auto_recognises_the_layout_by_its_fields(record: dict[str, Any], expected: str) -> None:
    assert str(detect([{"odd": 1}, record, record])) == expected


def test_auto_knows_when_it_does_not_know() -> None:
    assert detect([{"text": "x"}]) is None
    assert detect([{"messages": []}, {"instruction": "", "output": ""}]) == Layout("messages", None)


# ------------------------------------------------------------------------------------------ faults of rows


def test_D4_wrong_types_name_the_field_and_both_kinds() -> None:
    found = fault({"instruction": "a", "output": 5}, "alpaca")
    assert (found.reason, found.field) == ('field "output" is a number, expected text', "output")
    assert fault({"instruction": True, "output": ""}, "alpaca").reason.startswith(
        'field "instruction" is true or false'
    )
    assert fault({"messages": "hi"}, "messages").reason == 'field "messages" is text, expected a list'
    number = fault({"messages": [123]}, "messages")
    assert number.reason == 'field "messages[0]" is a number, expected an object'
    nulled = fault({"messages": [{"role": "user", "content": None}]}, "messages")
    assert nulled.reason == 'field "messages[0].content" is null, expected text'
    assert fault({"instruction": "a"}, "alpaca").reason == 'field "output" is missing'


def say(*turns: str) -> dict[str, Any]:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return {"messages": [{"role": names[turn[0]], "content": turn[1:]} for turn in turns]}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (say("uhi"), "no assistant turn: nothing to learn"),
        (say("uhi", "a  "), "empty answer"),
        (say("u", "ahi"), "empty user turn"),
        (say("ua", "ub", "ac"), "roles do not alternate: two user turns in a row"),
        (say("ua", "ab", "ac"), "roles do not alternate: two assistant turns in a row"),
        (say("aa", "ub", "ac"), "the conversation starts with the assistant, expected user"),
        (say("ua", "ab", "uc"), "the conversation ends with a user turn that nothing answers"),
        (say("ua", "sb", "ac"), "a system turn after a user turn, expected it first"),
        (say("ta", "ab"), "a tool turn after nothing, expected it after assistant"),
        ({"messages": []}, 'field "messages" is an empty list'),
    ],
)
def test_conversations_that_are_none(record: dict[str, Any], reason: str) -> None:
    assert fault(record, "messages").reason == reason


def test_an_unknown_role_is_named_and_made_printable() -> None:
    found = fault({"conversations": [{"from": "narr\x1b[31mator", "value": "x"}]}, "sharegpt")
    assert 'unknown role "narr\\x1b[31mator"' in found.reason and found.field == "conversations[0].from"


def test_images_in_a_message_are_refused_by_name() -> None:
    content = [{"type": "image_url", "image_url": {"url": "x"}}]
    assert "image_url" in fault({"messages": [{"role": "user", "content": content}]}, "messages").reason


def test_rows_not_meant_to_be_learned_are_not_malformed() -> None:
    assert fault({**say("ua", "ab"), "label": False}, "messages").malformed is False
    silent = say("ua", "ab")
    silent["messages"][1]["weight"] = 0
    assert fault(silent, "messages").malformed is False


# -------------------------------------------------------------------------------------------------- files


def test_files_are_read_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [pair(1), pair(2), pair(1), {**pair(3), "id": 7}])
    rows, aside, ledger = read(path)
    assert [row.line for row in rows] == [1, 2, 4]
    assert aside[0].line == 3 and aside[0].reason == "repeats an earlier row" and not aside[0].malformed
    assert ledger.layouts == {str(path): "columns (prompt: prompt, response: response)"}
    assert ledger.notes == {'field "id" is not used': 1}
    assert read(path, remove_duplicates=False)[2].kept == 4


def test_csv_and_compressed_files_take_the_same_path(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text('question,answer\n"Why, then?","Because ""so""."\nHow?,Thus.\n', encoding="utf-8")
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress((json.dumps(pair(1)) + "\n").encode()))
    rows, _, _ = read(table, packed)
    assert [row.messages[1]["content"] for row in rows] == ['Because "so".', "Thus.", "It is 2."]


def test_D4_bad_rows_are_set_aside_with_file_line_and_reason(tmp_path: Path) -> None:
    lines = [json.dumps(pair(number)) for number in range(5)]
    lines[1] = '{"prompt": "cut mid-rec'
    lines[3] = json.dumps({"prompt": "x", "response": 5})
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows, aside, ledger = read(path, malformed_limit=0.5)
    assert [row.line for row in rows] == [1, 3, 5]
    assert [(item.file, item.line) for item in aside] == [(str(path), 2), (str(path), 4)]
    assert aside[1].reason == 'field "response" is a number, expected text'
    assert ledger.malformed == 2


def test_D4_a_json_array_cut_or_with_a_trailing_comma_keeps_its_whole_rows(tmp_path: Path) -> None:
    whole = json.dumps([pair(number) for number in range(4)], indent=1)
    cut = tmp_path / "cut.json"
    cut.write_text(whole[:-30], encoding="utf-8")
    rows, aside, _ = read(cut, malformed_limit=0.5)
    assert [row.line for row in rows] == [2, 6, 10]
    assert (aside[0].line, "cut off" in aside[0].reason) == (14, True)
    comma = tmp_path / "comma.json"
    comma.write_text(whole[:-1] + ",]", encoding="utf-8")
    _, aside, _ = read(comma, malformed_limit=0.5)
    assert [item.reason for item in aside] == ["not JSON: a comma after the last row"]


def test_D2_D4_duplicate_keys_bad_bytes_and_lists_are_set_aside(tmp_path: Path) -> None:
    good = json.dumps(pair(1)).encode()
    bad = [b'{"prompt": "a", "prompt": "b", "response": "c"}', b'{"prompt": "\xff", "response": "c"}',
           b'{"prompt": "\\ud800", "response": "c"}', b"[1]", b"17", b"[" * 100_000]  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, *bad]) + b"\n")
    rows, aside, ledger = read(path, malformed_limit=1.0)
    assert len(rows) == 1 and ledger.malformed == len(bad)
    expected = ["duplicate key", "not valid Unicode", "not valid Unicode", "a list", "no object", "nested"]
    reasons = [item.reason for item in aside]
    assert all(words in reason for words, reason in zip(expected, reasons)), reasons


def test_an_object_around_the_rows_is_looked_through(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 1, "rows": [pair(1), pair(2)]}), encoding="utf-8")
    assert len(read(path)[0]) == 2
    path.write_text(json.dumps(say("ua", "ab")), encoding="utf-8")
    assert len(read(path)[0]) == 1


def test_D5_parquet_rows_and_a_truncated_footer(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    records = [say("ua", "ab"), say("uc", "ad"), {"messages": None}]
    parquet.write_table(pyarrow.Table.from_pylist(records), path)
    rows, aside, _ = read(path, malformed_limit=0.5)
    assert [row.messages[1]["content"] for row in rows] == ["b", "d"]
    assert aside[0].reason == 'field "messages" is null, expected a list' and aside[0].line == 3
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(GroundupError, match=r"a\.parquet"):
        read(path)


def test_D4_csv_rows_of_another_width_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt;response\na;b\nc\nd;\xff\n\"two\nlines\";e\n")
    rows, aside, _ = read(path, malformed_limit=0.5)
    assert [row.messages[0]["content"] for row in rows] == ["a", "two\nlines"]
    reasons = [(item.line, item.reason) for item in aside]
    assert reasons == [(3, "1 fields, the header has 2"), (4, "not valid UTF-8")]


def test_plain_text_is_refused_with_the_kinds_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello", encoding="utf-8")
    with pytest.raises(GroundupError) as caught:
        read(path)
    assert ".jsonl" in caught.value.fix


def test_D4_over_the_limit_stops_with_counts_first_place_reason_and_fix(tmp_path: Path) -> None:
    rows = [pair(number) for number in range(100)]
    rows[16]["response"] = 5  # type: ignore[assignment]
    rows[40]["response"] = ""
    path = write(tmp_path / "answers.jsonl", rows)
    with pytest.raises(GroundupError) as caught:
        read(path)
    error = caught.value
    assert "2 of 100 rows (2 %, limit 1 %)" in error.what
    assert f"{path}, first at line 17" in error.where and 'field "response" is a number' in error.where
    assert error.why and "groundup data check" in error.fix
    assert read(path, malformed_limit=0.02)[2].kept == 98


def test_D1_nothing_left_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{**say("ua", "ab"), "label": False}])
    with pytest.raises(GroundupError) as caught:
        read(path)
    assert "0 of 1 rows kept" in caught.value.what and "label: false" in caught.value.where


def test_an_unknown_layout_lists_the_fields_and_a_mapping(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"headline": "x", "body": "y"}])
    with pytest.raises(GroundupError) as caught:
        read(path)
    assert "body, headline" in caught.value.where and "columns" in caught.value.fix


def test_the_same_question_is_on_one_side_whatever_its_answer_and_place(tmp_path: Path) -> None:
    first = [pair(number) for number in range(200)]
    again = [{"prompt": f"  what is {n} +  1? ", "response": f"Another {n}."} for n in reversed(range(200))]
    ledger = ChatLedger()
    files = [write(tmp_path / "a.jsonl", first), write(tmp_path / "b.jsonl", again)]
    found = [row for row in read_chat(files, ChatOptions(), ledger, held_out=0.2) if isinstance(row, Row)]
    sides: dict[str, set[bool]] = {}
    for row in found:
        sides.setdefault(" ".join(row.messages[0]["content"].lower().split()), set()).add(row.held_out)
    assert len(found) == 400 and all(len(side) == 1 for side in sides.values())
    assert 40 <= ledger.held_out <= 120 and ledger.held_out == sum(row.held_out for row in found)


# ------------------------------------------------------------------------------------------- real data sets


@pytest.mark.parametrize(
    ("name", "layout", "kept", "aside"),
    [
        ("alpaca_en_demo.json", "alpaca", 985, {"repeats an earlier row": 14}),
        ("alpaca_zh_demo.json", "alpaca", 992, {"repeats an earlier row": 8}),
        ("dpo_en_demo.json", "sharegpt", 294, {"repeats an earlier row": 5}),
        ("dpo_zh_demo.json", "sharegpt", 289, {"repeats an earlier row": 11}),
        ("glaive_toolcall_en_demo.json", "sharegpt", 265, {"repeats an earlier row": 35}),
        ("glaive_toolcall_zh_demo.json", "sharegpt", 257, {"repeats an earlier row": 43}),
        ("kto_en_demo.json", "messages", 150, {"the answer is marked as a bad one (label: false)": 150}),
        ("gsm8k_test.jsonl", "columns (prompt: question, response: answer)", 1319, {}),
    ],
)
def test_real_data_sets_are_read_whole(name: str, layout: str, kept: int, aside: dict[str, int]) -> None:
    path = shared(f"instruct/{name}")
    rows, _, ledger = read(path)
    assert ledger.layouts == {str(path): layout}
    assert (len(rows), dict(ledger.set_aside)) == (kept, aside)
    assert all(row.messages[-1]["role"] == "assistant" for row in rows)


def test_placeholders_are_left_alone_and_noted() -> None:
    rows, _, ledger = read(shared("instruct/identity.json"))
    assert ledger.notes["placeholder {{name}} left as it is"] > 50
    assert any("{{name}}" in row.messages[-1]["content"] for row in rows)


def test_a_preference_pair_is_learned_from_its_chosen_answer_and_noted() -> None:
    path = shared("instruct/dpo_en_demo.json")
    rows, _, ledger = read(path)
    first = json.loads(path.read_text(encoding="utf-8"))[0]
    assert rows[0].messages[-1]["content"] == first["chosen"]["value"]
    note = "preference pair: the chosen answer is learned, the rejected one is not used"
    assert ledger.notes[note] == len(rows)


# ---------------------------------------------------------------------------------------------------- fit


def test_fit_keeps_what_fits_and_cuts_the_end() -> None:
    mask = [False, False, True, True]
    assert fit([1, 2, 3, 4], mask, 4, "drop") == ([1, 2, 3, 4], mask, "whole")
    assert fit([1, 2, 3, 4], mask, 3, "cut") == ([1, 2, 3], mask[:3], "cut")
    assert fit([1, 2, 3, 4], mask, 3, "drop") == ([], [], "dropped")


def test_fit_never_returns_a_row_without_anything_to_learn() -> None:
    assert fit([1, 2, 3, 4], [False, False, True, True], 2, "cut") == ([], [], "no_target")
    assert fit([1, 2], [False, False], 8, "refuse") == ([], [], "no_target")


def test_fit_refuses_with_both_numbers_and_the_place() -> None:
    with pytest.raises(GroundupError) as caught:
        fit([0] * 9, [True] * 9, 8, "refuse", "a.jsonl:3")
    assert "9 tokens" in caught.value.what and "context of 8" in caught.value.what
    assert caught.value.where == "a.jsonl:3" and "data.context=9" in caught.value.fix


def test_a_header_that_is_not_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"prompt\rresponse\na,b\n")
    with pytest.raises(GroundupError) as caught:
        read(tmp_path / "rows.csv")
    assert caught.value.code == "E-DATA-009" and "header" in str(caught.value)
