"""How good answers are: exact match and token-level F1 against a reference, the loss of the reference
itself, and whether the model ends its answers.

Chat templates and generation come in as ids and a function; neither they nor files may enter here.

Shapes: E examples.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contract import LanguageModel
from groundup.evaluation.language import score_documents
from groundup.evaluation.statistics import Array

ARTICLES = frozenset({"a", "an", "the"})
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, further extensions
)
"""Scripts written without spaces: each of their characters is a token."""

Answer = Callable[[list[list[int]]], list[tuple[str, bool]]]
"""Prompts' ids to greedy answers: for each its text, and whether the model ended it by itself."""


class AnswerExample(NamedTuple):
    """One question with its reference answer.

    prompt: ids up to where the answer begins.
    ids: the whole conversation, reference answers included.
    learn: which of `ids` are the assistant's (bool, as long as `ids`).
    reference: the text of the last answer.
    """

    prompt: list[int]
    ids: NDArray[np.int64]
    learn: NDArray[np.bool_]
    reference: str


class AnswerScores(NamedTuple):
    """What was measured on each example, float64 arrays of shape (E,); `answered` is 1 where the model wrote an
    answer, None if it did so everywhere."""

    nats: Array
    targets: Array
    exact: Array
    f1: Array
    ended: Array
    answered: Array | None = None


def answer_tokens(text: str) -> list[str]:
    """The tokens by which answers are compared: compatibility forms unified (NFKC), case folded, punctuation
    dropped, the English articles dropped; words between spaces, but one token for each character of a
    script without spaces and for each symbol (so that "a < b" is not "a > b").

    On plain English this is the normalisation of SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250).
    """
    pieces: list[str] = []
    for character in unicodedata.normalize("NFKC", text).casefold():
        kind = unicodedata.category(character)
        if kind.startswith("P"):
            continue
        alone = kind.startswith("S") or any(low <= ord(character) <= high for low, high in UNSPACED)
        pieces.append(f" {character} " if alone else character)
    return [word for word in "".join(pieces).split() if word not in ARTICLES]


def exact_match(answer: str, reference: str) -> float:
    """1.0 if both have the same tokens in the same order, else 0.0."""
    return float(answer_tokens(answer) == answer_tokens(reference))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the answer's tokens, counted with repetition, 0 to 1. Two
    empty texts agree (1), an empty one and another do not (0)."""
    ours, theirs = Counter(answer_tokens(answer)), Counter(answer_tokens(reference))
    if not ours or not theirs:
        return float(ours == theirs)
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total())


def score_answers(
    model: LanguageModel,
    examples: Sequence[AnswerExample],
    answer: Answer | None,
    *,
    context: int,
    most_answers: int | None = None,
    batch_rows: int = 16,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
) -> AnswerScores:
    """Measure every example: the nats of the reference's ids, and the greedy answer beside it.

    Args:
        model: any decoder of the contract.
        examples: their prompts leave the model room to answer.
        answer: writes the greedy answers; None measures the loss alone, and the rest stays zero.
        most_answers: how many examples are answered, from the first on; None for all. The loss is measured on all.
        context, batch_rows, device, autocast: as in `score_documents`.
    """
    nats_E1, targets_E1 = score_documents(
        model,
        [example.ids for example in examples],
        learn=[example.learn for example in examples],
        context=context,
        stride=max(1, context // 2),
        batch_rows=batch_rows,
        device=device,
        autocast=autocast,
    )
    exact, f1, ended = np.zeros((3, len(examples)))
    asked = examples[:most_answers]
    written = answer([example.prompt for example in asked]) if answer is not None else []
    answered = np.ones(len(examples))
    if answer is not None:
        answered[len(asked) :] = 0.0
    for index, (text, by_itself) in enumerate(written):
        exact[index] = exact_match(text, examples[index].reference)
        f1[index] = token_f1(text, examples[index].reference)
        ended[index] = float(by_itself)
    return AnswerScores(nats_E1[:, 0], targets_E1[:, 0].astype(np.float64), exact, f1, ended, answered)
