"""Keys and values of many sequences of different length: what lets answers join and leave between two tokens.

Each sequence owns its memory, which grows in blocks and is counted against one budget. In one pass of a decoder the
new tokens of all sequences stand in one row, one after the other; linear layers see no difference, and attention is
computed for each sequence by itself. So nothing is padded, and a sequence computes what it would compute alone.

Nothing that chooses tokens, or knows text or a model family, may enter here.

Shapes: L layers, G key-value heads, H query heads, S positions of one sequence, N new tokens of all sequences, K head
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from groundup.contract import LanguageModel
from groundup.functional import attention, causal_mask
from groundup.inference.cache import probe_cache

BLOCK = 64
"""Positions that memory grows by at least."""


class Shape(NamedTuple):
    """What one position of a decoder's cache is."""

    layers: int
    heads: int
    head_size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        """Bytes of keys and values of one position in all layers."""
        return 2 * self.layers * self.heads * self.head_size * self.dtype.itemsize


def shape_of(model: LanguageModel) -> Shape:
    """Read off one forward of a single token."""
    probe = probe_cache(model)
    key = probe.key_BHTK
    return Shape(probe.layers, key.shape[1], key.shape[3], key.dtype, key.device)


@dataclass(eq=False)
class Memory:
    """Keys and values of one sequence, (L, G, capacity, K), and the tokens they belong to."""

    shape: Shape
    tokens: list[int] = field(default_factory=list)
    keys_LGSK: Tensor = field(init=False)
    values_LGSK: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._allocate(0)

    def _allocate(self, capacity: int) -> None:
        size = (self.shape.layers, self.shape.heads, capacity, self.shape.head_size)
        self.keys_LGSK = torch.empty(size, dtype=self.shape.dtype, device=self.shape.device)
        self.values_LGSK = torch.empty(size, dtype=self.shape.dtype, device=self.shape.device)

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def capacity(self) -> int:
        return self.keys_LGSK.shape[2]

    def reserve(self, capacity: int) -> None:
        """Make room for so many positions; what is there is kept."""
        if capacity <= self.capacity:
            return
        keys, values, length = self.keys_LGSK, self.values_LGSK, self.length
        self._allocate(capacity)
        self.keys_LGSK[:, :, :length] = keys[:, :, :length]
        self.values_LGSK[:, :, :length] = values[:, :, :length]

    def crop(self, length: int) -> None:
        """Forget the positions from `length` on."""
        del self.tokens[length:]

    def copy(self, length: int, capacity: int) -> Memory:
        """A memory of its own that begins with the first `length` positions of this one."""
        made = Memory(self.shape)
        made._allocate(capacity)
        made.tokens = self.tokens[:length]
        made.keys_LGSK[:, :, :length] = self.keys_LGSK[:, :, :length]
        made.values_LGSK[:, :, :length] = self.values_LGSK[:, :, :length]
        return made


class Segment(NamedTuple):
    """New tokens of one sequence in a pass. `last`: only what follows the last of them is asked for."""

    tokens: Sequence[int]
    memory: Memory
    last: bool = True


class FlatCache:
    """The cache of one pass over several segments; see the top of this file.

    The network is given all new tokens as one row with their positions, and calls `attend` for each layer.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self.length = 0  # the row itself has no past: each segment has its own

    def attend(
        self, layer: int, query_BHTK: Tensor, key_BGTK: Tensor, value_BGTK: Tensor, mask: Tensor | None,
        window: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Store the new keys and values of each segment and mix what its queries may see; (1, H, N, K)."""
        mixed, start = torch.empty_like(query_BHTK), 0
        for tokens, memory, _ in self.segments:
            new, seen = slice(start, start + len(tokens)), memory.length
            end = seen + len(tokens)
            memory.keys_LGSK[layer, :, seen:end] = key_BGTK[0, :, new]
            memory.values_LGSK[layer, :, seen:end] = value_BGTK[0, :, new]
            mixed[:, :, new] = attention(
                query_BHTK[:, :, new],
                memory.keys_LGSK[None, layer, :, :end],
                memory.values_LGSK[None, layer, :, :end],
                causal_mask(len(tokens), seen, window, query_BHTK.device),
            )
            start = new.stop
        return mixed

    def update(self, layer: int, key_BHTK: Tensor, value_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Not for segments: one view cannot hold sequences of different length."""
        raise NotImplementedError

    def advance(self, positions: int) -> None:
        """The new tokens of every segment now count as seen."""
        for tokens, memory, _ in self.segments:
            memory.tokens.extend(tokens)


class Budget:
    """Memory for all sequences: what runs, and what finished sequences left for others that begin alike.

    Args:
        shape: of one position.
        tokens: how many positions there may be in all, rounded up to whole blocks.
    """

    def __init__(self, shape: Shape, tokens: int) -> None:
        self.shape, self.tokens = shape, rounded(max(tokens, 1))
        self.used = 0
        self.idle: list[Memory] = []  # oldest first

    @property
    def cached(self) -> int:
        """Positions that idle memories hold."""
        return sum(memory.length for memory in self.idle)

    def take(self, prompt: Sequence[int], running: Sequence[Memory]) -> Memory | None:
        """Memory for a new sequence, with the longest beginning that some memory shares with the prompt; never the
        whole prompt, for what follows its last token has to be computed. None if there is no room for it now."""
        shared, source = 0, None
        for memory in (*self.idle, *running):
            length = common(memory.tokens, prompt)
            if length > shared:
                shared, source = length, memory
        shared = min(shared, len(prompt) - 1)
        wanted = rounded(len(prompt) + 1)
        if source is not None and shared and any(source is one for one in self.idle) and 2 * shared >= source.length:
            self._forget(source, count=False)
            source.crop(shared)
            if self.grow(source, wanted):
                return source
            self.release(source)
            return None
        if not self._free(wanted, spared=source):
            if not self._free(wanted):
                return None
            source = None  # it had to make room itself
        self.used += wanted
        if source is None or not shared:
            made = Memory(self.shape)
            made.reserve(wanted)
            return made
        return source.copy(shared, wanted)

    def grow(self, memory: Memory, length: int) -> bool:
        """Let a memory hold so many positions; False if there is no room for that now."""
        if length <= memory.capacity:
            return True
        for wanted in (rounded(max(length, memory.capacity * 3 // 2)), rounded(length)):
            if self._free(wanted - memory.capacity):
                self.used += wanted - memory.capacity
                memory.reserve(wanted)
                return True
        return False

    def release(self, memory: Memory, *, keep: bool = True) -> None:
        """A sequence has ended; what it computed stays until the room is needed."""
        if keep and memory.length:
            self.idle.append(memory)
        else:
            self.used -= memory.capacity

    def _free(self, wanted: int, spared: Memory | None = None) -> bool:
        """Make room for `wanted` more positions by forgetting idle memories, the oldest first."""
        available = self.tokens - self.used
        others = [memory for memory in self.idle if memory is not spared]
        if available + sum(memory.capacity for memory in others) < wanted:
            return False
        for memory in others:
            if self.tokens - self.used >= wanted:
                break
            self._forget(memory)
        return True

    def _forget(self, memory: Memory, *, count: bool = True) -> None:
        self.idle = [one for one in self.idle if one is not memory]
        if count:
            self.used -= memory.capacity


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(index for index in range(length) if first[index] != second[index])


def rounded(length: int) -> int:
    """The capacity for so many positions: whole blocks."""
    return -(-length // BLOCK) * BLOCK
