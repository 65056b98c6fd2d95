"""A recurrent body over token ids: what stands below a head (heads.py) in place of an encoder or a decoder. One
direction sees no token after its own, as a decoder; two see the whole text, as an encoder.

Shapes: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.errors import GroundupError
from groundup.models.layers import Fault, refuse
from groundup.models.llama import empty_embedding
from groundup.models.recurrent import Cell, LockedDropout, RecurrentLayer


class RecurrentTextOptions(BaseModel):
    """The sizes of a recurrent body, all explicit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["recurrent_text"] = "recurrent_text"
    vocabulary: int = Field(ge=2, description="number of token ids")
    context: int = Field(ge=1, description="longest sequence, in tokens, that the data may hold")
    width: int = Field(ge=1, description="size of the embedding and of a state, both directions together")
    layers: int = Field(default=1, ge=1, description="layers, one above the other")
    cell: Cell = Field(default="lstm", description="the equations of a step; see recurrent.py")
    bidirectional: bool = Field(default=True, description="each layer also reads from the end to the beginning")
    dropout: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="probability, in training, of dropping a feature of the embeddings or of a layer's states, for all "
        "positions of a row at once",
    )


class RecurrentText(nn.Module):
    """The body. `hidden` gives the states of the last layer; it has no output matrix and writes no text.

    Raises:
        GroundupError: E-MODEL-100 a width that two directions cannot share.
    """

    def __init__(self, options: RecurrentTextOptions) -> None:
        super().__init__()
        directions = 2 if options.bidirectional else 1
        if options.width % directions:
            text = f"width {options.width} is odd, and the two directions have half of it each"
            refuse("recurrent_text", [Fault("width", text, f"an even number, such as {options.width + 1}")])
        self.options = options
        self.causal = not options.bidirectional
        self.context, self.vocabulary = options.context, options.vocabulary
        self.embedding = empty_embedding(options.vocabulary, options.width)
        self.layers = nn.ModuleList(
            RecurrentLayer(
                options.cell,
                options.width,
                options.width // directions,
                bidirectional=options.bidirectional,
                dropout=options.dropout,
            )
            for _ in range(options.layers)
        )
        self.dropout = LockedDropout(options.dropout)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew: the embedding, then the layers by their own table (`RecurrentLayer.initialise`).

        | parameter   | distribution          |
        |-------------|-----------------------|
        | embedding   | normal, deviation 0.1 |

        About what Merity et al. 2017 (arXiv:1708.02182, section 5) take for an LSTM, uniform in ±0.1.
        """
        with torch.no_grad():
            self.embedding.weight.normal_(0.0, 0.1, generator=generator)
        for layer in self.layers:
            layer.initialise(generator)  # type: ignore[operator]

    def hidden(
        self,
        tokens_BT: Tensor,
        position_BT: Tensor | None = None,
        document_BT: Tensor | None = None,
        segment_BT: Tensor | None = None,
    ) -> Tensor:
        """The states of the last layer (B, T, D).

        Args:
            tokens_BT: int64 ids.
            position_BT: not used: a recurrent network knows the order from reading.
            document_BT: one document in each row, then -1 at padding, whose states are zero. A row of nothing but
                padding has states that mean nothing. None: no row has padding.
            segment_BT: not used: the tokens that separate the parts of a text tell them apart.

        Raises:
            GroundupError: E-MODEL-103 several documents in a row, or padding before one's end.
        """
        # on the meta device, where memory is only counted, there are no values to take lengths from
        length_B = None if document_BT is None or document_BT.is_meta else _lengths(document_BT)
        x_BTD = self.embedding(tokens_BT)
        for layer in self.layers:
            x_BTD, _ = layer(x_BTD, length_B)
        return self.dropout(x_BTD)


def _lengths(document_BT: Tensor) -> Tensor:
    """How many positions of each row are read, int64 on the CPU, at least 1: a packed sequence cannot be empty.

    Raises:
        GroundupError: E-MODEL-103.
    """
    real_BT = document_BT >= 0
    length_B = real_BT.sum(dim=1)
    expected_BT = torch.arange(document_BT.shape[1], device=document_BT.device) < length_B[:, None]
    one_BT = torch.where(expected_BT, document_BT[:, :1], -1)
    wrong = (document_BT != one_BT).any(dim=1).nonzero().flatten().tolist()
    if wrong:
        raise GroundupError(
            "E-MODEL-103",
            f"{len(wrong)} of {len(document_BT)} rows hold several documents, or padding that does not stand at the "
            f"end, the first is row {wrong[0]}",
            where="model.family: recurrent_text",
            why="a recurrent network carries its state through all that it reads, from one document into the next",
            fix="rows of one document with padding after it (labelled data has them), or family: bert, llama or gpt2",
        )
    return length_B.clamp_min(1).cpu()
