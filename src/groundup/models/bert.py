"""The BERT family: a post-norm encoder with learned positions and segments, biases everywhere, and an exact GELU
(Devlin et al. 2018, arXiv:1810.04805; the encoder of Vaswani et al. 2017, arXiv:1706.03762). MiniLM and most
sentence-embedding models are this network. The pooler that BERT was pretrained with belongs to a task's head, see
heads.py; nothing that knows a task may enter here.

Shapes: B rows, T positions, D width, H heads, K head size, V vocabulary.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.functional import attention_mask
from groundup.models.llama import empty_embedding


class BertOptions(BaseModel):
    """The sizes of a BERT-like encoder, all explicit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vocabulary: int = Field(ge=2, description="number of token ids")
    context: int = Field(ge=1, description="longest sequence, in tokens: rows of the position table")
    width: int = Field(ge=1, description="size of the residual stream")
    layers: int = Field(ge=1, description="number of blocks")
    heads: int = Field(ge=1, description="attention heads; divides `width`")
    hidden: int = Field(ge=1, description="inner width of the feed-forward part; BERT has 4 times `width`")
    segments: int = Field(default=2, ge=1, description="rows of the segment table: parts of a text told apart")
    norm_epsilon: float = Field(default=1e-12, gt=0.0, description="added to the variance in LayerNorm")
    dropout: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="probability, in training, of dropping a value or an attention weight"
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        return self


class Attention(nn.Module):
    """Every position sees every other one that the mask allows, before it and after it."""

    def __init__(self, options: BertOptions) -> None:
        super().__init__()
        self.head_size, self.dropout = options.width // options.heads, options.dropout
        self.q_proj = nn.Linear(options.width, options.width)
        self.k_proj = nn.Linear(options.width, options.width)
        self.v_proj = nn.Linear(options.width, options.width)
        self.o_proj = nn.Linear(options.width, options.width)

    def forward(self, x_BTD: Tensor, mask: Tensor | None) -> Tensor:
        rows, length, _ = x_BTD.shape
        query_BHTK, key_BHTK, value_BHTK = (
            proj(x_BTD).view(rows, length, -1, self.head_size).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed_BHTK = F.scaled_dot_product_attention(
            query_BHTK, key_BHTK, value_BHTK, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.o_proj(mixed_BHTK.transpose(1, 2).reshape(rows, length, -1))


class FeedForward(nn.Module):
    """GELU as the error function defines it (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, hidden)
        self.down_proj = nn.Linear(hidden, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.up_proj(x_BTD)))


class Block(nn.Module):
    """Post-norm: what is normalised is the sum of the stream and what was added to it."""

    def __init__(self, options: BertOptions) -> None:
        super().__init__()
        self.attention = Attention(options)
        self.attention_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.feed_forward = FeedForward(options.width, options.hidden)
        self.feed_forward_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x_BTD: Tensor, mask: Tensor | None) -> Tensor:
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, mask)))
        return self.feed_forward_norm(x_BTD + self.dropout(self.feed_forward(x_BTD)))


class Bert(nn.Module):
    """The encoder. `hidden` gives the final states; it has no output matrix and writes no text."""

    causal = False

    def __init__(self, options: BertOptions) -> None:
        super().__init__()
        self.options = options
        self.context, self.vocabulary = options.context, options.vocabulary
        self.embedding = empty_embedding(options.vocabulary, options.width)
        self.position_embedding = empty_embedding(options.context, options.width)
        self.segment_embedding = empty_embedding(options.segments, options.width)
        self.embedding_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.dropout = nn.Dropout(options.dropout)
        self.layers = nn.ModuleList(Block(options) for _ in range(options.layers))

    @property
    def norm(self) -> nn.Module:
        """The norm that the final states come out of. In a post-norm network it is the last block's own."""
        return self.layers[-1].feed_forward_norm  # type: ignore[return-value]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, in the order of their names.

        | parameter                | distribution           |
        |--------------------------|------------------------|
        | all tables and matrices  | normal, deviation 0.02 |
        | weights of norms         | one                    |
        | biases                   | zero                   |

        As BERT's released code does (google-research/bert, modeling.py, `initializer_range`), except that it
        draws again what lies beyond two deviations.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
                continue
            with torch.no_grad():
                parameter.normal_(0.0, 0.02, generator=generator)

    def hidden(
        self,
        tokens_BT: Tensor,
        position_BT: Tensor | None = None,
        document_BT: Tensor | None = None,
        segment_BT: Tensor | None = None,
    ) -> Tensor:
        """Final normalised states (B, T, D).

        Args:
            tokens_BT: int64 ids.
            position_BT: position of each token in its document, below `context`; by default counted from 0.
            document_BT: the document of each position; positions of other documents are not seen, and -1 is
                padding, whose states are finite and mean nothing. None: each row is one document.
            segment_BT: the part of the text that each token belongs to, below `options.segments`, such as 0 for a
                question and 1 for its passage. None: all 0.
        """
        if position_BT is None:
            position_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        if segment_BT is None:
            segment_BT = torch.zeros_like(tokens_BT[:1, :1])
        mask = None if document_BT is None else attention_mask(document_BT, causal=False)
        x_BTD = self.embedding(tokens_BT) + self.position_embedding(position_BT) + self.segment_embedding(segment_BT)
        x_BTD = self.dropout(self.embedding_norm(x_BTD))
        for block in self.layers:
            x_BTD = block(x_BTD, mask)
        return x_BTD
