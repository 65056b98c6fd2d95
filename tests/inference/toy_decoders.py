"""Toy decoders for the inference tests: a real one with random weights, and one that follows a script."""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.contract import Cache
from groundup.models.llama import Llama, LlamaOptions


def toy_llama() -> Llama:
    """A grouped-query decoder whose logits are spread enough that greedy answers differ between prompts."""
    options = LlamaOptions(
        vocabulary=61, context=48, width=32, layers=2, heads=4, key_value_heads=2, head_size=8, hidden=64,
        tied=False,
    )  # fmt: skip
    model = Llama(options)
    model.initialise(torch.Generator().manual_seed(5))
    with torch.no_grad():
        model.embedding.weight.mul_(50)
        model.head.weight.mul_(4)
    return model


class Scripted:
    """A decoder that says `answer` after a prompt of `prompt` tokens, whatever the prompt was.

    The hidden state at a position is the one-hot row of the id that comes next, so that the identity matrix
    is the head; it keeps to the cache protocol like any attention model.
    """

    def __init__(self, answer: list[int], *, prompt: int, vocabulary: int, context: int = 64) -> None:
        self.answer, self.prompt = answer, prompt
        self.vocabulary, self.context = vocabulary, context
        self.fed: list[tuple[int, int]] = []

    def hidden(
        self,
        tokens_BT: Tensor,
        position_BT: Tensor | None = None,
        document_BT: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        rows, length = tokens_BT.shape
        seen = 0 if cache is None else cache.length
        if cache is not None:
            cache.update(0, torch.zeros(rows, 1, length, 1), torch.zeros(rows, 1, length, 1))
            cache.advance(length)
        self.fed.append((rows, length))
        step = torch.arange(seen, seen + length) - self.prompt + 1
        script = torch.tensor([self.answer[min(max(int(s), 0), len(self.answer) - 1)] for s in step])
        return torch.nn.functional.one_hot(script, self.vocabulary).float().expand(rows, length, -1) * 20

    def head_weight(self) -> Tensor:
        return torch.eye(self.vocabulary)


class Words:
    """A decoder of ids to text: id i is the i-th of `words` (bytes), characters joined across ids."""

    def __init__(self, words: list[bytes]) -> None:
        self.words, self.waiting = words, b""

    def push(self, token_id: int) -> str:
        self.waiting += self.words[token_id]
        for cut in range(len(self.waiting), -1, -1):
            try:
                text = self.waiting[:cut].decode()
            except UnicodeDecodeError:
                continue
            self.waiting = self.waiting[cut:]
            return text
        raise AssertionError("the empty text always decodes")

    def flush(self) -> str:
        return ""
