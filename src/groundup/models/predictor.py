"""A classic network as something that answers batches: which tensor of a batch it reads, and what its outputs mean.

Classic networks know one tensor in and one out. Objectives, evaluation and prediction ask for an answer to a batch, as
they do of a language model with a head (heads.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.contract import Batch


class Predictor(nn.Module):
    """Implements objectives.task.TaskModel around a classic network.

    Args:
        body: the network; its last layer is called `head`.
        kind: classify, multilabel or regress.
        labels: names of the labels, in the order of the outputs; none for numbers.
        reads: the tensor of a batch that goes in, such as `image_BCHW`.
    """

    def __init__(self, body: nn.Module, *, kind: str, labels: list[str], reads: str) -> None:
        super().__init__()
        self.body, self.kind, self.labels, self.reads = body, kind, labels, reads

    def initialise(self, generator: torch.Generator) -> None:
        """As the network says."""
        self.body.initialise(generator)  # type: ignore[operator]

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, L), or values (B,)."""
        answer: Tensor = self.body(batch[self.reads])
        return answer.squeeze(-1) if self.kind == "regress" else answer
