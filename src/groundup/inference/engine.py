"""The generation engine: many answers at once, from a thread of its own (continuous batching; Yu et al. 2022, Orca).

Answers join and leave between two tokens. A round of the engine computes at most one chunk of prompts and one
token of every answer, so that a long prompt delays the others by a chunk and no more. When memory runs short the
youngest answer gives its up and is computed again later; its text goes on unchanged.

What an answer is knows `answer.py`; memory, `sequences.py`; how logits come about, the runner. Nothing that reads
files, builds models or serves may enter here.

Shapes: M positions asked for, V vocabulary.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from groundup.errors import GroundupError
from groundup.inference.answer import Answer, Ask, Sink, Step
from groundup.inference.faults import closing, failed, not_finite, queue_full, too_long
from groundup.inference.generate import Piece, check_prompt
from groundup.inference.sequences import Budget, Memory, Segment, Shape, rounded
from groundup.inference.speculate import Drafter

CHUNK = 256
"""Tokens of a prompt that are computed at once."""
FAULTS = (GroundupError, RuntimeError, ValueError, IndexError, MemoryError)
"""What ends one answer and no other."""
COUNTED = ("prompt_tokens", "cached_tokens", "answer_tokens", "answers", "cancelled", "failed", "drafted", "accepted")


class Runner(Protocol):
    """What computes logits."""

    context: int
    vocabulary: int
    shape: Shape

    def run(self, segments: Sequence[Segment]) -> Tensor:
        """Extend the memories by the tokens of the segments, and return float32 logits (M, V) after the last token
        of each segment, or after each of its tokens, in order."""
        ...


class EngineOptions(NamedTuple):
    """Limits.

    rows: how many answers are written at once.
    waiting: how many may wait.
    cache_tokens: positions that all sequences may hold in memory together.
    """

    rows: int = 8
    waiting: int = 64
    cache_tokens: int = 16384


class Ticket:
    """An answer under way, for the one who asked."""

    def __init__(self, answer: Answer, engine: Engine) -> None:
        self._answer, self._engine = answer, engine

    def cancel(self) -> None:
        """Stop within one token; the sink is not called again. Any thread may call it, any number of times."""
        self._answer.cancelled = True
        self._engine.wake()


class _Running(NamedTuple):
    """An answer that has memory."""

    answer: Answer
    memory: Memory


class Engine:
    """Answers for one model. `start` begins its thread, `close` ends it.

    Args:
        runner: computes logits.
        options: limits.
        drafter: guesses tokens ahead; what is written stays the same, it only comes faster.
    """

    def __init__(self, runner: Runner, options: EngineOptions, drafter: Drafter | None = None) -> None:
        self.runner, self.options, self.drafter = runner, options, drafter
        self.budget = Budget(runner.shape, options.cache_tokens)
        self.counted = dict.fromkeys(COUNTED, 0)
        self._waiting: deque[Answer] = deque()
        self._running: list[_Running] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="groundup-engine", daemon=True)

    def start(self) -> Engine:
        self._thread.start()
        return self

    def ask(self, ask: Ask, sink: Sink) -> Ticket:
        """Begin an answer. Returns at once; `sink` is called from the engine's thread with each piece, or once with
        an error, and never after the last one.

        Raises:
            GroundupError: E-GEN-002, 003, 005 for the prompt; E-GEN-011 too many wait; E-GEN-014 the engine ends.
        """
        check_prompt(self.runner, ask.prompt, "the prompt")
        context = min(self.runner.context, self.budget.tokens)
        if len(ask.prompt) >= context:
            raise too_long(len(ask.prompt), context)
        room = min(ask.options.max_tokens, context - len(ask.prompt))
        ask = ask._replace(options=ask.options.model_copy(update={"max_tokens": room}))
        answer = Answer(ask, sink, self.runner.vocabulary)
        with self._changed:
            if self._closing:
                raise closing()
            if len(self._waiting) >= self.options.waiting:
                raise queue_full(self.options.waiting)
            self._waiting.append(answer)
            self._changed.notify()
        return Ticket(answer, self)

    def finish(self) -> None:
        """Without `start`: write everything that was asked, in the caller's thread."""
        with torch.inference_mode():
            while self._waiting or self._running:
                self._round()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def load_now(self) -> dict[str, float]:
        """How busy it is, and what it has done since its start."""
        return {
            "running": len(self._running),
            "waiting": len(self._waiting),
            "tokens_cached": self.budget.cached,
            "cache_tokens": self.budget.tokens,
            **self.counted,
        }

    def close(self, seconds: float = 0.0) -> None:
        """Take no more; let what runs or waits end within so many seconds, and stop the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is None:
            return
        self._thread.join(seconds)
        with self._changed:
            for answer in (*self._waiting, *(one.answer for one in self._running)):
                answer.cancelled = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        with torch.inference_mode():
            while True:
                with self._changed:
                    while not (self._waiting or self._running or self._closing):
                        self._changed.wait()
                    if self._closing and not (self._waiting or self._running):
                        return
                try:
                    self._round()
                except BaseException as error:  # noqa: BLE001 - the edge of the thread: a library may even panic
                    self._lost(error)

    def _round(self) -> None:
        """One chunk of prompts, and one token of every answer."""
        self._drop_cancelled()
        self._admit()
        self._prefill([one for one in self._running if _missing(one) > 1])
        self._decode([one for one in self._running if _missing(one) == 1])
        for one in [one for one in self._running if one.answer.finish is not None]:
            self._leave(one)
            self.counted["answers"] += 1

    def _drop_cancelled(self) -> None:
        with self._changed:
            gone = [answer for answer in self._waiting if answer.cancelled]
            for answer in gone:
                self._waiting.remove(answer)
        self.counted["cancelled"] += len(gone)
        for one in [one for one in self._running if one.answer.cancelled]:
            self._leave(one)
            self.counted["cancelled"] += 1

    def _admit(self) -> None:
        """Let waiting answers in, in their order, while there are rows and memory."""
        while self._waiting and len(self._running) < self.options.rows:
            answer = self._waiting[0]
            memory = self.budget.take(
                answer.tokens if answer.ask.score_prompt is None or answer.begun else answer.tokens[:1],
                [one.memory for one in self._running],
            )
            if memory is None:
                return
            with self._changed:
                self._waiting.popleft()
            if not answer.begun:
                answer.cached = memory.length
                self.counted["prompt_tokens"] += len(answer.tokens)
                self.counted["cached_tokens"] += memory.length
            self._running.append(_Running(answer, memory))

    def _prefill(self, rows: list[_Running]) -> None:
        """Compute a chunk of what is missing, all but the last token of each, of as many answers as fit into it."""
        segments: list[Segment] = []
        begun: list[_Running] = []
        left = CHUNK
        for one in rows:
            missing = one.answer.tokens[one.memory.length : -1][:left]
            if not missing or one not in self._running or not self._room(one, one.memory.length + len(missing) + 1):
                continue
            scoring = one.answer.ask.score_prompt is not None and not one.answer.begun
            segments.append(Segment(missing, one.memory, last=not scoring))
            begun.append(one)
            left -= len(missing)
        kept = [pair for pair in zip(segments, begun) if pair[1] in self._running]  # making room may send one away
        starts = [segment.memory.length for segment, _ in kept]
        found = self._run([segment for segment, _ in kept], [one for _, one in kept]) if kept else None
        if found is None:
            for _, one in kept if len(kept) > 1 else ():
                self._prefill([one])
            return
        sizes = [1 if segment.last else len(segment.tokens) for segment, _ in kept]
        for (segment, one), start, *its in zip(kept, starts, *(tensor.split(sizes) for tensor in found)):
            if not segment.last:
                one.answer.score(*its, start)

    def _decode(self, rows: list[_Running]) -> None:
        """Compute the next token of each answer, and more where guesses turn out right."""
        rows = [one for one in rows if one in self._running and self._room(one, one.memory.length + 1)]
        rows = [one for one in rows if one in self._running]  # making room may have sent a younger one away
        guesses = [self._guess(one) for one in rows]
        segments = [
            Segment([*one.answer.tokens[one.memory.length :], *guess], one.memory, last=not guess)
            for one, guess in zip(rows, guesses)
        ]
        found = self._run(segments, rows) if rows else None
        if found is None:
            for one in rows if len(rows) > 1 else ():  # find the one at fault: each is tried alone
                self._decode([one])
            return
        sizes = [1 + len(guess) for guess in guesses]
        likeliest: list[tuple[int, float]] = []
        if any(one.answer.greedy for one in rows):  # for all at once: one by one it would cost as much as the network
            value_M, best_M = found[0].max(dim=-1)
            likeliest = list(zip(best_M.tolist(), (value_M - found[1]).tolist()))
        start = 0
        for one, guess, logits, total in zip(rows, guesses, *(tensor.split(sizes) for tensor in found)):
            self._take(one, guess, logits, total, likeliest[start : start + len(logits)])
            start += len(logits)

    def _guess(self, one: _Running) -> list[int]:
        """Tokens that may come, as many as there is room for."""
        if self.drafter is None or one.answer.ask.constraint is not None:
            return []
        guess = self.drafter.guess(one.answer.tokens)[: max(0, one.answer.room - 1)]
        return guess if guess and self.budget.grow(one.memory, one.memory.length + 1 + len(guess)) else []

    def _take(
        self,
        one: _Running,
        guess: list[int],
        logits_MV: Tensor,
        total_M: Tensor,
        likeliest: list[tuple[int, float]],
    ) -> None:
        """Write the tokens that the model chooses; a guess is right if it is the one that is chosen, so the text is
        the same with and without guesses (Leviathan et al. 2023, arXiv:2211.17192, for draws that are repeatable).
        `likeliest`: the first token of the highest logit at each place, and its log-probability."""
        answer, written = one.answer, 0
        try:
            for place in range(len(guess) + 1):
                if answer.greedy:
                    token, logprob = likeliest[place]
                else:
                    token, logprob = answer.choose(logits_MV[place]), None
                answer.write(token, logits_MV[place], total_M[place], logprob)
                written += 1
                if answer.finish is not None or place == len(guess) or guess[place] != token:
                    break
        except FAULTS as error:  # such as a structure that cannot be followed any further
            self._fail(one, error)
            return
        self.counted["answer_tokens"] += written
        self.counted["drafted"] += len(guess)
        self.counted["accepted"] += written - 1
        one.memory.crop(min(one.memory.length, len(answer.tokens) - (answer.finish is None)))

    def _run(self, segments: list[Segment], rows: list[_Running]) -> tuple[Tensor, Tensor] | None:
        """Logits (M, V) and the log-sum-exp of each row (M,). None if computing them failed: a lone answer fails with
        it, of several none does."""
        lengths = [segment.memory.length for segment in segments]
        try:
            logits = self.runner.run(segments)
            total = logits.logsumexp(dim=-1)
            if not bool(torch.isfinite(total).all()):  # a row with a NaN or an infinity has no finite sum
                raise not_finite(logits, lengths[0])
        except FAULTS as error:
            for segment, length in zip(segments, lengths):
                segment.memory.crop(length)
            if len(rows) == 1:
                self._fail(rows[0], error)
            return None
        return logits, total

    def _room(self, one: _Running, length: int) -> bool:
        """Let a sequence grow; where memory is short, the youngest answers give theirs up and wait again."""
        while not self.budget.grow(one.memory, length):
            youngest = self._running[-1]
            self._running.remove(youngest)
            self.budget.release(youngest.memory, keep=False)
            with self._changed:
                self._waiting.appendleft(youngest.answer)
            if youngest is one:
                return False
        return True

    def _lost(self, error: BaseException) -> None:
        """Something unforeseen: every answer under way fails, or the next one if it came while that one was let in, and
        the engine goes on with nothing remembered."""
        if not self._running and self._waiting:
            with self._changed:
                first = self._waiting.popleft()
            self._running.append(_Running(first, Memory(self.runner.shape)))
        for one in list(self._running):
            self._fail(one, error)
        self.budget = Budget(self.runner.shape, self.options.cache_tokens)

    def _leave(self, one: _Running) -> None:
        self._running.remove(one)
        self.budget.release(one.memory)

    def _fail(self, one: _Running, error: BaseException) -> None:
        self._running.remove(one)
        self.budget.release(one.memory, keep=False)
        self.counted["failed"] += 1
        if not one.answer.cancelled:
            one.answer.sink(error if isinstance(error, GroundupError) else failed(error))


def stream(runner: Runner, ask: Ask) -> Iterator[Piece]:
    """One answer without a thread, as `generate` gives it.

    Raises:
        GroundupError: as `generate`; those of the prompt at once.
    """
    check_prompt(runner, ask.prompt, "the prompt")
    return _stream(runner, ask)


def _stream(runner: Runner, ask: Ask) -> Iterator[Piece]:
    room = min(ask.options.max_tokens, runner.context - len(ask.prompt))
    ask = ask._replace(options=ask.options.model_copy(update={"max_tokens": max(1, room)}))
    steps: list[Step | GroundupError] = []
    answer, memory = Answer(ask, steps.append, runner.vocabulary), Memory(runner.shape)
    if room < 1:
        answer.end("length")
    while True:
        while steps:
            step = steps.pop(0)
            assert isinstance(step, Step)
            token = step.token
            yield Piece(step.text, token and token.id, token and token.logprob, step.finish)
        if answer.finish is not None:
            return
        new = answer.tokens[memory.length :][:CHUNK]
        memory.reserve(rounded(memory.length + len(new)))
        logits = runner.run([Segment(new, memory)])
        if memory.length < len(answer.tokens):
            continue
        total = logits.logsumexp(dim=-1)
        if not bool(torch.isfinite(total).all()):
            raise not_finite(logits, memory.length)
        answer.write(answer.choose(logits[0]), logits[0], total[0])


def _missing(one: _Running) -> int:
    """How many tokens of an answer are not in its memory; the last one never is, before its turn."""
    return len(one.answer.tokens) - one.memory.length
