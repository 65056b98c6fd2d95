"""The read-only HTTP routes of the page under /api: they carry questions to a `Library` and its answers back.

Every route is a plain function, so FastAPI runs it in a thread and the event loop never waits for a disk. Nothing
here writes, takes a path, or knows a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from groundup.errors import GroundupError
from groundup.serving.errors import of_library
from groundup.serving.library import (
    DataDetail,
    DataLine,
    EventsPiece,
    Library,
    ModelLine,
    QuarantinePage,
    RowsPage,
    RunDetail,
    RunLine,
    RunsFolder,
)

REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Of a report: a page in an origin of its own that loads nothing. The report itself narrows it to the hashes of its
style and script."""

LARGEST = 1 << 53
"""Whole numbers up to here survive in a browser."""

Offset = Annotated[int, Query(ge=0, le=LARGEST)]
Count = Annotated[int, Query(ge=1, le=100)]
Words = Annotated[str, Query(max_length=500)]
Id = Annotated[str, Query(max_length=64)]


class _Route(APIRoute):
    """Turns what a library raises into an error body of the API's shape."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except GroundupError as fault:
                response = of_library(fault)
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return answer


def router(library: Library) -> APIRouter:
    """The routes over `library`; mount them where requests are authenticated."""
    routes = APIRouter(prefix="/api", tags=["page"], route_class=_Route)

    @routes.get("/folder")
    def folder() -> RunsFolder:
        return library.folder()

    @routes.get("/runs")
    def runs() -> list[RunLine]:
        return library.runs()

    @routes.get("/runs/{id}")
    def run(id: str) -> RunDetail:
        return library.run(id)

    @routes.get("/runs/{id}/events")
    def events(id: str, after: Offset = 0, mark: Id = "") -> EventsPiece:
        return library.events(id, after, mark)

    @routes.get("/runs/{id}/report", response_class=HTMLResponse)
    def report(id: str) -> HTMLResponse:
        return HTMLResponse(
            library.report(id),
            headers={"Content-Security-Policy": REPORT_POLICY, "X-Content-Type-Options": "nosniff"},
        )

    @routes.get("/compare")
    def compare(first: Id, second: Id) -> dict[str, Any]:
        return library.compare(first, second)

    @routes.get("/data")
    def data() -> list[DataLine]:
        return library.data()

    @routes.get("/data/{id}")
    def prepared(id: str) -> DataDetail:
        return library.prepared(id)

    @routes.get("/data/{id}/rows")
    def rows(id: str, part: Words = "", start: Offset = 0, count: Count = 10, search: Words = "") -> RowsPage:
        return library.rows(id, part, start, count, search)

    @routes.get("/data/{id}/quarantine")
    def quarantine(
        id: str, after: Offset = 0, count: Count = 20, reason: Words = "", search: Words = ""
    ) -> QuarantinePage:
        return library.quarantine(id, after, count, reason, search)

    @routes.get("/models")
    def models() -> list[ModelLine]:
        return library.models()

    return routes
