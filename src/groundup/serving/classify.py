"""POST /v1/classify: what a model with labels says of texts, images or rows of a table."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from groundup.serving.description import errors, sends, takes
from groundup.serving.desk import Desk
from groundup.serving.errors import Refused
from groundup.serving.reading import ignored, read
from groundup.serving.schema import KNOWN_OTHER, ClassifyRequest
from groundup.serving.served import Classifier
from groundup.serving.streams import unless_gone, within

Item = str | bytes | Mapping[str, Any]
PICTURE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp")


def picture(text: str, path: str) -> bytes:
    """The bytes of an encoded image that came as a data URL or as plain base64.

    Raises:
        Refused: 400, it is neither.
    """
    coded = text
    if text.startswith("data:"):
        head, _, coded = text.partition(",")
        kind, _, encoding = head.removeprefix("data:").partition(";")
        if kind not in PICTURE_TYPES or encoding != "base64":
            raise Refused(400, f"{path} must be a data URL with base64 of {', '.join(PICTURE_TYPES)}",
                          "invalid_value", path)  # fmt: skip
    elif "://" in text[:40]:
        raise Refused(400, f"{path} is an address; images are sent, not fetched", "invalid_value", path)
    try:
        return base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, f"{path} is no base64", "invalid_value", path) from None


def items_of(body: ClassifyRequest, classifier: Classifier) -> list[Item]:
    """The inputs as the model takes them.

    Raises:
        Refused: 400, they are of another kind, or a row lacks a column.
    """
    given: list[Any] = body.input if isinstance(body.input, list) else [body.input]
    found: list[Item] = []
    for number, item in enumerate(given):
        path = f"input[{number}]" if isinstance(body.input, list) else "input"
        if (classifier.kind == "table") != isinstance(item, dict):
            wanted = {"text": "a text", "image": "an image as a data URL", "table": "a row as an object"}
            raise Refused(400, f"{path}: this model takes {wanted[classifier.kind]}", "invalid_value", path)
        if isinstance(item, dict):
            missing = [column for column in classifier.columns if column not in item]
            if missing:
                raise Refused(400, f"{path} lacks {', '.join(missing[:10])}", "missing_field", f"{path}.{missing[0]}")
            found.append(item)
        else:
            found.append(picture(item, path) if classifier.kind == "image" else item)
    return found


def judged(classifier: Classifier, items: list[Item], explain: bool) -> list[dict[str, Any]]:
    """What the model says of each, with its grounds if they are wanted. Blocks."""
    found = []
    for index, (item, judgement) in enumerate(zip(items, classifier.predict(items))):
        entry = {"index": index, **judgement}
        if explain:
            entry["explanation"] = classifier.explain(item)
        found.append(entry)
    return found


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/classify", openapi_extra=takes(ClassifyRequest), responses=errors(404, 503) | sends("Judgements"))
    async def classify(request: Request) -> Response:
        """Labels with their probabilities, or values."""
        body = await read(request, ClassifyRequest, desk.options)
        headers = ignored(body, KNOWN_OTHER, desk.options, [])
        served, classifier = await desk.classifier(body.model)
        items = await desk.in_thread(lambda: items_of(body, classifier))
        judging = desk.compute(lambda: judged(classifier, items, bool(body.explain)))
        data = await unless_gone(request.receive, within(desk.options.request_seconds, judging))
        answer = {"object": "list", "model": served.name, "labels": list(classifier.labels), "data": data}
        return JSONResponse(answer, headers=headers)

    return routes
