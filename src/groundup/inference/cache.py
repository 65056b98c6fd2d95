"""The key-value cache: what a decoder has computed for the positions it has already seen.

It is memory with a length, handed to `hidden` as an argument. Nothing here knows a model's inside, a
sampler or text.

Shapes: B rows, H key-value heads, T new positions, S positions so far, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.contract import LanguageModel
from groundup.functional import attention, evaluating


class KeyValueCache:
    """Keys and values of all layers, allocated once for the longest sequence.

    Nothing slides: a sequence that would pass `context` is an error here, and `generate` ends before it
    with the finish "length". Dropping the oldest positions in silence would change what the model answers
    to without anyone being told.

    Args:
        layers: number of attention layers.
        batch: rows B.
        key_value_heads: heads H that keys and values have.
        head_size: K.
        context: the most positions a row may ever hold.
        dtype: of keys and values.
        device: where they lie.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        key_value_heads: int,
        head_size: int,
        context: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (layers, batch, key_value_heads, context, head_size)
        self.keys_LBHSK = torch.zeros(shape, dtype=dtype, device=device)
        self.values_LBHSK = torch.zeros(shape, dtype=dtype, device=device)
        self.batch = batch
        self.context = context
        self.length = 0

    def update(self, layer: int, key_BHTK: Tensor, value_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions of one layer and return views of all its keys and values, (B, H, S, K).

        Raises:
            ValueError: the row would become longer than `context`.
        """
        end = self.length + key_BHTK.shape[2]
        if end > self.context:
            raise ValueError(f"{end} positions do not fit a cache of {self.context}")
        self.keys_LBHSK[layer, : self.batch, :, self.length : end] = key_BHTK
        self.values_LBHSK[layer, : self.batch, :, self.length : end] = value_BHTK
        return self.keys_LBHSK[layer, : self.batch, :, :end], self.values_LBHSK[layer, : self.batch, :, :end]

    def attend(
        self, layer: int, query_BHTK: Tensor, key_BGTK: Tensor, value_BGTK: Tensor, mask: Tensor | None,
        window: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Store the new positions of one layer and mix what the queries may see, (B, H, T, K)."""
        return attention(query_BHTK, *self.update(layer, key_BGTK, value_BGTK), mask)

    def advance(self, positions: int) -> None:
        """The positions just stored in every layer now count as seen."""
        self.length += positions

    def crop(self, length: int) -> None:
        """Forget every position from `length` on, to go on from an earlier point of the same text."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop {self.length} positions to {length}")
        self.length = length

    def keep(self, rows: list[int]) -> None:
        """Keep the named rows, in that order, and drop the others: finished answers leave the batch."""
        kept, seen = len(rows), slice(0, self.length)
        self.keys_LBHSK[:, :kept, :, seen] = self.keys_LBHSK[:, rows, :, seen]
        self.values_LBHSK[:, :kept, :, seen] = self.values_LBHSK[:, rows, :, seen]
        self.batch = kept


class Probe:
    """A cache that stores nothing and notes what a model would store."""

    def __init__(self) -> None:
        self.length = 0
        self.layers = 0
        self.key_BHTK = torch.empty(0)

    def update(self, layer: int, key_BHTK: Tensor, value_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        self.layers = max(self.layers, layer + 1)
        self.key_BHTK = key_BHTK
        return key_BHTK, value_BHTK

    def attend(
        self, layer: int, query_BHTK: Tensor, key_BGTK: Tensor, value_BGTK: Tensor, mask: Tensor | None,
        window: int | None = None,
    ) -> Tensor:  # fmt: skip
        self.update(layer, key_BGTK, value_BGTK)
        return query_BHTK

    def advance(self, positions: int) -> None:
        self.length += positions


def probe_cache(model: LanguageModel) -> Probe:
    """What the model stores, read off one forward of a single token, so that a decoder of any family, precision and
    device gets the cache it needs without having to describe itself."""
    probe = Probe()
    with torch.inference_mode(), evaluating(model):
        model.hidden(torch.zeros(1, 1, dtype=torch.int64, device=model.head_weight().device), cache=probe)
    return probe


def cache_for(model: LanguageModel, batch: int, context: int) -> KeyValueCache:
    """A cache for `batch` rows of at most `context` positions of this model."""
    probe = probe_cache(model)
    key = probe.key_BHTK
    return KeyValueCache(probe.layers, batch, key.shape[1], key.shape[3], context, dtype=key.dtype, device=key.device)
