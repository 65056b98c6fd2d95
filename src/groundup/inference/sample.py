"""From logits to the next token: what a user may ask of the choice, and the choice itself as a pure function.

The filters always act in this order, each on what the one before left:

    bias → repetition, presence and frequency penalty → structure → temperature → top-k → top-p → min-p → draw

Nothing that knows a model, a cache or text may enter here.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from groundup.errors import GroundupError, nearest, printable

GREEDY_BELOW = 1e-5
"""A temperature below this is greedy: dividing by it leaves nothing but the most likely token anyway."""

MOST_STOPS = 16
MOST_BIASES = 2000


class SampleOptions(BaseModel):
    """How answers are drawn. Temperature 0 is greedy: the most likely token, the lowest id among equals."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    temperature: float = Field(
        default=0.0,
        ge=0.0,
        le=100.0,
        allow_inf_nan=False,
        description="divides the logits, 0 to 100; 0 is greedy",
    )
    top_k: int = Field(
        default=0,
        ge=0,
        le=2**31 - 1,
        description="keep the k most likely tokens, 0 to 2147483647; 0 keeps all",
    )
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, allow_inf_nan=False,
        description="keep the fewest tokens whose probabilities reach p, above 0 up to 1; 1 keeps all",
    )  # fmt: skip
    min_p: float = Field(
        default=0.0, ge=0.0, le=1.0, allow_inf_nan=False,
        description="drop tokens less likely than this share of the likeliest, 0 to 1; 0 keeps all",
    )  # fmt: skip
    repetition_penalty: float = Field(
        default=1.0, gt=0.0, le=10.0, allow_inf_nan=False,
        description="weakens tokens already in the text, above 0 up to 10; 1 is off",
    )  # fmt: skip
    frequency_penalty: float = Field(
        default=0.0, ge=-2.0, le=2.0, allow_inf_nan=False,
        description="taken off a token's logit for each time that the answer has it, -2 to 2; 0 is off",
    )  # fmt: skip
    presence_penalty: float = Field(
        default=0.0, ge=-2.0, le=2.0, allow_inf_nan=False,
        description="taken off a token's logit once the answer has it, -2 to 2; 0 is off",
    )  # fmt: skip
    logit_bias: dict[int, Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]] = Field(
        default_factory=dict, max_length=MOST_BIASES, description="added to the logits of ids, each -100 to 100"
    )
    max_tokens: int = Field(default=256, ge=1, le=1_048_576, description="the longest answer, in tokens, 1 to 1048576")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), max_length=MOST_STOPS, description="up to 16 non-empty texts that end the answer"
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="seed of the draws, 0 to 9223372036854775807")

    @property
    def penalises(self) -> bool:
        """Whether the choice depends on what stands in the text."""
        return self.repetition_penalty != 1.0 or self.frequency_penalty != 0.0 or self.presence_penalty != 0.0

    @property
    def likeliest_alone(self) -> bool:
        """Whether the choice is the highest of the logits as they are."""
        return self.temperature < GREEDY_BELOW and not self.logit_bias and not self.penalises


def sample_options(values: Mapping[str, object]) -> SampleOptions:
    """Options from outside: a command line, a request, keyword arguments.

    Raises:
        GroundupError: E-GEN-001, listing every field at fault with its value and legal range.
    """
    given = {k: tuple(v) if k == "stop" and isinstance(v, list) else v for k, v in values.items()}
    try:
        return SampleOptions.model_validate(given)
    except ValidationError as error:
        names = list(dict.fromkeys(str(fault["loc"][0]) for fault in error.errors(include_url=False)))
    fields, faults = SampleOptions.model_fields, []
    for name in names:
        if name in fields:
            faults.append(f"{name} = {printable(repr(given[name]), 60)}: {fields[name].description}")
        else:
            near = nearest(name, list(fields))
            faults.append(f"{printable(name)}: no such option" + (f"; did you mean {near}?" if near else ""))
    raise GroundupError(
        code="E-GEN-001",
        what=f"{len(faults)} generation option{'s' if len(faults) > 1 else ''} cannot be used",
        where="\n".join(faults),
        why="an option out of its range would be ignored or give a text that nobody asked for",
        fix="give a value within the range shown, or leave the option out",
        exit_code=2,
    )


class Counts:
    """Which tokens stand in the text of each row, and how often its answer has them.

    Attributes:
        seen_BV: bool, prompt and answer.
        written_BV: float32, the answer alone.
    """

    def __init__(self, rows: int, vocabulary: int, device: torch.device | str = "cpu") -> None:
        self.seen_BV = torch.zeros(rows, vocabulary, dtype=torch.bool, device=device)
        self.written_BV = torch.zeros(rows, vocabulary, device=device)

    def read(self, tokens_BT: Tensor) -> None:
        """These tokens now stand in the text; int64."""
        self.seen_BV.scatter_(1, tokens_BT, True)

    def write(self, row: int, token: int) -> None:
        """The answer of a row has one more token."""
        self.seen_BV[row, token] = True
        self.written_BV[row, token] += 1

    def of(self, rows: Sequence[int]) -> Counts:
        """A copy with these rows alone."""
        chosen = Counts(0, 0)
        chosen.seen_BV, chosen.written_BV = self.seen_BV[rows], self.written_BV[rows]
        return chosen


def penalise_BV(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Weaken the tokens already in the text: positive logits are divided by the penalty, negative ones
    multiplied (CTRL, Keskar et al. 2019, arXiv:1909.05858, section 4.1). `seen_BV` is bool."""
    return torch.where(seen_BV, torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty), logits_BV)


def adjusted_BV(logits_BV: Tensor, options: SampleOptions, counts: Counts | None) -> Tensor:
    """The logits with bias and penalties. Presence and frequency: OpenAI's API reference (logit - presence if it was
    written - frequency · how often)."""
    vocabulary = logits_BV.shape[1]
    if options.logit_bias:
        ids = [id for id in options.logit_bias if 0 <= id < vocabulary]
        bias = torch.tensor([options.logit_bias[id] for id in ids], dtype=logits_BV.dtype, device=logits_BV.device)
        places = torch.tensor(ids, dtype=torch.int64, device=logits_BV.device)
        logits_BV = logits_BV.index_add(1, places, bias.expand(len(logits_BV), -1))
    if counts is None or not options.penalises:
        return logits_BV
    if options.repetition_penalty != 1.0:
        logits_BV = penalise_BV(logits_BV, counts.seen_BV[:, :vocabulary], options.repetition_penalty)
    written_BV = counts.written_BV[:, :vocabulary]
    return logits_BV - options.presence_penalty * (written_BV > 0) - options.frequency_penalty * written_BV


def filtered_BV(logits_BV: Tensor, options: SampleOptions) -> Tensor:
    """The probabilities that are drawn from, float64: temperature, then top-k, top-p (Holtzman et al. 2020,
    arXiv:1904.09751) and min-p (Nguyen et al. 2024, arXiv:2407.01082). Dropped tokens have probability 0.

    Of equally likely tokens the lowest ids are kept, so that top-k keeps exactly k and top-p the smallest
    set that reaches p.
    """
    logits = logits_BV.double()
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / max(options.temperature, GREEDY_BELOW)
    if not options.top_k and options.top_p == 1.0 and not options.min_p:
        return logits.softmax(dim=-1)
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    if options.top_k:
        ranked[:, options.top_k :] = -math.inf
    probability = ranked.softmax(dim=-1)
    if options.top_p < 1.0:
        before = probability.cumsum(dim=-1) - probability
        probability = probability.masked_fill(before >= options.top_p, 0.0)
    if options.min_p:
        floor = options.min_p * probability[:, :1]
        probability = probability.masked_fill(probability < floor, 0.0)
    probability = probability / probability.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probability).scatter_(1, order, probability)


def draw_B(probability_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The id whose stretch of the cumulative distribution holds `uniform` (0 ≤ u < 1, float64): an id of
    probability 0 is never drawn."""
    cumulative = probability_BV.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # u * total may round up to the total itself, which would lie past the last token
    point = torch.minimum(uniform_B[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, point, right=True).squeeze(1)


def sample(
    logits_BV: Tensor,
    options: SampleOptions,
    generators: Sequence[torch.Generator],
    counts: Counts | None = None,
    allowed_BV: Tensor | None = None,
) -> Tensor:
    """Choose the next id of each row.

    Args:
        logits_BV: any floating dtype, finite.
        options: see the order of the filters at the top of this file.
        generators: one CPU generator for each row, so that a row draws the same whatever shares its batch;
            not touched when greedy.
        counts: what stands in each row's text; needed for the penalties.
        allowed_BV: bool, the ids that the structure of each row allows; at least one.

    Returns:
        int64 ids, shape (B,).
    """
    logits_BV = adjusted_BV(logits_BV, options, counts)
    if allowed_BV is not None:
        logits_BV = logits_BV.masked_fill(~allowed_BV, -math.inf)
    if options.temperature < GREEDY_BELOW:
        return logits_BV.argmax(dim=-1)  # the first of equal ones, as torch documents
    uniform = [torch.rand((), generator=g, dtype=torch.float64) for g in generators]
    return draw_B(filtered_BV(logits_BV, options), torch.stack(uniform).to(logits_BV.device))
