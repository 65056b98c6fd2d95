"""Quality filters: which documents are not worth learning from.

By default only what no kind of text can lose by: empty documents and ones that are mostly replacement
characters, the trace of a wrong encoding. The heuristics of Gopher (Rae et al. 2021, arXiv:2112.11446, table
A1) and C4 (Raffel et al. 2020, arXiv:1910.10683, section 2.2) were made for English web pages. They drop
source code (symbols, braces), poems (no terminal punctuation, refrains), tables, lists and dialogue, so they
are off until asked for: `filters: {gopher: {}}` or `{c4: {}}` switches on the paper's values, and each field
can be set to null alone. A character of a script without spaces (Chinese, Japanese, Thai …) counts as one
word, and the mean word length is not judged where such characters prevail.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from groundup.data.units import UNSPACED

WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
TOKEN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")  # words with the punctuation that touches them
BULLETS = ("•", "‣", "◦", "-", "*", "–", "·", "●", "○", "■")
ELLIPSES = ("…", "...")
TERMINAL = tuple(".!?\"'。！？”’」』…؟।")
SENTENCE_END = re.compile(r"[.!?](?=\s|$|[\"'”’)])|[。！？؟।]")


class GopherOptions(BaseModel):
    """The heuristics of Gopher with the paper's values; null switches one off."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    minimum_words: int | None = Field(50, ge=0, description="words, from 0")
    maximum_words: int | None = Field(100_000, ge=1, description="words, from 1")
    minimum_mean_word_length: float | None = Field(3.0, ge=0, description="characters a word, from 0")
    maximum_mean_word_length: float | None = Field(10.0, gt=0, description="characters a word, above 0")
    maximum_symbol_share: float | None = Field(0.1, ge=0, description="'#' and ellipses per word, from 0")
    maximum_bullet_share: float | None = Field(
        0.9, ge=0, le=1, description="lines that begin with a bullet, 0 to 1"
    )
    maximum_ellipsis_share: float | None = Field(
        0.3, ge=0, le=1, description="lines that end in an ellipsis, 0 to 1"
    )
    minimum_alphabetic_share: float | None = Field(
        0.8, ge=0, le=1, description="words with a letter in them, 0 to 1"
    )
    maximum_duplicate_line_share: float | None = Field(
        0.3, ge=0, le=1, description="lines that stood before in the document, 0 to 1"
    )
    maximum_duplicate_paragraph_share: float | None = Field(
        0.3, ge=0, le=1, description="paragraphs that stood before in the document, 0 to 1"
    )
    maximum_top_ngram_share: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="characters in the most frequent pair of words, 0 to 1; for 3 and 4 words .9 and .8 times it",
    )


class C4Options(BaseModel):
    """The heuristics of C4, as shares of the document instead of edits to it; null or false switches one off."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    minimum_terminal_punctuation_share: float | None = Field(
        0.5, ge=0, le=1, description="lines that end in terminal punctuation, 0 to 1"
    )
    minimum_sentences: int | None = Field(3, ge=1, description="sentences, from 1")
    refuse_curly_brackets: bool = Field(
        True, description="set aside documents with '{', which are mostly code"
    )
    refuse_lorem_ipsum: bool = Field(True, description="set aside documents with 'lorem ipsum'")


class FilterOptions(BaseModel):
    """Which documents are set aside for their quality; null switches a filter off."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    minimum_characters: int = Field(1, ge=1, description="characters that are not white space, from 1")
    maximum_characters: int | None = Field(None, ge=1, description="characters, from 1")
    minimum_words: int | None = Field(None, ge=0, description="words, from 0")
    maximum_words: int | None = Field(None, ge=1, description="words, from 1")
    maximum_replacement_share: float | None = Field(
        0.1, ge=0, le=1, description="characters that are U+FFFD, the trace of a wrong encoding, 0 to 1"
    )
    gopher: GopherOptions | None = Field(
        None, description="the heuristics of Gopher; {} takes the paper's values"
    )
    c4: C4Options | None = Field(None, description="the heuristics of C4; {} takes the usual values")


def reason_to_set_aside(text: str, options: FilterOptions) -> tuple[str, str] | None:
    """The first filter that `text` fails, as its name and the numbers; None if the document stays."""
    length = len(text)
    if length < 2 * options.minimum_characters or options.minimum_characters > 1:
        solid = sum(map(len, text.split()))
        if solid == 0:
            return "empty", "no characters but white space"
        if solid < options.minimum_characters:
            return "filter: too few characters", f"{solid} < {options.minimum_characters}"
    elif text.isspace():
        return "empty", "no characters but white space"
    if options.maximum_characters is not None and length > options.maximum_characters:
        return "filter: too many characters", f"{length} > {options.maximum_characters}"
    if options.maximum_replacement_share is not None and not text.isascii():
        share = text.count("\ufffd") / length
        if share > options.maximum_replacement_share:
            return _over("replacement characters", share, options.maximum_replacement_share)
    if options.minimum_words is not None or options.maximum_words is not None:
        found = _word_count(len(WORD.findall(text)), options.minimum_words, options.maximum_words)
        if found:
            return found
    if options.gopher is not None:
        found = _gopher(text, options.gopher)
        if found:
            return found
    return _c4(text, options.c4) if options.c4 is not None else None


def _over(name: str, share: float, limit: float) -> tuple[str, str]:
    return f"filter: too many {name}", f"{share:.3f} > {limit:g}"


def _under(name: str, share: float, limit: float) -> tuple[str, str]:
    return f"filter: too few {name}", f"{share:.3f} < {limit:g}"


def _word_count(count: int, minimum: int | None, maximum: int | None) -> tuple[str, str] | None:
    if minimum is not None and count < minimum:
        return "filter: too few words", f"{count} < {minimum}"
    if maximum is not None and count > maximum:
        return "filter: too many words", f"{count} > {maximum}"
    return None


def _gopher(text: str, options: GopherOptions) -> tuple[str, str] | None:
    words = TOKEN.findall(text)
    count = max(len(words), 1)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    unspaced = sum(len(word) == 1 and ord(word) > 0xE00 for word in words)
    found = _word_count(len(words), options.minimum_words, options.maximum_words)
    if found:
        return found
    mean = sum(map(len, words)) / count
    judged = unspaced * 2 < count
    if judged and options.minimum_mean_word_length is not None and mean < options.minimum_mean_word_length:
        return "filter: words too short", f"{mean:.2f} < {options.minimum_mean_word_length:g} characters"
    if judged and options.maximum_mean_word_length is not None and mean > options.maximum_mean_word_length:
        return "filter: words too long", f"{mean:.2f} > {options.maximum_mean_word_length:g} characters"
    symbols = (text.count("#") + sum(text.count(mark) for mark in ELLIPSES)) / count
    alphabetic = sum(any(map(str.isalpha, word)) for word in words) / count
    if options.minimum_alphabetic_share is not None and alphabetic < options.minimum_alphabetic_share:
        return _under("words with letters", alphabetic, options.minimum_alphabetic_share)
    measured = (
        ("symbols", symbols, options.maximum_symbol_share),
        ("bullet lines", _share(line.startswith(BULLETS) for line in lines), options.maximum_bullet_share),
        (
            "lines that end in an ellipsis",
            _share(line.endswith(ELLIPSES) for line in lines),
            options.maximum_ellipsis_share,
        ),
        ("duplicate lines", _duplicate_share(lines), options.maximum_duplicate_line_share),
        ("duplicate paragraphs", _duplicate_share(paragraphs), options.maximum_duplicate_paragraph_share),
    )
    for name, share, limit in measured:
        if limit is not None and share > limit:
            return _over(name, share, limit)
    return _top_ngrams(words, options.maximum_top_ngram_share)


def _share(found: object) -> float:
    marks = [bool(mark) for mark in found]  # type: ignore[attr-defined]
    return sum(marks) / max(len(marks), 1)


def _duplicate_share(parts: Sequence[str]) -> float:
    return 1 - len(set(parts)) / len(parts) if parts else 0.0


def _top_ngrams(words: list[str], limit: float | None) -> tuple[str, str] | None:
    """The share of characters covered by the most frequent run of 2, 3 and 4 words (Gopher: .20 .18 .16)."""
    if limit is None:
        return None
    characters = max(sum(map(len, words)), 1)
    for size, factor in ((2, 1.0), (3, 0.9), (4, 0.8)):
        runs = Counter(zip(*(words[start:] for start in range(size))))
        if not runs:
            continue
        run, times = max(runs.items(), key=lambda item: (item[1], item[0]))
        share = times * sum(map(len, run)) / characters
        if times > 1 and share > limit * factor:
            return _over(f"repeats of one run of {size} words", share, limit * factor)
    return None


def _c4(text: str, options: C4Options) -> tuple[str, str] | None:
    if options.refuse_curly_brackets and "{" in text:
        return "filter: curly bracket", "'{'"
    if options.refuse_lorem_ipsum and "lorem ipsum" in text.lower():
        return "filter: lorem ipsum", "'lorem ipsum'"
    if options.minimum_sentences is not None:
        sentences = len(SENTENCE_END.findall(text))
        if sentences < options.minimum_sentences:
            return "filter: too few sentences", f"{sentences} < {options.minimum_sentences}"
    limit = options.minimum_terminal_punctuation_share
    if limit is not None:
        share = _share(line.rstrip().endswith(TERMINAL) for line in text.splitlines() if line.strip())
        if share < limit:
            return _under("lines with terminal punctuation", share, limit)
    return None
