"""A larger vocabulary: new rows for the embedding and the output matrix. Done before any adapter is added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from groundup.adapters.paths import replace, token_embedding
from groundup.errors import GroundupError, printable


def grow_vocabulary(
    model: nn.Module,
    new_size: int,
    *,
    init: Literal["mean", "pieces"] = "mean",
    pieces: Sequence[Sequence[int]] = (),
) -> None:
    """Add rows for the ids from the old vocabulary to `new_size`, in place; old ids keep their exact logits.

    Rows start as the mean of all rows, which bounds how much the new words take from the others (Hewitt 2021,
    "Initializing new word embeddings for pretrained language models"), or as the mean of the rows of the tokens
    that spelled the word before. `options` and `vocabulary` of the model follow.

    Args:
        new_size: ids after growing, at least as many as now.
        init: "mean" or "pieces".
        pieces: for each new id, in order, the old ids that spelled it; only with init="pieces".

    Raises:
        GroundupError: E-ADAPT-006, the size shrinks, pieces do not fit, or the embedding is adapted already.
    """
    name = token_embedding(model)
    embedding = model.get_submodule(name)
    if type(embedding) is not nn.Embedding:
        _refuse(f"the token embedding is of type {type(embedding).__name__}", "grow the vocabulary before adapting")
    old, added = embedding.num_embeddings, new_size - embedding.num_embeddings
    if added < 0:
        _refuse(f"{new_size} ids are fewer than the {old} that there are", "give a size of at least the vocabulary")
    if ((init == "pieces") != bool(pieces) and added) or (pieces and len(pieces) != added):
        _refuse(
            f"{len(pieces)} lists of pieces for {added} new ids", 'give one list for each new id with init="pieces"'
        )
    if any(not ids or not all(0 <= i < old for i in ids) for ids in pieces):
        _refuse(f"a list of pieces is empty or has ids outside of 0 … {old - 1}", "name old ids only")
    owner: Any = model.get_submodule(name.rpartition(".")[0])
    table = _grown(embedding.weight, added, pieces)
    for key, linear in list(owner.named_children()):
        if isinstance(linear, nn.Linear) and linear.out_features == old:
            tied = linear.weight is embedding.weight
            linear.weight = table if tied else _grown(linear.weight, added, pieces)
            linear.out_features = new_size
            if linear.bias is not None:
                linear.bias = nn.Parameter(nn.functional.pad(linear.bias.detach(), (0, added)))
        elif key == "head":
            _refuse(f"the output matrix is of type {type(linear).__name__}", "grow the vocabulary before adapting")
    new = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=embedding.padding_idx)
    new.weight = table
    replace(model, name, new)
    owner.options = owner.options.model_copy(update={"vocabulary": new_size})
    owner.vocabulary = new_size


@torch.no_grad()
def _grown(weight_VD: Tensor, added: int, pieces: Sequence[Sequence[int]]) -> nn.Parameter:
    """The matrix with its new rows below; trainable if it was."""
    old_VD = weight_VD.detach().float()
    if pieces:
        new: Tensor = torch.stack([old_VD[list(ids)].mean(dim=0) for ids in pieces])
    else:
        new = old_VD.mean(dim=0, keepdim=True).expand(added, -1)
    return nn.Parameter(torch.cat([weight_VD.detach(), new.to(weight_VD.dtype)]), weight_VD.requires_grad)


def _refuse(what: str, fix: str) -> NoReturn:
    raise GroundupError(
        "E-ADAPT-006",
        f"the vocabulary cannot grow: {printable(what)}",
        where="the embedding and the output matrix",
        why="each id needs one row in both, and old ids must keep theirs",
        fix=fix,
        exit_code=2,
    )
