"""Embeddings of categories: a column of a table whose cells are codes gets a small vector for each code, learned with
the network that reads it (Guo & Berkhahn 2016, "Entity embeddings of categorical variables", arXiv:1604.06737).

Code 0 is a category that training does not have. Its vector is zero and stays so: the middle of those that are drawn,
and what the columns of a one-hot hold there.

Shapes: B rows, F features, K columns of codes, D width of all embeddings together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDEST = 50
"""Numbers of one embedding at most."""

CODES = "category_BK"
"""The tensor of a batch that holds codes."""


def embedding_width(categories: int) -> int:
    """Numbers that stand for a category: half as many as there are categories, at most WIDEST."""
    return min(WIDEST, max(1, math.ceil(categories / 2)))


class CategoryEmbeddings(nn.Module):
    """The vectors of the categories of K columns, put behind the other features of a row.

    Its tables are parameters and no nn.Embedding: the optimizers take a model with one for a language model, whose
    head has a row for each token and is spared decay.

    Args:
        sizes: of each column the number of codes, the unknown one included, and the width of its vectors.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.tables = nn.ParameterList(torch.empty(rows, width) for rows, width in sizes)

    @property
    def width(self) -> int:
        """D."""
        return sum(table.shape[1] for table in self.tables)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew, in the order of the columns.

        | parameter           | distribution                                                                  |
        |---------------------|-------------------------------------------------------------------------------|
        | a row of a table    | normal, deviation 1 / sqrt(width): its squared length is about 1, as of the   |
        |                     | ones and zeros of a one-hot, and of one number that was scaled                |
        | its row 0 (unknown) | zero                                                                          |
        """
        with torch.no_grad():
            for table in self.tables:
                table.normal_(0.0, table.shape[1] ** -0.5, generator=generator)
                table[0] = 0.0

    def forward(self, features_BF: Tensor, category_BK: Tensor) -> Tensor:
        """Features and vectors side by side, (B, F + D)."""
        # a padding index gets no gradient, so that what is unknown stays zero under every optimizer
        vectors = [functional.embedding(codes, table, 0) for codes, table in zip(category_BK.unbind(1), self.tables)]
        return torch.cat([features_BF, *vectors], dim=1)
