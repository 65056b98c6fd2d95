"""From the engine's thread into the event loop, and out as server-sent events.

`Answers` collects the pieces of one request's answers; `answered` sends what a `Reply` makes of them: by `EventStream`,
which notices when nobody reads any more, or whole, where `unless_gone` does the same. However a request ends, its
tickets are cancelled. Nothing of OpenAI's shapes may enter here.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, MutableMapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol, TypeVar

from fastapi import Request
from starlette.responses import JSONResponse, Response

from groundup.errors import GroundupError
from groundup.serving.errors import Refused, of_groundup
from groundup.serving.options import ServerOptions
from groundup.serving.served import Language, Piece, Sink, Ticket, Wanted

WINDOW = 8
"""How many answers of one request are under way at once, at most: a list of prompts may be longer than the queue."""
FAREWELL_SECONDS = 5.0
QUEUE_FULL = "E-GEN-011"
STREAM_HEADERS = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}

Result = TypeVar("Result")
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Gone(Exception):
    """The client went away; there is nobody to answer."""


class Asked(NamedTuple):
    """One answer that a request wants."""

    ids: list[int]
    wanted: Wanted


class Answers:
    """The answers of one request, piece by piece, in the order in which they come. Belongs to one event loop."""

    def __init__(self, language: Language, asked: Sequence[Asked], window: int = WINDOW) -> None:
        self._language, self._asked, self._window = language, asked, window
        self._loop = asyncio.get_running_loop()
        self._bell = asyncio.Event()
        self._arrived: deque[tuple[int, Piece | GroundupError | Refused]] = deque()
        self._tickets: dict[int, Ticket] = {}
        self._next = 0
        self._closed = False

    def start(self) -> None:
        """Ask for as many as may be under way at once.

        Raises:
            GroundupError: the engine refuses one of them, or the queue is full.
        """
        while self._next < len(self._asked) and len(self._tickets) < self._window:
            index, (ids, wanted) = self._next, self._asked[self._next]
            try:
                ticket = self._language.ask(ids, wanted, self._sink(index))
            except GroundupError as error:
                if error.code == QUEUE_FULL and self._tickets:
                    return  # the rest is asked when one of these has ended
                self.close()
                raise
            self._tickets[index] = ticket
            self._next += 1

    def _sink(self, index: int) -> Sink:
        def sink(item: Piece | GroundupError) -> None:
            try:
                self._loop.call_soon_threadsafe(self._arrive, index, item)
            except RuntimeError:
                return  # the loop has ended, and with it whoever waited

        return sink

    def _arrive(self, index: int, item: Piece | GroundupError | Refused) -> None:
        if not self._closed:
            self._arrived.append((index, item))
            self._bell.set()

    def fail(self, error: Refused) -> None:
        """End all of them with an error, as if the engine had raised it."""
        self._arrive(-1, error)

    def drop(self, index: int) -> None:
        """No more of one answer is wanted."""
        ticket = self._tickets.pop(index, None)
        if ticket is not None:
            ticket.cancel()

    def close(self) -> None:
        """No more of any is wanted."""
        self._closed = True
        self._arrived.clear()
        for index in list(self._tickets):
            self.drop(index)

    async def arrived(self, silence: float | None = None) -> bool:
        """Wait for a piece; False if none came within so many seconds."""
        if not self._arrived:
            self._bell.clear()
            timer = None if silence is None else self._loop.call_later(silence, self._bell.set)
            try:
                await self._bell.wait()
            finally:
                if timer is not None:
                    timer.cancel()
        return bool(self._arrived)

    async def begun(self, seconds: float) -> None:
        """Wait a little for the first piece, so that a fault before it can still have a status of its own; where
        nothing was asked, none will come.

        Raises:
            GroundupError, Refused: an answer failed before its first piece.
        """
        if self._asked and await self.arrived(seconds):
            _, first = self._arrived[0]
            if isinstance(first, GroundupError | Refused):
                raise first

    async def pieces(self, silence: float | None = None) -> AsyncGenerator[tuple[int, Piece] | None, None]:
        """Which answer, and its next piece; None whenever nothing came for `silence` seconds.

        Raises:
            GroundupError, Refused: one of the answers failed.
        """
        try:
            while self._tickets or self._next < len(self._asked):
                if not await self.arrived(silence):
                    yield None
                    continue
                index, item = self._arrived.popleft()
                if isinstance(item, GroundupError | Refused):
                    raise item
                if index not in self._tickets:
                    continue  # it was dropped
                if item.finish is not None:
                    del self._tickets[index]
                yield index, item
                self.start()
        finally:
            self.close()


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event. JSON has no raw line breaks, so no text can begin another event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


async def gone(receive: Receive) -> None:
    """Return when the client has gone away. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Do some work while somebody waits for it.

    Raises:
        Gone: the client went away first; the work was cancelled.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


class EventStream(Response):
    """Server-sent events; a fault after the headers is one more event, and the end (C6)."""

    media_type = "text/event-stream"

    def __init__(
        self, answers: Answers, events: AsyncGenerator[bytes, None], seconds: float, headers: dict[str, str]
    ) -> None:
        super().__init__(headers={**headers, **STREAM_HEADERS}, media_type=self.media_type)
        del self.headers["content-length"]
        self._answers, self._events, self._seconds = answers, events, seconds

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._send(send))
        finally:
            self._answers.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with asyncio.timeout(self._seconds), aclosing(self._events):
                async for chunk in self._events:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except GroundupError as error:
            await self._fail(send, of_groundup(error))
        except Refused as error:
            await self._fail(send, error)
        except TimeoutError:
            await self._fail(send, too_slow(self._seconds))
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _fail(self, send: Send, error: Refused) -> None:
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await send({"type": "http.response.body", "body": event(error.body()), "more_body": False})
        except TimeoutError:
            raise Gone from None  # it reads nothing, so it need not be told


def too_slow(seconds: float) -> Refused:
    return Refused(503, f"the answer was not done within {seconds:g} seconds", "timeout")


async def within(seconds: float, work: Awaitable[Result]) -> Result:
    """The result of some work.

    Raises:
        Refused: 503, it takes too long.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise too_slow(seconds) from None


async def begun(request: Request, answers: Answers, seconds: float) -> None:
    """As `Answers.begun`, while somebody waits; if that fails, the answers are closed.

    Raises:
        Gone: the client went away.
    """
    waited = False
    try:
        await unless_gone(request.receive, answers.begun(seconds))
        waited = True
    finally:
        if not waited:
            answers.close()


class Reply(Protocol):
    """What a request is answered with, made of the pieces of its answers."""

    async def whole(self, answers: Answers) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...

    def events(self, answers: Answers, silence: float) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events; a comment whenever nothing came for `silence` seconds."""
        ...


async def answered(
    request: Request, answers: Answers, reply: Reply, options: ServerOptions, headers: dict[str, str], *, stream: bool
) -> Response:
    """The answer to a request, whole or as a stream that has begun.

    Raises:
        GroundupError, Refused: it failed before anything was sent.
        Gone: the client went away.
    """
    if stream:
        await begun(request, answers, options.keep_alive_seconds)
        events = reply.events(answers, options.keep_alive_seconds)
        return EventStream(answers, events, options.request_seconds, headers)
    try:
        work = within(options.request_seconds, reply.whole(answers))
        return JSONResponse(await unless_gone(request.receive, work), headers=headers)
    finally:
        answers.close()
