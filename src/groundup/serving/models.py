"""GET /v1/models, /health, /ready and /metrics: what is served, and how the server is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from groundup.errors import printable
from groundup.serving.description import errors, sends
from groundup.serving.desk import Desk
from groundup.serving.errors import Refused
from groundup.serving.metrics import CONTENT_TYPE


def entry(card: dict[str, Any]) -> dict[str, Any]:
    """A model as OpenAI lists it, with its card and with the longest text that it reads."""
    found = {
        "id": card["name"],
        "object": "model",
        "created": card["created"],
        "owned_by": "groundup",
        "loaded": bool(card.get("loaded")),
    }
    found["card"] = {name: value for name, value in card.items() if name not in ("name", "created", "loaded")}
    if isinstance(card.get("context"), int):
        found["max_model_len"] = card["context"]
    return found


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/models", responses=errors() | sends("Models"))
    async def models() -> Response:
        """The models that may be asked."""
        cards = desk.shelf.cards()
        return JSONResponse({"object": "list", "data": [entry(card) for card in cards]})

    @routes.get("/v1/models/{name:path}", responses=errors(404) | sends("Model"))
    async def model(name: str) -> Response:
        """One model."""
        cards = desk.shelf.cards()
        found = next((card for card in cards if card["name"] == name), None)
        if found is None:
            raise Refused(404, f"there is no model {printable(name, 100)}", "model_not_found", "model")
        return JSONResponse(entry(found))

    @routes.get("/health", responses=errors() | sends("Status"))
    async def health() -> Response:
        """That the server lives: no model, lock or thread is asked."""
        return JSONResponse({"status": "stopping" if desk.draining else "ok"})

    @routes.get("/ready", responses=errors(503) | sends("Status"))
    async def ready() -> Response:
        """Whether the models are loaded and requests are taken."""
        if desk.draining:
            raise Refused(503, "the server is stopping", "server_stopping")
        if not desk.shelf.ready():
            raise Refused(503, "the models are still being loaded", "not_ready")
        return JSONResponse({"status": "ready"})

    @routes.get("/metrics", responses=errors() | sends("Metrics", kind="text/plain"))
    async def metrics() -> Response:
        """The measurements, for Prometheus."""
        return Response(desk.metrics.page(desk.loads()), headers={"content-type": CONTENT_TYPE})

    return routes
