"""A model made of nothing: what the self-check (conformance.py) and the tests put behind the server.

It reads bytes and writes, one byte a token, what a script says; by default it repeats what it was told. No randomness
but the seed, no weights, no file. It keeps the contract of served.py to the letter, so that what is found against it is
found against the server.
"""

from __future__ import annotations

import codecs
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from groundup.errors import GroundupError
from groundup.serving.served import Candidate, Piece, Scored, Served, Sink, Structure, Ticket, Wanted

BEGIN, END, TURN = 256, 257, 258
NAMES = {BEGIN: b"<begin>", END: b"<end>", TURN: b"<turn>"}
VOCABULARY = 259
COUNTERS = ("prompt_tokens", "cached_tokens", "answer_tokens", "answers", "cancelled", "failed")

Script = Callable[[str, Wanted], str]
"""From the text of the prompt and the wishes to the whole answer, before stops and limits."""


def repeat(prompt: str, wanted: Wanted) -> str:
    """The default script: the last thing that was said, and which draw this is."""
    said = prompt.rsplit("user\n", 1)[-1].split("\n<turn>")[0]
    drawn = f" (draw {wanted.seed})" if wanted.temperature > 0 else ""
    return f"You said: {said}{drawn}"


def instance(schema: Any) -> Any:
    """A value that a simple JSON schema allows."""
    if not isinstance(schema, dict):
        return {}
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("anyOf"):
        return instance(schema["anyOf"][0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object":
        properties = schema.get("properties")
        return {name: instance(of) for name, of in properties.items()} if isinstance(properties, dict) else {}
    return {"array": [], "integer": 3, "number": 2.5, "boolean": True, "null": None}.get(str(kind), "yes — “so”")


def structured(structure: Structure) -> str:
    """A text that a structure allows; of patterns only those that are plain text."""
    if structure.kind == "json_object":
        return '{"answer": 42}'
    if structure.kind == "json_schema":
        return json.dumps(instance(json.loads(structure.source)), ensure_ascii=False)
    if structure.kind == "choice":
        return str(json.loads(structure.source)[0])
    return structure.source


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop that is in it, and whether there was one."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end may yet turn out to begin a stop."""
    return max(
        (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])),
        default=0,
    )


class Work(Ticket):
    """An answer under way."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class Specimen:
    """A `Language`, and a `Ticket` for each answer.

    Args:
        context: the most tokens of prompt and answer together.
        places: how many answers may be under way; more are refused with E-GEN-011.
        script: what it writes.
        before_token: called in the engine's thread before each token, with the number of tokens so far: a test waits
            there, or raises a GroundupError.
    """

    vocabulary = VOCABULARY
    begin_id: int | None = BEGIN

    def __init__(
        self,
        context: int = 4096,
        places: int = 64,
        script: Script = repeat,
        before_token: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.context, self.places, self.script, self.before_token = context, places, script, before_token
        self.counts = dict.fromkeys(COUNTERS, 0.0)
        self.free = threading.Condition()
        self.running = 0
        self._threads = ThreadPoolExecutor(max(places, 1), "specimen")

    def chat_ids(self, messages: Sequence[dict[str, Any]], *, go_on: bool = False) -> list[int]:
        ids = [BEGIN]
        for message in messages:
            ids += [TURN, *f"{message['role']}\n{message['content']}\n".encode()]
        return ids[:-1] if go_on else [*ids, TURN, *b"assistant\n"]

    def text_ids(self, text: str, *, begin: bool = True) -> list[int]:
        return [*([BEGIN] if begin else []), *text.encode()]

    def token_bytes(self, id: int) -> bytes:
        return NAMES.get(id) or bytes([id])

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.token_bytes(id) for id in ids).decode("utf-8", "replace")

    def load_now(self) -> dict[str, float]:
        return {"running": float(self.running), "waiting": 0.0, "tokens_cached": 0.0, "cache_tokens": 0.0,
                **self.counts}  # fmt: skip

    def make_ready(self, structure: Structure) -> None:
        """It knows the one structure that its script writes."""

    def ask(self, ids: Sequence[int], wanted: Wanted, sink: Sink) -> Ticket:
        with self.free:
            if self.running >= self.places:
                raise GroundupError(
                    "E-GEN-011", f"{self.places} answers are under way already", where="the queue",
                    why="more would only wait", fix="ask again later",
                )  # fmt: skip
            self.running += 1
            self.counts["answers"] += 1
            self.counts["prompt_tokens"] += len(ids)
        work = Work()
        self._threads.submit(self._run, list(ids), wanted, sink, work)
        return work

    def wait_idle(self, seconds: float) -> bool:
        """Whether all places are free within so many seconds."""
        with self.free:
            return self.free.wait_for(lambda: self.running == 0, seconds)

    def _run(self, ids: list[int], wanted: Wanted, sink: Sink, work: Work) -> None:
        last: Piece | GroundupError | None = None
        try:
            for piece in self._pieces(ids, wanted, work):
                if piece.finish is not None:
                    last = piece
                elif not work.cancelled.is_set():
                    self.counts["answer_tokens"] += piece.token is not None
                    sink(piece)
        except GroundupError as error:
            self.counts["failed"] += 1
            last = error
        finally:
            with self.free:
                self.running -= 1
                self.counts["cancelled"] += work.cancelled.is_set()
                self.free.notify_all()
        if last is not None and not work.cancelled.is_set():
            sink(last)

    def _scored(self, id: int, top: int) -> Scored:
        candidates = (Candidate((id + step) % 256, -0.25 - step) for step in range(top))
        return Scored(id, -0.25, tuple(candidates))

    def _pieces(self, ids: list[int], wanted: Wanted, work: Work) -> Iterator[Piece]:
        if wanted.prompt_logprobs is not None:
            rest = [self._scored(id, wanted.prompt_logprobs) for id in ids[1:]]
            yield Piece("", prompt=(Scored(ids[0], None), *rest))
        text = structured(wanted.structure) if wanted.structure else self.script(self.decode(ids), wanted)
        limit = self.context - len(ids)
        if wanted.max_tokens is not None:
            limit = min(limit, wanted.max_tokens)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        written, sent = "", 0
        for count, id in enumerate(text.encode()):
            if count >= limit or work.cancelled.is_set():
                break
            self.before_token(count)
            written += decoder.decode(bytes([id]))
            kept, stopped = cut(written, wanted.stop)
            certain = len(kept) if stopped else len(written) - held_back(written, wanted.stop)
            yield Piece(kept[sent:certain], self._scored(id, wanted.top_logprobs))
            sent = max(sent, certain)
            if stopped:
                yield Piece("", finish="stop")
                return
        done = len(text.encode()) <= limit
        yield Piece(written[sent:], finish="stop" if done else "length")


class Vectors:
    """An `Embedder`: a text's vector is the sum of its bytes' places, of length 1."""

    context = 512
    width = 8
    vocabulary = 256

    def text_ids(self, text: str) -> list[int]:
        return list(text.encode())

    def embed(self, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        rows = [[float(sum(id % self.width == place for id in row)) for place in range(self.width)] for row in ids]
        return [[value / sum(v * v for v in row) ** 0.5 for value in row] for row in rows]


class Lengths:
    """A `Classifier` that knows long texts from short ones."""

    def __init__(self, kind: Any = "text") -> None:
        self.kind = kind
        self.labels: tuple[str, ...] = ("short", "long")
        self.columns: tuple[str, ...] = ("age", "name") if kind == "table" else ()

    def predict(self, inputs: Sequence[str | bytes | Mapping[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for item in inputs:
            share = min(len(item), 100) / 100
            label = self.labels[share > 0.5]
            found.append({"label": label, "probabilities": {"short": 1 - share, "long": share}})
        return found

    def explain(self, item: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
        pieces = [{"text": word, "weight": 1.0} for word in item.split()] if isinstance(item, str) else []
        return {"target": "long", "pieces": pieces, "method": "length"}


class Specimens:
    """A `Shelf` of given models."""

    def __init__(self, *models: Served) -> None:
        self._models = {model.name: model for model in models}
        self.is_ready = True

    def names(self) -> list[str]:
        return list(self._models)

    def cards(self) -> list[dict[str, Any]]:
        return [
            {"name": model.name, "created": model.created, "loaded": True, **model.card}
            for model in self._models.values()
        ]

    def loaded(self) -> list[Served]:
        return list(self._models.values())

    def find(self, name: str) -> Served | None:
        return self._models.get(name)

    def get(self, name: str) -> Served:
        if name not in self._models:
            raise GroundupError(
                "E-SERVE-001", f"there is no model {name!r}", where="model", why="only these are served",
                fix="one of " + ", ".join(self._models),
            )  # fmt: skip
        return self._models[name]

    def ready(self) -> bool:
        return self.is_ready


def shelf(language: Specimen | None = None) -> Specimens:
    """One model of each kind: `writer`, `vectors`, `judge`, `pictures` and `rows`."""
    writer = language or Specimen()
    return Specimens(
        Served("writer", 1_700_000_000, {"family": "specimen", "context": writer.context}, language=writer),
        Served("vectors", 1_700_000_000, {"family": "specimen"}, embedder=Vectors()),
        Served("judge", 1_700_000_000, {"family": "specimen"}, classifier=Lengths()),
        Served("pictures", 1_700_000_000, {"family": "specimen"}, classifier=Lengths("image")),
        Served("rows", 1_700_000_000, {"family": "specimen"}, classifier=Lengths("table")),
    )
