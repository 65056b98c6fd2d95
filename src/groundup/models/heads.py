"""What stands on a body so that it answers a task rather than writes text: labels for a text or for each token, a
number, an embedding, a choice among candidates, or the token that is hidden at a place. Any body will do, an encoder or
a decoder, as long as it has `hidden`; the last of these is for encoders that say how they normalise.
Losses are no business of this file: a head gives logits.

Shapes: B rows, C candidates of a row, T positions, D width, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import Batch
from groundup.errors import GroundupError
from groundup.models.bert import Bert

LABELLED = {"classify": 2, "multilabel": 1, "tag": 2}
"""The kinds of head that have labels, and the fewest that make sense."""

EACH_TOKEN = ("tag", "masked")
"""The kinds that answer for each token."""

Pooling = Literal["first", "last", "mean"]


class HeadOptions(BaseModel):
    """A head on a body. What it is called and what it gives is saved beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["classify", "multilabel", "tag", "regress", "embed", "choice", "masked"] = Field(
        description="one label for a text, several, one for each token, a number, an embedding, one of several "
        "candidates, or the tokens that are hidden"
    )
    labels: list[str] = Field(
        default_factory=list, description="names of the labels, in the order of the logits (classify, multilabel, tag)"
    )
    pooling: Pooling | None = Field(
        default=None,
        description="how the states of a text become one: its first, its last, or the mean of them (all but tag and "
        "masked). "
        "None: last on a decoder, first under a pooler, else mean",
    )
    pooler: bool = Field(default=False, description="BERT's dense layer and tanh before the head (likewise)")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="probability of dropping what the head reads")
    normalise: bool | None = Field(default=None, description="embeddings have length 1 (embed). None: they have")

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        fewest = LABELLED.get(self.kind, 0)
        if len(self.labels) < fewest:
            raise ValueError(f"a head of kind {self.kind} needs {fewest} labels or more, and has {len(self.labels)}")
        if self.labels and not fewest:
            raise ValueError(f"a head of kind {self.kind} has no labels")
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise ValueError(f"labels stand twice: {', '.join(twice)}")
        if self.kind in EACH_TOKEN and (self.pooling is not None or self.pooler):
            raise ValueError(f"a head of kind {self.kind} reads every token: it has neither pooling nor pooler")
        if self.kind != "embed" and self.normalise is not None:
            raise ValueError(f"normalise is for embed, not for {self.kind}")
        return self

    def on(self, causal: bool) -> HeadOptions:
        """With the pooling that a body of this kind gets where none is said."""
        if self.pooling is not None or self.kind in EACH_TOKEN:
            return self
        return self.model_copy(update={"pooling": "last" if causal else "first" if self.pooler else "mean"})


class Body(Protocol):
    """What a head asks of the network below it."""

    causal: bool
    context: int
    vocabulary: int
    layers: nn.ModuleList
    embedding: nn.Embedding

    def hidden(
        self,
        tokens_BT: Tensor,
        position_BT: Tensor | None = None,
        document_BT: Tensor | None = None,
        **segment_BT: Tensor,
    ) -> Tensor:
        """The final states (B, T, D). An encoder takes `segment_BT` too."""
        ...

    def initialise(self, generator: torch.Generator) -> None: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


def pool(hidden_BTD: Tensor, document_BT: Tensor, pooling: Pooling) -> Tensor:
    """The states of each row as one, (B, D) float32. Padding (document -1) does not count, on either side.

    A row that is nothing but padding gives something finite that means nothing.
    """
    real_BT = document_BT >= 0
    length = real_BT.shape[1]
    if pooling == "mean":
        total_BD = (hidden_BTD.float() * real_BT[:, :, None]).sum(dim=1)
        return total_BD / real_BT.sum(dim=1, keepdim=True).clamp_min(1)
    position_T = torch.arange(length, device=real_BT.device)
    if pooling == "first":
        picked_B = torch.where(real_BT, position_T, length - 1).amin(dim=1)
    else:
        picked_B = torch.where(real_BT, position_T, 0).amax(dim=1)
    return hidden_BTD[torch.arange(picked_B.shape[0], device=picked_B.device), picked_B].float()


class Head(nn.Module):
    """Pooler, dropout, and one linear layer; an embedding has no linear layer.

    It runs in float32 under autocast too: it costs next to nothing, and a number rounded to eight bits is a poor
    answer.
    """

    def __init__(self, width: int, options: HeadOptions, *, bias: bool = True) -> None:
        super().__init__()
        self.options = options
        self.pooler = nn.Linear(width, width) if options.pooler else None
        self.dropout = nn.Dropout(options.dropout)
        self.output = None if options.kind == "embed" else nn.Linear(width, len(options.labels) or 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (…, L), or embeddings (…, D), of states (…, D)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if self.pooler is not None:
                x = self.pooler(x.to(self.pooler.weight.dtype)).tanh()
            x = self.dropout(x)
            if self.output is not None:
                return self.output(x.to(self.output.weight.dtype))
            return x if self.options.normalise is False else F.normalize(x.float(), dim=-1)


class MaskedHead(nn.Module):
    """BERT's output over the vocabulary (Devlin et al. 2018, section 3.1; google-research/bert, run_pretraining.py):
    dense layer, GELU and LayerNorm, then the body's embedding as output matrix, and a bias of its own."""

    def __init__(self, width: int, vocabulary: int, norm_epsilon: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, norm_epsilon)
        self.bias = nn.Parameter(torch.empty(vocabulary))

    def forward(self, x: Tensor) -> Tensor:
        """What the output matrix is given, (…, D), of states (…, D)."""
        return self.norm(F.gelu(self.dense(x)))


class Headed(nn.Module):
    """A body and its head. `forward` takes a whole batch, so that every kind is called alike.

    Args:
        body: a network of `FAMILIES`. An output matrix of its own that is not the embedding takes no part, and is
            frozen here.
        options: of the head; `self.options` has their pooling filled in.

    Raises:
        GroundupError: E-MODEL-010 pooling "first" on a decoder, E-MODEL-020 hidden tokens on anything but a BERT.
    """

    def __init__(self, body: Body, options: HeadOptions) -> None:
        super().__init__()
        options = options.on(body.causal)
        if options.pooling == "first" and body.causal:
            raise GroundupError(
                "E-MODEL-010",
                "the head reads the first token of a decoder",
                where="head.pooling: first",
                why="the first token of a decoder sees no other, so that the rest of the text would not count",
                fix="head.pooling: last   (or mean)",
                exit_code=2,
            )
        self.options, self.kind, self.labels = options, options.kind, options.labels
        self.body = body
        # as transformers has it, so that a trained head can be written for it: none on a decoder's last token
        bias = not body.causal or options.kind == "tag"
        self.head: Head | MaskedHead
        if options.kind == "masked":
            self.head = MaskedHead(body.embedding.embedding_dim, body.vocabulary, _epsilon(body))
        else:
            self.head = Head(body.embedding.embedding_dim, options, bias=bias)
        for name, parameter in body.named_parameters():  # a tied matrix is named by its embedding alone
            if name == "head.weight":
                parameter.requires_grad_(False)

    @property
    def causal(self) -> bool:
        """Of the body; the properties below too. They are for reading: change the body itself."""
        return self.body.causal

    @property
    def context(self) -> int:
        """Longest sequence, in tokens."""
        return self.body.context

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return self.body.vocabulary

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks."""
        return self.body.layers

    @property
    def embedding(self) -> nn.Embedding:
        """The table of the tokens."""
        return self.body.embedding

    def initialise(self, generator: torch.Generator) -> None:
        """Draw body and head anew, in this order."""
        self.body.initialise(generator)
        self.initialise_head(generator)

    def initialise_head(self, generator: torch.Generator) -> None:
        """Draw the head alone anew, in the order of its names, for a body that was trained before.

        | parameter                            | distribution           |
        |--------------------------------------|------------------------|
        | matrices of pooler, output and dense | normal, deviation 0.02 |
        | weight of the norm                   | one                    |
        | biases                               | zero                   |

        As BERT's (see bert.py): small, so that all labels are about equally likely at first.
        """
        for name, parameter in self.head.named_parameters():
            with torch.no_grad():
                if parameter.dim() == 1:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                else:
                    parameter.normal_(0.0, 0.02, generator=generator)

    def forward(self, batch: Batch) -> Tensor:
        """What the head says of each row.

        Args:
            batch: `tokens_BT`, `position_BT` and `document_BT` (one document in a row, -1 at padding), int64, and
                `segment_BT` where texts have parts, which a decoder does not tell apart; for choice `tokens_BCT` and
                so on, where a candidate of nothing but padding is none.
        Returns:
            classify and multilabel: logits (B, L). tag: (B, T, L). regress: values (B,). embed: (B, D).
            choice: logits (B, C), -inf where there is no candidate. masked: logits (B, T, V).
        """
        if self.kind == "choice":
            document_BCT = batch["document_BCT"]
            flat = {name.replace("BCT", "BT"): part.flatten(0, 1) for name, part in batch.items() if "BCT" in name}
            logits_BC = self._answer(flat).view(document_BCT.shape[:2])
            return logits_BC.masked_fill((document_BCT < 0).all(dim=2), float("-inf"))
        answer = self._answer(batch)
        return answer.squeeze(-1) if self.kind == "regress" else answer

    def states_at(self, batch: Batch, chosen_BT: Tensor) -> Tensor:
        """Of a masked head: what the output matrix is given at the chosen positions, (N, D) in their order."""
        transformed: Tensor = self.head(self._states(batch)[chosen_BT])
        return transformed

    def output(self) -> tuple[Tensor, Tensor]:
        """Of a masked head: the output matrix (V, D), which is the embedding, and the bias (V)."""
        assert isinstance(self.head, MaskedHead)
        return self.body.embedding.weight, self.head.bias

    def _answer(self, batch: Batch) -> Tensor:
        hidden_BTD = self._states(batch)
        if self.kind == "masked":
            return F.linear(self.head(hidden_BTD), *self.output())
        if self.options.pooling is None:
            return self.head(hidden_BTD)
        return self.head(pool(hidden_BTD, batch["document_BT"], self.options.pooling))

    def _states(self, batch: Batch) -> Tensor:
        document_BT = batch["document_BT"]
        # One document in every row and no padding needs no mask, and attention without one is faster. A graph that
        # is compiled or exported holds for every batch, so it keeps the mask.
        alone = not torch.compiler.is_compiling() and bool((document_BT == document_BT[:, :1]).all())
        segments = {} if self.causal or "segment_BT" not in batch else {"segment_BT": batch["segment_BT"]}
        return self.body.hidden(batch["tokens_BT"], batch["position_BT"], None if alone else document_BT, **segments)


def _epsilon(body: Body) -> float:
    """What the body's norms add to the variance, so that the head's norm adds the same."""
    if isinstance(body, Bert):
        return body.options.norm_epsilon
    raise GroundupError(
        "E-MODEL-020",
        "hidden tokens are to be told by a network that is no BERT",
        where="head.kind: masked",
        why="a decoder sees only what stands before a hidden token, and other readers have no output over tokens",
        fix="set model.family=bert, or start from a BERT with model.init_from",
        exit_code=2,
    )
