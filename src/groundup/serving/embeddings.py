"""POST /v1/embeddings: vectors of texts, as numbers or as the base64 of little-endian float32."""

from __future__ import annotations

import base64
import struct
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from groundup.serving.asking import check_ids
from groundup.serving.description import errors, sends, takes
from groundup.serving.desk import Desk
from groundup.serving.errors import Refused
from groundup.serving.reading import ignored, read
from groundup.serving.schema import KNOWN_OTHER, EmbeddingRequest
from groundup.serving.served import Embedder
from groundup.serving.streams import unless_gone, within


def rows_of(body: EmbeddingRequest, embedder: Embedder) -> list[list[int]]:
    """The ids of each input. May take long for long texts.

    Raises:
        Refused: 400, an input is empty or too long.
    """
    given: list[Any]
    if isinstance(body.input, str):
        given = [body.input]
    else:
        given = [body.input] if isinstance(body.input[0], int) else list(body.input)
    rows = []
    for number, item in enumerate(given):
        path = "input" if len(given) == 1 else f"input[{number}]"
        ids = embedder.text_ids(item) if isinstance(item, str) else list(item)
        if not isinstance(item, str):
            check_ids(ids, embedder.vocabulary, path)
        if not ids:
            raise Refused(400, f"{path} has no tokens", "empty_prompt", path)
        if len(ids) > embedder.context:
            raise Refused(
                400, f"{path} has {len(ids)} tokens, and the context of this model is {embedder.context}",
                "context_length_exceeded", path,
            )  # fmt: skip
        rows.append(ids)
    return rows


def packed(vector: list[float]) -> str:
    """A vector as base64 of little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/embeddings", openapi_extra=takes(EmbeddingRequest), responses=errors(404, 503) | sends("Embeddings")
    )
    async def embeddings(request: Request) -> Response:
        """Vectors of texts."""
        body = await read(request, EmbeddingRequest, desk.options)
        headers = ignored(body, KNOWN_OTHER, desk.options, [])
        served, embedder = await desk.embedder(body.model)
        if body.dimensions not in (None, embedder.width):
            raise Refused(
                400, f"dimensions = {body.dimensions}: the vectors of this model have {embedder.width}",
                "invalid_value", "dimensions",
            )  # fmt: skip
        rows = await desk.in_thread(lambda: rows_of(body, embedder))
        work = within(desk.options.request_seconds, desk.compute(lambda: embedder.embed(rows)))
        vectors = await unless_gone(request.receive, work)
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": packed(vector) if body.encoding_format == "base64" else vector,
            }
            for index, vector in enumerate(vectors)
        ]
        tokens = sum(map(len, rows))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": usage}, headers=headers)

    return routes
