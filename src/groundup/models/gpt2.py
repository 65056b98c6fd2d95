"""The GPT-2 family: a pre-norm decoder with LayerNorm, learned positions, biases everywhere, and a GELU
feed-forward part (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3).
What other families do differently (rotary positions, grouped queries, gates) stays in their files.

Shapes: B rows, T positions, S positions seen (cache included), D width, H heads, K head size, F hidden width
of the feed-forward part, V vocabulary.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import Cache
from groundup.functional import attention
from groundup.models.llama import decoder_mask, empty_embedding


class GPT2Options(BaseModel):
    """The sizes of a GPT-2-like decoder, all explicit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vocabulary: int = Field(ge=2, description="number of token ids")
    context: int = Field(ge=1, description="longest sequence, in tokens: rows of the position table")
    width: int = Field(ge=1, description="size of the residual stream")
    layers: int = Field(ge=1, description="number of blocks")
    heads: int = Field(ge=1, description="attention heads; divides `width`")
    hidden: int = Field(ge=1, description="inner width of the feed-forward part; GPT-2 has 4 times `width`")
    norm_epsilon: float = Field(default=1e-5, gt=0.0, description="added to the variance in LayerNorm")
    tied: bool = Field(default=True, description="the output matrix is the embedding")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        return self


class Attention(nn.Module):
    """Queries, keys and values of all heads come out of one matrix, in that order."""

    def __init__(self, options: GPT2Options, layer: int) -> None:
        super().__init__()
        self.layer, self.head_size = layer, options.width // options.heads
        self.qkv_proj = nn.Linear(options.width, 3 * options.width)
        self.o_proj = nn.Linear(options.width, options.width)

    def forward(self, x_BTD: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        rows, length, _ = x_BTD.shape
        parts = self.qkv_proj(x_BTD).chunk(3, dim=-1)
        query_BHTK, key_BHTK, value_BHTK = (
            part.view(rows, length, -1, self.head_size).transpose(1, 2) for part in parts
        )
        if cache is None:
            mixed_BHTK = attention(query_BHTK, key_BHTK, value_BHTK, mask)
        else:
            mixed_BHTK = cache.attend(self.layer, query_BHTK, key_BHTK, value_BHTK, mask)
        return self.o_proj(mixed_BHTK.transpose(1, 2).reshape(rows, length, -1))


class FeedForward(nn.Module):
    """GELU in its tanh approximation, which GPT-2 was trained with (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, hidden)
        self.down_proj = nn.Linear(hidden, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.up_proj(x_BTD), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, options: GPT2Options, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.attention = Attention(options, layer)
        self.feed_forward_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.feed_forward = FeedForward(options.width, options.hidden)

    def forward(self, x_BTD: Tensor, mask: Tensor | None, cache: Cache | None = None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), mask, cache)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))


class GPT2(nn.Module):
    """The decoder. `hidden` gives the final states, `head_weight` the output matrix, `forward` the logits."""

    causal = True

    def __init__(self, options: GPT2Options) -> None:
        super().__init__()
        self.options = options
        self.context, self.vocabulary = options.context, options.vocabulary
        self.embedding = empty_embedding(options.vocabulary, options.width)
        self.position_embedding = empty_embedding(options.context, options.width)
        self.layers = nn.ModuleList(Block(options, layer) for layer in range(options.layers))
        self.norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.head = nn.Linear(options.width, options.vocabulary, bias=False)
        if options.tied:
            self.head.weight = self.embedding.weight

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, in the order of their names.

        | parameter                           | distribution                                   |
        |-------------------------------------|------------------------------------------------|
        | embedding, head, qkv and up         | normal, deviation 0.02                         |
        | position embedding                  | normal, deviation 0.01                         |
        | o and down projections              | normal, deviation 0.02 / sqrt(2 layers)        |
        | weights of norms                    | one                                            |
        | biases                              | zero                                           |

        0.02 is GPT's (Radford et al. 2018, section 4.1), 0.01 stands in GPT-2's released code (openai/gpt-2,
        src/model.py), and the scale of the two matrices that write to the residual stream is from the GPT-2
        paper (section 2.3): one over the root of the number of residual layers.
        """
        depth_scale = (2 * self.options.layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
                continue
            deviation = 0.02
            if name == "position_embedding.weight":
                deviation = 0.01
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
            position_BT: position of each token in its document, below `context`; by default counted on from
                the cache.
            document_BT: the document of each position; positions of other documents are not seen. With a
                cache it covers the cached positions too, shape (B, S). None: each row is one document.
            cache: keys and values of earlier positions; extended by this call.
        """
        length = tokens_BT.shape[1]
        seen = 0 if cache is None else cache.length
        if position_BT is None:
            position_BT = torch.arange(seen, seen + length, device=tokens_BT.device)[None]
        mask = decoder_mask(tokens_BT, document_BT, seen)
        x_BTD = self.embedding(tokens_BT) + self.position_embedding(position_BT)
        for block in self.layers:
            x_BTD = block(x_BTD, mask, cache)
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
