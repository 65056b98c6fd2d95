"""A classic network as something that answers batches: which tensor of a batch it reads, and what its outputs mean.

Classic networks know one tensor in and one out. Objectives, evaluation and prediction ask for an answer to a batch, as
they do of a language model with a head (heads.py). Categories that come as codes become vectors here, before the
network sees them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.contract import Batch
from groundup.models.categories import CODES, CategoryEmbeddings


class Predictor(nn.Module):
    """Implements objectives.task.TaskModel around a classic network.

    Args:
        body: the network; its last layer is called `head`.
        kind: classify, multilabel or regress.
        labels: names of the labels, in the order of the outputs; none for numbers.
        reads: the tensor of a batch that goes in, such as `image_BCHW`.
        embedding: of the categories that come as codes beside it, if any do.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        kind: str,
        labels: list[str],
        reads: str,
        embedding: CategoryEmbeddings | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.body, self.kind, self.labels, self.reads = body, kind, labels, reads

    def initialise(self, generator: torch.Generator) -> None:
        """As the network and the embeddings say."""
        self.body.initialise(generator)  # type: ignore[operator]
        if self.embedding is not None:
            self.embedding.initialise(generator)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, L), or values (B,)."""
        return self.answers(self.inputs(batch))

    def inputs(self, batch: Batch) -> Tensor:
        """What the network sees of a batch: numbers throughout."""
        given = batch[self.reads]
        return given if self.embedding is None else self.embedding(given, batch[CODES])

    def answers(self, x: Tensor) -> Tensor:
        """Logits (B, L), or values (B,), where the network sees this."""
        answer: Tensor = self.body(x)
        return answer.squeeze(-1) if self.kind == "regress" else answer
