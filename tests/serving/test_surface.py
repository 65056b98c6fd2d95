"""The OpenAI-compatible surface, C1 to C25: what HTTP shows of each, against a model made of nothing."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import struct
import time
from typing import Any

import pytest
from house import CHAT, COMPLETION, HELLO, Caller, Gate, caller, chat_body, error_of, house, parsed

from groundup.errors import GroundupError
from groundup.serving.conformance import examine
from groundup.serving.probes import POINTS
from groundup.serving.specimen import BEGIN, Specimen

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture(scope="module")
def server() -> Caller:
    return caller()


def broken_at(number: int, code: str = "E-GEN-004") -> Specimen:
    def before(count: int) -> None:
        if count == number:
            raise GroundupError(code, "the model's output is not finite", "layer 3", "it is a test", "nothing")

    return Specimen(before_token=before)


def deltas(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for event in events for choice in event["choices"]]


def test_C1_first_chunk_has_the_role_alone(server: Caller) -> None:
    found = deltas(server.events())
    assert found[0] == {"role": "assistant", "content": ""}
    assert all("role" not in delta for delta in found[1:])


def test_C1_every_choice_begins_with_its_role(server: Caller) -> None:
    events = server.events(n=2)
    for index in range(2):
        mine = [c["delta"] for e in events for c in e["choices"] if c["index"] == index]
        assert mine[0] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_C2_the_head_is_constant_and_the_finish_comes_last(server: Caller, path: str) -> None:
    events = server.events(path) if path == CHAT else server.events(path, prompt="ab")
    assert len({(e["id"], e["object"], e["created"], e["model"]) for e in events}) == 1
    assert events[0]["object"] == ("chat.completion.chunk" if path == CHAT else "text_completion")
    choices = [choice for event in events for choice in event["choices"]]
    assert all(choice["index"] == 0 and "finish_reason" in choice for choice in choices)
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1]["finish_reason"] in ("stop", "length")


def test_C3_the_last_delta_is_empty(server: Caller) -> None:
    found = server.events()
    assert found[-1]["choices"][0]["delta"] == {} and found[-1]["choices"][0]["finish_reason"] == "stop"
    assert found[-2]["choices"][0]["delta"]["content"]


def test_C4_usage_comes_in_a_chunk_without_choices(server: Caller) -> None:
    events = server.events(stream_options={"include_usage": True})
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == server.good_chat()["usage"]
    assert all(event["usage"] is None for event in events[:-1])
    assert all("usage" not in event for event in server.events())


def test_C5_event_stream_headers_and_keep_alive() -> None:
    gate = Gate()
    server = caller(Specimen(before_token=gate), keep_alive_seconds=0.01)

    async def ask() -> str:
        sent: list[Any] = []
        body = json.dumps(chat_body(stream=True)).encode()
        waiting = [{"type": "http.request", "body": body}]
        never = asyncio.Event()

        async def receive() -> Any:
            if waiting:
                return waiting.pop()
            return await never.wait()

        async def send(message: Any) -> None:
            sent.append(message)
            if message.get("body", b"").startswith(b":"):
                gate.open.set()  # the model only begins once the server has filled the silence

        scope = {
            "type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "scheme": "http",
            "root_path": "", "http_version": "1.1", "server": ("localhost", 80), "client": None, "asgi": {},
        }  # fmt: skip
        await server.app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-store, no-transform" and headers["x-accel-buffering"] == "no"
        assert "content-length" not in headers
        return b"".join(message.get("body", b"") for message in sent[1:]).decode()

    text = asyncio.run(ask())
    assert ": keep-alive\n\n" in text
    assert parsed(text)[-1]["choices"][0]["finish_reason"] == "stop"


def test_C6_a_fault_after_the_headers_is_an_event_and_the_end() -> None:
    answer = caller(broken_at(3)).chat(stream=True)
    assert answer.status_code == 200
    blocks = answer.text.strip().split("\n\n")
    assert "[DONE]" not in answer.text
    error = json.loads(blocks[-1].removeprefix("data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == "E-GEN-004"
    assert "layer 3" not in error["message"]  # where it broke is for the log


def test_C6_a_fault_before_the_first_token_has_a_status_of_its_own() -> None:
    assert error_of(caller(broken_at(0)).chat(stream=True), 500)["type"] == "server_error"


def test_C7_every_error_has_the_one_shape(server: Caller) -> None:
    assert error_of(server.get("/nowhere"), 404)["code"] == "not_found"
    wrong = server.get(CHAT)
    assert error_of(wrong, 405)["code"] == "method_not_allowed" and wrong.headers["allow"] == "POST, OPTIONS"
    error_of(server.post(CHAT, "{"), 400)
    error_of(server.request("POST", CHAT, content=b"{}", headers={"content-type": "text/plain"}), 415)
    error_of(caller(max_body_bytes=1024).post(CHAT, "x" * 2000), 413)
    error_of(server.get("/v1/models/none"), 404)
    error_of(caller(broken_at(0)).chat(), 500)


def test_C8_statuses_with_their_headers_and_codes(server: Caller) -> None:
    keyed = caller(keys=("k" * 20,)).get("/v1/models")
    assert error_of(keyed, 401)["code"] == "invalid_api_key" and keyed.headers["www-authenticate"].startswith("Bearer")
    assert error_of(server.chat(model="none"), 404)["code"] == "model_not_found"
    assert error_of(server.chat(messages=[{"role": "user", "content": "x" * 5000}]), 400)["code"] == (
        "context_length_exceeded"
    )
    full = caller(Specimen(places=0)).chat()
    assert error_of(full, 429)["code"] == "rate_limit_exceeded" and full.headers["retry-after"] == "1"
    stopping = Caller(house())
    stopping.app.state.desk.draining = True
    answer = stopping.chat()
    assert error_of(answer, 503)["code"] == "server_stopping" and answer.headers["retry-after"]


@pytest.mark.parametrize(("limit", "reason"), [(3, "length"), (15, "stop"), (14, "length"), (None, "stop")])
def test_C9_finish_reason_is_true_in_both_modes(server: Caller, limit: int | None, reason: str) -> None:
    assert server.good_chat(max_tokens=limit)["choices"][0]["finish_reason"] == reason  # "You said: hello" is 15
    assert server.events(max_tokens=limit)[-1]["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize("stop", [" said", [" said"], ["zzz", " said", "!", "?"]])
def test_C10_stops_are_not_returned_and_match_across_tokens(server: Caller, stop: Any) -> None:
    answer = server.good_chat(stop=stop)["choices"][0]  # a token of this model is a byte
    assert answer["message"]["content"] == "You" and answer["finish_reason"] == "stop"
    assert "".join(delta.get("content", "") for delta in deltas(server.events(stop=stop))) == "You"


def test_C11_streamed_text_equals_unstreamed() -> None:
    text = "多 bytes, “quotes”, \n\n data: [DONE]\n\n and \u2028 lines \x00 \x1b[31m"
    server = caller(Specimen(script=lambda prompt, wanted: f"{text} {wanted.seed}"))
    whole = server.good_chat(n=3, seed=7)
    events = server.events(n=3, seed=7)
    for index in range(3):
        parts = [c["delta"].get("content", "") for e in events for c in e["choices"] if c["index"] == index]
        assert "".join(parts) == whole["choices"][index]["message"]["content"] == f"{text} {7 + index}"


def test_C11_plain_completions_too(server: Caller) -> None:
    body = {"prompt": ["one", "two"], "n": 2, "seed": 3, "max_tokens": 40, "echo": True, "logprobs": 1}
    whole = server.post(COMPLETION, {"model": "writer", "temperature": 1, **body}).json()
    events = server.events(COMPLETION, **{**body, "temperature": 1})
    assert len(whole["choices"]) == 4
    for index, choice in enumerate(whole["choices"]):
        mine = [c for e in events for c in e["choices"] if c["index"] == index]
        assert "".join(c["text"] for c in mine) == choice["text"]
        for column in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            joined = [item for c in mine if c["logprobs"] for item in c["logprobs"][column]]
            assert joined == choice["logprobs"][column]


def test_C12_usage_counts_tokens_with_the_template(server: Caller) -> None:
    usage = server.good_chat(n=2)["usage"]
    ids = server.post("/tokenize", {"model": "writer", "messages": HELLO}).json()
    assert usage["prompt_tokens"] == ids["count"] == len(ids["tokens"])
    assert usage["completion_tokens"] == 2 * len("You said: hello")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


def test_C13_chat_logprobs(server: Caller) -> None:
    hello = [{"role": "user", "content": "é"}]
    choice = server.good_chat(messages=hello, logprobs=True, top_logprobs=3)["choices"][0]
    content = choice["logprobs"]["content"]
    assert bytes(b for token in content for b in token["bytes"]).decode() == choice["message"]["content"]
    assert [token["token"] for token in content[-2:]] == ["\\xc3", "\\xa9"]  # each is half of a character
    assert all(len(token["top_logprobs"]) == 3 and token["logprob"] == -0.25 for token in content)
    events = server.events(messages=hello, logprobs=True, top_logprobs=3)
    streamed = [t for e in events for c in e["choices"] if c["logprobs"] for t in c["logprobs"]["content"]]
    assert streamed == content
    assert server.good_chat()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(("prompt", "count"), [("ab", 1), (["ab", "cd"], 2), ([97, 98], 1), ([[97], [98, 99]], 2)])
def test_C14_forms_of_a_prompt(server: Caller, prompt: Any, count: int) -> None:
    body = server.post(COMPLETION, {"model": "writer", "prompt": prompt}).json()
    assert [choice["index"] for choice in body["choices"]] == list(range(count))
    assert body["usage"]["completion_tokens"] == 16 * count  # OpenAI's default for plain completions
    assert all(choice["finish_reason"] == "length" for choice in body["choices"])


def test_C14_a_list_may_be_longer_than_the_queue() -> None:
    server = caller(Specimen(places=3))
    body = server.post(COMPLETION, {"model": "writer", "prompt": [f"p{i}" for i in range(40)], "echo": True}).json()
    assert [choice["text"][: len(f"p{i}")] for i, choice in enumerate(body["choices"])] == [f"p{i}" for i in range(40)]


def test_C14_echo_and_scores_of_the_prompt(server: Caller) -> None:
    body = {"model": "writer", "prompt": [97, 195, 169, 98], "echo": True, "logprobs": 2, "max_tokens": 2}
    choice = server.post(COMPLETION, {**body, "temperature": 0}).json()["choices"][0]
    assert choice["text"] == "aébYo"
    columns = choice["logprobs"]
    assert columns["tokens"] == ["a", "\\xc3", "\\xa9", "b", "Y", "o"]
    assert columns["text_offset"] == [0, 1, 1, 2, 3, 4]
    assert columns["token_logprobs"] == [None, *[-0.25] * 5]
    assert columns["top_logprobs"][0] is None and columns["top_logprobs"][3] == {"b": -0.25, "c": -1.25}


def test_C14_echo_alone_needs_no_model(server: Caller) -> None:
    body = {"model": "writer", "prompt": "abc", "echo": True, "max_tokens": 0}
    choice = server.post(COMPLETION, body).json()["choices"][0]
    assert choice == {"index": 0, "text": "abc", "logprobs": None, "finish_reason": "length"}
    scored = server.post(COMPLETION, {**body, "logprobs": 0}).json()
    assert scored["choices"][0]["text"] == "abc" and scored["usage"]["completion_tokens"] == 0
    # the begin token stands before the text, and writes nothing into it
    assert scored["choices"][0]["logprobs"]["tokens"] == ["<begin>", "a", "b", "c"]
    assert scored["choices"][0]["logprobs"]["text_offset"] == [0, 0, 1, 2]
    events = server.events(COMPLETION, **{k: v for k, v in body.items() if k != "model"})
    assert [c["text"] for e in events for c in e["choices"]] == ["abc", ""]


def test_C14_echo_alone_asks_and_waits_for_nothing() -> None:
    class Silent(Specimen):
        def ask(self, ids: Any, wanted: Any, sink: Any) -> Any:
            raise AssertionError("the prompt is known already")

    app = caller(Silent(), keep_alive_seconds=60.0)
    body = {"prompt": ["ab", "c"], "n": 2, "echo": True, "max_tokens": 0}
    whole = app.post(COMPLETION, {"model": "writer", **body}).json()
    assert [(one["index"], one["text"], one["finish_reason"]) for one in whole["choices"]] == [
        (0, "ab", "length"), (1, "ab", "length"), (2, "c", "length"), (3, "c", "length"),
    ]  # fmt: skip
    began = time.monotonic()
    *events, counted = app.events(COMPLETION, **body, stream_options={"include_usage": True})
    assert time.monotonic() - began < 30, "no piece will come, so none is waited for"
    said = [(one["index"], one["text"], one["finish_reason"]) for event in events for one in event["choices"]]
    assert said == [
        (0, "ab", None), (1, "ab", None), (2, "c", None), (3, "c", None), *((n, "", "length") for n in range(4)),
    ]  # fmt: skip
    assert counted["choices"] == [] and counted["usage"] == whole["usage"]
    assert {event["usage"] for event in events} == {None}


def test_C14_the_scores_of_a_prompt_alone_from_an_engine_that_must_write() -> None:
    class Eager(Specimen):
        def ask(self, ids: Any, wanted: Any, sink: Any) -> Any:
            return super().ask(ids, dataclasses.replace(wanted, max_tokens=max(1, wanted.max_tokens)), sink)

    body = {"model": "writer", "prompt": ["ab", "c"], "echo": True, "max_tokens": 0, "logprobs": 1}
    found = caller(Eager()).post(COMPLETION, body).json()
    assert [choice["text"] for choice in found["choices"]] == ["ab", "c"]
    assert [len(choice["logprobs"]["tokens"]) for choice in found["choices"]] == [3, 2]
    assert {choice["finish_reason"] for choice in found["choices"]} == {"length"}
    assert found["usage"]["completion_tokens"] == 0


def test_C14_places_allow_for_a_space_that_the_tokenizer_puts_first() -> None:
    class Spaced(Specimen):
        def text_ids(self, text: str, *, begin: bool = True) -> list[int]:
            return super().text_ids(f" {text}", begin=begin)

    body = {"model": "writer", "prompt": "ab", "echo": True, "max_tokens": 0, "logprobs": 0}
    choice = caller(Spaced()).post(COMPLETION, body).json()["choices"][0]
    assert choice["text"] == "ab"
    assert choice["logprobs"]["tokens"] == ["<begin>", " ", "a", "b"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 0, 1]


def test_C14_max_tokens_0_only_with_echo(server: Caller) -> None:
    error = error_of(server.post(COMPLETION, {"model": "writer", "prompt": "a", "max_tokens": 0}), 400)
    assert error["param"] == "max_tokens" and "echo" in error["message"]


def test_C15_a_seed_repeats_and_another_does_not(server: Caller) -> None:
    def text(seed: int | None) -> str:
        return str(server.good_chat(seed=seed, temperature=1)["choices"][0]["message"]["content"])

    assert text(1) == text(1) != text(2)
    assert text(None) != text(None)  # a fresh one each time
    assert text(-1) == text(-1)  # OpenAI's seeds may be negative


def test_C16_answers_are_drawn_apart(server: Caller) -> None:
    choices = server.good_chat(n=4, seed=10, temperature=1)["choices"]
    assert [c["message"]["content"] for c in choices] == [f"You said: hello (draw {10 + i})" for i in range(4)]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_C17_both_names_of_the_limit(server: Caller, name: str) -> None:
    assert server.good_chat(**{name: 4})["usage"]["completion_tokens"] == 4


def test_C17_the_newer_name_goes_first_and_says_so(server: Caller) -> None:
    answer = server.chat(max_tokens=9, max_completion_tokens=4)
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert answer.headers["x-groundup-ignored"] == "max_tokens"


@pytest.mark.parametrize(
    "form", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}]
)
def test_C18_what_is_returned_parses(server: Caller, form: dict[str, Any]) -> None:
    whole = server.good_chat(response_format=form)["choices"][0]["message"]["content"]
    streamed = "".join(delta.get("content", "") for delta in deltas(server.events(response_format=form)))
    assert isinstance(json.loads(whole), dict) and streamed == whole


def test_C18_other_structures(server: Caller) -> None:
    def said(**structure: Any) -> str:
        return str(server.good_chat(structure=structure)["choices"][0]["message"]["content"])

    assert said(kind="choice", choices=["yes", "no"]) == "yes"
    assert said(kind="regex", source="abc") == "abc"
    wrong = error_of(server.chat(structure={"kind": "choice", "choices": []}), 400)
    assert wrong["param"] == "structure.choices"


def test_C18_a_schema_nested_too_deeply_is_refused(server: Caller) -> None:
    schema: dict[str, Any] = {}
    for _ in range(20):
        schema = {"properties": {"a": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert "at most 32" in error_of(server.chat(response_format=form), 400)["message"]


def test_C20_every_role_and_form_of_content() -> None:
    seen: list[str] = []

    def script(prompt: str, wanted: Any) -> str:
        seen.append(prompt)
        return "fine"

    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "night"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": "again", "name": "ann"},
    ]
    answer = caller(Specimen(script=script)).chat(messages=messages)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-groundup-ignored"] == "messages[6].name"
    parts = seen[0].split("<turn>")[1:]
    assert [part.split("\n")[0] for part in parts] == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]  # fmt: skip # noqa: E501
    assert parts[1] == "user\nab\n"
    assert parts[2].count('{"name": "clock", "arguments": {}}') == 2
    assert parts[3].count("<tool_response>") == 2 and parts[3].index("noon") < parts[3].index("night")


def test_C20_an_answer_that_was_begun_goes_on(server: Caller) -> None:
    begun = [*HELLO, {"role": "assistant", "content": "Well,"}]
    ids = server.good_chat(messages=begun)["usage"]["prompt_tokens"]
    assert server.good_chat(messages=begun, continue_final_message=True)["usage"]["prompt_tokens"] < ids
    assert error_of(server.chat(continue_final_message=True), 400)["param"] == "continue_final_message"


def test_C21_models(server: Caller) -> None:
    found = server.get("/v1/models").json()
    assert found["object"] == "list"
    assert [model["id"] for model in found["data"]] == ["writer", "vectors", "judge", "pictures", "rows"]
    assert server.get("/v1/models/writer").json() == found["data"][0]
    assert found["data"][0]["object"] == "model" and found["data"][0]["max_model_len"] == 4096


def test_C21_a_name_may_hold_slashes(server: Caller) -> None:
    assert "a/b" in error_of(server.get("/v1/models/a/b"), 404)["message"]


@pytest.mark.parametrize("given", ["hello", ["hello", "there"], [104, 105], [[104], [105, 106]]])
def test_C22_embeddings_as_numbers_and_base64(server: Caller, given: Any) -> None:
    body = {"model": "vectors", "input": given}
    plain = server.post("/v1/embeddings", body).json()
    coded = server.post("/v1/embeddings", {**body, "encoding_format": "base64", "dimensions": 8}).json()
    assert plain["usage"] == coded["usage"] and plain["usage"]["prompt_tokens"] > 0
    for one, other in zip(plain["data"], coded["data"], strict=True):
        unpacked = struct.unpack("<8f", base64.b64decode(other["embedding"]))
        assert one["embedding"] == pytest.approx(unpacked, abs=1e-6)
        assert one["index"] == other["index"]


def test_C22_what_embeddings_refuse(server: Caller) -> None:
    def error(status: int = 400, **more: Any) -> dict[str, Any]:
        return error_of(server.post("/v1/embeddings", {"model": "vectors", "input": "a", **more}), status)

    assert "have 8" in error(dimensions=4)["message"]
    assert error(input="")["param"] == "input" and error(input=[])["param"] == "input"
    assert error(input=["a", "x" * 513])["code"] == "context_length_exceeded"
    assert error(input=[1, 2_000_000_000])["code"] == "invalid_token"
    assert error(input=[[1], [256]])["param"] == "input[1][0]"
    assert error(404, model="writer")["code"] == "unsupported_model"


def test_C23_fields_without_effect_are_named(server: Caller) -> None:
    answer = server.chat(store=True, user="me", wobble=1, top_logprobs=2, **{"x\r\nset-cookie: a": 1})
    named = answer.headers["x-groundup-ignored"].split(", ")
    assert named == ["store", "user", "wobble", "x\\r\\nset-cookie: a", "top_logprobs"]
    assert "set-cookie" not in answer.headers
    many = server.chat(**{f"f{i}": i for i in range(100)}).headers["x-groundup-ignored"]
    assert many.endswith("and 80 more")
    assert "x-groundup-ignored" not in server.chat().headers


def test_C23_unknown_fields_are_refused_under_strict() -> None:
    strict = caller(strict=True)
    error = error_of(strict.chat(temperatur=1), 400)
    assert error["param"] == "temperatur" and "did you mean temperature" in error["message"]
    assert strict.chat(store=True).headers["x-groundup-ignored"] == "store"
    assert error_of(strict.chat(messages=[{**HELLO[0], "x": 1}]), 400)["param"] == "messages[0].x"


def test_C25_special_tokens_in_a_text_are_plain_text(server: Caller) -> None:
    ids = server.post("/tokenize", {"model": "writer", "prompt": "<begin>"}).json()["tokens"]
    assert ids == [BEGIN, *b"<begin>"]
    assert server.post("/tokenize", {"prompt": "a", "add_special_tokens": False}).json()["tokens"] == [97]
    back = server.post("/detokenize", {"model": "writer", "tokens": ids}).json()
    assert back == {"prompt": "<begin><begin>"}


def test_the_server_tells_which_points_it_keeps() -> None:
    app = Caller(house())
    found = app.get("/conformance").json()
    assert [point["id"] for point in found["points"]] == [f"C{number}" for number in range(1, 26)]
    assert [point for point in found["points"] if point["state"] == "fail"] == []
    assert {point["id"] for point in found["points"] if point["state"] == "partly"} == {"C10", "C15", "C18", "C25"}


def test_the_self_check_finds_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.serving import asking, streams

    monkeypatch.setattr(asking, "DONE", b"")
    monkeypatch.setattr(streams.Answers, "drop", lambda self, index: None)
    states = {point["id"]: point["state"] for point in asyncio.run(examine())["points"]}
    assert {id for id, state in states.items() if state == "fail"} >= {"C1", "C5", "C24"}
    assert states["C21"] == "pass" and len(states) == len(POINTS)
