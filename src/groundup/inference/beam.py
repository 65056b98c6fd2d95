"""Beam search: the likeliest outputs of a model that writes an output for each input, such as a translation.

The search knows the model by one function, `step`, that continues hypotheses by a token; `translate` makes it of an
encoder-decoder. Greedy decoding is a beam of one. Nothing that reads files or builds models may enter here.

Shapes: B inputs, K beams, R rows (hypotheses of all inputs, K for each), V vocabulary, S source positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from groundup.errors import GroundupError
from groundup.functional import evaluating
from groundup.inference.cache import KeyValueCache
from groundup.inference.generate import Finish

State = TypeVar("State")

Step = Callable[[State, Tensor, Tensor], tuple[Tensor, State]]
"""`step(state, rows_R, tokens_R)`: continue row `rows_R[r]` of the step before (of the inputs, at first) by
`tokens_R[r]`, both int64. Gives the logits (R, V) of what comes next, and the state to hand to the next step."""


class BeamOptions(BaseModel):
    """How outputs are searched for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    beams: int = Field(default=4, ge=1, le=1024, description="hypotheses kept for each input, 1 to 1024; 1 is greedy")
    length_penalty: float = Field(
        default=0.6, ge=0.0, le=10.0, allow_inf_nan=False,
        description="alpha of Wu et al. 2016: the log-probability is divided by ((5 + length) / 6)^alpha, 0 to 10; 0 "
        "prefers short outputs, as probability does",
    )  # fmt: skip
    n_best: int = Field(default=1, ge=1, description="how many outputs are given for each input, the best first")
    max_tokens: int = Field(
        default=256, ge=1, le=1_048_576, description="the longest output, in tokens, its end counted"
    )

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.n_best > self.beams:
            raise ValueError(f"n_best {self.n_best} is more than the {self.beams} beams that are kept")
        return self


class Hypothesis(NamedTuple):
    """One output.

    ids: without the end token.
    score: what hypotheses are ranked by: `log_probability` over the length penalty.
    log_probability: nats, of all its tokens, the end counted.
    finish: "stop" if it ended by itself, "length" if `max_tokens` cut it off.
    """

    ids: list[int]
    score: float
    log_probability: float
    finish: Finish


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6)^alpha (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
    return ((5 + length) / 6) ** alpha


def beam_search(
    state: State, step: Step[State], inputs: int, options: BeamOptions, *, begin_id: int, end_id: int
) -> list[list[Hypothesis]]:
    """Search outputs for several inputs at once.

    In each step an input's K hypotheses are continued by every token. What ends among the best K of these is
    finished; the best K that go on are kept. An input is done when K have finished, or at `max_tokens`, where what is
    still open is taken as it is. With as many beams as there are prefixes the search is exhaustive.

    Args:
        state: of the inputs, for the first step.
        step: see `Step`.
        inputs: their number B.
        begin_id: what every output begins with; no part of it.
        end_id: what ends it.

    Returns:
        For each input its `n_best` hypotheses or fewer, if there are no more; the best first.

    Raises:
        GroundupError: E-GEN-004 when the model's output is not finite.
    """
    beams = options.beams
    finished: list[list[Hypothesis]] = [[] for _ in range(inputs)]
    active = list(range(inputs))
    rows_R = torch.arange(inputs).repeat_interleave(beams)
    tokens_R = torch.full((inputs * beams,), begin_id)
    # One hypothesis to begin with: the others would only be its copies.
    score_BK = torch.full((inputs, beams), -math.inf, dtype=torch.float64)
    score_BK[:, 0] = 0.0
    ids: list[list[int]] = [[] for _ in range(inputs * beams)]
    for length in range(1, options.max_tokens + 1):
        logits_RV, state = step(state, rows_R, tokens_R)
        best, place = _continuations(logits_RV, score_BK, length)
        vocabulary = logits_RV.shape[1]
        following: list[tuple[int, int, float]] = []  # row, token and score of what is kept of all inputs
        still = []
        for number, one in enumerate(active):
            going: list[tuple[int, int, float]] = []
            for rank, (where, score) in enumerate(zip(place[number], best[number])):
                row, token = number * beams + where // vocabulary, where % vocabulary
                if token != end_id:
                    going.append((row, token, score))
                elif rank < beams and score > -math.inf:
                    finished[one].append(_hypothesis(ids[row], score, length, options, "stop"))
            going = going[:beams]
            if length == options.max_tokens:
                for row, token, score in going:
                    if score > -math.inf:
                        finished[one].append(_hypothesis([*ids[row], token], score, length, options, "length"))
            elif len(finished[one]) < beams and going[0][2] > -math.inf:
                still.append(one)
                following += going
        if not still:
            break
        active, ids = still, [[*ids[row], token] for row, token, _ in following]
        rows, tokens, scores = zip(*following)
        rows_R, tokens_R = torch.tensor(rows), torch.tensor(tokens)
        score_BK = torch.tensor(scores, dtype=torch.float64).view(len(active), beams)
    return [sorted(found, key=lambda one: (-one.score, one.ids))[: options.n_best] for found in finished]


def _continuations(logits_RV: Tensor, score_BK: Tensor, length: int) -> tuple[list[list[float]], list[list[int]]]:
    """The best 2 K continuations of each input: their log-probabilities, and their places among K·V. Each hypothesis
    ends in one way, so that at least K of these go on."""
    if not bool(torch.isfinite(logits_RV).all()):
        raise GroundupError(
            "E-GEN-004",
            f"the model's output at position {length - 1} is not finite (NaN or infinity)",
            where=f"{int((~torch.isfinite(logits_RV)).sum())} of {logits_RV.numel()} logits",
            why="the weights are damaged, or the training that made them diverged",
            fix="groundup verify MODEL   (are the files whole?), then use an earlier checkpoint",
        )
    inputs, beams = score_BK.shape
    log_p_BKV = logits_RV.double().log_softmax(dim=-1).view(inputs, beams, -1)
    total = (score_BK.to(log_p_BKV.device)[:, :, None] + log_p_BKV).flatten(1)
    best, place = total.topk(2 * beams, dim=1)
    return best.tolist(), place.tolist()


def _hypothesis(ids: list[int], score: float, length: int, options: BeamOptions, finish: Finish) -> Hypothesis:
    return Hypothesis(ids, score / length_penalty(length, options.length_penalty), score, finish)


class SourceMemory(Protocol):
    """What a decoder sees of its sources: keys (B, H, S, K) for each layer, and more of its own."""

    @property
    def keys(self) -> tuple[Tensor, ...]: ...
    def keep(self, rows: Tensor) -> Any: ...


class EncoderDecoder(Protocol):
    """A model that reads a source once and then writes a target token by token."""

    context: int
    vocabulary: int

    def encode(self, source_BS: Tensor, source_document_BS: Tensor | None = None) -> Tensor: ...
    def memory(self, states_BSD: Tensor, source_document_BS: Tensor | None = None) -> Any: ...
    def decode(
        self, memory: Any, tokens_BT: Tensor, document_BT: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor: ...
    def head_weight(self) -> Tensor: ...


def translate(
    model: EncoderDecoder,
    sources: Sequence[Sequence[int]],
    options: BeamOptions,
    *,
    begin_id: int,
    end_id: int,
    pad_id: int,
    batch_rows: int = 32,
) -> list[list[Hypothesis]]:
    """The best outputs for each source, in the order of the sources. Sources of similar length share a batch.

    Args:
        model: its mode and gradients are left alone.
        sources: ids, none empty, none longer than the model's context.
        options: the output is never longer than the model's context either.
        begin_id, end_id, pad_id: what targets begin and end with, and what is at padding.
        batch_rows: sources that are searched at once; the model sees as many rows for each as there are beams.

    Raises:
        GroundupError: E-GEN-020 for sources that the model cannot read; E-GEN-004 when its output is not finite.
    """
    _check_sources(model, sources)
    options = options.model_copy(update={"max_tokens": min(options.max_tokens, model.context)})
    order = sorted(range(len(sources)), key=lambda index: -len(sources[index]))
    results: dict[int, list[Hypothesis]] = {}
    with torch.inference_mode(), evaluating(model):
        for start in range(0, len(order), batch_rows):
            chosen = order[start : start + batch_rows]
            memory = _read(model, [sources[index] for index in chosen], pad_id)
            state = _State(memory, None)
            step = _step_of(model, options)
            found = beam_search(state, step, len(chosen), options, begin_id=begin_id, end_id=end_id)
            results.update(zip(chosen, found))
    return [results[index] for index in range(len(sources))]


class _State(NamedTuple):
    memory: SourceMemory
    cache: KeyValueCache | None


def _read(model: EncoderDecoder, sources: Sequence[Sequence[int]], pad_id: int) -> Any:
    """The memory of sources side by side."""
    longest = max(map(len, sources))
    device = model.head_weight().device
    source_BS = torch.tensor([[*ids, *[pad_id] * (longest - len(ids))] for ids in sources], device=device)
    length_B1 = torch.tensor([[len(ids)] for ids in sources], device=device)
    document_BS = torch.where(torch.arange(longest, device=device)[None] < length_B1, 0, -1)
    return model.memory(model.encode(source_BS, document_BS), document_BS)


def _step_of(model: EncoderDecoder, options: BeamOptions) -> Step[_State]:
    def step(state: _State, rows_R: Tensor, tokens_R: Tensor) -> tuple[Tensor, _State]:
        memory, cache = state
        device, same = model.head_weight().device, torch.arange(len(rows_R))
        if cache is None:
            memory = memory.keep(rows_R.to(device))
            key = memory.keys[0]
            cache = KeyValueCache(
                len(memory.keys), len(rows_R), key.shape[1], key.shape[3], options.max_tokens, key.dtype, device
            )
        elif cache.batch != len(rows_R) or not torch.equal(rows_R, same):
            # The hypotheses of a source see the same memory, so it only changes when a source is done.
            if cache.batch != len(rows_R):
                memory = memory.keep(rows_R.to(device))
            cache.keep(rows_R.tolist())
        hidden_RTD = model.decode(memory, tokens_R[:, None].to(device), cache=cache)
        return torch.nn.functional.linear(hidden_RTD[:, -1], model.head_weight()).float(), _State(memory, cache)

    return step


def _check_sources(model: EncoderDecoder, sources: Sequence[Sequence[int]]) -> None:
    faults = []
    for number, ids in enumerate(sources):
        if not ids:
            faults.append(f"source {number} has no tokens")
        elif len(ids) > model.context:
            faults.append(f"source {number} has {len(ids):,} tokens, the model's context is {model.context:,}")
        elif not 0 <= min(ids) <= max(ids) < model.vocabulary:
            faults.append(f"source {number} holds ids outside 0 to {model.vocabulary - 1:,}")
    if faults:
        raise GroundupError(
            "E-GEN-020",
            f"{len(faults):,} of {len(sources):,} sources cannot be read by the model",
            where="\n".join([*faults[:8], *([f"and {len(faults) - 8:,} more"] if len(faults) > 8 else [])]),
            why="the model knows its own tokens alone, and no positions past its context",
            fix="leave out empty sources, divide long ones, and encode with the tokenizer in the model's own folder",
            exit_code=2,
        )
