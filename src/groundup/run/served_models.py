"""Loaded models in the form that the server asks for: what writes, and what makes vectors.

The server's interface is serving/served.py. Nothing about HTTP is known here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from groundup.api import LoadedModel
from groundup.data.labelled_examples import Example
from groundup.data.labelled_examples import Piece as TextPiece
from groundup.data.labelled_stream import batches
from groundup.errors import GroundupError
from groundup.functional import evaluating
from groundup.inference import SampleOptions
from groundup.inference.answer import Ask, Step
from groundup.inference.engine import Engine
from groundup.inference.faults import too_long
from groundup.inference.structure import Grammar, Vocabulary, compile_structure
from groundup.models.heads import Headed
from groundup.serving.served import Candidate, Piece, Scored, Sink, Structure, Ticket, Wanted
from groundup.text.chat import ChatTemplate
from groundup.text.foreign import ForeignTokenizer
from groundup.text.rows import RowEncoder, opening_ids
from groundup.text.tokenizer import AnyTokenizer, StreamDecoder

ROWS_AT_ONCE = 32
MOST_GRAMMARS = 32


@dataclass
class ServedLanguage:
    """A language model with its engine; see serving.served.Language."""

    tokenizer: AnyTokenizer
    chat: ChatTemplate | None
    engine: Engine
    _vocabulary: Vocabulary | None = None
    _longest: int = 0
    _grammars: dict[Structure, Grammar] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _making: threading.Lock = field(default_factory=threading.Lock)

    @property
    def context(self) -> int:
        return min(self.engine.runner.context, self.engine.budget.tokens)

    @property
    def vocabulary(self) -> int:
        return self.engine.runner.vocabulary

    @property
    def begin_id(self) -> int | None:
        return self.tokenizer.begin_id

    def chat_ids(self, messages: Sequence[dict[str, Any]], *, go_on: bool = False) -> list[int]:
        if self.chat is None:
            raise GroundupError(
                "E-GEN-007",
                "the model has no chat template",
                where="the model",
                why="it was pretrained only: it goes on with a text, it was never taught to answer",
                fix="ask for a completion instead: POST /v1/completions",
                exit_code=2,
            )
        self._require_short([str(said.get("content") or "") for said in messages])
        said = messages[:-1] if go_on else messages
        ids = list(self.chat.render(said, self.tokenizer, add_generation_prompt=True).ids)
        return ids + self.tokenizer.encode(str(messages[-1].get("content") or "")) if go_on else ids

    def text_ids(self, text: str, *, begin: bool = True) -> list[int]:
        self._require_short([text])
        ids = self.tokenizer.encode(text)
        return opening_ids(self.tokenizer, ids) if begin else ids

    def _require_short(self, texts: Sequence[str]) -> None:
        """Refuse what would not fit if all its tokens were the longest, before it is cut into tokens."""
        if not self._longest:
            tokens = (self.tokenizer.token_bytes(id) for id in range(self.tokenizer.vocabulary))
            self._longest = max(map(len, tokens))
        size = sum(map(len, texts))
        if self.tokenizer.exact and size > self.context * self._longest:
            raise too_long(-(-size // self._longest), self.context)

    def token_bytes(self, id: int) -> bytes:
        if id >= self.tokenizer.vocabulary:
            return b""
        return self.tokenizer.token_bytes(id)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode([id for id in ids if id < self.tokenizer.vocabulary], skip_specials=False)

    def ask(self, ids: Sequence[int], wanted: Wanted, sink: Sink) -> Ticket:
        options = SampleOptions(
            temperature=wanted.temperature,
            top_k=wanted.top_k,
            top_p=wanted.top_p,
            min_p=wanted.min_p,
            repetition_penalty=wanted.repetition_penalty,
            frequency_penalty=wanted.frequency_penalty,
            presence_penalty=wanted.presence_penalty,
            logit_bias=dict(wanted.logit_bias),
            max_tokens=max(1, self.context if wanted.max_tokens is None else min(wanted.max_tokens, self.context)),
            stop=wanted.stop,
            seed=wanted.seed,
        )
        ask = Ask(
            list(ids),
            options,
            frozenset() if wanted.ignore_end else self.tokenizer.end_ids,
            StreamDecoder(self.tokenizer),
            top=wanted.top_logprobs,
            score_prompt=wanted.prompt_logprobs,
            constraint=None if wanted.structure is None else self._grammar(wanted.structure).start(),
        )
        return self.engine.ask(ask, lambda step: sink(step if isinstance(step, GroundupError) else _piece(step)))

    def load_now(self) -> dict[str, float]:
        return self.engine.load_now()

    def make_ready(self, structure: Structure) -> None:
        self._grammar(structure)

    def _grammar(self, structure: Structure) -> Grammar:
        """A structure compiled; the latest ones are remembered."""
        if not self.tokenizer.exact:
            raise GroundupError(
                "E-GEN-010",
                "this model's answers cannot be held to a structure",
                where=f"tokenizer of kind {self.tokenizer.kind}",
                why="it writes text by rules of a whole, so that nobody can say which token spells which characters",
                fix="leave the structure out, or serve a model with a byte-level tokenizer",
                exit_code=2,
            )
        known = self._remembered(structure)
        if known is None:
            with self._making:
                if self._vocabulary is None:
                    self._vocabulary = vocabulary_of(self.tokenizer, self.vocabulary)
                known = compile_structure(self._vocabulary, structure.kind, structure.source)
            with self._lock:
                self._grammars[structure] = known
                if len(self._grammars) > MOST_GRAMMARS:
                    del self._grammars[next(iter(self._grammars))]
        return known

    def _remembered(self, structure: Structure) -> Grammar | None:
        """A structure that was compiled before, as the latest one; the lock is held for no longer than that."""
        with self._lock:
            known = self._grammars.pop(structure, None)
            if known is not None:
                self._grammars[structure] = known
            return known


def vocabulary_of(tokenizer: AnyTokenizer, size: int) -> Vocabulary:
    """What the tokens of a tokenizer write, for structures."""
    unknown = tokenizer.unknown_id if isinstance(tokenizer, ForeignTokenizer) else None
    specials = {*tokenizer.specials.values(), *([] if unknown is None else [unknown])}
    return Vocabulary(
        [tokenizer.token_bytes(id) for id in range(tokenizer.vocabulary)],
        special_ids=specials,
        end_ids=tokenizer.end_ids,
        encode=lambda text: tokenizer.encode(text.decode("utf-8", errors="replace")),
        size=size,
    )


def _piece(step: Step) -> Piece:
    prompt = None if step.prompt is None else tuple(_scored(token) for token in step.prompt)
    return Piece(step.text, None if step.token is None else _scored(step.token), step.finish, prompt, step.cached)


def _scored(token: Any) -> Scored:
    return Scored(token.id, token.logprob, tuple(Candidate(*one) for one in token.top))


@dataclass
class ServedEmbedder:
    """A headed model of kind embed; see serving.served.Embedder."""

    loaded: LoadedModel
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _encoder: RowEncoder = field(init=False)

    def __post_init__(self) -> None:
        self._encoder = RowEncoder(self.loaded.tokenizer)  # once: it reads the whole tokenizer

    @property
    def model(self) -> Headed:
        assert isinstance(self.loaded.model, Headed)
        return self.loaded.model

    @property
    def context(self) -> int:
        return self.model.context

    @property
    def width(self) -> int:
        body: Any = self.model.body
        return int(body.options.width)

    @property
    def vocabulary(self) -> int:
        body: Any = self.model.body
        return int(body.options.vocabulary)

    def text_ids(self, text: str) -> list[int]:
        return self._encoder.encode(text)[0]

    def embed(self, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        examples = [Example((TextPiece(np.array(row, dtype=np.int64), None),), None) for row in ids]
        found: list[list[float]] = [[] for _ in ids]
        how: Any = {"task": "classify", "rows": ROWS_AT_ONCE, "pad_id": self.loaded.tokenizer.pad_id}
        with self._lock, torch.inference_mode(), evaluating(self.model):
            for batch, indices in batches(examples, **how):
                answer = self.model({name: tensor.to(self.loaded.device) for name, tensor in batch.items()})
                for index, row in zip(indices, answer.float().cpu(), strict=True):
                    found[int(index)] = row.tolist()
        return found
