"""POST /tokenize and /detokenize: the ids of a text or a conversation, and the text of ids."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from groundup.serving.asking import check_ids
from groundup.serving.description import errors, sends, takes
from groundup.serving.desk import Desk
from groundup.serving.errors import Refused
from groundup.serving.reading import ignored, read
from groundup.serving.schema import DetokenizeRequest, TokenizeRequest
from groundup.serving.served import Language
from groundup.serving.tools import rendered


def ids_of(body: TokenizeRequest, language: Language) -> list[int]:
    """The ids that a request asks for. May take long for a long text."""
    if body.messages is not None:
        return language.chat_ids(rendered(body.messages, []))
    return language.text_ids(body.prompt or "", begin=body.add_special_tokens is not False)


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.post("/tokenize", openapi_extra=takes(TokenizeRequest), responses=errors(404, 503) | sends("Tokens"))
    async def tokenize(request: Request) -> Response:
        """The token ids of a text or a conversation."""
        body = await read(request, TokenizeRequest, desk.options)
        if body.prompt is None and body.messages is None:
            raise Refused(400, "prompt or messages must be given", "missing_field", "prompt")
        both = body.prompt is not None and body.messages is not None
        headers = ignored(body, (), desk.options, ["prompt"] if both else [])
        _, language = await desk.language(body.model)
        ids = await desk.in_thread(lambda: ids_of(body, language))
        return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": language.context}, headers=headers)

    @routes.post("/detokenize", openapi_extra=takes(DetokenizeRequest), responses=errors(404, 503) | sends("Text"))
    async def detokenize(request: Request) -> Response:
        """The text of token ids."""
        body = await read(request, DetokenizeRequest, desk.options)
        headers = ignored(body, (), desk.options, [])
        _, language = await desk.language(body.model)
        check_ids(body.tokens, language.vocabulary, "tokens")
        text = await desk.in_thread(lambda: language.decode(body.tokens))
        return JSONResponse({"prompt": text}, headers=headers)

    return routes
