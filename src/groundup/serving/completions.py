"""POST /v1/completions: plain text goes on. What evaluation harnesses use: token ids, echo and log-probabilities of
the prompt too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from groundup.serving import scores
from groundup.serving.asking import (
    Envelope,
    Usage,
    check_ids,
    check_room,
    no_effect,
    structure_of,
    wanted_of,
)
from groundup.serving.description import errors, sends, takes
from groundup.serving.desk import Desk
from groundup.serving.errors import Refused
from groundup.serving.reading import ignored, read
from groundup.serving.schema import KNOWN_COMPLETION, CompletionRequest
from groundup.serving.served import Finish, Language, Piece, Wanted
from groundup.serving.streams import KEEP_ALIVE, Answers, Asked, answered

DEFAULT_TOKENS = 16
"""How long an answer is unless it is said, as OpenAI has it for plain completions."""


@dataclass
class Prompt:
    """One of a request's prompts: its ids, its text as it is echoed, and how many tokens at the front are not in it."""

    ids: list[int]
    text: str
    unseen: int


def prompts_of(body: CompletionRequest, language: Language) -> list[Prompt]:
    """The prompts of a request. May take long for long texts.

    Raises:
        Refused: 400, a prompt is empty, too long or has ids that the model does not know.
    """
    given: list[Any]
    if isinstance(body.prompt, str):
        given = [body.prompt]
    else:
        given = [body.prompt] if isinstance(body.prompt[0], int) else list(body.prompt)
    found = []
    for number, prompt in enumerate(given):
        path = "prompt" if len(given) == 1 else f"prompt[{number}]"
        if isinstance(prompt, str):
            ids = language.text_ids(prompt)
            unseen = int(language.begin_id is not None and ids[:1] == [language.begin_id])
            found.append(Prompt(ids, prompt, unseen))
        else:
            check_ids(prompt, language.vocabulary, path)
            found.append(Prompt(list(prompt), language.decode(prompt) if body.echo else "", 0))
        if not found[-1].ids:
            raise Refused(400, f"{path} has no tokens", "empty_prompt", path)
        check_room(found[-1].ids, language)
    return found


class Choice:
    """One answer, as its pieces come."""

    def __init__(self, language: Language, prompt: Prompt, body: CompletionRequest) -> None:
        self._language, self._prompt = language, prompt
        self._echo, self._scored = bool(body.echo), body.logprobs is not None
        self._prompt_alone = body.max_tokens == 0
        self._columns = scores.Columns(language)
        self._text_columns = scores.Columns(language, len(prompt.text)) if self._echo else self._columns
        self.finish: Finish | None = "length" if self._prompt_alone else None

    def take(self, piece: Piece) -> tuple[str, dict[str, Any] | None]:
        """The new text, and the log-probabilities of the new tokens."""
        if self._prompt_alone:  # an engine may write a token all the same
            piece = Piece("", None, "length", piece.prompt, piece.cached)
        text, parts = piece.text, []
        self.finish = piece.finish
        if piece.prompt is not None and self._echo:
            written = b"".join(self._language.token_bytes(token.id) for token in piece.prompt[self._prompt.unseen :])
            shift = max(0, len(written.decode("utf-8", "replace")) - len(self._prompt.text))
            parts.append(self._columns.add(piece.prompt, unseen=self._prompt.unseen, shift=shift))
        if piece.token is not None and self._scored:
            parts.append(self._text_columns.add([piece.token]))
        return text, scores.joined(parts) if parts else None


class Continuation:
    """One request and its answers."""

    def __init__(self, model: str, body: CompletionRequest, prompts: list[Prompt], language: Language) -> None:
        self._body, self._n = body, body.n or 1
        self._prompts = prompts
        self._choices = [Choice(language, prompt, body) for prompt in prompts for _ in range(self._n)]
        self._usage = Usage([len(prompt.ids) for prompt in prompts], self._n)
        self._echo_alone = body.max_tokens == 0 and body.logprobs is None
        """The answer is the prompt, for which no model is needed."""
        self._around = Envelope("cmpl", ("text_completion", "text_completion"), model, body, self._usage)

    def asked(self, wanted: list[Wanted]) -> list[Asked]:
        """What the model is asked."""
        if self._echo_alone:
            return []
        return [Asked(prompt.ids, one) for prompt in self._prompts for one in wanted]

    async def _steps(
        self, answers: Answers, silence: float | None
    ) -> AsyncGenerator[tuple[int, str, dict[str, Any] | None] | None, None]:
        """Which choice, its new text and log-probabilities; None after a silence."""
        if self._echo_alone:
            for index in range(len(self._choices)):
                yield index, "", None
        async for arrived in answers.pieces(silence):
            if arrived is None:
                yield None
                continue
            index, piece = arrived
            text, scored = self._choices[index].take(piece)
            if self._body.max_tokens == 0:
                answers.drop(index)
            else:
                self._usage.add(index, piece)
            yield index, text, scored

    async def whole(self, answers: Answers) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        count = len(self._choices)
        texts = [self._prompts[i // self._n].text if self._body.echo else "" for i in range(count)]
        logprobs: list[list[dict[str, Any]]] = [[] for _ in range(count)]
        async for arrived in self._steps(answers, None):
            assert arrived is not None
            index, text, scored = arrived
            texts[index] += text
            if scored is not None:
                logprobs[index].append(scored)
        choices = [
            {
                "index": index,
                "text": texts[index],
                "logprobs": scores.joined(logprobs[index]) if self._body.logprobs is not None else None,
                "finish_reason": choice.finish,
            }
            for index, choice in enumerate(self._choices)
        ]
        return self._around.whole(choices)

    def _choice(self, index: int, text: str, scored: dict[str, Any] | None, finish: str | None = None) -> bytes:
        return self._around.chunk({"index": index, "text": text, "logprobs": scored, "finish_reason": finish})

    async def events(self, answers: Answers, silence: float) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events."""
        if self._body.echo:
            for index in range(len(self._choices)):
                yield self._choice(index, self._prompts[index // self._n].text, None)
        async for arrived in self._steps(answers, silence):
            if arrived is None:
                yield KEEP_ALIVE
                continue
            index, text, scored = arrived
            if text or scored:
                yield self._choice(index, text, scored)
            if self._choices[index].finish is not None:
                yield self._choice(index, "", None, self._choices[index].finish)
        for last in self._around.end():
            yield last


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/completions",
        openapi_extra=takes(CompletionRequest),
        responses=errors(404, 429, 503) | sends("Completion", stream=True),
    )
    async def completions(request: Request) -> Response:
        """What a text goes on with."""
        body = await read(request, CompletionRequest, desk.options)
        headers = ignored(body, KNOWN_COMPLETION, desk.options, no_effect(body))
        if body.max_tokens == 0 and not body.echo:
            raise Refused(400, "max_tokens = 0: an integer from 1; 0 only with echo", "invalid_value", "max_tokens")
        served, language = await desk.language(body.model)
        prompts = await desk.in_thread(lambda: prompts_of(body, language))
        continuation = Continuation(served.name, body, prompts, language)
        structure = structure_of(body, desk.options)
        if structure is not None:
            await desk.in_thread(lambda: language.make_ready(structure))
        wanted = wanted_of(
            body,
            language,
            structure,
            max_tokens=DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens,
            top_logprobs=body.logprobs or 0,
            prompt_logprobs=body.logprobs if body.echo else None,
        )
        answers = desk.answers(language, continuation.asked(wanted))
        return await answered(request, answers, continuation, desk.options, headers, stream=bool(body.stream))

    return routes
