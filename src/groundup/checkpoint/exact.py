"""The state of a run as JSON text that gives back exactly the values that went in.

JSON has no inf and nan, no tuples and no keys that are numbers; each is spelled out here as an object with
one key that starts with `$`. A value of any other type is refused, because a state that comes back as
something else would make a resumed run differ in silence.

Nothing but plain Python values may enter: tensors have their own files.
"""

from __future__ import annotations

import json
import math
from typing import Any

from groundup.errors import GroundupError, printable


def encode_state(state: dict[str, Any]) -> bytes:
    """The JSON text of a state made of None, bool, int, float, str, list, tuple and dict.

    Raises:
        GroundupError: E-CKPT-003, naming the first value that JSON could not give back.
    """
    return json.dumps(_encode(state, "state"), allow_nan=False, separators=(",", ":")).encode("ascii")


def decode_state(text: bytes) -> dict[str, Any]:
    """The inverse of `encode_state`. Raises ValueError for text that it did not write."""
    try:
        state = _decode(json.loads(text))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(state, dict):
        raise ValueError("the state is not an object")
    return state


def _encode(value: Any, path: str) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, list):
        return [_encode(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": [_encode(item, f"{path}[{index}]") for index, item in enumerate(value)]}
    if isinstance(value, dict):
        pairs = [(_encode(key, f"{path} key"), _encode(item, f"{path}.{key}")) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {"$dict": [[key, item] for key, item in pairs]}
    raise GroundupError(
        "E-CKPT-003",
        f"a value of type {type(value).__name__} cannot be saved in the state of a run",
        where=printable(path),
        why="only None, bool, int, float, str, list, tuple and dict come back from JSON exactly as they were",
        fix="convert it in state_dict(): int(…), float(…), list(…); put tensors into a tensor group",
    )


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "$float":
            return float(content)
        if kind == "$tuple":
            return tuple(_decode(item) for item in content)
        if kind == "$dict":
            return {_decode(key): _decode(item) for key, item in content}
    return {key: _decode(item) for key, item in value.items()}
