"""A larger vocabulary: new rows for the embedding and the output matrix. Done before any adapter is added.

Alone, growth leaves plain matrices that are trained whole. Before adapters that freeze the base, the new rows are
parameters of their own (`grown`) beside a table that stands still, and they alone are trained of it. Which text the
new ids stand for is no business of this file.

Shapes: N ids (any dimensions), V vocabulary, A new ids, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from groundup.adapters.paths import Adapted, replace, token_embedding
from groundup.adapters.quantize import plain_linear
from groundup.errors import GroundupError, printable


class GrowOptions(BaseModel):
    """Give the model new tokens; later adapters leave their rows to be trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["grow"]
    words: list[str] = Field(default=[], description="new tokens that any text may spell, such as names of a domain")
    controls: list[str] = Field(
        default=[], description="new special tokens, which no text can spell: a chat template writes them, or the model"
    )
    init: Literal["pieces", "mean"] = Field(
        default="pieces",
        description="first rows of a word: the mean of the tokens that spelled it, or of all; controls get the latter",
    )

    @model_validator(mode="after")
    def _something_new(self) -> GrowOptions:
        if not self.words and not self.controls:
            raise ValueError("neither words nor controls are named: there is nothing to grow by")
        return self

    @property
    def added(self) -> int:
        """How many tokens are new."""
        return len(self.words) + len(self.controls)


@dataclass(frozen=True)
class Growth:
    """Where the new tokens stand.

    Attributes:
        first: the first new id; the others follow. Rows that the table has there already held no token.
        pieces: for each new id, in order, the old ids that spelled it before; empty: the mean of all old rows.
    """

    first: int
    pieces: tuple[tuple[int, ...], ...]


class GrownEmbedding(Adapted):
    """An embedding whose rows from `first` on are `grown` (A, D), trained; `weight` (V, D) stands still."""

    def __init__(self, base: nn.Embedding, grown: nn.Parameter, first: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = base.num_embeddings, base.embedding_dim
        self.padding_idx = base.padding_idx
        self.weight: nn.Parameter = base.get_parameter("weight")
        self.grown, self.first = grown, first
        self.mixing: dict[str, float] = {}

    def adapters(self) -> list[str]:
        return []  # the rows are there whatever adapter is on: without them the ids would mean nothing

    def forward(self, ids_N: Tensor) -> Tensor:
        new = (ids_N >= self.first) & (ids_N < self.first + len(self.grown))
        old_ND = nn.functional.embedding(torch.where(new, 0, ids_N), self.weight)
        new_ND = nn.functional.embedding(torch.where(new, ids_N - self.first, 0), self.grown)
        return torch.where(new[..., None], new_ND, old_ND)

    def plain(self) -> nn.Embedding:
        """The same as an ordinary embedding."""
        _put(self.weight, self.grown, self.first)
        return _embedding(self.weight, self.padding_idx)


class GrownLinear(Adapted):
    """An output matrix whose rows from `first` on are `grown` (A, D), trained; the others stand still.

    `weight` is the matrix as a whole, for those that compute logits in chunks; only `grown` gets its gradient.
    """

    bias: nn.Parameter | None

    def __init__(self, base: nn.Linear, grown: nn.Parameter, first: int) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        # under its canonical name, as everywhere; who asks for it by that name is answered by the property
        self._parameters["weight"] = base.get_parameter("weight")
        self.register_parameter("bias", base.bias)
        self.grown, self.first = grown, first
        self.mixing: dict[str, float] = {}

    def adapters(self) -> list[str]:
        return []

    @property
    def table(self) -> nn.Parameter:
        """The parameter `weight` (V, D): frozen, but that its new rows are as they were when they were last used."""
        parameter = self._parameters["weight"]
        assert parameter is not None
        return parameter

    @property
    def weight(self) -> Tensor:
        """The matrix (V, D) with the new rows as they are now."""
        whole: Tensor = _Whole.apply(self.table, self.grown, self.first)
        return whole

    def forward(self, x_ND: Tensor) -> Tensor:
        return nn.functional.linear(x_ND, self.weight, self.bias)

    def plain(self) -> nn.Linear:
        """The same as an ordinary layer."""
        _put(self.table, self.grown, self.first)
        return plain_linear(self.table, self.bias)


class _Whole(torch.autograd.Function):
    """The table with the new rows in it, in place: nothing as large as the vocabulary is copied."""

    @staticmethod
    def forward(ctx: Any, table_VD: Tensor, grown_AD: Tensor, first: int) -> Tensor:
        ctx.rows = (first, len(grown_AD))
        _put(table_VD, grown_AD, first)
        return table_VD.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, None]:
        return None, grad_outputs[0].narrow(0, *ctx.rows).clone(), None


def _put(table_VD: Tensor, grown_AD: Tensor, first: int) -> None:
    # by .data: what autograd has kept of the table stays valid, for the same values are written between two steps
    table_VD.data[first : first + len(grown_AD)].copy_(grown_AD.data)


def grow(
    model: nn.Module, options: GrowOptions, *, seed: int, growth: Growth | None = None, apart: bool = False
) -> None:
    """Add the rows of the new tokens in place; the weights must be there already. Old ids keep their exact logits, and
    `options` and `vocabulary` of the model follow.

    Rows start as the mean of those of the tokens that spelled the word before, or of all, which bounds how much the new
    words take from the others (Hewitt 2021, "Initializing new word embeddings for pretrained language models").

    Args:
        seed: unused; every adapter has it.
        growth: where the new tokens stand and how they were spelled; None: behind all rows, each from the mean.
        apart: keep the new rows beside the table, which is frozen: an adapter behind this one freezes the base.

    Raises:
        GroundupError: E-ADAPT-006, the embedding or the output matrix is adapted already.
    """
    name = token_embedding(model)
    rows = _plain_matrices(model, name)[0].num_embeddings
    growth = growth or Growth(rows, ((),) * options.added)
    size = max(rows, growth.first + options.added)
    _widen(model, name, size, growth.first, growth.pieces)
    if not apart:
        return
    table, head = _plain_matrices(model, name)
    tied = head is not None and model.get_submodule(head).weight is table.weight
    own = _apart(table.get_parameter("weight"), growth.first, options.added)
    if head is not None:
        linear = model.get_submodule(head)
        assert isinstance(linear, nn.Linear)
        if tied or linear.weight.requires_grad:  # one that takes no part under a head is frozen: no rows to train
            output = own if tied else _apart(linear.get_parameter("weight"), growth.first, options.added)
            replace(model, head, GrownLinear(linear, output, growth.first))
    replace(model, name, GrownEmbedding(table, own, growth.first))


def _apart(table_VD: nn.Parameter, first: int, added: int) -> nn.Parameter:
    """The new rows of a table as a parameter of their own; the table is frozen."""
    table_VD.requires_grad_(False)
    return nn.Parameter(table_VD.detach()[first : first + added].clone())


def require_trained(model: nn.Module) -> None:
    """Refuse a grown model whose new rows are frozen (E-ADAPT-006): the tokens would never mean anything."""
    embedding: Any = model.get_submodule(token_embedding(model))
    rows = embedding.grown if isinstance(embedding, GrownEmbedding) else embedding.weight
    if not rows.requires_grad:
        _refuse(
            "the rows of the new tokens are frozen, so that they would stay as they are drawn",
            'name "embedding.weight" in `train` of the freeze entry, or put {kind: lora} behind grow',
        )


def _plain_matrices(model: nn.Module, name: str) -> tuple[nn.Embedding, str | None]:
    """The token embedding, and the name of the output matrix if there is one; neither may be adapted."""
    embedding = model.get_submodule(name)
    if type(embedding) is not nn.Embedding:
        _refuse(f"the token embedding is of type {type(embedding).__name__}", "grow the vocabulary before adapting")
    owner, _, _ = name.rpartition(".")
    for key, child in model.get_submodule(owner).named_children():
        if isinstance(child, nn.Linear) and child.out_features == embedding.num_embeddings:
            return embedding, f"{owner}.{key}".lstrip(".")
        if key == "head":
            _refuse(f"the output matrix is of type {type(child).__name__}", "grow the vocabulary before adapting")
    return embedding, None


def _widen(model: nn.Module, name: str, size: int, first: int, pieces: Sequence[Sequence[int]]) -> None:
    """Make both matrices `size` rows long and draw the rows from `first` on, one for each list of pieces."""
    embedding, head = _plain_matrices(model, name)
    owner: Any = model.get_submodule(name.rpartition(".")[0])
    table = _widened(embedding.weight, size, first, pieces)
    if head is not None:
        linear = model.get_submodule(head)
        assert isinstance(linear, nn.Linear)
        tied = linear.weight is embedding.weight
        linear.weight = table if tied else _widened(linear.weight, size, first, pieces)
        linear.out_features = size
        if linear.bias is not None:
            linear.bias = nn.Parameter(nn.functional.pad(linear.bias.detach(), (0, size - len(linear.bias))))
    replace(model, name, _embedding(table, embedding.padding_idx))
    owner.options = owner.options.model_copy(update={"vocabulary": size})
    owner.vocabulary = size


def _embedding(table_VD: nn.Parameter, padding_idx: int | None) -> nn.Embedding:
    """An embedding of this very parameter."""
    new = nn.Embedding.from_pretrained(table_VD, freeze=False, padding_idx=padding_idx)
    new.weight = table_VD
    return new


@torch.no_grad()
def _widened(weight_VD: Tensor, size: int, first: int, pieces: Sequence[Sequence[int]]) -> nn.Parameter:
    """The matrix with its new rows; trainable if it was."""
    old_VD = weight_VD.detach()
    mean_D = old_VD[:first].float().mean(dim=0)
    rows = [old_VD[list(ids)].float().mean(dim=0) if ids else mean_D for ids in pieces]
    new_AD = torch.stack([*rows, mean_D])[: len(rows)].to(weight_VD.dtype)
    rest_VD = old_VD[first + len(rows) :]  # rows without a token, which some models have for the sake of a round number
    more_VD = mean_D.to(weight_VD.dtype).expand(size - first - len(rows) - len(rest_VD), -1)
    return nn.Parameter(torch.cat([old_VD[:first], new_AD, rest_VD, more_VD]), weight_VD.requires_grad)


def _refuse(what: str, fix: str) -> NoReturn:
    raise GroundupError(
        "E-ADAPT-006",
        f"the vocabulary cannot grow: {printable(what)}",
        where="the embedding and the output matrix",
        why="each id needs one row in both, and old ids must keep theirs",
        fix=fix,
        exit_code=2,
    )
