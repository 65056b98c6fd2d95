"""The application: all routes, the page and the guards, put together around a shelf of models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

import groundup
from groundup.serving import (
    chat,
    classify,
    completions,
    conformance,
    embeddings,
    models,
    pages,
    tokenize,
)
from groundup.serving.description import describe
from groundup.serving.desk import Desk
from groundup.serving.edge import Edge
from groundup.serving.errors import handle
from groundup.serving.guard import Guard
from groundup.serving.options import ServerOptions, check
from groundup.serving.served import Shelf

ROUTERS = (chat, completions, embeddings, classify, tokenize, models, conformance)


def build(shelf: Shelf, options: ServerOptions, *, library: Any = None) -> FastAPI:
    """The server as an ASGI application. The shelf stays the caller's: it is not closed here.

    Args:
        shelf: the models.
        options: see there.
        library: the runs and data sets that the page shows; None serves none.

    Returns:
        The application; `app.state.desk` is what its routes share.

    Raises:
        GroundupError: E-SERVE-010 or E-SERVE-011, the server would be open to everybody.
    """
    check(options)
    desk = Desk(shelf, options)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="groundup",
        summary="Models of your own, behind an interface that is OpenAI's.",
        version=groundup.__version__,
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.desk = desk
    handle(app)
    for part in ROUTERS:
        app.include_router(part.router(desk))
    if library is not None:
        from groundup.serving.library_routes import router

        app.include_router(router(library))
    describe(app, keys=bool(options.keys))
    page = pages.files()
    pages.mount(app, page)
    app.add_middleware(Guard, desk=desk, public=frozenset(page))
    app.add_middleware(Edge, desk=desk)
    return app
