"""Bad input, S1 to S5 and S11: always a 4xx in the one shape, with the path, the value and what is legal."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest
from house import CHAT, COMPLETION, HELLO, Caller, caller, chat_body, error_of

from groundup.serving.specimen import Specimen


@pytest.fixture(scope="module")
def server() -> Caller:
    return caller()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"model": "writer",}', "not JSON"),
        ("[]", "a list"),
        ("null", "null"),
        ("17", "a number"),
        ('"x"', "a text"),
        ("true", "true or false"),
        (b"\xff{}", "not UTF-8: byte 0"),
        ('{"model": NaN}', "NaN"),
        ('{"model": -Infinity}', "-Infinity"),
        ('{"model": 1e999}', "1e999"),
        ('{"model": "a", "model": "b"}', 'the key "model" stands twice'),
        ('{"model": "\\ud800"}', "surrogate"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON that can be used"),
        ("\ufeff{}", "not JSON"),
    ],
)
def test_S1_what_is_no_json_object(server: Caller, body: str | bytes, says: str) -> None:
    error = error_of(server.post(CHAT, body), 400)
    assert error["code"] == "invalid_json" and says in error["message"]


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/json; charset=utf-16", ""])
def test_S1_another_content_type(server: Caller, kind: str) -> None:
    answer = server.request("POST", CHAT, content=json.dumps(chat_body()), headers={"content-type": kind})
    assert error_of(answer, 415)["code"] == "unsupported_media_type"


def test_S1_a_compressed_body(server: Caller) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    error_of(server.request("POST", CHAT, content=b"\x1f\x8b", headers=headers), 415)


def test_S1_a_long_body_parsed_in_a_thread(server: Caller) -> None:
    answer = server.post("/tokenize", {"prompt": "x" * 100_000})
    assert answer.json()["count"] == 100_001


def test_S1_a_body_of_a_million_faults_is_refused_without_comparing_them(server: Caller) -> None:
    """Found by schemathesis: every fault was compared with every other, for minutes."""
    for fields in (
        {"logit_bias": {f"x{i}": 1 for i in range(1999)}},
        {"messages": [{"role": "assistant", "content": [1] * 300_000}]},
        {"messages": [{"role": "assistant", "tool_calls": [1] * 300_000}]},
        {"messages": [{}] * 1999},
        {"tools": [1] * 300_000},
        {"stop": [1] * 300_000},
    ):
        began = time.process_time()
        assert len(error_of(server.chat(**fields), 400)["message"]) < 2500
        assert time.process_time() - began < 3.0
    many = {f"k{i}": 0 for i in range(2001)}
    assert "2001 keys" in error_of(server.chat(logit_bias=many), 400)["message"]
    assert "keys" in error_of(server.chat(**many), 400)["message"]


def test_S2_unknown_model_route_method_and_a_missing_model(server: Caller) -> None:
    assert error_of(server.chat(model="nine\r\nlives"), 404)["code"] == "model_not_found"
    error_of(server.get("/v2/chat"), 404)
    error_of(server.get("/v1/models/"), 404)
    error_of(server.request("DELETE", "/v1/models"), 405)
    error_of(server.request("PATCH", CHAT, json={}), 405)
    error = error_of(server.post(CHAT, {"messages": HELLO}), 400)
    assert error["param"] == "model" and error["code"] == "missing_field"
    assert error_of(server.chat(model=None), 400)["param"] == "model"
    assert error_of(server.chat(model="judge"), 404)["code"] == "unsupported_model"


def test_S2_methods_that_every_route_knows(server: Caller) -> None:
    head = server.request("HEAD", "/v1/models")
    assert head.status_code == 200 and head.content == b"" and int(head.headers["content-length"]) > 10
    options = server.request("OPTIONS", "/v1/models")
    assert options.status_code == 204 and options.headers["allow"] == "GET, HEAD, OPTIONS"
    assert "access-control-allow-origin" not in options.headers
    error_of(server.request("TRACE", "/v1/models"), 405)


@pytest.mark.parametrize(
    ("messages", "path"),
    [
        (None, "messages"),
        ("hello", "messages"),
        ([], "messages"),
        ([123], "messages[0]"),
        ([{}], "messages[0].role"),
        ([{"role": 123, "content": "a"}], "messages[0].role"),
        ([{"role": "wizard", "content": "a"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": ""}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "system", "content": ""}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": 17}], "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "text", "text": ""}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0].content[0].type"),
        ([*HELLO, {"role": "assistant", "content": 1}], "messages[1].content"),
        ([*HELLO, {"role": "assistant", "tool_calls": [{}]}], "messages[1].tool_calls[0].id"),
        ([*HELLO, {"role": "tool"}], "messages[1].content"),
    ],
)  # fmt: skip
def test_S3_messages_of_a_wrong_shape_are_refused_with_their_path(server: Caller, messages: Any, path: str) -> None:
    error = error_of(server.chat(messages=messages), 400)
    assert error["param"] == path, error
    assert path in error["message"]


@pytest.mark.parametrize(
    ("field", "value", "legal"),
    [
        ("temperature", -1, "from 0 to 2"),
        ("temperature", 1e308, "from 0 to 2"),
        ("temperature", "hot", "from 0 to 2"),
        ("temperature", True, "from 0 to 2"),
        ("top_p", 0, "above 0 up to 1"),
        ("top_p", 2, "above 0 up to 1"),
        ("top_k", -1, "from 0 to"),
        ("top_k", 1.5, "from 0 to"),
        ("min_p", 1.01, "from 0 to 1"),
        ("repetition_penalty", 0, "above 0 up to 10"),
        ("frequency_penalty", -2.1, "from -2 to 2"),
        ("presence_penalty", 3, "from -2 to 2"),
        ("max_tokens", -1, "from 1 to"),
        ("max_tokens", 0, "from 1 to"),
        ("max_tokens", 2**63, "from 1 to"),
        ("max_tokens", True, "from 1 to"),
        ("max_completion_tokens", 0, "from 1 to"),
        ("n", 0, "from 1 to 8"),
        ("n", 9, "from 1 to 8"),
        ("n", 10**6, "from 1 to 8"),
        ("stop", "", "up to 4"),
        ("stop", [""], "up to 4"),
        ("stop", ["a"] * 100, "up to 4"),
        ("stop", [1], "up to 4"),
        ("seed", 2**63, "64 bits"),
        ("logit_bias", {"1": 101}, "-100 to 100"),
        ("logit_bias", {"x": 1}, "-100 to 100"),
        ("top_logprobs", 21, "from 0 to 20"),
        ("stream", "yes", "true or false"),
        ("tool_choice", "maybe", "required"),
    ],
)
def test_S4_values_outside_their_range(server: Caller, field: str, value: Any, legal: str) -> None:
    error = error_of(server.chat(**{field: value}), 400)
    assert error["param"].startswith(field) and legal in error["message"], error
    found = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(found, dict):
        assert json.dumps(found)[:20] in error["message"]


def test_S4_not_a_number(server: Caller) -> None:
    raw = json.dumps(chat_body()).replace('"temperature": 0', '"temperature": NaN')
    assert "NaN" in error_of(server.post(CHAT, raw), 400)["message"]


def test_S4_a_bias_of_a_token_that_is_not_there(server: Caller) -> None:
    assert server.chat(logit_bias={"258": 1}).status_code == 200
    assert "0 to 258" in error_of(server.chat(logit_bias={"259": 1}), 400)["message"]


def test_S4_every_fault_is_named_at_once(server: Caller) -> None:
    message = error_of(server.chat(temperature=9, top_p=9, n=0), 400)["message"]
    assert all(f"{name} = " in message for name in ("temperature", "top_p", "n"))


def test_S4_a_long_value_is_cut(server: Caller) -> None:
    assert len(error_of(server.chat(temperature="x" * 100_000), 400)["message"]) < 400


@pytest.mark.parametrize(
    ("prompt", "path"),
    [
        ([], "prompt"),
        ([[]], "prompt[0]"),
        (["a", 1], "prompt"),
        ([-1], "prompt[0]"),
        ([259], "prompt[0]"),
        ([[1, 2], [300]], "prompt[1][0]"),
        ([True], "prompt[0]"),
        (None, "prompt"),
        ({}, "prompt"),
    ],
)
def test_S4_prompts_of_a_wrong_shape(server: Caller, prompt: Any, path: str) -> None:
    error = error_of(server.post(COMPLETION, {"model": "writer", "prompt": prompt}), 400)
    assert error["param"].startswith(path), error


def test_S4_an_unsupported_suffix(server: Caller) -> None:
    error = error_of(server.post(COMPLETION, {"model": "writer", "prompt": "a", "suffix": "b"}), 400)
    assert error["param"] == "suffix"


@pytest.mark.parametrize("stream", [False, True])
def test_S5_the_context_over_at_and_under_by_one(stream: bool) -> None:
    server = caller(Specimen(context=64, script=lambda prompt, wanted: "z" * 1000))

    def ask(size: int) -> Any:
        return server.post(COMPLETION, {"model": "writer", "prompt": [97] * size, "stream": stream})

    for size in (65, 64):
        error = error_of(ask(size), 400)
        assert error["code"] == "context_length_exceeded"
        assert f"{size} tokens" in error["message"] and "is 64" in error["message"]
    under = ask(63)
    assert under.status_code == 200 and '"length"' in under.text
    assert under.text.count("z") == 1


def test_S5_in_a_chat_and_with_more_wished_than_there_is_room() -> None:
    server = caller(Specimen(context=100, script=lambda prompt, wanted: "z" * 1000))
    over = error_of(server.chat(messages=[{"role": "user", "content": "x" * 200}]), 400)
    assert over["code"] == "context_length_exceeded" and "is 100" in over["message"]
    fits = server.good_chat(max_tokens=100_000)
    assert fits["choices"][0]["finish_reason"] == "length"
    assert fits["usage"]["total_tokens"] == 100


HOSTILE = 'x\r\nset-cookie: a=b\r\n\r\n<script>alert(1)</script>\x1b[31m\x00"\u2028data: [DONE]\n\n'


def test_S11_nothing_of_a_request_reaches_headers_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = caller()
    answer = server.chat(
        messages=[{"role": "user", "content": HOSTILE}], model=HOSTILE, **{HOSTILE: 1}, user="secret-user"
    )
    message = error_of(answer, 404)["message"]
    assert "\x1b" not in message and "\r" not in message and "\n" not in message
    hostile = server.chat(messages=[{"role": "user", "content": HOSTILE}], **{HOSTILE: 1})
    assert hostile.json()["choices"][0]["message"]["content"] == f"You said: {HOSTILE}"
    server.get("/v1/models/%1b%5b31m%0d%0asecret-path")
    for found in (answer, hostile):
        assert "set-cookie" not in found.headers
        assert all(value.isprintable() and value.isascii() for value in found.headers.values())
    written = [record.getMessage() for record in caplog.records if record.name.startswith("groundup")]
    assert len(written) == 3 and all(line.isprintable() for line in written)
    assert not any("script" in line or "hello" in line for line in written)


def test_S11_an_answer_cannot_forge_an_event() -> None:
    server = caller(Specimen(script=lambda prompt, wanted: HOSTILE))
    events = server.events()  # would not parse
    assert "".join(c["delta"].get("content", "") for e in events for c in e["choices"]) == HOSTILE


def test_S11_prompts_are_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "groundup.serving")
    caller().chat()
    assert "hello" not in caplog.text


def test_S17_an_unforeseen_fault_hides_its_words_and_the_server_lives(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Specimen):
        def chat_ids(self, messages: Any, *, go_on: bool = False) -> list[int]:
            if "boom" in messages[-1]["content"]:
                raise KeyError("a secret of the prompt")
            return super().chat_ids(messages, go_on=go_on)

    server = caller(Faulty())
    error = error_of(server.chat(messages=[{"role": "user", "content": "boom"}]), 500)
    assert error["type"] == "server_error" and "secret" not in json.dumps(error)
    assert "KeyError" in caplog.text and "chat_ids" in caplog.text and "secret" not in caplog.text
    assert server.chat().status_code == 200


def test_S17_a_fault_of_the_engine_is_that_request_s_alone() -> None:
    from groundup.errors import GroundupError

    def before(count: int) -> None:
        if fail:
            raise GroundupError("E-GEN-004", "not finite", "layer 3", "why", "fix")

    language = Specimen(before_token=before)
    server = caller(language)
    fail = True
    assert error_of(server.chat(n=3), 500)["code"] == "E-GEN-004"
    assert language.wait_idle(5.0)
    fail = False
    assert server.chat().status_code == 200


def test_classify(server: Caller) -> None:
    found = server.post("/v1/classify", {"model": "judge", "input": ["a b", "x" * 90], "explain": True}).json()
    assert [entry["label"] for entry in found["data"]] == ["short", "long"] and found["labels"] == ["short", "long"]
    assert found["data"][0]["explanation"]["pieces"][0] == {"text": "a", "weight": 1.0}
    row = {"age": 3, "name": "ann"}
    assert server.post("/v1/classify", {"model": "rows", "input": row}).json()["data"][0]["index"] == 0
    picture = "data:image/png;base64,AAAA"
    assert server.post("/v1/classify", {"model": "pictures", "input": picture}).status_code == 200


@pytest.mark.parametrize(
    ("model", "given", "path"),
    [
        ("judge", {"a": 1}, "input"),
        ("judge", "", "input"),
        ("judge", [], "input"),
        ("rows", "text", "input"),
        ("rows", [{"age": 1, "name": "a"}, {"age": 1}], "input[1].name"),
        ("rows", [{"age": {"deep": 1}, "name": "a"}], "input[0].age"),
        ("pictures", "not base64!", "input"),
        ("pictures", ["AAAA", "data:text/html;base64,AAAA"], "input[1]"),
        ("pictures", "http://example.org/a.png", "input"),
        ("pictures", "file:///etc/passwd", "input"),
    ],
)
def test_what_classify_refuses(server: Caller, model: str, given: Any, path: str) -> None:
    error = error_of(server.post("/v1/classify", {"model": model, "input": given}), 400)
    assert error["param"] == path, error


def test_what_tokenize_refuses(server: Caller) -> None:
    error_of(server.post("/tokenize", {"model": "writer"}), 400)
    both = server.post("/tokenize", {"prompt": "a", "messages": HELLO})
    assert both.headers["x-groundup-ignored"] == "prompt" and both.json()["count"] > 10
    assert error_of(server.post("/detokenize", {"model": "writer", "tokens": [1, 300]}), 400)["param"] == "tokens[1]"
    assert server.post("/detokenize", {"model": "writer", "tokens": [97.0]}).json() == {"prompt": "a"}
