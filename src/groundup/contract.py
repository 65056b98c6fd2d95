"""The protocols between the parts: what the loop, a stream, an objective and a model may ask of each
other. Nothing is implemented here, and this file imports torch alone.

Shapes: B rows, T positions, D width, H heads, K head size, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

IGNORE = -100
"""The target that takes no part in a loss (the convention of torch.nn.functional.cross_entropy)."""

Batch = dict[str, Tensor]
"""One micro-batch: named tensors whose first dimension counts rows. A language batch holds
`tokens_BT`, `target_BT` (IGNORE where there is nothing to learn), `position_BT` (restarts with each
document) and `document_BT` (which document of the row a position belongs to; -1 is padding), all int64."""


class Loss(NamedTuple):
    """What an objective returns: sums over the batch, never means, so that accumulation is exact."""

    total: Tensor
    metrics: dict[str, Tensor]


class Resumable(Protocol):
    """Everything that advances can say where it stands and be put back there."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Source(Resumable, Protocol):
    """A stream of micro-batches. `state_dict` after an item resumes with the item after it."""

    def next(self, turn: str) -> Batch: ...


class Objective(Resumable, Protocol):
    """A way of learning. `turns` names the players whose optimizers move, in order, in each step."""

    turns: tuple[str, ...]

    def weight(self, turn: str, batch: Batch) -> Tensor:
        """How many units the loss of this batch sums over (valid targets, rows …), before any forward."""
        ...

    def loss(self, turn: str, batch: Batch) -> Loss: ...
    def after_step(self, step: int) -> None: ...


class Cache(Protocol):
    """Keys and values of the positions that a decoder has already seen. It is handed to `forward`."""

    length: int

    def update(self, layer: int, key_BHTK: Tensor, value_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions of one layer and return all of that layer's keys and values so far."""
        ...

    def attend(
        self,
        layer: int,
        query_BHTK: Tensor,
        key_BGTK: Tensor,
        value_BGTK: Tensor,
        mask: Tensor | None,
        window: int | None = None,
    ) -> Tensor:
        """Store the new positions of one layer and return what attention makes of all so far, (B, H, T, K).

        Args:
            mask: which positions a query sees, bool (B or 1, 1, T, S); None: those up to its own.
            window: how far back a query sees, for a cache that makes the mask itself.
        """
        ...

    def advance(self, positions: int) -> None:
        """Called once after the last layer: the positions just stored now count as seen."""
        ...


class LanguageModel(Protocol):
    """What objectives, evaluation and generation ask of a decoder, whatever its family."""

    context: int
    vocabulary: int
    causal: bool

    def hidden(
        self,
        tokens_BT: Tensor,
        position_BT: Tensor | None = None,
        document_BT: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Final normalised hidden states, shape (B, T, D)."""
        ...

    def head_weight(self) -> Tensor:
        """The output matrix, shape (V, D): logits are `hidden @ head_weight.T`."""
        ...


@runtime_checkable
class RoutedModel(Protocol):
    """A decoder that sends tokens through experts and can say how evenly it uses them."""

    def hidden_and_balance(
        self, tokens_BT: Tensor, position_BT: Tensor | None = None, document_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The final states (B, T, D), and the balance loss of a token, a scalar."""
        ...


class MaskedModel(Protocol):
    """An encoder that says which token stood where one is hidden."""

    def states_at(self, batch: Batch, chosen_BT: Tensor) -> Tensor:
        """What the output matrix is given at the chosen positions, (N, D) in their order."""
        ...

    def output(self) -> tuple[Tensor, Tensor]:
        """The output matrix (V, D) and bias (V): logits are `states @ matrix.T + bias`."""
        ...


class TextEncoder(Protocol):
    """Text to ids and back. Text that looks like a special token is plain text to `encode`."""

    vocabulary: int
    specials: dict[str, int]
    digest: str

    def encode(self, text: str) -> list[int]: ...
    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...
    def document_ids(self, ids: list[int]) -> list[int]: ...
    def decode(self, ids: list[int], *, skip_specials: bool = True) -> str: ...


