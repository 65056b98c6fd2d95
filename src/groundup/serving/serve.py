"""Run the application behind uvicorn, and stop it so that nobody's answer is torn off.

The first SIGTERM or SIGINT: new requests are told 503 and when to come again, answers under way go on for up to
`drain_seconds`, what is left gets an error, and `run` returns. The second one ends everything at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundup.errors import GroundupError, printable
from groundup.serving.desk import Desk
from groundup.serving.errors import Refused
from groundup.serving.options import ServerOptions

HEADER_SECONDS = 15.0
HEADER_BYTES = 64 << 10
IDLE_SECONDS = 30
FAREWELL_SECONDS = 3
BACKLOG = 2048

log = logging.getLogger("groundup.serving")


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, where a malformed request gets an answer in the one shape, and one whose headers never end
    an end."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        elif self._header_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            late = Refused(408, f"the headers were not there after {HEADER_SECONDS:g} seconds", "request_timeout")
            self._refuse(late, "Request Timeout")

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refused(400, msg, "invalid_request"), "Bad Request")

    def _refuse(self, error: Refused, phrase: str) -> None:
        """Written past h11, which may be in no state to answer."""
        body = json.dumps(error.body()).encode()
        head = (
            f"HTTP/1.1 {error.status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(head.encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, which goes on listening while it drains and does not die of the signal that stopped it."""

    def __init__(self, config: uvicorn.Config, desk: Desk, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._desk, self._on_ready = desk, on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._desk.draining or self._loop is None:
            logging.getLogger("uvicorn.error").disabled = True  # it would print what it cuts off
            self.should_exit = self.force_exit = True
            return
        self._desk.draining = True
        self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._draining = asyncio.ensure_future(self._until_drained())

    async def _until_drained(self) -> None:
        desk = self._desk
        if desk.under_way:
            log.warning("stopping: %d requests are under way; a second Ctrl-C ends them at once", desk.under_way)
        try:
            async with asyncio.timeout(desk.options.drain_seconds):
                while desk.under_way:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            desk.stop_answers()
        self.should_exit = True


def bind(options: ServerOptions) -> socket.socket:
    """A socket that listens at the address of the options.

    Raises:
        GroundupError: E-SERVE-012, the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise GroundupError(
            "E-SERVE-012",
            f"cannot listen at {printable(options.host, 100)}, port {options.port}: {error.strerror or error}",
            where="--host, --port",
            why="another program has this port, or the address is not one of this machine",
            fix="groundup serve --port 0   (takes any that is free)",
        ) from None
    return bound


def address_of(bound: socket.socket) -> str:
    """The URL of a socket that listens."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: FastAPI, options: ServerOptions, on_ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Args:
        app: what `groundup.serving.app.build` made.
        options: the same that it was built with.
        on_ready: called with the URL once requests are taken.

    Raises:
        GroundupError: E-SERVE-012, the address cannot be had.
    """
    bound = bind(options)
    server = server_of(app, lambda: on_ready(address_of(bound)))
    with bound:
        server.run(sockets=[bound])


def quiet(record: logging.LogRecord) -> bool:
    """uvicorn's advice to install a library for web sockets helps nobody here, and any client can call it up."""
    return "upgrade" not in record.msg.lower() and "websocket" not in record.msg.lower()


def server_of(app: FastAPI, on_ready: Callable[[], None]) -> Server:
    """The server of an application, not yet started."""
    logging.getLogger("uvicorn.error").addFilter(quiet)
    settings: dict[str, Any] = {
        "http": Protocol,
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,
        "backlog": BACKLOG,
        "timeout_keep_alive": IDLE_SECONDS,
        "timeout_graceful_shutdown": FAREWELL_SECONDS,
        "h11_max_incomplete_event_size": HEADER_BYTES,
    }
    return Server(uvicorn.Config(app, **settings), app.state.desk, on_ready)
