"""Recurrent networks over sequences of numbers, or over an image read row by row. The layers themselves, which other
families may stack, stand here too. Sequences of token ids are the business of recurrent_text.py.

With x the input of a position, h the state before it, σ the sigmoid, ⊙ the product value by value, W and U matrices:

    rnn   h' = tanh(W x + U h + b)

    lstm  i, f, o = σ(W x + U h + b), each with matrices of its own
          g = tanh(W x + U h + b)
          c' = f ⊙ c + i ⊙ g
          h' = o ⊙ tanh(c')

    gru   r, z = σ(W x + U h + b), each with matrices of its own
          n = tanh(W x + b + r ⊙ (U h + d))
          h' = (1 - z) ⊙ n + z ⊙ h

(Elman 1990, "Finding Structure in Time"; Hochreiter & Schmidhuber 1997, "Long Short-Term Memory", with the forget gate
of Gers et al. 2000, "Learning to Forget"; Cho et al. 2014, arXiv:1406.1078, with the reset after the product.)

torch's kernels compute them, whole sequences at once; b is the sum of two vectors there. Matrices of the gates stand
below one another in the order i f g o, and r z n.

Shapes: B rows, T positions, D width of the input or of the state (both directions), C channels, H and W height and
width of an image.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from groundup.errors import GroundupError
from groundup.models.layers import Fault, initialise_linear, refuse

Cell = Literal["rnn", "lstm", "gru"]

KERNELS: dict[Cell, type[nn.RNN | nn.LSTM | nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
GATES: dict[Cell, int] = {"rnn": 1, "lstm": 4, "gru": 3}
"""Matrices that stand below one another in a weight."""


class RecurrentOptions(BaseModel):
    """The sizes of a recurrent network. Inputs and outputs follow from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["recurrent"] = "recurrent"
    cell: Cell = Field(default="lstm", description="the equations of a step")
    layers: int = Field(default=1, ge=1, description="layers, one above the other")
    width: int = Field(default=128, ge=1, description="size of the state of each layer and direction")
    bidirectional: bool = Field(default=False, description="each layer also reads from the end to the beginning")
    dropout: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="probability, in training, of dropping a feature of the input, of a layer's output or of the last "
        "state, for all positions of a row at once",
    )


class LockedDropout(nn.Module):
    """Dropout with one mask for all positions of a row (Gal & Ghahramani 2015, arXiv:1512.05287): what is drawn anew
    at each position drowns what a recurrent layer should carry on."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x_BTD: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x_BTD
        keep = 1.0 - self.probability
        return x_BTD * torch.empty_like(x_BTD[:, :1]).bernoulli_(keep).div_(keep)


class RecurrentLayer(nn.Module):
    """Dropout, then one recurrent layer of one or two directions.

    Args:
        inputs: features of a position.
        width: of the state of each direction; the layer gives both, side by side.
    """

    def __init__(self, cell: Cell, inputs: int, width: int, *, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.gates = GATES[cell]
        self.dropout = LockedDropout(dropout)
        self.cell = KERNELS[cell](inputs, width, batch_first=True, bidirectional=bidirectional)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew, in the order of the names, each gate by itself.

        | parameter                    | distribution                                                             |
        |------------------------------|--------------------------------------------------------------------------|
        | matrices of the input, W     | uniform, deviation sqrt(2 / (inputs + outputs)) (Glorot & Bengio 2010)   |
        | matrices of the state, U     | orthogonal (Saxe et al. 2013, arXiv:1312.6120)                           |
        | biases                       | zero; one for the forget gate of an LSTM (Jozefowicz et al. 2015, "An    |
        |                              | Empirical Exploration of Recurrent Network Architectures")               |
        """
        with torch.no_grad():
            for name, parameter in self.cell.named_parameters():
                parts = parameter.chunk(self.gates)
                if name.startswith("bias"):
                    parameter.zero_()
                    if self.gates == 4 and name.startswith("bias_ih"):
                        parts[1].fill_(1.0)
                    continue
                for part in parts:
                    if name.startswith("weight_ih"):
                        nn.init.xavier_uniform_(part, generator=generator)
                    else:
                        nn.init.orthogonal_(part, generator=generator)

    def forward(self, x_BTD: Tensor, length_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The states (B, T, D), and the last one of each row (B, D): where the direction that goes back has arrived
        at the first position, and the other at the last.

        Args:
            length_B: int64 on the CPU, from 1 to T; positions after it are not read, and their states are zero. None:
                all of them are read.
        """
        x_BTD = self.dropout(x_BTD)
        sequence: Tensor | PackedSequence = x_BTD
        if length_B is not None:
            sequence = pack_padded_sequence(x_BTD, length_B, batch_first=True, enforce_sorted=False)
        states, last = self.cell(sequence)
        if isinstance(states, PackedSequence):
            states, _ = pad_packed_sequence(states, batch_first=True, total_length=x_BTD.shape[1])
        last = last[0] if isinstance(last, tuple) else last  # an LSTM gives its c too
        return states, torch.cat(list(last), dim=-1)


class Recurrent(nn.Module):
    """The network: layers, and a head on the last state.

    Args:
        shape: (T, F) of one sequence, or (C, H, W) of one image, whose rows are positions of C·W features.
        outputs: logits or values of a sequence.

    Raises:
        GroundupError: E-MODEL-100 the input is neither a sequence nor an image.
    """

    def __init__(self, options: RecurrentOptions, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        if len(shape) not in (2, 3):
            text = f"recurrent reads sequences (positions, features) or images, and an input has the shape {shape}"
            refuse("recurrent", [Fault("family", text, "mlp or linear, which read such data")])
        self.options = options
        inputs = shape[1] if len(shape) == 2 else shape[0] * shape[2]
        both = options.width * (2 if options.bidirectional else 1)
        self.layers = nn.ModuleList(
            RecurrentLayer(
                options.cell,
                both if layer else inputs,
                options.width,
                bidirectional=options.bidirectional,
                dropout=options.dropout,
            )
            for layer in range(options.layers)
        )
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(both, outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew: the layers by their own table (`RecurrentLayer.initialise`), then the head.

        | parameter        | distribution                                                             |
        |------------------|--------------------------------------------------------------------------|
        | weight of head   | uniform, deviation sqrt(2 / (inputs + outputs)) (Glorot & Bengio 2010)   |
        | bias of head     | zero                                                                     |
        """
        for layer in self.layers:
            layer.initialise(generator)  # type: ignore[operator]
        initialise_linear(self.head, "xavier_uniform", "identity", generator)

    def forward(self, x_BTF: Tensor, length_B: Tensor | None = None) -> Tensor:
        """Logits or values (B, outputs).

        Args:
            x_BTF: sequences, or images (B, C, H, W).
            length_B: int64, how many positions of each row are real, from 1 to T; what stands after them has no
                influence. None: all.

        Raises:
            GroundupError: E-MODEL-102 lengths that the rows do not have.
        """
        if x_BTF.dim() == 4:
            x_BTF = x_BTF.transpose(1, 2).flatten(2)
        if length_B is not None:
            length_B = checked_lengths(length_B, x_BTF.shape[1])
        last_BD = x_BTF[:, 0]
        for layer in self.layers:
            x_BTF, last_BD = layer(x_BTF, length_B)
        return self.head(self.dropout(last_BD))


def checked_lengths(length_B: Tensor, longest: int) -> Tensor:
    """The lengths on the CPU, where packing needs them.

    Raises:
        GroundupError: E-MODEL-102.
    """
    length_B = length_B.cpu()
    wrong = ((length_B < 1) | (length_B > longest)).nonzero().flatten().tolist()
    if wrong:
        row = wrong[0]
        raise GroundupError(
            "E-MODEL-102",
            f"{len(wrong)} of {len(length_B)} sequences have a length outside of 1 to {longest}, "
            f"the first is row {row} with {int(length_B[row])}",
            where="length_B",
            why="a recurrent network ends in the state after a sequence's last position, which must be there",
            fix=f"lengths from 1 to {longest}; leave out sequences that are empty",
        )
    return length_B
