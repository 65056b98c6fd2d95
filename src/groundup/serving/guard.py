"""Who may ask, from where, and how much: everything that is decided before a request reaches its route.

In this order: is the server stopping, is the Host one of its own (against DNS rebinding), does the Origin fit, is the
key right, is there room, is the body short enough and sent fast enough. Whatever is not known to be allowed is
refused. The body is read here, once, so that its limits hold for every route.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import MutableMapping
from typing import Any

from fastapi.responses import Response

from groundup.errors import printable
from groundup.serving.desk import Desk
from groundup.serving.errors import Refused
from groundup.serving.options import allows_host
from groundup.serving.streams import Gone, Receive, Send

HEALTH = "/health"
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(:[0-9]{1,5})?", re.IGNORECASE)
DISCARD_BYTES, DISCARD_SECONDS = 256 << 20, 5.0
"""So much of a body that is too long is still read and thrown away: most clients read the answer only then."""
CLOSE = {"connection": "close"}
HEADER_NAME = re.compile(r"[a-z0-9-]{1,60}", re.IGNORECASE)
LONGEST_LIST = 2000
EXPOSED = (b"access-control-expose-headers", b"retry-after, x-groundup-ignored")

Scope = MutableMapping[str, Any]


def values(scope: Scope, name: bytes) -> list[str]:
    """All values of a header."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


class Guard:
    """ASGI middleware: refuses, or hands a request on with its whole body."""

    def __init__(self, app: Any, desk: Desk, public: frozenset[str]) -> None:
        self._app, self._desk, self._options = app, desk, desk.options
        self._public = public | {HEALTH}
        self._keys = [hashlib.sha256(key.encode()).digest() for key in desk.options.keys]
        self._origins = frozenset(origin.lower().rstrip("/") for origin in desk.options.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if values(scope, b"content-length") and values(scope, b"transfer-encoding"):
            # what stands in front may see the body end elsewhere, and take what follows for a request of its own
            both = "Content-Length and Transfer-Encoding exclude each other"
            raise Refused(400, both, "invalid_header", headers=CLOSE)
        if self._desk.draining and scope["path"] != HEALTH:
            raise Refused(503, "the server is stopping", "server_stopping", headers=CLOSE)
        self._check_host(scope)
        origin = self._check_origin(scope)
        if origin is not None:
            send = _allowing(origin, send)
            if scope["method"] == "OPTIONS":
                await _preflight(values(scope, b"access-control-request-headers"))(scope, receive, send)
                return
            try:
                await self._admit(scope, receive, send)
            except Refused as error:  # the page that asked is to read why
                await error.response()(scope, receive, send)
            return
        await self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is decided once it is clear who asks."""
        path, free = scope["path"], scope["path"] == HEALTH
        if not (path in self._public and scope["method"] in ("GET", "HEAD")):
            self._check_key(scope)
        if free:
            await self._app(scope, receive, send)
            return
        if self._desk.under_way >= self._options.queue:
            raise Refused(429, f"{self._options.queue} requests are under way; come again", "rate_limit_exceeded")
        self._desk.under_way += 1
        try:
            body = await self._body(scope, receive)
            await self._app(scope, _replay(body, receive), send)
        finally:
            self._desk.under_way -= 1

    def _check_host(self, scope: Scope) -> None:
        given = values(scope, b"host")
        if len(given) != 1:
            raise Refused(400, f"{len(given)} Host headers, where there must be one", "invalid_host", headers=CLOSE)
        match = HOST.fullmatch(given[0])
        if match is None or not allows_host(self._options, match[1].strip("[]").lower().rstrip(".")):
            raise Refused(
                403,
                f"this server is not known as {printable(given[0], 100)}: --allow-host NAME lets it be called so",
                "invalid_host",
            )

    def _check_origin(self, scope: Scope) -> str | None:
        """The origin, if it is a foreign one that is allowed."""
        given = values(scope, b"origin")
        if not given:
            return None
        origin = given[0].lower().rstrip("/")
        if len(given) == 1 and origin in self._origins:
            return given[0]
        own = values(scope, b"host")[0].lower()
        if len(given) > 1 or origin not in (f"http://{own}", f"https://{own}"):
            named = printable(given[0], 100)
            raise Refused(403, f"pages of {named} may not ask; --allow-origin ORIGIN lets them", "invalid_origin")
        return None

    def _check_key(self, scope: Scope) -> None:
        """In a time that tells nothing of the keys: digests are compared, all of them, whatever was sent."""
        if not self._keys:
            return
        given = values(scope, b"authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        digest = hashlib.sha256(key.strip().encode("latin-1")).digest()
        right = [hmac.compare_digest(digest, known) for known in self._keys]
        if scheme.lower() != "bearer" or not any(right):
            what = "no key" if not given else "several keys" if len(given) > 1 else "a wrong key"
            raise Refused(
                401, f"{what} was sent: the header must be Authorization: Bearer and the key", "invalid_api_key",
                headers={"www-authenticate": 'Bearer realm="groundup"'},
            )  # fmt: skip

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        most = self._options.max_body_bytes
        too_long = Refused(413, f"the body has more than {most} bytes", "request_too_large", headers=CLOSE)
        length = (values(scope, b"content-length") or ["0"])[0]
        if not length.isascii() or not length.isdigit():
            raise Refused(400, "Content-Length is no number", "invalid_header", headers=CLOSE)
        if len(length) > 18 or int(length) > most:
            if not values(scope, b"expect"):
                await _discard(receive)
            raise too_long
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._options.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > most:
                        break
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise Refused(
                408, f"the request was not there after {self._options.body_seconds:g} seconds", "request_timeout",
                headers=CLOSE,
            ) from None  # fmt: skip
        chunks.clear()
        await _discard(receive)
        raise too_long


async def _discard(receive: Receive) -> None:
    left = DISCARD_BYTES
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, and then what comes."""
    given = False

    async def replayed() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _allowing(origin: str, send: Send) -> Send:
    """A `send` that tells the browser that a page of that origin may read the answer."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            more = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin"), EXPOSED]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return sending


def _preflight(asked: list[str]) -> Response:
    """What a page of an allowed origin may send; the headers are those that it asks for, if they are names."""
    named = [name for name in ",".join(asked)[:LONGEST_LIST].replace(" ", "").split(",") if HEADER_NAME.fullmatch(name)]
    allowed = {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": ", ".join(dict.fromkeys(["authorization", "content-type", *named])),
        "access-control-max-age": "600",
    }
    return Response(status_code=204, headers=allowed)
