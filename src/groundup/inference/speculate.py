"""Guessing ahead: tokens that may come next, to be checked all at once instead of computed one by one.

A guess changes nothing of what is written: the engine keeps only those that the model chooses itself. Nothing here
knows how they are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from groundup.inference.sequences import Memory, Segment, Shape, common, rounded


class Drafter(Protocol):
    """Guesses."""

    def guess(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that may follow, none if there is no idea."""
        ...


class PromptLookup:
    """Guesses that a text repeats itself: what followed the last tokens where they stood before (prompt look-up
    decoding, Saxena 2023; as n-gram matching in Yang et al. 2023, arXiv:2304.04487).

    Args:
        longest: the most tokens that are looked for, and then fewer down to `shortest`.
        shortest: the fewest.
        tokens: how many are guessed at most.
    """

    def __init__(self, longest: int = 4, shortest: int = 2, tokens: int = 6) -> None:
        self.longest, self.shortest, self.tokens = longest, shortest, tokens

    def guess(self, tokens: Sequence[int]) -> list[int]:
        end, place, most, found = len(tokens) - 1, -1, self.shortest, None
        while True:  # from one place of the last token to the next: this is done for every token that is written
            try:
                place = tokens.index(tokens[-1], place + 1, end)
            except ValueError:
                break
            size = 1
            while size < min(self.longest, place + 1) and tokens[place - size] == tokens[end - size]:
                size += 1
            if size >= most:
                most, found = size, place
        return [] if found is None else list(tokens[found + 1 : found + 1 + self.tokens])


class Fast(Protocol):
    """What computes the logits of a small model; see runners.py."""

    context: int
    shape: Shape

    def run(self, segments: Sequence[Segment]) -> Tensor: ...


class DraftModel:
    """Guesses what a smaller model of the same vocabulary would say (Leviathan et al. 2023, arXiv:2211.17192).

    Args:
        runner: of the small model.
        tokens: how many are guessed at most.
        sequences: of how many answers it remembers what it has computed.
    """

    def __init__(self, runner: Fast, tokens: int = 4, sequences: int = 8) -> None:
        self.runner, self.tokens, self.sequences = runner, tokens, sequences
        self._memories: list[Memory] = []  # the one used last at the end

    def guess(self, tokens: Sequence[int]) -> list[int]:
        count = min(self.tokens, self.runner.context - len(tokens))
        if count < 1:
            return []
        memory = self._remembered(tokens)
        memory.reserve(rounded(len(tokens) + count))
        found: list[int] = []
        new = list(tokens[memory.length :])
        for _ in range(count):
            found.append(int(self.runner.run([Segment(new, memory)])[0].argmax()))
            new = found[-1:]
        return found

    def _remembered(self, tokens: Sequence[int]) -> Memory:
        """The memory that begins most like the tokens, cut to what it shares with them but the last."""
        shared = [min(common(memory.tokens, tokens), len(tokens) - 1) for memory in self._memories]
        best = max(range(len(shared)), key=shared.__getitem__, default=None)
        if best is None or (2 * shared[best] < self._memories[best].length and len(shared) < self.sequences):
            self._memories.append(Memory(self.runner.shape))
            return self._memories[-1]
        memory = self._memories.pop(best if shared[best] else 0)
        memory.crop(min(common(memory.tokens, tokens), len(tokens) - 1))
        self._memories.append(memory)
        return memory
