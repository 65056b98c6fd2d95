"""The Llama family: a pre-norm decoder with RMSNorm, rotary positions, grouped-query attention and SwiGLU
(Touvron et al. 2023, arXiv:2302.13971; grouped queries: Ainslie et al. 2023, arXiv:2305.13245), with
optional query-key norm (Dehghani et al. 2023, arXiv:2302.05442), sliding window (Beltagy et al. 2020,
arXiv:2004.05150) and tied head.

Shapes: B rows, T positions, S positions seen (cache included), D width, H query heads, G key-value heads,
K head size, R = K/2 rotary pairs, F hidden width of the feed-forward part, V vocabulary.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import Cache
from groundup.functional import attention_mask, rms_norm, rotate_pairs


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
    query_key_norm: bool = Field(default=False, description="RMSNorm of each head's queries and keys")
    sliding_window: int | None = Field(default=None, ge=1, description="how far back a query sees, in tokens")
    tied: bool = Field(default=True, description="the output matrix is the embedding")


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in float32; see functional.rms_norm."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.epsilon)


def rotary_table(positions: int, head_size: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each (positions, K/2). The angles are made in float64: at high
    positions a float32 product already differs in the fourth digit."""
    frequency = base ** (-torch.arange(0, head_size, 2, dtype=torch.float64, device="cpu") / head_size)
    angle = torch.arange(positions, dtype=torch.float64, device="cpu")[:, None] * frequency[None, :]
    return angle.cos().float(), angle.sin().float()


class Attention(nn.Module):
    def __init__(self, options: LlamaOptions, layer: int) -> None:
        super().__init__()
        self.options, self.layer = options, layer
        size, queries = options.head_size, options.heads * options.head_size
        keys = options.key_value_heads * size
        self.q_proj = nn.Linear(options.width, queries, bias=False)
        self.k_proj = nn.Linear(options.width, keys, bias=False)
        self.v_proj = nn.Linear(options.width, keys, bias=False)
        self.o_proj = nn.Linear(queries, options.width, bias=False)
        self.q_norm = RMSNorm(size, options.norm_epsilon) if options.query_key_norm else nn.Identity()
        self.k_norm = RMSNorm(size, options.norm_epsilon) if options.query_key_norm else nn.Identity()

    def forward(
        self, x_BTD: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        rows, length, _ = x_BTD.shape
        heads = (rows, length, -1, self.options.head_size)
        query_BHTK = self.q_norm(self.q_proj(x_BTD).view(heads)).transpose(1, 2)
        key_BGTK = self.k_norm(self.k_proj(x_BTD).view(heads)).transpose(1, 2)
        value_BGTK = self.v_proj(x_BTD).view(heads).transpose(1, 2)
        query_BHTK = rotate_pairs(query_BHTK, cos_BTR[:, None], sin_BTR[:, None])
        key_BGTK = rotate_pairs(key_BGTK, cos_BTR[:, None], sin_BTR[:, None])
        if cache is not None:
            key_BGTK, value_BGTK = cache.update(self.layer, key_BGTK, value_BGTK)
        mixed_BHTK = F.scaled_dot_product_attention(
            query_BHTK,
            key_BGTK,
            value_BGTK,
            attn_mask=mask,
            is_causal=mask is None and length > 1,
            enable_gqa=self.options.key_value_heads != self.options.heads,
        )
        return self.o_proj(mixed_BHTK.transpose(1, 2).reshape(rows, length, -1))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


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

    def __init__(self, options: LlamaOptions) -> None:
        super().__init__()
        self.options = options
        self.context, self.vocabulary = options.context, options.vocabulary
        self.embedding = nn.Embedding(options.vocabulary, options.width)
        self.layers = nn.ModuleList(Block(options, layer) for layer in range(options.layers))
        self.norm = RMSNorm(options.width, options.norm_epsilon)
        self.head = nn.Linear(options.width, options.vocabulary, bias=False)
        if options.tied:
            self.head.weight = self.embedding.weight
        cos, sin = rotary_table(options.context, options.head_size, options.rotary_base)
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

        The two matrices that write to the residual stream are scaled down so that its variance does not
        grow with depth (Radford et al. 2019, GPT-2).
        """
        depth_scale = (2 * self.options.layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.ones_(parameter)
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
        window = self.options.sliding_window
        mask: Tensor | None = None
        if document_BT is not None:
            mask = attention_mask(document_BT, window)[:, :, seen:]
        elif window is not None or (seen and length > 1):
            everything = torch.zeros(1, seen + length, dtype=torch.int64, device=tokens_BT.device)
            mask = attention_mask(everything, window)[:, :, seen:]
        x_BTD = self.embedding(tokens_BT)
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
