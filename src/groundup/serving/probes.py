"""The points C1 to C25 of the OpenAI-compatible surface, each as a question that is put to an application in this
process, and the small client that puts it."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from groundup.serving.specimen import Specimen

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello — 你好"}]
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Broken(Exception):
    """A point that does not hold."""


def hold(condition: object, what: str) -> None:
    """Raise `Broken` unless it holds; unlike `assert`, also in optimised code."""
    if not condition:
        raise Broken(what)


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.body)
        hold(isinstance(found, dict), "the answer is no object")
        return dict(found)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The data of the events before [DONE]."""
        lines = [part[6:] for part in self.body.decode().split("\n\n") if part.startswith("data: ")]
        hold(lines and lines[-1] == "[DONE]", "the stream does not end with data: [DONE]")
        return [json.loads(line) for line in lines[:-1]]


class Client:
    """Asks an ASGI application without a socket."""

    def __init__(self, app: Any, key: str, language: Specimen) -> None:
        self._app, self.key, self.language = app, key, language

    async def ask(
        self,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        leave: asyncio.Event | None = None,
    ) -> Answer:
        """POST a body, or GET without one.

        Args:
            leave: the client goes away when this is set.
        """
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"host": "localhost", "authorization": f"Bearer {self.key}", "content-type": "application/json"}
        given = {**given, "content-length": str(len(raw)), **(headers or {})}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
            "method": "GET" if body is None else "POST", "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": [(k.encode(), v.encode()) for k, v in given.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
        }  # fmt: skip
        waiting = [{"type": "http.request", "body": raw, "more_body": False}]
        done = leave or asyncio.Event()
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            if waiting:
                return waiting.pop()
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        nothing: MutableMapping[str, Any] = {"status": 0, "headers": []}
        start = next((m for m in sent if m["type"] == "http.response.start"), nothing)
        content = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
        return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, content)

    async def chat(self, **more: Any) -> Answer:
        """A chat that begins with a greeting, greedy unless it is said otherwise."""
        answer = await self.ask(CHAT, {"model": "writer", "messages": HELLO, "temperature": 0, **more})
        hold(answer.status == 200, f"status {answer.status}: {answer.body[:200]!r}")
        return answer

    async def complete(self, **more: Any) -> dict[str, Any]:
        answer = await self.ask(COMPLETION, {"model": "writer", "prompt": "ab", "temperature": 0, **more})
        hold(answer.status == 200, f"status {answer.status}: {answer.body[:200]!r}")
        return answer.json

    def close(self) -> None:
        self._app.state.desk.close()


async def first_chunk(client: Client) -> None:
    deltas = [event["choices"][0]["delta"] for event in (await client.chat(stream=True)).events]
    hold(deltas[0] == {"role": "assistant", "content": ""}, "the first delta is another")
    hold(all("role" not in delta for delta in deltas[1:]), "the role comes again")


async def constant_fields(client: Client) -> None:
    events = (await client.chat(stream=True)).events
    heads = {(e["id"], e["object"], e["created"], e["model"]) for e in events}
    hold(len(heads) == 1 and events[0]["object"] == "chat.completion.chunk", "a chunk differs in its head")
    reasons = [choice["finish_reason"] for e in events for choice in e["choices"]]
    hold(reasons[:-1] == [None] * (len(reasons) - 1) and reasons[-1], "finish_reason comes too early or not at all")
    hold(all(c["index"] == 0 for e in events for c in e["choices"]), "an index is missing")


async def last_chunk(client: Client) -> None:
    last = (await client.chat(stream=True)).events[-1]["choices"][0]
    hold(last["delta"] == {} and last["finish_reason"] == "stop", "the last chunk has more than a finish reason")


async def usage_chunk(client: Client) -> None:
    events = (await client.chat(stream=True, stream_options={"include_usage": True})).events
    hold(events[-1]["choices"] == [] and events[-1]["usage"]["total_tokens"] > 0, "no chunk with the usage")
    hold(all(e["usage"] is None for e in events[:-1]), "the usage comes too early")


def until(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """Wait in another thread for an event of the loop."""
    asyncio.run_coroutine_threadsafe(event.wait(), loop).result()


async def stream_form(client: Client) -> None:
    loop, go = asyncio.get_running_loop(), asyncio.Event()
    client.language.before_token = lambda count: until(go, loop)
    loop.call_later(0.1, go.set)
    answer = await client.chat(stream=True)
    hold(answer.headers["content-type"].startswith("text/event-stream"), "another content type")
    hold("no-" in answer.headers["cache-control"] and answer.headers["x-accel-buffering"] == "no", "it may be buffered")
    hold(": keep-alive\n\n" in answer.body.decode() and answer.events, "no comment in a long silence")


def _fail_at(number: int) -> Callable[[int], None]:
    from groundup.errors import GroundupError

    def before(count: int) -> None:
        if count == number:
            raise GroundupError("E-GEN-004", "the output is not finite", "here", "it is a trial", "none is needed")

    return before


async def stream_error(client: Client) -> None:
    client.language.before_token = _fail_at(3)
    answer = await client.ask(CHAT, {"model": "writer", "messages": HELLO, "stream": True})
    last = answer.body.decode().strip().split("\n\n")[-1]
    hold(answer.status == 200 and "error" in json.loads(last.removeprefix("data: ")), "no error event at the end")


async def error_shape(client: Client) -> None:
    for path, body, status in (
        ("/nowhere", None, 404),
        (CHAT, None, 405),
        (CHAT, b"{", 400),
        (CHAT, {"model": "none", "messages": HELLO}, 404),
        (CHAT, b'"' + b"x" * (1 << 16) + b'"', 413),
    ):
        answer = await client.ask(path, body)
        hold(answer.status == status, f"{path}: {answer.status} in place of {status}")
        hold(set(answer.json["error"]) == {"message", "type", "param", "code"}, f"{status} has another shape")


async def statuses(client: Client) -> None:
    wrong = await client.ask("/v1/models", headers={"authorization": "Bearer wrong"})
    hold(wrong.status == 401 and "www-authenticate" in wrong.headers, "a wrong key")
    unknown = await client.ask(CHAT, {"model": "none", "messages": HELLO})
    hold(unknown.json["error"]["code"] == "model_not_found", "an unknown model")
    long = await client.ask(COMPLETION, {"model": "writer", "prompt": "x" * 1100})
    hold(long.status == 400 and long.json["error"]["code"] == "context_length_exceeded", "a long prompt")
    client.language.places = 0
    full = await client.ask(CHAT, {"model": "writer", "messages": HELLO})
    hold(full.status == 429 and "retry-after" in full.headers, "a full queue")


async def finish_reasons(client: Client) -> None:
    for limit, reason in ((3, "length"), (None, "stop")):
        whole = (await client.chat(max_tokens=limit)).json["choices"][0]["finish_reason"]
        streamed = (await client.chat(max_tokens=limit, stream=True)).events[-1]["choices"][0]["finish_reason"]
        hold(whole == streamed == reason, f"{whole} and {streamed} in place of {reason}")


async def stops(client: Client) -> None:
    for stop in (" said", ["zzz", " said", "q", "w"]):
        text = (await client.chat(stop=stop)).json["choices"][0]["message"]["content"]
        hold(text == "You", f"the text is {text!r}")
    five = await client.ask(CHAT, {"model": "writer", "messages": HELLO, "stop": list("abcde")})
    hold(five.status == 400, "five stops are taken")


async def streamed_is_whole(client: Client) -> None:
    whole = (await client.chat(n=2, seed=5, temperature=1)).json["choices"]
    events = (await client.chat(n=2, seed=5, temperature=1, stream=True)).events
    for index in range(2):
        parts = [c["delta"].get("content") or "" for e in events for c in e["choices"] if c["index"] == index]
        hold("".join(parts) == whole[index]["message"]["content"], "the two texts differ")


async def usage(client: Client) -> None:
    whole = (await client.chat()).json["usage"]
    streamed = (await client.chat(stream=True, stream_options={"include_usage": True})).events[-1]["usage"]
    hold(whole == streamed, "the two counts differ")
    ids = await client.ask("/tokenize", {"model": "writer", "messages": HELLO})
    hold(whole["prompt_tokens"] == ids.json["count"], "the prompt is counted without its template")


async def chat_logprobs(client: Client) -> None:
    content = (await client.chat(logprobs=True, top_logprobs=2)).json["choices"][0]["logprobs"]["content"]
    raw = bytes(byte for token in content for byte in token["bytes"])
    hold(raw.decode() == "You said: hello — 你好", "the bytes do not join to the text")
    hold(all(len(token["top_logprobs"]) == 2 for token in content), "not as many alternatives as were asked for")


async def plain_completions(client: Client) -> None:
    for prompt in ("ab", ["ab", "cd"], [97, 98], [[97, 98], [99]]):
        several = isinstance(prompt, list) and not isinstance(prompt[0], int)
        hold(len((await client.complete(prompt=prompt))["choices"]) == (2 if several else 1), "a form of the prompt")
    choice = (await client.complete(prompt=[97, 98], echo=True, logprobs=1, max_tokens=0))["choices"][0]
    columns = choice["logprobs"]
    hold(choice["text"] == "ab" and columns["tokens"] == ["a", "b"], "the echo")
    hold(columns["text_offset"] == [0, 1] and columns["token_logprobs"][0] is None, "the places or the first score")


async def seeds(client: Client) -> None:
    texts = [(await client.chat(seed=s, temperature=1)).json["choices"][0]["message"]["content"] for s in (1, 1, 2)]
    hold(texts[0] == texts[1] != texts[2], "the seed is not handed on")


async def several(client: Client) -> None:
    choices = (await client.chat(n=3, temperature=1)).json["choices"]
    hold([choice["index"] for choice in choices] == [0, 1, 2], "not three answers")
    hold(len({choice["message"]["content"] for choice in choices}) == 3, "the answers are drawn alike")


async def limits(client: Client) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        count = (await client.chat(**{name: 4})).json["usage"]["completion_tokens"]
        hold(count == 4, f"{name} gives {count} tokens in place of 4")


async def formats(client: Client) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    for form in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}):
        text = (await client.chat(response_format=form)).json["choices"][0]["message"]["content"]
        hold(isinstance(json.loads(text), dict), "the answer is no object")


async def tool_calls(client: Client) -> None:
    call = 'Well.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    client.language.script = lambda prompt, wanted: call
    for choice in ("auto", "required"):
        deltas = [
            event["choices"][0]["delta"]
            for event in (await client.chat(tools=[TOOL], tool_choice=choice, stream=True)).events
        ]
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
        hold(calls[0]["function"]["name"] == "weather" and calls[0]["id"], "no call with a name and an id")
        joined = "".join(call["function"]["arguments"] for call in calls)
        hold("city" in json.loads(joined), "the fragments do not join to JSON")
        answer = (await client.chat(tools=[TOOL], tool_choice=choice)).json["choices"][0]
        hold(answer["finish_reason"] == "tool_calls", "another finish reason")
        hold(answer["message"]["tool_calls"][0]["function"]["arguments"] == joined, "the whole differs")


async def roles(client: Client) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    await client.chat(
        messages=[
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "rain"},
            {"role": "assistant", "content": None},
            {"role": "user", "content": "so?"},
        ]
    )


async def model_list(client: Client) -> None:
    models = (await client.ask("/v1/models")).json
    hold(models["object"] == "list" and models["data"][0]["id"] == "writer", "the list")
    hold((await client.ask("/v1/models/writer")).json["object"] == "model", "one of them")


async def vectors(client: Client) -> None:
    body = {"model": "vectors", "input": ["hello", "there"]}
    plain = (await client.ask("/v1/embeddings", body)).json["data"]
    coded = (await client.ask("/v1/embeddings", {**body, "encoding_format": "base64"})).json["data"]
    for one, other in zip(plain, coded, strict=True):
        unpacked = struct.unpack("<8f", base64.b64decode(other["embedding"]))
        hold(max(abs(a - b) for a, b in zip(one["embedding"], unpacked)) < 1e-6, "the two forms differ")


async def ignored_fields(client: Client) -> None:
    answer = await client.chat(store=True, service_tier="auto", wobble=1)
    hold(answer.headers.get("x-groundup-ignored") == "store, service_tier, wobble", "the header")


async def disconnect(client: Client) -> None:
    loop = asyncio.get_running_loop()
    for stream in (True, False):
        leave, gone = asyncio.Event(), asyncio.Event()

        def before(count: int, leave: asyncio.Event = leave, gone: asyncio.Event = gone) -> None:
            if count == 2:
                loop.call_soon_threadsafe(leave.set)
                until(gone, loop)
            hold(count < 3, "the model went on writing")

        client.language.before_token = before
        await client.ask(CHAT, {"model": "writer", "messages": HELLO, "stream": stream}, leave=leave)
        gone.set()
        freed = await asyncio.to_thread(client.language.wait_idle, 5.0)
        hold(freed and client.language.counts["cancelled"] == (1 if stream else 2), "the place is not free")


async def plain_text(client: Client) -> None:
    answer = await client.ask("/tokenize", {"model": "writer", "prompt": "<begin><end>"})
    hold(answer.json["tokens"].count(256) == 1 and 257 not in answer.json["tokens"], "text became a control token")


class Point(NamedTuple):
    """One point of the surface.

    engine: what of it rests with the engine and is not shown here; empty if all of it is.
    """

    id: str
    what: str
    probe: Callable[[Client], Awaitable[None]]
    engine: str = ""


POINTS = (
    Point("C1", "the first chunk has the role and empty content; no role afterwards", first_chunk),
    Point("C2", "id, object, created, model and index are constant; finish_reason is null until the end",
          constant_fields),
    Point("C3", "the last content is followed by an empty delta with the finish reason alone", last_chunk),
    Point("C4", "include_usage: one more chunk with the usage and no choices", usage_chunk),
    Point("C5", "text/event-stream, [DONE], no buffering, comments in a long silence", stream_form),
    Point("C6", "a fault after the headers is an error event, and the end", stream_error),
    Point("C7", "every 4xx and 5xx has the error object", error_shape),
    Point("C8", "401, 404, 400 and 429 with their headers and codes", statuses),
    Point("C9", "finish_reason is true in both modes", finish_reasons),
    Point("C10", "stop: a text or up to four, not returned, across tokens", stops,
          "that the engine holds back what may begin a stop is tested with the engine"),
    Point("C11", "what is streamed is what is not", streamed_is_whole),
    Point("C12", "usage counts tokens, template included, alike in both modes", usage),
    Point("C13", "chat logprobs and top_logprobs", chat_logprobs),
    Point("C14", "plain completions: text, list, ids, echo, logprobs, text_offset", plain_completions),
    Point("C15", "a seed repeats the answer", seeds, "that the batch does not matter is tested with the engine"),
    Point("C16", "n answers", several),
    Point("C17", "max_tokens and max_completion_tokens", limits),
    Point("C18", "json_object and json_schema: what is returned parses", formats,
          "that the engine keeps to the schema is tested with the engine"),
    Point("C19", "tools, tool_choice, streamed fragments that join to JSON", tool_calls),
    Point("C20", "all roles; content as text, null or parts", roles),
    Point("C21", "/v1/models", model_list),
    Point("C22", "/v1/embeddings as numbers and base64", vectors),
    Point("C23", "fields without effect are named in a header", ignored_fields),
    Point("C24", "a client that goes away frees its place", disconnect),
    Point("C25", "special tokens in a text are plain text; one begin token", plain_text,
          "what a model's own tokenizer does is tested with the tokenizers"),
)  # fmt: skip
