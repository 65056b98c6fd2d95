"""The OpenAPI description: what each route takes and sends, and every status that it may answer with.

Requests are described by the types that check them (schema.py), so the two cannot differ; answers by the schemas
here, which the tests hold against real answers.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from groundup.serving.schema import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
)

REQUESTS: tuple[type[BaseModel], ...] = (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    ClassifyRequest,
    TokenizeRequest,
    DetokenizeRequest,
)
REFERENCE = "#/components/schemas/{model}"
STATUSES = {
    400: "The request is malformed, or a field is outside its range.",
    401: "No key, a wrong one or several.",
    403: "The Host or Origin is not one that this server answers.",
    404: "There is no such model.",
    408: "The request came too slowly.",
    413: "The request is too long.",
    415: "The request is not JSON.",
    429: "Too many requests are under way; Retry-After says when to come again.",
    500: "A fault of the server.",
    503: "The server is stopping, loading or out of memory; Retry-After says when to come again.",
}

STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_USAGE = _object(
    {"prompt_tokens": INTEGER, "total_tokens": INTEGER},
    {"completion_tokens": INTEGER, "prompt_tokens_details": _object({"cached_tokens": INTEGER})},
)
_TOKEN = {"token": STRING, "logprob": NUMBER, "bytes": _list(INTEGER)}
_CHAT_LOGPROBS = _object({"content": _list(_object({**_TOKEN, "top_logprobs": _list(_object(_TOKEN))}))})
_COLUMNS = _object(
    {
        "tokens": _list(STRING),
        "token_logprobs": _list(_or_null(NUMBER)),
        "top_logprobs": _list(_or_null({"type": "object", "additionalProperties": NUMBER})),
        "text_offset": _list(INTEGER),
    }
)
_CALL = _object(
    {"id": STRING, "type": {"const": "function"}, "function": _object({"name": STRING, "arguments": STRING})}
)
_MESSAGE = _object({"role": {"const": "assistant"}, "content": _or_null(STRING)}, {"tool_calls": _list(_CALL)})


def _finish(*more: str) -> dict[str, Any]:
    return {"enum": ["stop", "length", *more]}


def _answer(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    head = {"id": STRING, "object": {"const": kind}, "created": INTEGER, "model": STRING}
    return _object({**head, "choices": _list(_object({"index": INTEGER, **choice})), "usage": _USAGE})


_MODEL = _object(
    {"id": STRING, "object": {"const": "model"}, "created": INTEGER, "owned_by": STRING},
    {"loaded": {"type": "boolean"}, "max_model_len": INTEGER, "card": {"type": "object"}},
)
_VECTOR = {"anyOf": [_list(NUMBER), STRING]}

ANSWERS: dict[str, dict[str, Any]] = {
    "Error": _object(
        {"error": _object({"message": STRING, "type": STRING, "param": _or_null(STRING), "code": _or_null(STRING)})}
    ),
    "ChatCompletion": _answer(
        "chat.completion",
        {"message": _MESSAGE, "logprobs": _or_null(_CHAT_LOGPROBS), "finish_reason": _finish("tool_calls")},
    ),
    "Completion": _answer(
        "text_completion", {"text": STRING, "logprobs": _or_null(_COLUMNS), "finish_reason": _finish()}
    ),
    "Embeddings": _object(
        {
            "object": {"const": "list"},
            "data": _list(_object({"object": {"const": "embedding"}, "index": INTEGER, "embedding": _VECTOR})),
            "model": STRING,
            "usage": _USAGE,
        }
    ),
    "Judgements": _object(
        {
            "object": {"const": "list"},
            "model": STRING,
            "labels": _list(STRING),
            "data": _list(
                _object(
                    {"index": INTEGER},
                    {
                        "label": STRING,
                        "probabilities": {"type": "object", "additionalProperties": NUMBER},
                        "value": NUMBER,
                        "explanation": {"type": "object"},
                    },
                )
            ),
        }
    ),
    "Tokens": _object({"tokens": _list(INTEGER), "count": INTEGER, "max_model_len": INTEGER}),
    "Text": _object({"prompt": STRING}),
    "Models": _object({"object": {"const": "list"}, "data": _list(_MODEL)}),
    "Model": _MODEL,
    "Status": _object({"status": STRING}),
    "Metrics": STRING,
    "Conformance": _object(
        {
            "passed": INTEGER,
            "partly": INTEGER,
            "failed": INTEGER,
            "points": _list(
                _object({"id": STRING, "what": STRING, "state": {"enum": ["pass", "partly", "fail"]}, "note": STRING})
            ),
        }
    ),
}

Responses = dict[int | str, dict[str, Any]]


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """The description of a request body, for `openapi_extra`."""
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def sends(name: str, *, kind: str = "application/json", stream: bool = False) -> Responses:
    """The description of a good answer, for `responses`."""
    content: dict[str, Any] = {kind: {"schema": {"$ref": REFERENCE.format(model=name)}}}
    if stream:
        content["text/event-stream"] = {"schema": STRING}
    return {200: {"description": "The answer.", "content": content}}


def errors(*more: int) -> Responses:
    """The description of all bad answers: those that every route may give, and some more."""
    schema = {"application/json": {"schema": {"$ref": REFERENCE.format(model="Error")}}}
    always = (400, 401, 403, 408, 413, 415, 429, 500, 503)
    return {status: {"description": STATUSES[status], "content": schema} for status in sorted({*always, *more})}


def describe(app: FastAPI, keys: bool) -> None:
    """Give an application its description, at /openapi.json."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            _, definitions = models_json_schema([(model, "validation") for model in REQUESTS], ref_template=REFERENCE)
            components = found.setdefault("components", {})
            components["schemas"] = {**components.get("schemas", {}), **definitions["$defs"], **ANSWERS}
            if keys:
                components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                found["security"] = [{"key": []}]
                found["paths"]["/health"]["get"]["security"] = []
            for path in found["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)  # the framework's own, which never comes
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> Response:
        """This description."""
        return JSONResponse(app.openapi())
