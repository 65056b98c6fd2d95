"""C19, calls of tools: found in a text that comes in pieces of any size, told from what only looks like one."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from house import HELLO, caller, error_of
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.serving.specimen import Specimen
from groundup.serving.tools import CallReader

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": CITY}},
    {"type": "function", "function": {"name": "clock"}},
]


def call(name: str = "weather", arguments: str = '{"city": "Köln"}') -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def read(pieces: list[str], **options: Any) -> tuple[str, list[tuple[str, str]]]:
    """The content, and each call's name and joined arguments."""
    reader = CallReader(["weather", "clock"], **options)
    said = [step for piece in pieces for step in reader.feed(piece)] + reader.close()
    content = "".join(step.text for step in said if step.kind == "content")
    names = [step.text for step in said if step.kind == "name"]
    texts = [
        "".join(step.text for step in said if step.kind == "arguments" and step.call == index)
        for index in range(len(names))
    ]
    return content, list(zip(names, texts))


CASES = [
    ("plain words", "plain words", []),
    (call(), "", [("weather", '{"city": "Köln"}')]),
    ("Let me see.\n" + call(), "Let me see.\n", [("weather", '{"city": "Köln"}')]),
    (call() + "\n" + call("clock", "{}"), "", [("weather", '{"city": "Köln"}'), ("clock", "{}")]),
    (call() + call("clock", "{}"), "", [("weather", '{"city": "Köln"}'), ("clock", "{}")]),
    (call(arguments='{"city": "a } ] , \\" {"}'), "", [("weather", '{"city": "a } ] , \\" {"}')]),
    (call(arguments='{"city": "</tool_call>"}'), "", [("weather", '{"city": "</tool_call>"}')]),
    (call(arguments='{"a": {"b": [1, {"name": "x"}]}}'), "", [("weather", '{"a": {"b": [1, {"name": "x"}]}}')]),
    ('<tool_call>{"arguments": {"city": "x"}, "name": "weather"}</tool_call>', "", [("weather", '{"city": "x"}')]),
    ('<tool_call>{"name": "clock"}</tool_call>', "", [("clock", "{}")]),
    ('<tool_call>{"name": "clock", "arguments": null}</tool_call>', "", [("clock", "{}")]),
    ('<tool_call>{"name": "weather", "arguments": "{\\"city\\": 1}"}</tool_call>', "", [("weather", '{"city": 1}')]),
    (call("nuke"), call("nuke"), []),
    ("<tool_call>not json</tool_call>", "<tool_call>not json</tool_call>", []),
    ('<tool_call>{"name": "weather", ]', '<tool_call>{"name": "weather", ]', []),
    ("<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
    ("a <tool", "a <tool", []),
    ("<tool_call>", "<tool_call>", []),
    ("1 < 2 <tool_ca> <", "1 < 2 <tool_ca> <", []),
    (call() + " and so on", "and so on", [("weather", '{"city": "Köln"}')]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), CASES)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_C19_calls_in_pieces(text: str, content: str, calls: list[tuple[str, str]], size: int) -> None:
    found = read([text[start : start + size] for start in range(0, len(text), size)])
    assert found == (content, calls)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(
    arguments=st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    ascii=st.booleans(),
    indent=st.sampled_from([None, 2]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_C19_any_arguments_in_any_pieces_join_to_what_was_meant(
    arguments: dict[str, Any], ascii: bool, indent: int | None, cuts: list[int]
) -> None:
    text = "So: " + call("clock", json.dumps(arguments, ensure_ascii=ascii, indent=indent))
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    content, calls = read([text[a:b] for a, b in itertools.pairwise(places)])
    assert content == "So: "
    assert [name for name, _ in calls] == ["clock"] and json.loads(calls[0][1]) == arguments


@settings(max_examples=80, deadline=None)
@given(text=st.text(alphabet='<tool_cal>/{}[]":, \\nme', max_size=60), size=st.integers(1, 9))
def test_C19_no_text_breaks_the_reader(text: str, size: int) -> None:
    for bare in (False, True):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        content, calls = read(pieces, bare=bare)
        if not calls:
            assert content == text


def test_C19_a_tag_is_not_sent_before_it_is_told_from_text() -> None:
    reader = CallReader(["weather"])
    assert [step.text for step in reader.feed("a <tool_")] == ["a "]
    assert [step.text for step in reader.feed("box>")] == ["<tool_box>"]


def test_C19_arguments_are_sent_while_they_are_written() -> None:
    reader = CallReader(["weather"])
    reader.feed('<tool_call>{"name": "weather", "arguments": {"ci')
    assert [(step.kind, step.text) for step in reader.feed('ty": "K')] == [("arguments", 'ty": "K')]


def test_C19_streamed_and_whole_calls_are_the_same() -> None:
    text = "Let me see. " + call() + "\n" + call("clock", "{}")
    server = caller(Specimen(script=lambda prompt, wanted: text))
    whole = server.good_chat(tools=TOOLS)["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] == "Let me see. "
    events = server.events(tools=TOOLS)
    joined: dict[int, dict[str, str]] = {}
    for event in events:
        for part in event["choices"][0]["delta"].get("tool_calls", ()):
            if "id" in part:
                assert part["type"] == "function" and part["id"].startswith("call_")
                joined[part["index"]] = {"name": part["function"]["name"], "arguments": ""}
            joined[part["index"]]["arguments"] += part["function"]["arguments"]
    assert list(joined.values()) == [entry["function"] for entry in whole["message"]["tool_calls"]]
    assert json.loads(joined[0]["arguments"]) == {"city": "Köln"}
    assert events[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "clock"}}])
def test_C19_a_demanded_call_is_bound_by_its_schema(choice: Any) -> None:
    wishes: list[Any] = []

    class Watched(Specimen):
        def ask(self, ids: Any, wanted: Any, sink: Any) -> Any:
            wishes.append(wanted.structure)
            return super().ask(ids, wanted, sink)

    server = caller(Watched())
    whole = server.good_chat(tools=TOOLS, tool_choice=choice)["choices"][0]
    schema = json.loads(wishes[0].source)
    names = [part["properties"]["name"]["const"] for part in schema.get("anyOf", [schema])]
    assert names == (["weather", "clock"] if choice == "required" else ["clock"])
    assert whole["finish_reason"] == "tool_calls" and whole["message"]["content"] is None
    function = whole["message"]["tool_calls"][0]["function"]
    assert function["name"] == names[0] and isinstance(json.loads(function["arguments"]), dict)
    deltas = [c["delta"] for e in server.events(tools=TOOLS, tool_choice=choice) for c in e["choices"]]
    assert not any(delta.get("content") for delta in deltas)


def test_C19_one_call_only() -> None:
    server = caller(Specimen(script=lambda prompt, wanted: call() + call() + "more"))
    assert len(server.good_chat(tools=TOOLS)["choices"][0]["message"]["tool_calls"]) == 2
    single = server.good_chat(tools=TOOLS, parallel_tool_calls=False)["choices"][0]
    assert len(single["message"]["tool_calls"]) == 1 and single["finish_reason"] == "tool_calls"
    assert single["message"]["content"] is None


def test_C19_a_call_that_the_limit_cuts_off_says_so() -> None:
    server = caller(Specimen(script=lambda prompt, wanted: call()))
    assert server.good_chat(tools=TOOLS, max_tokens=50)["choices"][0]["finish_reason"] == "length"


def test_C19_no_tools_no_calls() -> None:
    prompts: list[str] = []

    def script(prompt: str, wanted: Any) -> str:
        prompts.append(prompt)
        return call()

    server = caller(Specimen(script=script))
    for more in ({}, {"tools": TOOLS, "tool_choice": "none"}, {"tools": []}):
        choice = server.good_chat(**more)["choices"][0]
        assert choice["message"]["content"] == call() and choice["finish_reason"] == "stop"
    assert not any("<tools>" in prompt for prompt in prompts)
    server.good_chat(tools=TOOLS, messages=[{"role": "system", "content": "be kind"}, *HELLO])
    assert prompts[-1].count("<turn>system") == 1 and "be kind\n\nYou may call" in prompts[-1]


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a\n"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": "all"}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice.function.name"),
    ],
)
def test_C19_what_is_refused(more: dict[str, Any], path: str) -> None:
    assert error_of(caller().chat(**more), 400)["param"].startswith(path)
