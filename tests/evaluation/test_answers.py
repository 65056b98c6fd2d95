"""Exact match and F1 against SQuAD's own rules and by hand, in English and Chinese."""

from __future__ import annotations

import random
import re
import string
from collections import Counter

import numpy as np
import pytest
from toy_models import toy_llama

from groundup.evaluation.answers import (
    AnswerExample,
    answer_tokens,
    exact_match,
    score_answers,
    token_f1,
)


def squad_tokens(text: str) -> list[str]:
    """The normalisation of SQuAD's evaluation script, written again."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_f1(answer: str, reference: str) -> float:
    ours, theirs = squad_tokens(answer), squad_tokens(reference)
    same = sum((Counter(ours) & Counter(theirs)).values())
    if not ours or not theirs:
        return float(ours == theirs)
    if same == 0:
        return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


def test_english_equals_squad() -> None:
    chance = random.Random(0)
    words = ["The", "the", "a", "An", "cat", "Cat,", "sat.", "don't", "x-y", "(mat)", "42", "!", "b", ""]
    for _ in range(400):
        answer = " ".join(chance.choices(words, k=chance.randint(0, 6)))
        reference = " ".join(chance.choices(words, k=chance.randint(0, 6)))
        assert answer_tokens(answer) == squad_tokens(answer)
        assert exact_match(answer, reference) == float(squad_tokens(answer) == squad_tokens(reference))
        assert token_f1(answer, reference) == pytest.approx(squad_f1(answer, reference))


def test_chinese_is_compared_by_characters() -> None:
    assert answer_tokens("床前明月光,疑是地上霜。") == list("床前明月光疑是地上霜")
    assert exact_match("床前明月光。", "床前明月光") == 1.0
    assert token_f1("李白", "作者是李白") == pytest.approx(2 * (2 / 2) * (2 / 5) / (2 / 2 + 2 / 5))
    assert answer_tokens("Python 是 1 种语言") == ["python", "是", "1", "种", "语", "言"]
    assert answer_tokens("ＡＢＣ１２") == ["abc12"]  # full-width letters and digits are the same letters


def test_other_scripts_and_symbols() -> None:
    assert answer_tokens("ありがとう") == list("ありがとう")
    assert answer_tokens("Straße école") == ["strasse", "école"]
    assert answer_tokens("a < b") == ["<", "b"] and exact_match("x<y", "x > y") == 0.0
    assert exact_match("x<y", "x < y") == 1.0


def test_empty_texts() -> None:
    assert (token_f1("", ""), token_f1("the", "..."), token_f1("", "x"), token_f1("x", "")) == (1, 1, 0, 0)
    assert exact_match("", "") == 1.0


def test_f1_counts_repetition() -> None:
    assert token_f1("no no no", "no") == pytest.approx(0.5)
    assert token_f1("b c d", "d c b") == 1.0 and exact_match("b c d", "d c b") == 0.0


def test_scores_hold_the_loss_of_the_answer_tokens_alone_and_the_written_answers() -> None:
    model = toy_llama()
    generator = np.random.default_rng(0)
    examples = []
    for length in (9, 20, 14):
        learn = np.zeros(length, bool)
        learn[length // 2 :] = True
        ids = generator.integers(0, 61, length)
        examples.append(AnswerExample(ids[: length // 2].tolist(), ids, learn, "yes"))
    asked: list[list[int]] = []

    def answer(prompts: list[list[int]]) -> list[tuple[str, bool]]:
        asked.extend(prompts)
        return [("yes", True), ("yes or no", True), ("no", False)]

    scores = score_answers(model, examples, answer, context=32)
    assert asked == [e.prompt for e in examples]
    assert scores.targets.tolist() == [5, 10, 7]
    assert scores.exact.tolist() == [1, 0, 0] and scores.ended.tolist() == [1, 1, 0]
    assert scores.f1.tolist() == pytest.approx([1, 0.5, 0])
    for example, nats in zip(examples, scores.nats):
        assert nats == pytest.approx(naive_nats(model, example.ids, example.learn), rel=1e-5)


def naive_nats(model: object, ids: np.ndarray, learn: np.ndarray) -> float:
    import torch

    with torch.no_grad():
        logprob = model(torch.from_numpy(ids)[None]).log_softmax(-1)[0]  # type: ignore[operator]
    return float(-sum(logprob[t - 1, ids[t]] for t in range(1, len(ids)) if learn[t]))
