"""The mixture-of-experts family in the form of Qwen3-MoE (Yang et al. 2025, arXiv:2505.09388): a Llama-like
decoder with query-key norm whose feed-forward parts are many small experts. A router picks a few of them for
each token (Shazeer et al. 2017, arXiv:1701.06538), so that a token costs `active_parameters`, not all of them.
Attention, RMSNorm and rotary positions are Llama's own.

Shapes: B rows, T positions, N = B·T tokens, S positions seen (cache included), D width, E experts, C experts
chosen for a token, M = N·C pairs of a token and an expert, F hidden width of one expert, R rotary pairs,
V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import Cache
from groundup.models.llama import (
    Attention,
    LlamaOptions,
    RMSNorm,
    empty_embedding,
    rotary_mask,
    rotary_table,
)


class MoeOptions(BaseModel):
    """The sizes of a Qwen3-MoE-like decoder, all explicit. Query-key norm is always on."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vocabulary: int = Field(ge=2, description="number of token ids")
    context: int = Field(ge=1, description="longest sequence, in tokens")
    width: int = Field(ge=1, description="size of the residual stream")
    layers: int = Field(ge=1, description="number of blocks")
    heads: int = Field(ge=1, description="query heads")
    key_value_heads: int = Field(ge=1, description="key-value heads; divides `heads`")
    head_size: int = Field(ge=2, multiple_of=2, description="size of one head")
    hidden: int = Field(ge=1, description="inner width of one expert")
    experts: int = Field(ge=1, description="experts in each block")
    experts_per_token: int = Field(ge=1, description="experts that a token goes through; at most `experts`")
    normalise_routes: bool = Field(default=True, description="the weights of a token's experts sum to one")
    balance: float = Field(default=0.001, ge=0.0, description="weight of the load-balancing loss; 0 turns it off")
    rotary_base: float = Field(default=10000.0, gt=1.0, description="base of the rotary frequencies")
    norm_epsilon: float = Field(default=1e-5, gt=0.0, description="added to the mean square in RMSNorm")
    tied: bool = Field(default=True, description="the output matrix is the embedding")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.heads % self.key_value_heads:
            raise ValueError(f"key_value_heads {self.key_value_heads} does not divide heads {self.heads}")
        if self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} is above experts {self.experts}")
        return self

    def attention(self) -> LlamaOptions:
        """What Llama's attention is built from."""
        shared = {name: value for name, value in dict(self).items() if name in LlamaOptions.model_fields}
        return LlamaOptions(**shared, query_key_norm=True)


class Routes(NamedTuple):
    """Where the tokens of one block went."""

    probability_NE: Tensor
    """The router's softmax, float32."""
    expert_NC: Tensor
    """The experts chosen, int64, likeliest first."""


class ExpertLinear(nn.Module):
    """One matrix for each expert, (E, outputs, inputs)."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))


class Experts(nn.Module):
    """SwiGLU parts side by side; each works on its own tokens, one group after the other."""

    def __init__(self, options: MoeOptions) -> None:
        super().__init__()
        self.gate_proj = ExpertLinear(options.experts, options.width, options.hidden)
        self.up_proj = ExpertLinear(options.experts, options.width, options.hidden)
        self.down_proj = ExpertLinear(options.experts, options.hidden, options.width)

    def forward(self, x_MD: Tensor, sizes: list[int]) -> Tensor:
        """What the experts make of their tokens, (M, D).

        Args:
            x_MD: one row for each pair of a token and an expert, sorted by expert.
            sizes: how many rows each expert has.
        """
        # unbind, not an index for each expert: the gradient of an index is as large as all experts together
        weights = zip(*(proj.weight.unbind() for proj in (self.gate_proj, self.up_proj, self.down_proj)))
        return torch.cat(
            [
                F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
                for x, (gate, up, down) in zip(x_MD.split(sizes), weights)
                if len(x)
            ]
        )


class FeedForward(nn.Module):
    """The experts and their router."""

    def __init__(self, options: MoeOptions) -> None:
        super().__init__()
        self.options = options
        self.router = nn.Linear(options.width, options.experts, bias=False)
        self.experts = Experts(options)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Routes]:
        x_ND = x_BTD.flatten(0, 1)
        chosen = self.options.experts_per_token
        # in float32 under autocast too: rounded logits make the choice unstable (Fedus et al. 2021,
        # arXiv:2101.03961, section 2.4)
        device = x_ND.device.type
        with torch.autocast("cpu" if device == "meta" else device, enabled=False):  # meta has no autocast
            probability_NE = F.linear(x_ND.float(), self.router.weight.float()).softmax(dim=-1)
        weight_NC, expert_NC = probability_NE.topk(chosen, dim=-1)
        if self.options.normalise_routes:
            weight_NC = weight_NC / weight_NC.sum(dim=-1, keepdim=True)
        expert_M = expert_NC.flatten()
        order_M = expert_M.argsort(stable=True)
        sizes = expert_M.bincount(minlength=self.options.experts).tolist()
        mixed_MD = self.experts(x_ND.index_select(0, order_M // chosen), sizes)
        # back into the order of the tokens and summed there, rather than added up at random places: a
        # token's sum has the same order whatever else is in the batch
        mixed_NCD = mixed_MD.index_select(0, order_M.argsort()).unflatten(0, (-1, chosen))
        mixed_ND = (mixed_NCD * weight_NC.to(x_ND.dtype)[:, :, None]).sum(dim=1)
        return mixed_ND.view_as(x_BTD), Routes(probability_NE, expert_NC)


class Block(nn.Module):
    def __init__(self, options: MoeOptions, layer: int) -> None:
        super().__init__()
        self.input_norm = RMSNorm(options.width, options.norm_epsilon)
        self.attention = Attention(options.attention(), layer)
        self.post_norm = RMSNorm(options.width, options.norm_epsilon)
        self.feed_forward = FeedForward(options)

    def forward(
        self, x_BTD: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, mask: Tensor | None, cache: Cache | None = None
    ) -> tuple[Tensor, Routes]:
        x_BTD = x_BTD + self.attention(self.input_norm(x_BTD), cos_BTR, sin_BTR, mask, cache)
        mixed_BTD, routes = self.feed_forward(self.post_norm(x_BTD))
        return x_BTD + mixed_BTD, routes


def balance_loss(routes: Routes, real_N: Tensor | None = None) -> Tensor:
    """How unevenly one block loads its experts: E · Σ_e (tokens that chose e / tokens) · (mean probability of e),
    a float32 scalar (Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6). At an even load it is C; the
    gradient flows through the probabilities.

    Args:
        routes: of the block.
        real_N: bool, which tokens count (padding does not); None: all.
    """
    probability_NE, expert_NC = routes
    experts = probability_NE.shape[1]
    if real_N is not None:
        probability_NE, expert_NC = probability_NE[real_N], expert_NC[real_N]
    tokens = max(1, len(expert_NC))
    load_E = expert_NC.flatten().bincount(minlength=experts) / tokens
    return experts * (load_E * probability_NE.sum(dim=0) / tokens).sum()


class Moe(nn.Module):
    """The decoder. `hidden` gives the final states, `head_weight` the output matrix, `forward` the logits, and
    `hidden_and_balance` what training adds to the loss besides."""

    causal = True

    def __init__(self, options: MoeOptions) -> None:
        super().__init__()
        self.options = options
        self.context, self.vocabulary = options.context, options.vocabulary
        self.embedding = empty_embedding(options.vocabulary, options.width)
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
        | router                              | normal, deviation 0.02                         |
        | q, k, v; gate and up of each expert | normal, deviation 1 / sqrt(inputs)             |
        | o; down of each expert              | normal, 1 / sqrt(inputs) / sqrt(2 layers)      |
        | norms                               | one                                            |

        As Llama's. A router near zero sends the first tokens everywhere; a sharp one would starve experts
        before they have learned anything.
        """
        depth_scale = (2 * self.options.layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.ones_(parameter)
                continue
            deviation = float(parameter.shape[-1]) ** -0.5
            if name == "embedding.weight" or name.endswith("router.weight"):
                deviation = 0.02
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                deviation *= depth_scale
            with torch.no_grad():
                parameter.normal_(0.0, deviation, generator=generator)

    def active_parameters(self) -> int:
        """Parameters that one token goes through: all but those of the experts it is not sent to."""
        of_experts = sum(p.numel() for name, p in self.named_parameters() if ".experts." in name)
        idle = self.options.experts - self.options.experts_per_token
        return sum(p.numel() for p in self.parameters()) - of_experts * idle // self.options.experts

    def _states(
        self, tokens_BT: Tensor, position_BT: Tensor | None, document_BT: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, list[Routes]]:
        """The final normalised states (B, T, D), and the routes of each block."""
        rows, length = tokens_BT.shape
        seen = 0 if cache is None else cache.length
        if position_BT is None:
            position_BT = torch.arange(seen, seen + length, device=tokens_BT.device)[None].expand(rows, -1)
        cos_BTR, sin_BTR = self.cos_TR[position_BT], self.sin_TR[position_BT]  # type: ignore[index]
        x_BTD = self.embedding(tokens_BT)
        mask = rotary_mask(x_BTD, document_BT, self.options.attention(), cache)
        routes = []
        for block in self.layers:
            x_BTD, taken = block(x_BTD, cos_BTR, sin_BTR, mask, cache)
            routes.append(taken)
        if cache is not None:
            cache.advance(length)
        return self.norm(x_BTD), routes

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
        return self._states(tokens_BT, position_BT, document_BT, cache)[0]

    def hidden_and_balance(
        self, tokens_BT: Tensor, position_BT: Tensor | None = None, document_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The final states, as `hidden` gives them, and what to add to the mean loss of a token so that the
        experts stay evenly loaded: `options.balance` times the mean of `balance_loss` over the blocks, a
        float32 scalar. Padding (document -1) does not count.

        Each block is balanced for itself. Pooling the blocks first, as some implementations do, would call
        two blocks even that each use one expert, as long as it is not the same number in both.
        """
        states_BTD, routes = self._states(tokens_BT, position_BT, document_BT, None)
        real_N = None if document_BT is None else (document_BT >= 0).flatten()
        losses = torch.stack([balance_loss(taken, real_N) for taken in routes])
        return states_BTD, self.options.balance * losses.mean()

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
