"""One answer while it is written: which token comes next, which text is certain, and how it ends.

An answer knows nothing of other answers, of the network, or of the memory of its sequence. The engine hands it
logits; it hands back tokens.

Shapes: V vocabulary, T positions of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from groundup.errors import GroundupError
from groundup.inference.generate import Decoder, Finish, StopScanner
from groundup.inference.sample import Counts, SampleOptions, sample


class Candidate(NamedTuple):
    """A token that may stand somewhere, and its log-probability (nats) under the model itself."""

    id: int
    logprob: float


class Scored(NamedTuple):
    """A token that stands somewhere; `logprob` is None where nothing stands before it. `top`: the likeliest at that
    place, best first."""

    id: int
    logprob: float | None
    top: tuple[Candidate, ...] = ()


class Step(NamedTuple):
    """A piece of an answer: text that is certain now, the token, in the last piece how it ended, in the first one
    the scores of the prompt, if asked for, and how much of it was not computed again."""

    text: str
    token: Scored | None = None
    finish: Finish | None = None
    prompt: tuple[Scored, ...] | None = None
    cached: int = 0


class Constraint(Protocol):
    """Which tokens may come next, for an answer that must have a structure."""

    def mask_V(self) -> Tensor: ...
    def accept(self, id: int) -> None: ...
    def ended(self) -> bool: ...


class Ask(NamedTuple):
    """What is asked of the engine.

    prompt: at least one id.
    options: how to choose; `max_tokens` counts the answer.
    end_ids: the ids that end it; none of them is part of it.
    decoder: turns this answer's ids into text; a fresh one.
    top: how many alternatives are named beside each token.
    score_prompt: score the prompt too, naming so many alternatives; None: do not.
    constraint: what the answer must keep to; a fresh one.
    """

    prompt: Sequence[int]
    options: SampleOptions
    end_ids: Collection[int]
    decoder: Decoder
    top: int = 0
    score_prompt: int | None = None
    constraint: Constraint | None = None


Sink = Callable[[Step | GroundupError], None]


class Answer:
    """The state of one answer.

    Attributes:
        tokens: prompt and answer so far.
        finish: how it ended; None while it goes on.
        cancelled: set by any thread; the engine looks at it between tokens.
        greedy: the likeliest token is always the next one, as the logits stand.
    """

    def __init__(self, ask: Ask, sink: Sink, vocabulary: int) -> None:
        self.ask, self.sink = ask, sink
        self.tokens = list(ask.prompt)
        self.finish: Finish | None = None
        self.cancelled = False
        self.scores = [] if ask.score_prompt is None else [Scored(ask.prompt[0], None)]
        self.cached = 0
        self.begun = False
        self._scanner = StopScanner(ask.options.stop)
        self._generator = torch.Generator().manual_seed(ask.options.seed)
        self._counts = _counts(ask, vocabulary)
        self.greedy = ask.options.likeliest_alone and ask.constraint is None

    @property
    def room(self) -> int:
        """How many tokens may still be written."""
        return self.ask.options.max_tokens - (len(self.tokens) - len(self.ask.prompt))

    def score(self, logits_TV: Tensor, total_T: Tensor, start: int) -> None:
        """Take the scores of the prompt's tokens after positions start … start + T - 1, and their log-sum-exps; given
        again, they replace what was there."""
        prompt, top = self.ask.prompt, self.ask.score_prompt
        assert top is not None
        following = list(prompt[start + 1 : start + 1 + len(logits_TV)])
        count = len(following)
        self.scores[start + 1 :] = scored(logits_TV[:count], total_T[:count], following, top)

    def choose(self, logits_V: Tensor) -> int:
        """The next token, drawn; it counts only once it is given to `write`."""
        options, constraint = self.ask.options, self.ask.constraint
        allowed = None if constraint is None else constraint.mask_V()[None]
        [chosen] = sample(logits_V[None], options, [self._generator], self._counts, allowed).tolist()
        return int(chosen)

    def write(self, token: int, logits_V: Tensor, total: Tensor, logprob: float | None = None) -> None:
        """Put a chosen token at the end of the answer, and hand on what is certain of its text.

        Args:
            logits_V: that it was chosen from.
            total: their log-sum-exp.
            logprob: of the token, where it is known already.
        """
        if token in self.ask.end_ids:
            self.end("stop")
            return
        if logprob is not None and not self.ask.top:
            found = Scored(token, logprob)
        else:
            [found] = scored(logits_V[None], total[None], [token], self.ask.top)
        self.tokens.append(token)
        if self._counts is not None:
            self._counts.write(0, token)
        if self.ask.constraint is not None:
            self.ask.constraint.accept(token)
        text, stopped = self._scanner.push(self.ask.decoder.push(token))
        self._hand(Step(text, found))
        if stopped:
            self.end("stop", held=False)
        elif self.ask.constraint is not None and self.ask.constraint.ended():
            self.end("stop")
        elif self.room <= 0:
            self.end("length")

    def end(self, finish: Finish, *, held: bool = True) -> None:
        """Hand on the last piece, with the text that was held back."""
        text = ""
        if held:
            text, stopped = self._scanner.push(self.ask.decoder.flush())
            text += "" if stopped else self._scanner.flush()
            finish = "stop" if stopped else finish
        self.finish = finish
        self._hand(Step(text, None, finish))

    def _hand(self, step: Step) -> None:
        if not self.begun:
            self.begun = True
            step = step._replace(prompt=tuple(self.scores) if self.scores else None, cached=self.cached)
        if not self.cancelled:
            self.sink(step)


def _counts(ask: Ask, vocabulary: int) -> Counts | None:
    if not ask.options.penalises:
        return None
    counts = Counts(1, vocabulary)
    counts.read(torch.tensor([list(ask.prompt)]))
    return counts


def scored(logits_TV: Tensor, total_T: Tensor, ids: Sequence[int], top: int) -> list[Scored]:
    """The log-probabilities of tokens, each after its position, and the `top` likeliest at each.

    Args:
        logits_TV: float32.
        total_T: the log-sum-exp of each row, with which a logit becomes a log-probability.
    """
    if not ids:
        return []
    own = (logits_TV.gather(1, torch.tensor(ids)[:, None])[:, 0] - total_T).tolist()
    if not top:
        return [Scored(id, value) for id, value in zip(ids, own)]
    values, places = logits_TV.topk(min(top, logits_TV.shape[1]), dim=-1)
    values = values - total_T[:, None]
    return [
        Scored(id, value, tuple(Candidate(*pair) for pair in zip(best, logprobs)))
        for id, value, best, logprobs in zip(ids, own, places.tolist(), values.tolist())
    ]
