"""From the bytes of a request to a checked object, or to an error that names the JSON path, the value and what is
legal. No route, no model.

JSON is taken as its standard has it, which the standard library does not: no NaN, no number beyond float64, no key
twice, no lone surrogate, and no nesting without end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
from collections.abc import Collection, Iterator
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from groundup.errors import nearest, printable
from groundup.serving.errors import Refused
from groundup.serving.options import ServerOptions
from groundup.serving.schema import MOST_KEYS

DEEPEST = 64
MOST_DIGITS = 400
MOST_FAULTS, MOST_READ, MOST_NAMES = 5, 50, 20
EXACT = 2**53
"""Below this every whole float64 is exactly one integer."""
INLINE_BYTES = 1 << 16
"""A body up to this size is parsed at once; a longer one in a thread, so that the others need not wait."""

log = logging.getLogger("groundup.serving")
Model = TypeVar("Model", bound=BaseModel)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_KEYS:
        raise ValueError(f"an object has {len(pairs)} keys, at most {MOST_KEYS}")
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {printable(json.dumps(twice), 60)} stands twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _float(text: str) -> float:
    """JSON has one kind of number: 3.0 is the integer 3."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{printable(text, 30)} is too large for a number")
    return int(value) if value.is_integer() and abs(value) < EXACT else value


def _int(text: str) -> int:
    """An integer; one of thousands of digits takes long to read and longer to show."""
    if len(text) > MOST_DIGITS:
        raise ValueError(f"{text[:12]}… is too large for a number")
    return int(text)


def depth(value: object) -> int:
    """How deeply lists and objects are nested; 0 for a plain value."""
    deepest, level = 0, [value]
    while True:
        inner: list[object] = []
        found = False
        for item in level:
            if isinstance(item, dict):
                found = True
                inner.extend(item.values())
            elif isinstance(item, list):
                found = True
                inner.extend(item)
        if not found:
            return deepest
        deepest, level = deepest + 1, inner


def _texts(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def parse(raw: bytes) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        Refused: 400, with what is wrong and where.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8: byte {error.start}", "invalid_json") from None
    except json.JSONDecodeError as error:
        raise Refused(
            400, f"the body is not JSON: {error.msg}, line {error.lineno} column {error.colno}", "invalid_json"
        ) from None
    except RecursionError:
        raise Refused(400, f"the body is nested too deeply: at most {DEEPEST}", "invalid_json") from None
    except ValueError as error:
        raise Refused(400, f"the body is not JSON that can be used: {error}", "invalid_json") from None
    if not isinstance(value, dict):
        raise Refused(400, f"the body must be a JSON object, and is {_kind(value)}", "invalid_json")
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and depth(value) > DEEPEST:
        raise Refused(400, f"the body is nested too deeply: at most {DEEPEST}", "invalid_json")
    if b"\\u" in raw:
        for text in _texts(value):
            try:
                text.encode()
            except UnicodeEncodeError:
                fault = "the body holds half of a surrogate pair, which is no character"
                raise Refused(400, fault, "invalid_json") from None
    return value


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def path_of(location: tuple[int | str, ...], value: object, *, missing: bool) -> tuple[str, object]:
    """The JSON path of a fault that pydantic found, such as `messages[0].content`, and what stands there.

    Pydantic's locations also name which member of a union was tried; what is not in the body is left out, unless it
    is the key that is missing.
    """
    path = ""
    for number, step in enumerate(location, 1):
        last = number == len(location)
        if isinstance(value, list) and isinstance(step, int):
            path, value = f"{path}[{step}]", value[step] if step < len(value) else None
        elif isinstance(value, dict) and step in value:
            tag = step in (value.get("role"), value.get("type"), value.get("kind"))
            if tag and not last and location[number] in value:
                continue  # it names the member of a union, and is the name of a field too
            path, value = f"{path}.{step}", value[str(step)]
        elif isinstance(value, dict) and last and missing:
            path, value = f"{path}.{step}", ...
    return path.removeprefix("."), value


def _brief(value: object, levels: int = 3) -> object:
    """As much of a value as can be shown."""
    if isinstance(value, str):
        return value[:100]
    if isinstance(value, list):
        return [_brief(item, levels - 1) for item in value[:20]] if levels else []
    if isinstance(value, dict):
        return {k[:100]: _brief(v, levels - 1) for k, v in itertools.islice(value.items(), 20)} if levels else {}
    return value


def _refused(error: ValidationError, value: dict[str, Any], model: type[BaseModel]) -> Refused:
    faults: dict[str, tuple[list[str], object]] = {}
    missing = False
    # bounded, because a body can hold a million faults, and they are compared with one another below
    for fault in error.errors(include_url=False, include_input=False)[:MOST_READ]:
        location, absent = fault["loc"], fault["type"] in ("missing", "union_tag_not_found")
        if fault["type"].startswith("union_tag"):
            location = (*location, str(fault.get("ctx", {}).get("discriminator", "")).strip("'"))
        path, found = path_of(location, value, missing=absent)
        missing = missing or absent
        said = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        messages = faults.setdefault(path, ([], found))[0]
        if said not in messages:
            messages.append(said)
    # where one member of a union fits further than another, the others' complaints are noise
    paths = [path for path in faults if not any(o != path and o.startswith((f"{path}.", f"{path}[")) for o in faults)]
    lines = []
    for path in paths[:MOST_FAULTS]:
        messages, found = faults[path]
        shown = "" if found is ... else f" = {printable(json.dumps(_brief(found)), 60)}"
        field = model.model_fields.get(path.split(".")[0].split("[")[0])
        legal = f" ({field.description})" if field is not None and field.description else ""
        lines.append(f"{path}{shown}: {' or '.join(messages)}{legal}")
    more = f"; and {len(paths) - MOST_FAULTS} more" if len(paths) > MOST_FAULTS else ""
    return Refused(400, "; ".join(lines) + more, "missing_field" if missing else "invalid_value", paths[0])


def extras(body: BaseModel, path: str = "") -> Iterator[str]:
    """The paths of all fields that a request has and its type does not."""
    for name in body.model_extra or {}:
        yield f"{path}{name}"
    for name, field in type(body).model_fields.items():
        value = body.__dict__[name]
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, BaseModel):
                place = f"[{index}]" if isinstance(value, list) else ""
                yield from extras(item, f"{path}{field.alias or name}{place}.")


def checked(model: type[Model], value: dict[str, Any]) -> Model:
    """The request that an object stands for.

    Raises:
        Refused: 400; every fault with its path, the value and what is legal.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _refused(error, value, model) from None


async def read(request: Request, model: type[Model], options: ServerOptions) -> Model:
    """The checked body of a request.

    Raises:
        Refused: 415 the body is said to be something else than JSON in UTF-8; 400 as `parse` and `checked`.
    """
    headers = request.headers
    kind, _, rest = headers.get("content-type", "").partition(";")
    charset = rest.partition("charset=")[2].strip().strip('"').lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        named = printable(headers.get("content-type", "") or "nothing", 60)
        raise Refused(415, f"the content type must be application/json, and is {named}", "unsupported_media_type")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "the body must not be compressed", "unsupported_media_type")
    raw = await request.body()
    if len(raw) <= INLINE_BYTES:
        return checked(model, parse(raw))
    return await asyncio.to_thread(lambda: checked(model, parse(raw)))


def ignored(body: BaseModel, known: Collection[str], options: ServerOptions, more: list[str]) -> dict[str, str]:
    """The header that names what had no effect.

    Args:
        known: fields of an OpenAI request that this server does not act on.
        more: fields that had no effect beside the others of this request.

    Raises:
        Refused: 400, a field that no such request has, under `strict`.
    """
    names = list(extras(body))
    unknown = [name for name in names if name.rpartition(".")[2] not in known]
    if options.strict and unknown:
        near = nearest(unknown[0], [*type(body).model_fields, *known])
        hint = f"; did you mean {near}?" if near else ""
        raise Refused(400, f"there is no field {printable(unknown[0], 60)}{hint}", "unknown_field", unknown[0])
    names = [*names, *more]
    shown = [_header(name) for name in names[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        shown.append(f"and {len(names) - MOST_NAMES} more")
    return {"x-groundup-ignored": ", ".join(shown)} if shown else {}


def _header(text: str) -> str:
    """A text that can stand in a header: printable ASCII, bounded."""
    return printable(text, 60).encode("ascii", "backslashreplace").decode("ascii")
