"""How near translations come to references: chrF and BLEU, with intervals of the corpus values; and the translation
memory that a model has to beat.

Both metrics are functions of counts summed over sentences, so it is sentences that are drawn again for an interval.
Texts come in as they are; no model, tokenizer or file may enter here.

Shapes: N sentences, R resamples, C columns of counts, O orders of n-grams.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from groundup.errors import GroundupError
from groundup.evaluation import counts
from groundup.evaluation.counts import Resampling
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES, Array, Interval

CHRF_ORDER, CHRF_BETA = 6, 2
BLEU_ORDER = 4
Tokenization = Literal["13a", "char"]

ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
SYMBOL = re.compile(r"([{-~\[-` -&(-+:-@/])")
MARK_AFTER_NO_DIGIT = re.compile(r"([^0-9])([.,])")
MARK_BEFORE_NO_DIGIT = re.compile(r"([.,])([^0-9])")
DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")


@dataclass(frozen=True, kw_only=True)
class TranslationScores:
    """What was measured on one set.

    headline: "chrf" and "bleu", 0 to 100, of the whole set, with their intervals.
    sentence_chrf: chrF of each sentence alone, float64 (N,).
    """

    sentences: int
    confidence: float
    headline: dict[str, Interval]
    sentence_chrf: Array

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sentences": self.sentences,
            "confidence": self.confidence,
            "headline": {name: found.as_dict() for name, found in self.headline.items()},
        }


def translation_scores(
    translations: Sequence[str],
    references: Sequence[str],
    *,
    tokenization: Tokenization = "13a",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> TranslationScores:
    """Measure translations against one reference each, by chrF (Popović 2015, W15-3049; beta 2, characters 1 to 6,
    spaces left out) and BLEU (Papineni et al. 2002, P02-1040; n-grams 1 to 4), as sacrebleu computes them.

    Args:
        translations, references: texts, as many of the one as of the other.
        tokenization: of BLEU. "13a": that of mteval-v13a, for languages with spaces; "char": each character a
            token, for those without.
        confidence, resamples, seed: of the percentile bootstrap over sentences (Koehn 2004, W04-3250).

    Raises:
        GroundupError: E-EVAL-040 no sentences, or different numbers of them.
    """
    if len(translations) != len(references) or not references:
        raise GroundupError(
            "E-EVAL-040",
            f"{len(translations):,} translations cannot be measured against {len(references):,} references",
            where="translation_scores",
            why="each translation is compared with the reference in its own place",
            fix="give one reference for each translation, at least one, in the same order",
            exit_code=2,
        )
    pairs = list(zip(translations, references))
    chrf_NC = np.array([chrf_counts(*pair) for pair in pairs], dtype=np.float64)
    bleu_NC = np.array([bleu_counts(*pair, tokenization) for pair in pairs], dtype=np.float64)

    def metrics(sums_RC: Array) -> dict[str, Array]:
        return {"chrf": chrf(sums_RC[:, : 3 * CHRF_ORDER]), "bleu": bleu(sums_RC[:, 3 * CHRF_ORDER :])}

    how = Resampling(confidence=confidence, resamples=resamples, seed=seed)
    columns = np.concatenate([chrf_NC, bleu_NC], axis=1)
    headline = counts.intervals(metrics, np.ones(len(pairs)), columns, **how)
    return TranslationScores(
        sentences=len(pairs), confidence=confidence, headline=headline, sentence_chrf=chrf(chrf_NC)
    )


def chrf_counts(translation: str, reference: str) -> list[int]:
    """For each order 1 to 6 the character n-grams of the translation, of the reference, and those in both. An order
    that the reference is too short for counts nothing."""
    ours, theirs = ("".join(text.split()) for text in (translation, reference))
    found = []
    for order in range(1, CHRF_ORDER + 1):
        mine, wanted = ngrams(ours, order), ngrams(theirs, order)
        found += [mine.total() if wanted else 0, wanted.total(), (mine & wanted).total()]
    return found


def chrf(sums_RC: Array) -> Array:
    """chrF2 out of sums of `chrf_counts`, 0 to 100, float64 (R,): precision and recall are averaged over the orders
    that both sides have, and make F with beta 2."""
    ours_RO, theirs_RO, both_RO = (sums_RC[:, column::3] for column in range(3))
    usable_RO = (ours_RO > 0) & (theirs_RO > 0)
    orders_R = np.maximum(usable_RO.sum(axis=1), 1)
    precision_R = (both_RO / np.where(usable_RO, ours_RO, 1.0) * usable_RO).sum(axis=1) / orders_R
    recall_R = (both_RO / np.where(usable_RO, theirs_RO, 1.0) * usable_RO).sum(axis=1) / orders_R
    below_R = CHRF_BETA**2 * precision_R + recall_R
    above_R = (1 + CHRF_BETA**2) * precision_R * recall_R
    return 100 * np.divide(above_R, below_R, out=np.zeros_like(above_R), where=below_R > 0)


def bleu_counts(translation: str, reference: str, tokenization: Tokenization) -> list[int]:
    """The tokens of the translation and of the reference; for each order 1 to 4 the n-grams in both; for each order
    those of the translation."""
    ours, theirs = (tuple(tokens(text, tokenization)) for text in (translation, reference))
    mine = [ngrams(ours, order) for order in range(1, BLEU_ORDER + 1)]
    both = [(found & ngrams(theirs, order)).total() for order, found in enumerate(mine, start=1)]
    return [len(ours), len(theirs), *both, *(found.total() for found in mine)]


def bleu(sums_RC: Array) -> Array:
    """BLEU out of sums of `bleu_counts`, 0 to 100, float64 (R,). An order without a match counts as half a match, the
    next such order as a quarter and so on (mteval-v13a's smoothing); without any match at all BLEU is 0, and so it is
    where all translations together are too short for an order."""
    length_R, reference_R = sums_RC[:, 0], sums_RC[:, 1]
    both_RO, ours_RO = sums_RC[:, 2 : 2 + BLEU_ORDER], sums_RC[:, 2 + BLEU_ORDER :]
    missing_RO = (both_RO == 0) & (ours_RO > 0)
    matches_RO = np.where(missing_RO, 0.5 ** missing_RO.cumsum(axis=1), both_RO)
    defined_R = np.logical_and((both_RO > 0).any(axis=1), (ours_RO > 0).all(axis=1))
    precision_RO = np.where(defined_R[:, None], matches_RO, 1.0) / np.where(defined_R[:, None], ours_RO, 1.0)
    brevity_R = np.exp(np.minimum(0.0, 1 - reference_R / np.maximum(length_R, 1.0)))
    return np.where(defined_R, 100 * brevity_R * np.exp(np.log(precision_RO).mean(axis=1)), 0.0)


def tokens(text: str, tokenization: Tokenization) -> list[str]:
    """The tokens that BLEU counts, as mteval-v13a cuts them, or characters."""
    text = text.rstrip()
    if tokenization == "char":
        return " ".join(text).split()
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in ENTITIES:
        text = text.replace(entity, character)
    text = SYMBOL.sub(r" \1 ", f" {text} ")
    text = MARK_AFTER_NO_DIGIT.sub(r"\1 \2 ", text)
    text = MARK_BEFORE_NO_DIGIT.sub(r" \1 \2", text)
    return DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


def ngrams(sequence: str | tuple[str, ...], order: int) -> Counter[Any]:
    """How often each stretch of `order` items occurs."""
    return Counter(sequence[start : start + order] for start in range(len(sequence) - order + 1))


class TranslationMemory:
    """The simplest translator: the stored target of the source that is most alike. Alike is the cosine of the counts
    of character n-grams of 1 to `order`, each as heavy as it is rare (its inverse document frequency).

    Args:
        sources, targets: stored pairs, at least one.
        order: longest n-gram, in characters.
    """

    def __init__(self, sources: Sequence[str], targets: Sequence[str], order: int = 4) -> None:
        if len(sources) != len(targets) or not sources:
            raise ValueError(f"{len(sources)} sources for {len(targets)} targets")
        self.sources, self.targets, self.order = list(sources), list(targets), order
        bags = [self._bag(source) for source in self.sources]
        rows_of: dict[str, list[int]] = {}
        for row, bag in enumerate(bags):
            for gram in bag:
                rows_of.setdefault(gram, []).append(row)
        self._rarity = {gram: float(np.log1p(len(bags) / len(rows))) for gram, rows in rows_of.items()}
        norms = np.array([sum((n * self._rarity[gram]) ** 2 for gram, n in bag.items()) ** 0.5 for bag in bags])
        self._rows = {gram: np.array(rows, dtype=np.int64) for gram, rows in rows_of.items()}
        self._weights = {
            gram: np.array([bags[row][gram] for row in rows]) * self._rarity[gram] / np.maximum(norms[rows], 1e-300)
            for gram, rows in self._rows.items()
        }

    def _bag(self, text: str) -> Counter[str]:
        plain = f" {' '.join(text.casefold().split())} "  # the spaces around it mark where words begin and end
        return sum((ngrams(plain, order) for order in range(1, self.order + 1)), Counter())

    def nearest(self, source: str) -> int:
        """The number of the stored source that is most alike; of equals the first."""
        score_N = np.zeros(len(self.sources))
        for gram, number in self._bag(source).items():
            if gram in self._rows:  # the rows of one n-gram are distinct, so that plain indexing adds to each
                score_N[self._rows[gram]] += number * self._rarity[gram] * self._weights[gram]
        return int(score_N.argmax())

    def translate(self, sources: Sequence[str]) -> list[str]:
        """The stored target of the nearest stored source, for each source."""
        return [self.targets[self.nearest(source)] for source in sources]
