"""POST /v1/chat/completions: from messages to an answer, whole or streamed.

Both are made of the same steps: a `Choice` turns the pieces of one answer into deltas; the stream sends them as they
come, the whole answer joins them. So what is streamed is what is not (C11).
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from groundup.serving import scores
from groundup.serving.asking import (
    Envelope,
    Usage,
    check_depth,
    check_room,
    no_effect,
    structure_of,
    wanted_of,
)
from groundup.serving.description import errors, sends, takes
from groundup.serving.desk import Desk
from groundup.serving.errors import Refused
from groundup.serving.reading import ignored, read
from groundup.serving.schema import KNOWN_CHAT, ChatRequest, Tool
from groundup.serving.served import Finish, Language, Piece
from groundup.serving.streams import KEEP_ALIVE, Answers, Asked, answered
from groundup.serving.tools import CallReader, Said, demanded, rendered


@dataclass
class Step:
    """What one piece adds to one choice."""

    deltas: list[dict[str, Any]]
    logprobs: list[dict[str, Any]]


@dataclass
class Choice:
    """One answer of a chat, as its pieces come."""

    language: Language
    reader: CallReader | None
    scored: bool
    finish: Finish | None = None
    ids: list[str] = field(default_factory=list)
    """Of the calls."""

    @property
    def finish_reason(self) -> str | None:
        if self.reader is not None and self.reader.calls and self.finish == "stop":
            return "tool_calls"
        return self.finish

    def take(self, piece: Piece) -> Step:
        """What a piece adds."""
        if self.reader is None:
            said = [Said("content", piece.text)] if piece.text else []
        else:
            said = self.reader.feed(piece.text)
            if piece.finish is not None:
                said += self.reader.close()
        self.finish = piece.finish
        if self.reader is not None and self.reader.finished:
            self.finish = "stop"
        scored = [scores.chat(self.language, piece.token)] if self.scored and piece.token is not None else []
        return Step([self._delta(step) for step in said], scored)

    def _delta(self, said: Said) -> dict[str, Any]:
        if said.kind == "content":
            return {"content": said.text}
        if said.kind == "name":
            self.ids.append(f"call_{secrets.token_hex(12)}")
            call: dict[str, Any] = {
                "index": said.call,
                "id": self.ids[said.call],
                "type": "function",
                "function": {"name": said.text, "arguments": ""},
            }
        else:
            call = {"index": said.call, "function": {"arguments": said.text}}
        return {"tool_calls": [call]}


class Conversation:
    """One request and its answers."""

    def __init__(self, model: str, body: ChatRequest, choices: list[Choice], usage: Usage) -> None:
        self._body, self._choices, self._usage = body, choices, usage
        self._around = Envelope("chatcmpl", ("chat.completion", "chat.completion.chunk"), model, body, usage)

    async def _steps(self, answers: Answers, silence: float | None) -> AsyncGenerator[tuple[int, Step] | None, None]:
        """Which choice, and what is new of it; None after a silence."""
        async for arrived in answers.pieces(silence):
            if arrived is None:
                yield None
                continue
            index, piece = arrived
            choice = self._choices[index]
            self._usage.add(index, piece)
            step = choice.take(piece)
            if choice.finish is not None:
                answers.drop(index)  # a call that ends the answer may come before the model's own end
            yield index, step

    async def whole(self, answers: Answers) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        contents: list[list[str]] = [[] for _ in self._choices]
        calls: list[list[dict[str, Any]]] = [[] for _ in self._choices]
        logprobs: list[list[dict[str, Any]]] = [[] for _ in self._choices]
        async for arrived in self._steps(answers, None):
            assert arrived is not None
            index, step = arrived
            logprobs[index] += step.logprobs
            for delta in step.deltas:
                if "content" in delta:
                    contents[index].append(delta["content"])
                for call in delta.get("tool_calls", ()):
                    if "id" in call:
                        calls[index].append({k: v for k, v in call.items() if k != "index"})
                    else:
                        calls[index][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
        choices = []
        for index, choice in enumerate(self._choices):
            message: dict[str, Any] = {"role": "assistant", "content": "".join(contents[index]), "refusal": None}
            if calls[index]:
                message = {**message, "content": message["content"] or None, "tool_calls": calls[index]}
            scored = {"content": logprobs[index], "refusal": None} if self._body.logprobs else None
            choices.append(
                {"index": index, "message": message, "logprobs": scored, "finish_reason": choice.finish_reason}
            )
        return self._around.whole(choices)

    def _choice(
        self, index: int, delta: dict[str, Any], finish: str | None = None, scored: list[dict[str, Any]] | None = None
    ) -> bytes:
        logprobs = {"content": scored, "refusal": None} if scored else None
        return self._around.chunk({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish})

    def _sent(self, index: int, step: Step) -> Iterator[bytes]:
        deltas = step.deltas or ([{"content": ""}] if step.logprobs else [])
        for number, delta in enumerate(deltas):
            yield self._choice(index, delta, None, step.logprobs if number == 0 else None)
        finish = self._choices[index].finish_reason
        if finish is not None:
            yield self._choice(index, {}, finish)

    async def events(self, answers: Answers, silence: float) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events."""
        for index in range(len(self._choices)):
            yield self._choice(index, {"role": "assistant", "content": ""})
        async for arrived in self._steps(answers, silence):
            if arrived is None:
                yield KEEP_ALIVE
                continue
            for chunk in self._sent(*arrived):
                yield chunk
        for last in self._around.end():
            yield last


def prepared(
    body: ChatRequest, tools: Sequence[Tool], language: Language, desk: Desk
) -> tuple[list[int], list[CallReader | None], list[Any]]:
    """The ids of the conversation, and for each answer who reads its calls and what it is to be like. May take long
    for a long conversation.

    Raises:
        Refused, GroundupError: 400, the messages, tools, structure or length cannot be used.
    """
    for number, tool in enumerate(tools):
        check_depth(tool.function.parameters, desk.options, f"tools[{number}].function.parameters")
    forced = demanded(tools, body.tool_choice)
    last = body.messages[-1].role
    if body.continue_final_message and last != "assistant":
        raise Refused(
            400, f"continue_final_message: the last message must be the assistant's, and is of {last}",
            "invalid_value", "continue_final_message",
        )  # fmt: skip
    ids = language.chat_ids(rendered(body.messages, tools), go_on=bool(body.continue_final_message))
    check_room(ids, language)
    wanted = wanted_of(
        body,
        language,
        forced or structure_of(body, desk.options),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else 0,
    )
    for structure in {one.structure for one in wanted if one.structure is not None}:
        language.make_ready(structure)
    single = body.parallel_tool_calls is False
    names = [tool.function.name for tool in tools]
    readers = [CallReader(names, bare=forced is not None, single=single) if tools else None for _ in wanted]
    return ids, readers, wanted


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/chat/completions",
        openapi_extra=takes(ChatRequest),
        responses=errors(404, 429, 503) | sends("ChatCompletion", stream=True),
    )
    async def chat_completions(request: Request) -> Response:
        """An answer to a conversation."""
        body = await read(request, ChatRequest, desk.options)
        headers = ignored(body, KNOWN_CHAT, desk.options, no_effect(body))
        served, language = await desk.language(body.model)
        tools = [] if body.tool_choice == "none" else body.tools or []
        ids, readers, wanted = await desk.in_thread(lambda: prepared(body, tools, language, desk))
        answers = desk.answers(language, [Asked(ids, one) for one in wanted])
        usage = Usage([len(ids)], len(wanted))
        choices = [Choice(language, reader, bool(body.logprobs)) for reader in readers]
        conversation = Conversation(served.name, body, choices, usage)
        return await answered(request, answers, conversation, desk.options, headers, stream=bool(body.stream))

    return routes
