"""The Llama family: a pre-norm decoder with RMSNorm, rotary positions, grouped-query attention and SwiGLU
(Touvron et al. 2023, arXiv:2302.13971; grouped queries: Ainslie et al. 2023, arXiv:2305.13245), with
optional query-key norm (Dehghani et al. 2023, arXiv:2302.05442), sliding window (Beltagy et al. 2020,
arXiv:2004.05150), biases in attention, Llama 3's stretched rotary positions, and tied head. SmolLM2, TinyLlama,
Llama 3, Mistral, Qwen2 and Qwen3 are all this network with other options.

Shapes: B rows, T positions, S positions seen (cache included), D width, H query heads, G key-value heads,
K head size, R = K/2 rotary pairs, F hidden width of the feed-forward part, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from groundup.compiled import training as compiled
from groundup.contract import Cache
from groundup.functional import (
    attention_mask,
    causal_mask,
    first_seen,
    linears,
    rms_norm,
    rotary_attention,
    rotate_pairs,
    swiglu,
)


class RotaryScaling(BaseModel):
    """How Llama 3.1 stretches its rotary positions beyond the context of its pretraining: a slow frequency is
    divided by `factor`, a fast one stays, and between the two thresholds the change is gradual."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    factor: float = Field(ge=1.0, description="what slow frequencies are divided by")
    low_frequency_factor: float = Field(
        default=1.0, gt=0.0, description="a frequency with fewer turns than this in `original_context` is slow"
    )
    high_frequency_factor: float = Field(
        default=4.0, gt=0.0, description="a frequency with more turns than this in `original_context` is fast"
    )
    original_context: int = Field(default=8192, ge=1, description="context of the pretraining, in tokens")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError(
                f"high_frequency_factor {self.high_frequency_factor} is not above "
                f"low_frequency_factor {self.low_frequency_factor}"
            )
        return self


class LlamaOptions(BaseModel):
    """The sizes of a Llama-like decoder, all explicit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vocabulary: int = Field(ge=2, description="number of token ids")
    context: int = Field(ge=1, description="longest sequence, in tokens")
    width: int = Field(ge=1, description="size of the residual stream")
    layers: int = Field(ge=1, description="number of blocks")
    heads: int = Field(ge=1, description="query heads")
    key_value_heads: int = Field(ge=1, description="key-value heads; divides `heads`")
    head_size: int = Field(ge=2, multiple_of=2, description="size of one head")
    hidden: int = Field(ge=1, description="inner width of the feed-forward part")
    rotary_base: float = Field(default=10000.0, gt=1.0, description="base of the rotary frequencies")
    norm_epsilon: float = Field(default=1e-5, gt=0.0, description="added to the mean square in RMSNorm")
    rotary_scaling: RotaryScaling | None = Field(default=None, description="Llama 3's stretching of positions")
    query_key_norm: bool = Field(default=False, description="RMSNorm of each head's queries and keys")
    attention_bias: bool | Literal["all"] = Field(
        default=False, description='a bias on queries, keys and values (as Qwen2); "all": on the output too'
    )
    sliding_window: int | None = Field(default=None, ge=1, description="how far back a query sees, in tokens")
    tied: bool = Field(default=True, description="the output matrix is the embedding")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.heads % self.key_value_heads:
            raise ValueError(f"key_value_heads {self.key_value_heads} does not divide heads {self.heads}")
        return self


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in float32; see functional.rms_norm."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.epsilon)


def rotary_table(
    positions: int, head_size: int, base: float, scaling: RotaryScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each (positions, K/2). The angles are made in float64: at high
    positions a float32 product already differs in the fourth digit.

    Args:
        positions: how many, from 0.
        head_size: K.
        base: of the frequencies base^(-2r/K), in radians a token (Su et al. 2021, arXiv:2104.09864, section 3.2).
        scaling: Llama 3.1's change of them (`apply_scaling` of Meta's reference code, meta-llama/llama-models,
            models/llama3; the model: Grattafiori et al. 2024, arXiv:2407.21783).
    """
    frequency_R = base ** (-torch.arange(0, head_size, 2, dtype=torch.float64, device="cpu") / head_size)
    if scaling is not None:
        turns_R = scaling.original_context * frequency_R / (2 * math.pi)
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        kept_R = ((turns_R - low) / (high - low)).clamp(0.0, 1.0)
        frequency_R = kept_R * frequency_R + (1.0 - kept_R) * frequency_R / scaling.factor
    angle = torch.arange(positions, dtype=torch.float64, device="cpu")[:, None] * frequency_R[None, :]
    return angle.cos().float(), angle.sin().float()


def empty_embedding(rows: int, width: int) -> nn.Embedding:
    """A table that trains, of values yet to be drawn. torch's own draw would import the compiler on the meta
    device, two seconds."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


def rotary_mask(x_BTD: Tensor, document_BT: Tensor | None, options: LlamaOptions, cache: Cache | None) -> Tensor | None:
    """What `functional.rotary_attention` is told of who sees whom: the first position that each one sees, int32 (B, T),
    where the compiled attention can work on x, else `decoder_mask`."""
    window = options.sliding_window
    if cache is None and compiled.in_use(x_BTD) and compiled.fits_attention(options.head_size):
        alone = torch.zeros(x_BTD.shape[:2], dtype=torch.int64)
        start_BT = first_seen(alone if document_BT is None else document_BT, window)
        if start_BT is not None:
            return start_BT
    return decoder_mask(x_BTD, document_BT, 0 if cache is None else cache.length, window)


def decoder_mask(tokens_BT: Tensor, document_BT: Tensor | None, seen: int, window: int | None = None) -> Tensor | None:
    """Which of the S = seen + T positions each new one may look at: bool, (B or 1, 1, T, S).

    Args:
        tokens_BT: the new tokens; their number and device count.
        document_BT: see `Llama.hidden`.
        seen: positions in the cache.
        window: how far back a query sees.

    Returns:
        None where the plain causal rule, or a single query that sees everything, says it all: those have
        faster kernels.
    """
    length = tokens_BT.shape[1]
    if document_BT is None:
        return causal_mask(length, seen, window, tokens_BT.device)
    return attention_mask(document_BT, window)[:, :, seen:]


class Attention(nn.Module):
    def __init__(self, options: LlamaOptions, layer: int) -> None:
        super().__init__()
        self.options, self.layer = options, layer
        size, queries = options.head_size, options.heads * options.head_size
        keys = options.key_value_heads * size
        bias = options.attention_bias is not False
        self.q_proj = nn.Linear(options.width, queries, bias=bias)
        self.k_proj = nn.Linear(options.width, keys, bias=bias)
        self.v_proj = nn.Linear(options.width, keys, bias=bias)
        self.o_proj = nn.Linear(queries, options.width, bias=options.attention_bias == "all")
        self.q_norm = RMSNorm(size, options.norm_epsilon) if options.query_key_norm else nn.Identity()
        self.k_norm = RMSNorm(size, options.norm_epsilon) if options.query_key_norm else nn.Identity()

    def forward(
        self, x_BTD: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        rows, length, _ = x_BTD.shape
        heads = (rows, length, -1, self.options.head_size)
        query, key, value = linears(x_BTD, self.q_proj, self.k_proj, self.v_proj)
        query_BTHK, key_BTGK = self.q_norm(query.view(heads)), self.k_norm(key.view(heads))
        value_BTGK = value.view(heads)
        if cache is None:
            mixed_BTHK = rotary_attention(query_BTHK, key_BTGK, value_BTGK, cos_BTR, sin_BTR, mask)
        else:
            query_BHTK = rotate_pairs(query_BTHK.transpose(1, 2), cos_BTR[:, None], sin_BTR[:, None])
            key_BGTK = rotate_pairs(key_BTGK.transpose(1, 2), cos_BTR[:, None], sin_BTR[:, None])
            window, value_BGTK = self.options.sliding_window, value_BTGK.transpose(1, 2)
            mixed_BTHK = cache.attend(self.layer, query_BHTK, key_BGTK, value_BGTK, mask, window).transpose(1, 2)
        return self.o_proj(mixed_BTHK.reshape(rows, length, -1))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(swiglu(x_BTD, self.gate_proj, self.up_proj))


class Block(nn.Module):
    def __init__(self, options: LlamaOptions, layer: int) -> None:
        super().__init__()
        self.input_norm = RMSNorm(options.width, options.norm_epsilon)
        self.attention = Attention(options, layer)
        self.post_norm = RMSNorm(options.width, options.norm_epsilon)
        self.feed_forward = FeedForward(options.width, options.hidden)

    def forward(
        self, x_BTD: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, mask: Tensor | None, cache: Cache | None = None
    ) -> Tensor:
        x_BTD = x_BTD + self.attention(self.input_norm(x_BTD), cos_BTR, sin_BTR, mask, cache)
        return x_BTD + self.feed_forward(self.post_norm(x_BTD))


class Llama(nn.Module):
    """The decoder. `hidden` gives the final states, `head_weight` the output matrix, `forward` the logits."""

    causal = True

    def __init__(self, options: LlamaOptions) -> None:
        super().__init__()
        self.options = options
        self.context, self.vocabulary = options.context, options.vocabulary
        self.embedding = empty_embedding(options.vocabulary, options.width)
        self.layers = nn.ModuleList(Block(options, layer) for layer in range(options.layers))
        self.norm = RMSNorm(options.width, options.norm_epsilon)
        self.head = nn.Linear(options.width, options.vocabulary, bias=False)
        if options.tied:
            self.head.weight = self.embedding.weight
        cos, sin = rotary_table(options.context, options.head_size, options.rotary_base, options.rotary_scaling)
        self.register_buffer("cos_TR", cos, persistent=False)
        self.register_buffer("sin_TR", sin, persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, in the order of their names.

        | parameter                           | distribution                                   |
        |-------------------------------------|------------------------------------------------|
        | embedding (and head, if tied)       | normal, deviation 0.02                         |
        | head, if untied                     | normal, deviation 1 / sqrt(width)              |
        | q, k, v, gate, up projections       | normal, deviation 1 / sqrt(inputs)             |
        | o and down projections              | normal, 1 / sqrt(inputs) / sqrt(2 layers)      |
        | norms                               | one                                            |
        | biases                              | zero                                           |

        The two matrices that write to the residual stream are scaled down so that its variance does not
        grow with depth (Radford et al. 2019, GPT-2).
        """
        depth_scale = (2 * self.options.layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
                continue
            deviation = float(parameter.shape[1]) ** -0.5
            if name == "embedding.weight":
                deviation = 0.02
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                deviation *= depth_scale
            with torch.no_grad():
                parameter.normal_(0.0, deviation, generator=generator)

    def hidden(
        self,
        tokens_BT: Tensor,
        position_BT: Tensor | None = None,
        document_BT: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Final normalised states (B, T, D).

        Args:
            tokens_BT: int64 ids.
            position_BT: position of each token in its document; by default counted on from the cache.
            document_BT: the document of each position; positions of other documents are not seen. With a
                cache it covers the cached positions too, shape (B, S). None: each row is one document.
            cache: keys and values of earlier positions; extended by this call.
        """
        rows, length = tokens_BT.shape
        seen = 0 if cache is None else cache.length
        if position_BT is None:
            position_BT = torch.arange(seen, seen + length, device=tokens_BT.device)[None].expand(rows, -1)
        cos_BTR, sin_BTR = self.cos_TR[position_BT], self.sin_TR[position_BT]  # type: ignore[index]
        x_BTD = self.embedding(tokens_BT)
        mask = rotary_mask(x_BTD, document_BT, self.options, cache)
        for block in self.layers:
            x_BTD = block(x_BTD, cos_BTR, sin_BTR, mask, cache)
        if cache is not None:
            cache.advance(length)
        return self.norm(x_BTD)

    def head_weight(self) -> Tensor:
        """The output matrix (V, D)."""
        return self.head.weight

    def forward(
        self,
        tokens_BT: Tensor,
        position_BT: Tensor | None = None,
        document_BT: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits (B, T, V)."""
        return self.head(self.hidden(tokens_BT, position_BT, document_BT, cache))
