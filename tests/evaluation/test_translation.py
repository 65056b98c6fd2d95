"""chrF and BLEU against sacrebleu, their intervals, and the translation memory."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from groundup.errors import GroundupError
from groundup.evaluation.translation import TranslationMemory, bleu, bleu_counts, tokens, translation_scores

ENGLISH = [
    ("The cat sat on the mat.", "The cat is sitting on the mat, isn't it?"),
    ('He said: "3,000.50 - that\'s 5-6% off", e.g. now', 'He says "3,000.5, that is 5-6 % off", now.'),
    ("", "Nothing was said here."),
    ("a", "I"),
    ("Same words in the same order here.", "Same words in the same order here."),
    ("&quot;Tom &amp; Mary&quot; <b>bold</b>  a-\nb\tc", '"Tom & Mary" <b>bold</b> ab c'),
    ("Ünïcödé café, naïve… 2.5kg;x=[1]{2}/3\\4", "Unicode café, naive… 2,5 kg; x = [1] {2} / 3 \\ 4"),
    ("   leading and trailing spaces   ", "leading and trailing  spaces"),
]
CHINESE = [
    ("你好，世界。", "你好，世界！"),
    ("我在 2024 年去了北京。", "我2024年去过北京。"),
    ("他是学生", "她们都是老师"),
    ("对。", "是。"),
    ("今天天气很好，我们出去玩吧。", "今天天气很好，我们出去玩吧。"),
    ("\u3000　空格", "空格"),
]


def sets() -> list[tuple[list[tuple[str, str]], str]]:
    """Texts written by hand, and random ones of every length, each with the tokenization that suits it."""
    draw = random.Random(3)
    noise = ["".join(draw.choices("ab c.,-0&%\n", k=draw.randrange(25))) for _ in range(120)]
    return [
        (ENGLISH, "13a"), (ENGLISH, "char"), (CHINESE, "char"), (CHINESE, "13a"),
        (list(zip(noise[:60], noise[60:])), "13a"), (list(zip(noise[:60], noise[60:])), "char"),
        ([("abc", "xyz")], "13a"), ([("x y", "x y")], "13a"), ([("", "")], "13a"), ([("b a", "a b")] * 5, "13a"),
        ([("a b c d e", "a b x y z")], "13a"),
    ]  # fmt: skip


@pytest.mark.parametrize(("pairs", "tokenization"), sets())
def test_corpus_and_sentence_values_equal_sacrebleu(pairs: list[tuple[str, str]], tokenization: str) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    ours, theirs = [list(side) for side in zip(*pairs)]
    found = translation_scores(ours, theirs, tokenization=tokenization, resamples=20)  # type: ignore[arg-type]
    chrf = sacrebleu.metrics.CHRF()
    assert math.isclose(found.headline["chrf"].value, chrf.corpus_score(ours, [theirs]).score, abs_tol=1e-9)
    expected = sacrebleu.metrics.BLEU(tokenize=tokenization, force=True).corpus_score(ours, [theirs]).score
    assert math.isclose(found.headline["bleu"].value, expected, abs_tol=1e-9)
    for row, pair in enumerate(pairs):
        assert math.isclose(found.sentence_chrf[row], chrf.sentence_score(pair[0], [pair[1]]).score, abs_tol=1e-9)


def test_tokens_equal_sacrebleu() -> None:
    tokenizer = pytest.importorskip("sacrebleu.tokenizers.tokenizer_13a").Tokenizer13a()
    printable = "".join(chr(code) for code in range(32, 127))
    draw = random.Random(5)
    for text in ["".join(draw.choices(printable + "    019.,-", k=40)) for _ in range(300)] + [printable]:
        assert tokens(text, "13a") == tokenizer(text.rstrip()).split()


def test_the_interval_is_of_the_corpus_value() -> None:
    draw = random.Random(1)
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    theirs = [" ".join(draw.choices(words, k=draw.randrange(4, 12))) for _ in range(60)]
    ours = [text if draw.random() < 0.5 else " ".join(draw.choices(words, k=6)) for text in theirs]
    found = translation_scores(ours, theirs, resamples=400)
    again = translation_scores(ours, theirs, resamples=400)
    assert found.headline == again.headline
    # the same resamples by hand: whole sentences are drawn, and the corpus value of each draw is taken
    count_NC = np.array([bleu_counts(*pair, "13a") for pair in zip(ours, theirs)], dtype=np.float64)
    drawn = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=400).astype(np.float64)
    low, high = np.quantile(bleu(drawn @ count_NC), (0.025, 0.975))
    value = found.headline["bleu"]
    assert math.isclose(value.low, low, rel_tol=1e-12) and math.isclose(value.high, high, rel_tol=1e-12)
    for interval in found.headline.values():
        assert 0 < interval.low < interval.value < interval.high < 100
    assert translation_scores(theirs, theirs, resamples=50).headline["bleu"] == pytest.approx((100, 100, 100))


def test_as_many_references_as_translations_and_at_least_one() -> None:
    for ours, theirs in ((["a"], ["a", "b"]), ([], [])):
        with pytest.raises(GroundupError) as caught:
            translation_scores(ours, theirs)
        assert caught.value.code == "E-EVAL-040"


def test_the_memory_answers_with_the_target_of_the_nearest_source() -> None:
    sources = ["I like green apples.", "Where is the station?", "I like the green station.", "Where is the station?"]
    memory = TranslationMemory(sources, ["A", "B", "C", "D"])
    assert memory.translate(sources) == ["A", "B", "C", "B"]  # of equals the first
    assert memory.translate(["i  LIKE green apple", "where was the station"]) == ["A", "B"]
    # every stored source is its own nearest neighbour, and the score is a cosine
    dense = {}
    for number, source in enumerate(sources):
        bag = memory._bag(source)
        weights = {gram: count * memory._rarity[gram] for gram, count in bag.items()}
        norm = math.sqrt(sum(weight**2 for weight in weights.values()))
        dense[number] = {gram: weight / norm for gram, weight in weights.items()}
    asked = dense[0]
    cosine = [sum(asked.get(gram, 0.0) * weight for gram, weight in other.items()) for other in dense.values()]
    assert math.isclose(cosine[0], 1.0) and max(cosine[1:]) < 0.9
    with pytest.raises(ValueError, match="2 sources for 1 targets"):
        TranslationMemory(["a", "b"], ["c"])
