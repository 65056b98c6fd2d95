"""GET /conformance: which points of the OpenAI-compatible surface this build keeps.

Nothing is claimed that was not tried: on the first request the same application is built once more around a model made
of nothing (specimen.py), and each point of probes.py is asked of it, in this process. What rests with the engine, and
so cannot be shown by a model without one, is called partly.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from groundup.serving.description import errors, sends
from groundup.serving.desk import Desk
from groundup.serving.options import ServerOptions
from groundup.serving.probes import POINTS, Broken, Client
from groundup.serving.specimen import Specimen, shelf

POINT_SECONDS = 10.0
CONTEXT, PLACES, KEY = 1024, 8, "k" * 32
STATES = {"pass": "passed", "partly": "partly", "fail": "failed"}


async def examine() -> dict[str, Any]:
    """Try every point."""
    from groundup.serving.app import build  # which has this file's route

    language = Specimen(CONTEXT, PLACES)
    options = ServerOptions(keys=(KEY,), keep_alive_seconds=0.02, max_body_bytes=1 << 14)
    client = Client(build(shelf(language), options), KEY, language)
    points = []
    for point in POINTS:
        fresh = Specimen(CONTEXT, PLACES)
        language.script, language.before_token, language.places = fresh.script, fresh.before_token, fresh.places
        language.counts = fresh.counts
        state, note = ("partly" if point.engine else "pass"), point.engine
        try:
            async with asyncio.timeout(POINT_SECONDS):
                await point.probe(client)
        except Broken as fault:
            state, note = "fail", str(fault)
        except TimeoutError:
            state, note = "fail", f"no answer within {POINT_SECONDS:g} seconds"
        except Exception as fault:  # noqa: BLE001 - an answer of another shape fails its point and no other
            state, note = "fail", f"{type(fault).__name__}: {fault}"
        points.append({"id": point.id, "what": point.what, "state": state, "note": note})
    client.close()
    counts = {name: sum(point["state"] == state for point in points) for state, name in STATES.items()}
    return {**counts, "points": points}


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()
    lock = asyncio.Lock()
    found: dict[str, Any] = {}

    @routes.get("/conformance", responses=errors() | sends("Conformance"))
    async def conformance() -> Response:
        """The points of the OpenAI-compatible surface, tried in this process."""
        async with lock:
            if not found:
                found.update(await desk.in_thread(lambda: asyncio.run(examine())))
        return JSONResponse(found)

    return routes
