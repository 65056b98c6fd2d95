"""The encoder-decoder Transformer of "Attention Is All You Need" (Vaswani et al. 2017, arXiv:1706.03762): an encoder
reads the source, a decoder writes the target one token after the other and looks at all of the source. It is the
network of the paper where `norm` is post and `positions` is sinusoidal; nothing that knows a task may enter here.

Shapes: B rows, S source positions, T target positions, P target positions seen (cache included), D width, H heads,
K head size, V vocabulary. Q and N are the positions that ask and those that are looked at, wherever they are.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import Cache
from groundup.functional import attention_mask
from groundup.models.llama import decoder_mask, empty_embedding


class TransformerOptions(BaseModel):
    """The sizes of an encoder-decoder Transformer, all explicit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vocabulary: int = Field(ge=2, description="number of token ids, of source and target together")
    context: int = Field(ge=1, description="longest source and longest target, in tokens")
    width: int = Field(ge=1, description="size of the residual stream")
    encoder_layers: int = Field(ge=1, description="number of encoder blocks")
    decoder_layers: int = Field(ge=1, description="number of decoder blocks")
    heads: int = Field(ge=1, description="attention heads; divides `width`")
    hidden: int = Field(ge=1, description="inner width of the feed-forward part; the paper has 4 times `width`")
    dropout: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="probability, in training, of dropping a value or an attention weight"
    )
    positions: Literal["sinusoidal", "learned"] = Field(
        default="sinusoidal", description="sinusoidal: sines of fixed wavelengths; learned: a table for each side"
    )
    norm: Literal["post", "pre"] = Field(
        default="pre",
        description="where a block normalises: post, the sum, as in the paper; pre, what goes into each part, which "
        "trains without a long warm-up",
    )
    tied: bool = Field(default=True, description="source embedding, target embedding and output matrix are one")
    norm_epsilon: float = Field(default=1e-5, gt=0.0, description="added to the variance in LayerNorm")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        return self


class Memory(NamedTuple):
    """What every decoder block sees of the sources, computed once for a whole translation.

    Attributes:
        keys, values: one tensor (B, H, S, K) for each decoder block.
        visible_B11S: which source positions are no padding, bool.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    visible_B11S: Tensor

    def keep(self, rows: Tensor) -> Memory:
        """The named rows, int64, in that order; a row may come several times."""
        keys = tuple(key_BHSK[rows] for key_BHSK in self.keys)
        values = tuple(value_BHSK[rows] for value_BHSK in self.values)
        return Memory(keys, values, self.visible_B11S[rows])


class Attention(nn.Module):
    """Scaled dot-product attention in several heads (section 3.2). Keys and values are made apart from their use,
    for those of the source serve at every step of decoding."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.head_size, self.dropout = options.width // options.heads, options.dropout
        self.q_proj = nn.Linear(options.width, options.width)
        self.k_proj = nn.Linear(options.width, options.width)
        self.v_proj = nn.Linear(options.width, options.width)
        self.o_proj = nn.Linear(options.width, options.width)

    def _heads(self, x_BND: Tensor) -> Tensor:
        return x_BND.view(*x_BND.shape[:2], -1, self.head_size).transpose(1, 2)

    def keys_values(self, x_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the positions that are looked at, each (B, H, N, K)."""
        return self._heads(self.k_proj(x_BND)), self._heads(self.v_proj(x_BND))

    def forward(
        self, x_BQD: Tensor, key_BHNK: Tensor, value_BHNK: Tensor, mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        mixed_BHQK = F.scaled_dot_product_attention(
            self._heads(self.q_proj(x_BQD)),
            key_BHNK,
            value_BHNK,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        return self.o_proj(mixed_BHQK.transpose(1, 2).reshape(x_BQD.shape))


class FeedForward(nn.Module):
    """The same two layers at each position, with a ReLU between (section 3.3)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, hidden)
        self.down_proj = nn.Linear(hidden, width)

    def forward(self, x_BQD: Tensor) -> Tensor:
        return self.down_proj(F.relu(self.up_proj(x_BQD)))


class EncoderBlock(nn.Module):
    """The source looks at itself, before and after; pre-norm: Xiong et al. 2020, arXiv:2002.04745."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.pre = options.norm == "pre"
        self.attention_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.attention = Attention(options)
        self.feed_forward_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.feed_forward = FeedForward(options.width, options.hidden)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x_BSD: Tensor, mask: Tensor | None) -> Tensor:
        given = self.attention_norm(x_BSD) if self.pre else x_BSD
        x_BSD = x_BSD + self.dropout(self.attention(given, *self.attention.keys_values(given), mask))
        x_BSD = x_BSD if self.pre else self.attention_norm(x_BSD)
        given = self.feed_forward_norm(x_BSD) if self.pre else x_BSD
        x_BSD = x_BSD + self.dropout(self.feed_forward(given))
        return x_BSD if self.pre else self.feed_forward_norm(x_BSD)


class DecoderBlock(nn.Module):
    """The target looks at what stands before it, then at the whole source."""

    def __init__(self, options: TransformerOptions, layer: int) -> None:
        super().__init__()
        self.pre, self.layer = options.norm == "pre", layer
        self.attention_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.attention = Attention(options)
        self.source_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.source_attention = Attention(options)
        self.feed_forward_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.feed_forward = FeedForward(options.width, options.hidden)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x_BTD: Tensor, mask: Tensor | None, memory: Memory, cache: Cache | None) -> Tensor:
        given = self.attention_norm(x_BTD) if self.pre else x_BTD
        key, value = self.attention.keys_values(given)
        if cache is not None:
            key, value = cache.update(self.layer, key, value)
        causal = mask is None and x_BTD.shape[1] > 1
        x_BTD = x_BTD + self.dropout(self.attention(given, key, value, mask, causal))
        x_BTD = x_BTD if self.pre else self.attention_norm(x_BTD)

        given = self.source_norm(x_BTD) if self.pre else x_BTD
        key, value = memory.keys[self.layer], memory.values[self.layer]
        x_BTD = x_BTD + self.dropout(self.source_attention(given, key, value, memory.visible_B11S))
        x_BTD = x_BTD if self.pre else self.source_norm(x_BTD)

        given = self.feed_forward_norm(x_BTD) if self.pre else x_BTD
        x_BTD = x_BTD + self.dropout(self.feed_forward(given))
        return x_BTD if self.pre else self.feed_forward_norm(x_BTD)


class Stack(nn.Module):
    """Blocks one after the other, and the norm that a pre-norm stack ends with."""

    def __init__(self, blocks: list[nn.Module], options: TransformerOptions) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        pre = options.norm == "pre"
        self.norm = nn.LayerNorm(options.width, options.norm_epsilon) if pre else nn.Identity()


def sinusoids(first: int, length: int, width: int, device: torch.device) -> Tensor:
    """Sines of the positions `first` and on in even columns, cosines in odd ones, at wavelengths from 2π to
    10000·2π (section 3.5), float32 (length, width)."""
    position = torch.arange(first, first + length, dtype=torch.float64, device=device)[:, None]
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    angle = position * torch.exp(exponent * -math.log(10000.0))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :width].float()


class Transformer(nn.Module):
    """The network. `forward` gives the logits of a whole target, for learning; for decoding, `encode` and `memory`
    come once, and `decode` with a cache then takes a token at a time."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.options = options
        self.context, self.vocabulary = options.context, options.vocabulary
        tables, rows = options.positions == "learned", options.context
        self.source_embedding = None if options.tied else empty_embedding(options.vocabulary, options.width)
        self.source_position_embedding = empty_embedding(rows, options.width) if tables else None
        self.embedding = empty_embedding(options.vocabulary, options.width)
        self.position_embedding = empty_embedding(rows, options.width) if tables else None
        self.dropout = nn.Dropout(options.dropout)
        self.encoder = Stack([EncoderBlock(options) for _ in range(options.encoder_layers)], options)
        self.decoder = Stack([DecoderBlock(options, layer) for layer in range(options.decoder_layers)], options)
        self.head = nn.Linear(options.width, options.vocabulary, bias=False)
        if options.tied:
            self.head.weight = self.embedding.weight

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, in the order of their names.

        | parameter                             | distribution                                                 |
        |---------------------------------------|--------------------------------------------------------------|
        | embeddings, position tables, the head | normal, deviation width^-0.5                                 |
        | all matrices of the blocks            | uniform, within ±sqrt(6 / (inputs + outputs)) (Glorot & Bengio 2010) |
        | weights of norms                      | one                                                          |
        | biases                                | zero                                                         |

        The embeddings are multiplied by sqrt(width) where they are looked up (section 3.4), so that they come to a
        deviation of 1 there and, as the output matrix, to logits of about that. The paper does not say how it
        draws; these are the draws of its released code for embeddings (tensor2tensor, `embedding`), and of
        torch.nn.Transformer for the matrices.
        """
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if parameter.dim() == 1:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                elif "embedding" in name or name.startswith("head"):
                    parameter.normal_(0.0, self.options.width**-0.5, generator=generator)
                else:
                    bound = math.sqrt(6.0 / sum(parameter.shape))
                    parameter.uniform_(-bound, bound, generator=generator)

    def _embed(self, tokens_BQ: Tensor, table: nn.Embedding, positions: nn.Embedding | None, first: int) -> Tensor:
        x_BQD = table(tokens_BQ) * math.sqrt(self.options.width)
        length = tokens_BQ.shape[1]
        if positions is None:
            added = sinusoids(first, length, self.options.width, tokens_BQ.device).to(x_BQD.dtype)
        else:
            added = positions(torch.arange(first, first + length, device=tokens_BQ.device))
        return self.dropout(x_BQD + added)

    def encode(self, source_BS: Tensor, source_document_BS: Tensor | None = None) -> Tensor:
        """States of the source (B, S, D).

        Args:
            source_BS: int64 ids, at most `context` of them.
            source_document_BS: 0, and -1 at padding, which nothing looks at; its own states are finite and mean
                nothing. None: there is no padding.
        """
        table = self.embedding if self.source_embedding is None else self.source_embedding
        mask = None if source_document_BS is None else attention_mask(source_document_BS, causal=False)
        x_BSD = self._embed(source_BS, table, self.source_position_embedding, 0)
        for block in self.encoder.layers:
            x_BSD = block(x_BSD, mask)
        return self.encoder.norm(x_BSD)

    def memory(self, states_BSD: Tensor, source_document_BS: Tensor | None = None) -> Memory:
        """What the decoder's blocks see of encoded sources; the arguments are those of `encode`, and its result."""
        if source_document_BS is None:
            source_document_BS = torch.zeros(states_BSD.shape[:2], dtype=torch.int64, device=states_BSD.device)
        attentions = [cast("DecoderBlock", block).source_attention for block in self.decoder.layers]
        keys, values = zip(*(attention.keys_values(states_BSD) for attention in attentions))
        return Memory(keys, values, (source_document_BS >= 0)[:, None, None])

    def decode(
        self, memory: Memory, tokens_BT: Tensor, document_BT: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Final states of the target (B, T, D).

        Args:
            memory: of the sources, a row for each row of the target.
            tokens_BT: int64 ids; with a cache those that follow the cached ones.
            document_BT: 0, and -1 at padding. With a cache it covers the cached positions too, (B, P). None: there
                is no padding, or it stands at the end, where no earlier position sees it.
            cache: keys and values of earlier target positions; extended by this call.
        """
        seen = 0 if cache is None else cache.length
        mask = decoder_mask(tokens_BT, document_BT, seen)
        x_BTD = self._embed(tokens_BT, self.embedding, self.position_embedding, seen)
        for block in self.decoder.layers:
            x_BTD = block(x_BTD, mask, memory, cache)
        if cache is not None:
            cache.advance(tokens_BT.shape[1])
        return self.decoder.norm(x_BTD)

    def hidden(
        self,
        source_BS: Tensor,
        source_document_BS: Tensor | None,
        tokens_BT: Tensor,
        document_BT: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Final states (B, T, D); the arguments are those of `encode` and `decode`."""
        memory = self.memory(self.encode(source_BS, source_document_BS), source_document_BS)
        return self.decode(memory, tokens_BT, document_BT, cache)

    def head_weight(self) -> Tensor:
        """The output matrix (V, D)."""
        return self.head.weight

    def forward(
        self,
        source_BS: Tensor,
        source_document_BS: Tensor | None,
        tokens_BT: Tensor,
        document_BT: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits (B, T, V)."""
        return self.head(self.hidden(source_BS, source_document_BS, tokens_BT, document_BT, cache))
