"""A server around a model made of nothing, asked without a socket or, where the socket matters, behind one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
from fastapi import FastAPI

from groundup.serving.app import build
from groundup.serving.options import ServerOptions
from groundup.serving.serve import bind, server_of
from groundup.serving.specimen import Specimen, Specimens, shelf

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
KEY = "a-key-of-more-than-sixteen"
CLOSED = 10.0
"""Seconds after which something that must happen at once is given up."""


def house(language: Specimen | None = None, *, models: Specimens | None = None, **options: Any) -> FastAPI:
    return build(models or shelf(language), ServerOptions(**options))


def chat_body(**more: Any) -> dict[str, Any]:
    return {"model": "writer", "messages": HELLO, "temperature": 0, **more}


class Caller:
    """Sends requests to an application in this process, each within an event loop of its own."""

    def __init__(self, app: FastAPI, **headers: str) -> None:
        self.app, self.headers = app, headers

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=self.headers) as c:
                return await c.request(method, path, **more)

        return asyncio.run(send())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        if isinstance(body, str | bytes):
            more = {"content": body, "headers": {"content-type": "application/json"}, **more}
        else:
            more = {"json": body, **more}
        return self.request("POST", path, **more)

    def chat(self, **more: Any) -> httpx.Response:
        return self.post(CHAT, chat_body(**more))

    def good_chat(self, **more: Any) -> dict[str, Any]:
        answer = self.chat(**more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def events(self, path: str = CHAT, **more: Any) -> list[dict[str, Any]]:
        """The events of a stream, which must end with [DONE]."""
        body = chat_body(**more) if path == CHAT else {"model": "writer", "temperature": 0, **more}
        answer = self.post(path, {**body, "stream": True})
        assert answer.status_code == 200, answer.text
        return parsed(answer.text)


def parsed(text: str) -> list[dict[str, Any]]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks), text
    assert blocks[-1] == "data: [DONE]", text
    return [json.loads(block[6:]) for block in blocks[:-1]]


@functools.cache
def _shared(**options: Any) -> Caller:
    return Caller(house(**options))


def caller(language: Specimen | None = None, **options: Any) -> Caller:
    """A server; the same one for the same options unless it has a model of its own."""
    return _shared(**options) if language is None else Caller(house(language, **options))


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error object of an answer, which must have the one shape."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
    assert answer.headers["content-type"] == "application/json"
    return dict(body["error"])


class Gate:
    """Stops a specimen before a token until it is let through."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.reached, self.open = threading.Event(), threading.Event()
        self.most = 0

    def __call__(self, count: int) -> None:
        self.most = max(self.most, count)
        if count == self.at:
            self.reached.set()
            assert self.open.wait(CLOSED)


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of the application behind a real socket, in a thread of this process."""
    desk = app.state.desk
    bound = bind(ServerOptions(port=0))
    ready = threading.Event()
    server = server_of(app, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        assert ready.wait(CLOSED)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        desk.stop_answers()
        server.should_exit = True
        thread.join(3 * CLOSED)
        assert not thread.is_alive()
