"""The outermost edge of a request: whatever happens inside becomes an answer, a line of the log and a measurement.

Nothing of a body, a key or a query is written into the log, and of an unforeseen fault only its kind and its places
in the code: its message might quote a prompt.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import MutableMapping
from typing import Any

from starlette.routing import BaseRoute, Route

from groundup.errors import printable
from groundup.serving.desk import Desk
from groundup.serving.errors import Refused
from groundup.serving.guard import Scope
from groundup.serving.streams import Gone, Receive, Send

GONE_STATUS = 499
"""In the log and the measurements only: the client went away."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}

log = logging.getLogger("groundup.serving")


class _Sender:
    """Passes an answer on, with the headers that every answer has, and remembers how far it came."""

    def __init__(self, send: Send, *, head: bool) -> None:
        self._send, self._head = send, head
        self.status = 0
        self.done = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            given = {name.lower() for name, _ in headers}
            headers += [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.done = not message.get("more_body", False)
            if self._head:
                message = {**message, "body": b""}
        await self._send(message)


class Edge:
    """ASGI middleware around all others."""

    def __init__(self, app: Any, desk: Desk) -> None:
        self._app, self._desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket, which nothing here speaks
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        method = scope["method"]
        if method == "HEAD":  # is GET without the body
            scope = {**scope, "method": "GET"}
        sender, began = _Sender(send, head=method == "HEAD"), time.perf_counter()
        self._desk.metrics.began()
        try:
            await self._answer(scope, receive, sender)
        finally:
            seconds = time.perf_counter() - began
            route, shown = _route(scope), method if method in METHODS else "other"
            status = sender.status if sender.done else GONE_STATUS
            self._desk.metrics.ended(route, shown, status, seconds)
            log.info("%s %s %d %.1f ms", shown, printable(scope["path"], 200), status, 1000 * seconds)

    async def _answer(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        try:
            await self._app(scope, receive, sender)
        except Gone:
            return
        except Refused as error:
            await error.response()(scope, receive, sender)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, the server lives
            frames = traceback.extract_tb(error.__traceback__)
            places = "".join(f"\n  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
            log.error("%s in %s%s", type(error).__name__, printable(scope["path"], 200), places)
            if not sender.status:
                fault = Refused(500, "an unforeseen fault of the server; its log says where", "internal_error")
                await fault.response()(scope, receive, sender)


def _route(scope: Scope) -> str:
    """The path of the route as the code has it: what a client sends must not become a label."""
    route: BaseRoute | None = scope.get("route")
    return route.path if isinstance(route, Route) else "unmatched"
