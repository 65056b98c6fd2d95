"""What chat and plain completions have in common: from the fields of a request to `Wanted`, the check of the context,
the count of tokens, and what stands around the choices of an answer."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from groundup.serving.errors import Refused, too_long
from groundup.serving.options import ServerOptions
from groundup.serving.reading import depth
from groundup.serving.schema import ChatRequest, ChoiceStructure, CompletionRequest, Sampling, SchemaFormat
from groundup.serving.served import Language, Piece, Structure, Wanted
from groundup.serving.streams import DONE, event

SEEDS = 2**63


def check_depth(schema: object, options: ServerOptions, path: str) -> None:
    """Refuse a schema that is nested deeper than the server takes."""
    found = depth(schema)
    if found > options.schema_depth:
        raise Refused(400, f"{path} is nested {found} deep, at most {options.schema_depth}", "invalid_value", path)


def structure_of(body: Sampling, options: ServerOptions) -> Structure | None:
    """What the answer must match, if anything; `response_format` goes before `structure`."""
    if isinstance(body, ChatRequest) and body.response_format is not None:
        if isinstance(body.response_format, SchemaFormat):
            schema = body.response_format.json_schema.schema_
            check_depth(schema, options, "response_format.json_schema.schema")
            return Structure("json_schema", json.dumps(schema))
        if body.response_format.type == "json_object":
            return Structure("json_object")
    if body.structure is None:
        return None
    if isinstance(body.structure, ChoiceStructure):
        return Structure("choice", json.dumps(body.structure.choices))
    return Structure(body.structure.kind, body.structure.source)


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def wanted_of(
    body: ChatRequest | CompletionRequest, language: Language, structure: Structure | None, **more: Any
) -> list[Wanted]:
    """What each of the `n` answers is to be like; the i-th draws with seed + i.

    Raises:
        Refused: 400, a bias names a token that the model does not have.
    """
    bias = {int(name): value for name, value in (body.logit_bias or {}).items()}
    unknown = next((id for id in bias if id >= language.vocabulary), None)
    if unknown is not None:
        raise Refused(
            400, f"logit_bias.{unknown}: the model has tokens 0 to {language.vocabulary - 1}", "invalid_value",
            f"logit_bias.{unknown}",
        )  # fmt: skip
    seed = secrets.randbelow(SEEDS) if body.seed is None else body.seed
    common: dict[str, Any] = {
        "temperature": _given(body.temperature, 1.0),
        "top_p": _given(body.top_p, 1.0),
        "top_k": body.top_k or 0,
        "min_p": body.min_p or 0.0,
        "repetition_penalty": _given(body.repetition_penalty, 1.0),
        "frequency_penalty": body.frequency_penalty or 0.0,
        "presence_penalty": body.presence_penalty or 0.0,
        "logit_bias": bias,
        "stop": (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        "ignore_end": bool(body.ignore_eos),
        "structure": structure,
        **more,
    }
    return [Wanted(seed=(seed + index) % SEEDS, **common) for index in range(body.n or 1)]


def check_room(ids: list[int], language: Language) -> None:
    """Refuse a prompt that leaves no room for an answer.

    Raises:
        Refused: 400 context_length_exceeded, with both numbers.
    """
    if len(ids) >= language.context:
        raise too_long(len(ids), language.context)


def check_ids(ids: list[int], vocabulary: int, path: str) -> None:
    bad = next((index for index, id in enumerate(ids) if id >= vocabulary), None)
    if bad is not None:
        raise Refused(
            400, f"{path}[{bad}] = {ids[bad]}: the model has tokens 0 to {vocabulary - 1}", "invalid_token",
            f"{path}[{bad}]",
        )  # fmt: skip


class Usage:
    """How many tokens a request took.

    Args:
        prompts: the length of each prompt; a prompt that is answered `n` times counts once.
        n: answers for each prompt.
    """

    def __init__(self, prompts: list[int], n: int) -> None:
        self._prompt, self._n = sum(prompts), n
        self._answer = 0
        self._cached: dict[int, int] = {}

    def add(self, index: int, piece: Piece) -> None:
        """Count a piece of the answer with that number."""
        self._answer += piece.token is not None
        if piece.cached and index % self._n == 0:
            self._cached.setdefault(index, piece.cached)

    def body(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self._prompt,
            "completion_tokens": self._answer,
            "total_tokens": self._prompt + self._answer,
            "prompt_tokens_details": {"cached_tokens": min(sum(self._cached.values()), self._prompt)},
        }


class Envelope:
    """What stands around the choices of one answer.

    Args:
        prefix: of its id.
        kinds: the `object` of a whole answer, and of a chunk.
    """

    def __init__(
        self, prefix: str, kinds: tuple[str, str], model: str, body: ChatRequest | CompletionRequest, usage: Usage
    ) -> None:
        self._kinds, self._usage = kinds, usage
        self._counted = body.stream_options is not None and bool(body.stream_options.include_usage)
        self._id, self._created, self._model = f"{prefix}-{secrets.token_hex(12)}", int(time.time()), model

    def whole(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        return {**self._head(self._kinds[0]), "choices": choices, "usage": self._usage.body()}

    def chunk(self, choice: dict[str, Any]) -> bytes:
        """An event of a stream."""
        usage = {"usage": None} if self._counted else {}
        return event({**self._head(self._kinds[1]), "choices": [choice], **usage})

    def end(self) -> Iterator[bytes]:
        """The last events of a stream: the count of tokens, if it was asked for, and the end."""
        if self._counted:
            yield event({**self._head(self._kinds[1]), "choices": [], "usage": self._usage.body()})
        yield DONE

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


def no_effect(body: ChatRequest | CompletionRequest) -> list[str]:
    """Fields that are well formed and, beside the others, without effect."""
    found = []
    if body.stream_options is not None and not body.stream:
        found.append("stream_options")
    if isinstance(body, ChatRequest):
        if body.top_logprobs is not None and not body.logprobs:
            found.append("top_logprobs")
        if body.max_tokens is not None and body.max_completion_tokens is not None:
            found.append("max_tokens")
        if body.tools and body.tool_choice not in (None, "none", "auto"):  # what a call must be comes first
            found += [name for name in ("response_format", "structure") if name in body.model_fields_set]
        if body.tool_choice is not None and not body.tools:
            found.append("tool_choice")
        if body.parallel_tool_calls is not None and not body.tools:
            found.append("parallel_tool_calls")
        if body.structure is not None and body.response_format is not None and body.response_format.type != "text":
            found.append("structure")
    return found
