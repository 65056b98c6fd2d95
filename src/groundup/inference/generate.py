"""Writing text with a decoder: one answer as a stream, or many answers at once.

Both feed a cache, keep to the model's context, and end with a truthful finish: "stop" when the model ended
by itself (or a stop text appeared), "length" when `max_tokens` or the context was used up. Prompt and answer
together never pass the context: nothing slides out of sight in silence.

Rows of a batch are never padded. All of them stand at the same position: the prompts are fed together up to
the end of the shortest, and from there token by token, where a row still within its prompt takes its own
next token instead of a chosen one. So a row computes what it would compute alone, and needs no mask.

Nothing that reads files or builds models may enter here. Shapes: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from groundup.contract import Cache, LanguageModel
from groundup.errors import GroundupError
from groundup.functional import evaluating
from groundup.inference.cache import cache_for
from groundup.inference.sample import Counts, SampleOptions, sample

Finish = Literal["stop", "length"]


class Decoder(Protocol):
    """Ids to text as they come: `push` gives the text that is certain so far, `flush` what is left at the
    end. It never splits a character."""

    def push(self, token_id: int) -> str: ...
    def flush(self) -> str: ...


class Piece(NamedTuple):
    """One token of a streamed answer. `text` may be empty while a character or a possible stop text is
    incomplete. The last piece has no token; it carries the text that was held back, and the finish."""

    text: str
    id: int | None
    logprob: float | None
    finish: Finish | None = None


class Result(NamedTuple):
    """One whole answer: its ids without the end token, how it ended, and each id's log-probability (nats)
    under the model itself, before temperature and filters."""

    ids: list[int]
    finish: Finish
    logprobs: list[float]


class StopScanner:
    """Finds stop texts in a text that arrives in pieces, wherever the pieces are cut.

    The text is read as if character by character: the stop text that is complete first ends it, and of two
    that complete together the longer. Text that could still become a stop text is held back, so what was
    given out never has to be taken back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self.held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Take more text; return what may be shown now, and whether a stop text was found after it."""
        text = self.held + text
        found = [(start + len(stop), start) for stop in self.stops if (start := text.find(stop)) >= 0]
        if found:
            self.held = ""
            return text[: min(found)[1]], True
        longest = max((len(stop) for stop in self.stops), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.stops):
                self.held = text[-size:]
                return text[:-size], False
        self.held = ""
        return text, False

    def flush(self) -> str:
        """What was held back, once it is known that no more text comes."""
        text, self.held = self.held, ""
        return text


def next_logits(model: LanguageModel, tokens_BT: Tensor, cache: Cache) -> Tensor:
    """Feed new tokens and return the float32 logits (B, V) after the last of them.

    Raises:
        GroundupError: E-GEN-004 when they are not finite.
    """
    rows, length = tokens_BT.shape
    position_T = torch.arange(cache.length, cache.length + length, device=tokens_BT.device)
    with torch.inference_mode(), evaluating(model):
        hidden_BTD = model.hidden(tokens_BT, position_BT=position_T.expand(rows, length), cache=cache)
        logits_BV = torch.nn.functional.linear(hidden_BTD[:, -1], model.head_weight()).float()
    if not bool(torch.isfinite(logits_BV).all()):
        raise GroundupError(
            code="E-GEN-004",
            what=f"the model's output at position {cache.length} is not finite (NaN or infinity)",
            where=f"{int((~torch.isfinite(logits_BV)).sum())} of {logits_BV.numel()} logits",
            why="the weights are damaged, or the training that made them diverged",
            fix="groundup verify MODEL   (are the files whole?), then use an earlier checkpoint",
        )
    return logits_BV


class Sized(Protocol):
    """What can be given tokens."""

    context: int
    vocabulary: int


def check_prompt(model: Sized, prompt: Sequence[int], where: str) -> None:
    """Raises E-GEN-002, 003 or 005 for a prompt that cannot be gone on with."""
    if not prompt:
        raise GroundupError(
            code="E-GEN-002",
            what="the prompt has no tokens",
            where=where,
            why="a decoder needs at least one token to go on from",
            fix="begin the prompt with the begin token, or give it some text",
            exit_code=2,
        )
    if len(prompt) > model.context:
        raise GroundupError(
            code="E-GEN-003",
            what=f"the prompt has {len(prompt)} tokens, the model's context is {model.context}",
            where=where,
            why="the model was never trained on positions past its context",
            fix=f"shorten the prompt by at least {len(prompt) - model.context + 1} tokens",
            exit_code=2,
        )
    outside = [token for token in prompt if not 0 <= token < model.vocabulary]
    if outside:
        raise GroundupError(
            code="E-GEN-005",
            what=f"the prompt holds token id {outside[0]}, the model knows ids 0 to {model.vocabulary - 1}",
            where=f"{where}; {len(outside)} of {len(prompt)} ids",
            why="the tokenizer does not belong to this model",
            fix="encode the prompt with the tokenizer in the model's own folder",
            exit_code=2,
        )


def generate(
    model: LanguageModel,
    prompt_ids: list[int],
    options: SampleOptions,
    *,
    end_ids: Collection[int],
    decoder: Decoder,
) -> Iterator[Piece]:
    """One answer, piece by piece.

    Args:
        model: any decoder of the contract; its mode and gradients are left alone.
        prompt_ids: at least one id, begin token included where the model was trained with one.
        options: how to choose; `max_tokens` counts the answer.
        end_ids: the ids that end an answer; none of them is part of it. Empty: go on to the length.
        decoder: turns this answer's ids into text; a fresh one.

    Returns:
        The pieces; the last one, and only it, carries a finish.

    Raises:
        GroundupError: E-GEN-002 … 005, before the first piece for a fault of the prompt.
    """
    check_prompt(model, prompt_ids, "the prompt")
    return _pieces(model, prompt_ids, options, end_ids, decoder)


def _pieces(
    model: LanguageModel, prompt_ids: list[int], options: SampleOptions, end_ids: Collection[int], decoder: Decoder
) -> Iterator[Piece]:
    scanner = StopScanner(options.stop)
    finish: Finish = "length"
    for token, logprob in _tokens(model, prompt_ids, options):
        if token in end_ids:
            finish = "stop"
            break
        text, stopped = scanner.push(decoder.push(token))
        yield Piece(text, token, logprob)
        if stopped:
            yield Piece("", None, None, "stop")
            return
    text, stopped = scanner.push(decoder.flush())
    yield Piece(text + scanner.flush(), None, None, "stop" if stopped else finish)


def _tokens(model: LanguageModel, prompt_ids: list[int], options: SampleOptions) -> Iterator[tuple[int, float]]:
    """Ids and log-probabilities without end, up to `max_tokens` or the context."""
    rows = _Rows(model, [prompt_ids], [0], options)
    for _ in range(rows.room(prompt_ids)):
        (token,), (logprob,) = rows.choose([0])
        yield token, logprob
        rows.tokens = [[token]]


def generate_batch(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    options: SampleOptions,
    *,
    end_ids: Collection[int],
    batch_rows: int = 32,
) -> list[Result]:
    """Answers to many prompts, in their order.

    Row i draws as `generate` does alone with the seed `options.seed + i`. Prompts of similar length share a
    batch, and a row that has ended leaves it.

    Args:
        model: any decoder of the contract; its mode and gradients are left alone.
        prompts: lists of ids, of any lengths, none empty.
        options: how to choose; `stop` must be empty, for stop texts are found in decoded text.
        end_ids: the ids that end an answer.
        batch_rows: how many rows are computed at once.

    Raises:
        GroundupError: E-GEN-002 … 005 as `generate`; E-GEN-006 for options with stop texts.
    """
    if options.stop:
        raise GroundupError(
            code="E-GEN-006",
            what=f"{len(options.stop)} stop texts were given for a batch of answers",
            where="stop",
            why="a batch is generated as ids, and stop texts are found in decoded text",
            fix="leave stop out and cut the answers afterwards, or ask one prompt at a time",
            exit_code=2,
        )
    for index, prompt in enumerate(prompts):
        check_prompt(model, prompt, f"prompt {index}")
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    results: dict[int, Result] = {}
    with evaluating(model):
        for start in range(0, len(order), batch_rows):
            _finish_batch(model, prompts, order[start : start + batch_rows], options, end_ids, results)
    return [results[index] for index in range(len(prompts))]


class _Rows:
    """Rows that stand at the same position: their cache, and what will be fed next.

    Row r of the tensors is prompt `members[r]`; `tokens` holds its ids not yet fed.
    """

    def __init__(
        self, model: LanguageModel, prompts: Sequence[list[int]], members: list[int], options: SampleOptions
    ) -> None:
        self.model, self.options, self.members = model, options, list(members)
        longest = max(len(prompts[index]) + self.room(prompts[index]) for index in members)
        shortest = min(len(prompts[index]) for index in members)
        self.tokens = [prompts[index][:shortest] for index in members]
        self.cache = cache_for(model, len(members), longest)
        self.device = model.head_weight().device
        self.generators = [torch.Generator().manual_seed((options.seed + i) % 2**63) for i in members]
        self.counts = Counts(len(members), model.vocabulary, self.device) if options.penalises else None

    def room(self, prompt: list[int]) -> int:
        """How many tokens the answer to this prompt may have."""
        return min(self.options.max_tokens, self.model.context - len(prompt))

    def choose(self, free: list[int]) -> tuple[list[int], list[float]]:
        """Feed what is waiting; choose an id for each of the rows `free`, with its log-probability."""
        tokens_BT = torch.tensor(self.tokens, dtype=torch.int64, device=self.device)
        if self.counts is not None:
            self.counts.read(tokens_BT)
        logits_BV = next_logits(self.model, tokens_BT, self.cache)
        if not free:
            return [], []
        counts = None if self.counts is None else self.counts.of(free)
        ids_B = sample(logits_BV[free], self.options, [self.generators[row] for row in free], counts)
        if self.counts is not None:
            for row, token in zip(free, ids_B.tolist()):
                self.counts.write(row, token)
        logprob_B = logits_BV[free].log_softmax(dim=-1).gather(1, ids_B[:, None]).squeeze(1)
        return ids_B.tolist(), logprob_B.tolist()

    def keep(self, rows: list[int]) -> None:
        """Drop every row but these."""
        self.cache.keep(rows)
        self.members = [self.members[row] for row in rows]
        self.generators = [self.generators[row] for row in rows]
        self.counts = None if self.counts is None else self.counts.of(rows)


def _finish_batch(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    members: list[int],
    options: SampleOptions,
    end_ids: Collection[int],
    results: dict[int, Result],
) -> None:
    """Answer the prompts `members` together and put their results into `results`."""
    for index in members:
        results[index] = Result([], "length", [])
    rows = _Rows(model, prompts, members, options)
    while rows.members:
        fed = rows.cache.length + len(rows.tokens[0])
        free = [row for row, index in enumerate(rows.members) if len(prompts[index]) <= fed]
        free = [row for row in free if rows.room(prompts[rows.members[row]]) > 0]
        chosen = dict(zip(free, zip(*rows.choose(free))))
        following: dict[int, int] = {}  # row → the id to feed next
        for row, index in enumerate(rows.members):
            if row not in chosen:
                if len(prompts[index]) > fed:
                    following[row] = prompts[index][fed]
                continue
            token, logprob = chosen[row]
            if token in end_ids:
                results[index] = results[index]._replace(finish="stop")
                continue
            results[index].ids.append(token)
            results[index].logprobs.append(logprob)
            if len(results[index].ids) < rows.room(prompts[index]):
                following[row] = token
        if len(following) < len(rows.members):
            rows.keep(list(following))
        rows.tokens = [[token] for token in following.values()]
