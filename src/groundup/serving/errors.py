"""How a fault becomes an answer: `{"error": {message, type, param, code}}` with the status, and nothing else.

Everything that goes wrong in the server ends here: a request that is refused, a `GroundupError` of a model, what the
framework itself refuses, and the unforeseen. What is shown of a request is bounded and escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from groundup.errors import GroundupError, printable

LONGEST_MESSAGE = 2000
RETRY_SECONDS = 1
"""What Retry-After says: a place in the queue is free when any answer ends, which is soon."""

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
}
STATUS = {  # of a GroundupError, by its code; others by `ROOMS`
    "E-SERVE-001": (404, "model_not_found", "model"),
    "E-SERVE-002": (503, "model_does_not_fit", "model"),
    "E-SERVE-041": (404, "E-SERVE-041", None),
    "E-SERVE-042": (403, "E-SERVE-042", None),
    "E-GEN-001": (400, "invalid_value", None),
    "E-GEN-002": (400, "empty_prompt", None),
    "E-GEN-003": (400, "context_length_exceeded", None),
    "E-GEN-005": (400, "invalid_token", None),
    "E-GEN-007": (400, "no_chat_template", "model"),
    "E-GEN-010": (400, "invalid_structure", None),
    "E-GEN-012": (400, "invalid_structure", None),
    "E-GEN-013": (400, "unsupported_structure", None),
    "E-GEN-014": (503, "server_stopping", None),
    "E-GEN-011": (429, "rate_limit_exceeded", None),
}
ROOMS = ("E-CHAT-", "E-DATA-", "E-TOKEN-")
"""Faults of these kinds come from what was sent; those of other kinds are the server's."""


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP, 400 to 599.
        message: what is wrong and what would be right; one line.
        code: a word for programs.
        param: the field at fault, as a JSON path.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = printable(message, LONGEST_MESSAGE)
        self.code = code
        self.param = printable(param, 200) if param else None
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("retry-after", str(RETRY_SECONDS))

    def body(self) -> dict[str, Any]:
        """The error object of OpenAI."""
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, headers=self.headers)


def of_groundup(error: GroundupError) -> Refused:
    """The answer to a fault that a model or the shelf found."""
    status, code, param = STATUS.get(error.code, (400 if error.code.startswith(ROOMS) else 500, error.code, None))
    parts = [error.what]
    if status < 500:  # what is wrong with the server's own files is for its log
        parts += [f"{name}: {text}" for name, text in (("where", error.where), ("fix", error.fix)) if text]
    return Refused(status, "; ".join(" ".join(part.split()) for part in parts), code, param)


def of_library(error: GroundupError) -> JSONResponse:
    """The answer of the page's own routes, whose reader may look into the files at fault: all parts, a line each."""
    parts = [error.what, *(f"{n}: {part}" for n, part in (("where", error.where), ("why", error.why)) if part)]
    status = STATUS.get(error.code, (409,))[0]
    refused = Refused(status, error.what, error.code)
    body = refused.body()
    body["error"]["message"] = "\n".join([*parts, f"fix: {error.fix}"])
    return JSONResponse(body, status)


def too_long(tokens: int, context: int) -> Refused:
    return Refused(
        400,
        f"the prompt has {tokens} tokens, and the context of this model is {context}: at most {context - 1} may be "
        "asked, so that an answer has room",
        "context_length_exceeded",
    )


def out_of_framework(error: HTTPException) -> Refused:
    """What routing itself refuses: no such path, or not with this method."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return Refused(error.status_code, HTTPStatus(error.status_code).phrase, code, headers=error.headers)


def of_query(error: RequestValidationError) -> Refused:
    """The answer to a part of a URL that the framework found wrong."""
    fault = error.errors()[0]
    path = ".".join(str(step) for step in fault["loc"][1:])
    shown = printable(repr(fault.get("input")), 60)
    return Refused(400, f"{path} = {shown}: {fault['msg'].removeprefix('Input ')}", "invalid_value", path)


def handle(app: FastAPI) -> None:
    """Let the application answer every fault in one shape."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return error.response()

    async def groundup(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, GroundupError)
        return of_groundup(error).response()

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        allowed = (error.headers or {}).get("Allow")
        if allowed is None:
            return out_of_framework(error).response()
        methods = ", ".join([allowed, *(["HEAD"] if "GET" in allowed else []), "OPTIONS"])
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": methods})
        refusal = out_of_framework(error)
        refusal.headers = {"allow": methods}
        return refusal.response()

    async def query(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return of_query(error).response()

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, query)
    app.add_exception_handler(GroundupError, groundup)
    app.add_exception_handler(HTTPException, framework)
