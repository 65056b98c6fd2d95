"""What the server asks of the models that it serves, and nothing about how they are made.

The composition root hands in objects of these kinds; the server knows no network, tokenizer, engine or file of a
model. A language model answers from a thread of its own: pieces arrive by calls of a `Sink`, and the server carries
them into its event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from groundup.errors import GroundupError

Finish = Literal["stop", "length"]


class Candidate(NamedTuple):
    """A token that may stand somewhere, and its log-probability (nats) under the model itself, before temperature
    and filters."""

    id: int
    logprob: float


class Scored(NamedTuple):
    """A token that does stand somewhere. `logprob` is None for the first token of a prompt, before which nothing
    stands; `top` are the likeliest at that place, best first, as many as were asked for."""

    id: int
    logprob: float | None
    top: tuple[Candidate, ...] = ()


class Piece(NamedTuple):
    """A step of an answer.

    text: what is certain of the text now; empty while a character or a possible stop text is incomplete.
    token: the token of this step; None in the last piece, and in one that brings the scores of the prompt.
    finish: in the last piece, and only there: how the answer ended.
    prompt: in the first piece, and only if they were asked for: the scores of the prompt's tokens.
    cached: in the first piece: how many tokens of the prompt had not to be computed again.
    """

    text: str
    token: Scored | None = None
    finish: Finish | None = None
    prompt: tuple[Scored, ...] | None = None
    cached: int = 0


class Structure(NamedTuple):
    """What the text of an answer must be: any JSON object ("json_object", source empty), JSON of a schema
    ("json_schema", source the schema as JSON), a regular expression ("regex"), a grammar of llguidance ("lark"), or
    one of several texts ("choice", source a JSON list)."""

    kind: Literal["json_object", "json_schema", "regex", "lark", "choice"]
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What one answer is to be like. The ranges have been checked; see groundup.inference.SampleOptions."""

    max_tokens: int | None = None
    """None: up to the end of the context."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    seed: int = 0
    top_logprobs: int = 0
    """How many alternatives each piece names beside the token; the token's own log-probability is always there."""
    prompt_logprobs: int | None = None
    """Score the prompt too, naming so many alternatives; None: do not."""
    ignore_end: bool = False
    """Go on after the model ended its answer, up to `max_tokens`."""
    structure: Structure | None = None


Sink = Callable[[Piece | GroundupError], None]
"""Takes the pieces of one answer, called from the engine's thread; after the piece with a finish, or after an
error, it is not called again. It must not block."""


class Ticket(Protocol):
    """An answer under way."""

    def cancel(self) -> None:
        """Stop within one token and free what the answer holds; the sink is not called again. Any thread."""
        ...


class Language(Protocol):
    """A model that writes. All methods but `ask` and `cancel` are pure; all may be called from any thread."""

    @property
    def context(self) -> int:
        """The most tokens that prompt and answer may have together."""
        ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def begin_id(self) -> int | None:
        """What stands before every text, where the model was trained so."""
        ...

    def chat_ids(self, messages: Sequence[dict[str, Any]], *, go_on: bool = False) -> list[int]:
        """Ids of a conversation, with what makes the assistant speak; `go_on`: the last message is the assistant's,
        and its text is gone on with. Special tokens in the messages are plain text.

        Raises:
            GroundupError: E-CHAT-004 a message is malformed or the template refuses the order of roles; E-GEN-007
                there is no template.
        """
        ...

    def text_ids(self, text: str, *, begin: bool = True) -> list[int]:
        """Ids of a plain text, after the one begin token of the model if it has one."""
        ...

    def token_bytes(self, id: int) -> bytes:
        """What a token writes; a special token writes its name."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens; special ones by their names; U+FFFD where the bytes are no text."""
        ...

    def make_ready(self, structure: Structure) -> None:
        """Work out a structure before an answer is asked for with it; takes up to seconds, so off the event loop.

        Raises:
            GroundupError: E-GEN-010 the structure cannot be followed, E-GEN-013 what follows it is not installed.
        """
        ...

    def ask(self, ids: Sequence[int], wanted: Wanted, sink: Sink) -> Ticket:
        """Begin an answer. Returns at once; never waits for the engine.

        Raises:
            GroundupError: E-GEN-002 the prompt is empty, E-GEN-003 it leaves no room in the context, E-GEN-005 it has
                ids that the model does not know, E-GEN-010 the structure cannot be followed, E-GEN-011 as many
                answers wait as may wait.
        """
        ...

    def load_now(self) -> dict[str, float]:
        """How busy it is: `running`, `waiting`, `tokens_cached`, `cache_tokens`, and counters since the start:
        `prompt_tokens`, `cached_tokens`, `answer_tokens`, `answers`, `cancelled`, `failed`."""
        ...


class Embedder(Protocol):
    """A model that makes vectors of texts. Its calls block; run them off the event loop."""

    @property
    def context(self) -> int: ...

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        ...

    @property
    def vocabulary(self) -> int: ...

    def text_ids(self, text: str) -> list[int]: ...

    def embed(self, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector for each row of ids, none longer than `context`."""
        ...


class Classifier(Protocol):
    """A model that judges. Its calls block; run them off the event loop."""

    @property
    def kind(self) -> Literal["text", "image", "table"]: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields of a row, for a table."""
        ...

    def predict(self, inputs: Sequence[str | bytes | Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the model says of each text, encoded image or row: `label` and `probabilities` (name → share), or
        `value` for a regression.

        Raises:
            GroundupError: an image does not decode, a column is missing …
        """
        ...

    def explain(self, item: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
        """What the judgement rests on: `{target, pieces: [{text, weight}], method}` for texts and tables, `{target,
        picture, method}` for images, the picture a PNG as a data URL."""
        ...


@dataclass
class Served:
    """One model, ready to be asked."""

    name: str
    created: int
    """Seconds since 1970."""
    card: dict[str, Any]
    """family, parameters, bytes, format, path, digest, precision, context, lineage (run, data, base), adapters …"""
    language: Language | None = None
    embedder: Embedder | None = None
    classifier: Classifier | None = None


class Shelf(Protocol):
    """The models of a server, by name. Any thread may call it; `get` blocks while weights are read."""

    def names(self) -> list[str]:
        """Of all models that may be asked for, loaded or not, the default one first."""
        ...

    def cards(self) -> list[dict[str, Any]]:
        """`{name, created, loaded, …card}` of each."""
        ...

    def loaded(self) -> list[Served]:
        """The models that are loaded now; this is no use of them."""
        ...

    def find(self, name: str) -> Served | None:
        """The model if it is loaded, which is a use of it; never waits."""
        ...

    def get(self, name: str) -> Served:
        """The model, loaded if it was not.

        Raises:
            GroundupError: E-SERVE-001 there is none of that name; E-SERVE-002 it does not fit the memory.
        """
        ...

    def ready(self) -> bool:
        """Whether the models that were asked for at the start are loaded."""
        ...
