"""Training a tokenizer: from texts to the vocabulary of each kind.

The counting and merging is done by the `tokenizers` library. Its byte-pair trainer is the only one whose
result is the same on every run; its WordPiece and unigram trainers depend on the order of a hash table.
Those two are therefore built on byte pairs here, so that the same texts always give the same file. Reading
files does not enter this room: texts arrive as an iterable.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from groundup.errors import GroundupError
from groundup.text import layout
from groundup.text.alphabet import CHARACTER_OF_BYTE, spell
from groundup.text.options import SMALLEST_VOCABULARY, SPECIALS, TokenizerOptions, check_options
from groundup.text.tokenizer import Tokenizer, refuse_surrogates

SEED_SIZE = 2  # the unigram vocabulary starts from this many times the pieces that are asked for
ROUNDS = 4  # in which it shrinks to its size
SEEN_BYTES = 1e-3  # a byte that never occurred is given this count, so that it has a finite score

Pretokenizer = pre_tokenizers.PreTokenizer


class _Texts:
    """The texts on their way into a trainer: checked, and measured for the error messages."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.documents = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            try:
                self.bytes += len(text.encode("utf-8"))
            except UnicodeEncodeError:
                refuse_surrogates([text])
            self.documents += 1
            yield text


def train_tokenizer(texts: Iterable[str], options: TokenizerOptions, *, at_most: bool = False) -> Tokenizer:
    """Train a tokenizer.

    The result depends on the texts and the options alone, not on the machine's cores or hash seeds.

    Args:
        texts: the training text; iterated once. Documents may have any length.
        options: kind and size.
        at_most: take a smaller vocabulary where the text gives no more, as one does where nobody asked for a size.

    Raises:
        GroundupError: E-TOKEN-001 options out of range, E-TOKEN-002 too little text for the vocabulary,
            E-TOKEN-003 no text, E-TOKEN-004 a lone surrogate.
    """
    check_options(options)
    measured = _Texts(texts)
    mask = bool(options.mask)
    if options.kind == "byte":
        return _finished(_build(layout.bpe_model(_base(), []), layout.BYTES), mask)
    learned = options
    if mask and options.vocabulary is not None:
        learned = options.model_copy(update={"vocabulary": options.vocabulary - 1})
    tokenizer = _finished(TRAINERS[options.kind](measured, learned), mask)
    if measured.bytes == 0:
        raise GroundupError(
            code="E-TOKEN-003",
            what=f"there is no text to train a tokenizer on ({measured.documents} documents, 0 bytes)",
            where="the training texts",
            why="a vocabulary is learned from text",
            fix="name files that hold text, or use --kind byte, which needs none",
        )
    if options.vocabulary is not None and tokenizer.vocabulary < options.vocabulary and not at_most:
        raise _too_little_text(measured, options, options.vocabulary, tokenizer.vocabulary)
    return tokenizer


def _finished(tokenizer: Tokenizer, mask: bool) -> Tokenizer:
    """With the mask token, if it is asked for."""
    if not mask:
        return tokenizer
    document = layout.add_mask(json.loads(tokenizer.to_json()))
    return Tokenizer.from_json(json.dumps(document, ensure_ascii=False))


def _too_little_text(measured: _Texts, options: TokenizerOptions, asked: int, reached: int) -> GroundupError:
    base = len(SPECIALS) + 256
    # New tokens come ever more slowly as text grows (Heaps' law), so this is the least that it takes.
    least = math.ceil(measured.bytes * (asked - base) / max(1, reached - base))
    return GroundupError(
        code="E-TOKEN-002",
        what=f"the text is too small for a vocabulary of {asked}: it gives {reached} tokens at most",
        where=f"{measured.documents} documents, {measured.bytes} bytes",
        why=f"a token must occur at least {_frequency(options)} times to be worth learning; a vocabulary of "
        f"{asked} takes at the very least {least} bytes of text of this sort",
        fix=(
            f"ask for a vocabulary of at most {reached}, or give more text"
            if reached >= SMALLEST_VOCABULARY[options.kind]
            else "give more text, or use the kind char or byte, which need none"
        )
        + (", or set tokenizer.minimum_frequency=1" if _frequency(options) > 1 else ""),
    )


def _train_bpe(texts: Iterable[str], options: TokenizerOptions) -> Tokenizer:
    """Byte-pair encoding over bytes (Sennrich et al. 2016; Radford et al. 2019)."""
    vocabulary, merges = _merge(texts, _cut(layout.WORDS), options.vocabulary or 0, _frequency(options))
    return _build(layout.bpe_model(vocabulary, merges), layout.WORDS)


def _train_unigram(texts: Iterable[str], options: TokenizerOptions) -> Tokenizer:
    """A unigram language model (Kudo 2018), with byte pairs as seeds and the best path instead of all paths.

    Pieces are counted along the most probable segmentation under the current scores, the scores are set
    from the counts, and the rarest pieces are dropped until the size is reached.
    """
    words = _count_words(texts)
    size = options.vocabulary or 0
    fixed = len(SPECIALS) + 256
    largest = fixed + SEED_SIZE * (size - fixed)
    repeated = (" ".join([word] * count) for word, count in words.items())
    seeds, _ = _merge(repeated, pre_tokenizers.WhitespaceSplit(), largest, _frequency(options))
    pieces = list(seeds)[len(SPECIALS) :]  # in the order of their ids: bytes, then merges
    counts = _piece_counts(pieces, words)
    for number in range(1, ROUNDS + 1):
        kept = size - len(SPECIALS)
        kept += (len(pieces) - kept) * (ROUNDS - number) // ROUNDS
        learned = sorted((piece for piece in pieces if len(piece) > 1), key=lambda p: (-counts[p], p))
        pieces = [*CHARACTER_OF_BYTE, *learned[: max(0, kept - 256)]]
        counts = _best_path_counts(pieces, counts, words)
    ordered = pieces[:256] + sorted(pieces[256:], key=lambda piece: (-counts[piece], piece))
    return _build(layout.unigram_model(_scored(ordered, counts)), layout.WORDS)


def _train_wordpiece(texts: Iterable[str], options: TokenizerOptions) -> Tokenizer:
    """WordPiece as BERT uses it (Devlin et al. 2019): longest match first, its pieces learned by byte pairs.

    A byte inside a word is another symbol than the same byte at its start, so each has its own pieces.
    """
    inside = {character: chr(0xE000 + byte) for byte, character in enumerate(CHARACTER_OF_BYTE)}
    back = {ord(private): character for character, private in inside.items()}
    table = str.maketrans(inside)
    words = _count_words(texts)
    repeated = (" ".join([word[0] + word[1:].translate(table)] * count) for word, count in words.items())
    symbols = [*CHARACTER_OF_BYTE, *inside.values()]
    found, _ = _merge(repeated, pre_tokenizers.WhitespaceSplit(), options.vocabulary or 0, _frequency(options), symbols)
    continued = set(inside.values())
    tokens = list(SPECIALS)
    for piece in list(found)[len(SPECIALS) :]:
        tokens.append((layout.CONTINUED if piece[0] in continued else "") + piece.translate(back))
    return _build(layout.wordpiece_model({token: id for id, token in enumerate(tokens)}), layout.WORDS)


def _train_characters(texts: Iterable[str], options: TokenizerOptions) -> Tokenizer:
    """One token for each character of the training text; a character not seen there becomes its bytes."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    seen = sorted(c for c, count in counts.items() if count >= _frequency(options) and not c.isascii())
    vocabulary = _base()
    for character in seen:
        vocabulary[spell(character.encode("utf-8"))] = len(vocabulary)
    return _build(layout.bpe_model(vocabulary, [], whole=True), layout.CHARACTERS)


TRAINERS: dict[str, Callable[[Iterable[str], TokenizerOptions], Tokenizer]] = {
    "bpe": _train_bpe,
    "unigram": _train_unigram,
    "wordpiece": _train_wordpiece,
    "char": _train_characters,
}
"""The kinds that learn from text; `byte` has nothing to learn."""


def _frequency(options: TokenizerOptions) -> int:
    if options.minimum_frequency is not None:
        return options.minimum_frequency
    return 1 if options.kind == "char" else 2


def _base() -> dict[str, int]:
    """Special tokens, then the bytes in order: byte b has the id len(SPECIALS) + b."""
    return {token: id for id, token in enumerate([*SPECIALS, *CHARACTER_OF_BYTE])}


def _cut(pattern: str) -> Pretokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _build(model: dict[str, Any], pattern: str) -> Tokenizer:
    return Tokenizer.from_json(json.dumps(layout.document(model, pattern), ensure_ascii=False))


def _merge(
    texts: Iterable[str],
    cut: Pretokenizer,
    size: int,
    frequency: int,
    symbols: Iterable[str] = CHARACTER_OF_BYTE,
) -> tuple[dict[str, int], list[list[str]]]:
    """Learn byte pairs with the library: the vocabulary in the order of its ids, and the merges."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = cut
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=frequency,
        special_tokens=list(SPECIALS),
        initial_alphabet=list(symbols),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer=trainer)
    model = json.loads(library.to_str())["model"]
    return dict(sorted(model["vocab"].items(), key=lambda item: item[1])), model["merges"]


def _count_words(texts: Iterable[str]) -> dict[str, int]:
    """How often each piece of the cut occurs, spelled in the byte alphabet, in a fixed order."""
    cut = _cut(layout.WORDS)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in cut.pre_tokenize_str(text))
    return dict(sorted(counts.items()))


def _piece_counts(pieces: list[str], words: dict[str, int]) -> dict[str, float]:
    """First counts: how often each piece occurs anywhere, overlaps included."""
    counts = dict.fromkeys(pieces, 0.0)
    longest = max((len(piece) for piece in pieces), default=1)
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(len(word), start + longest) + 1):
                if (piece := word[start:end]) in counts:
                    counts[piece] += count
    return counts


def _best_path_counts(pieces: list[str], counts: dict[str, float], words: dict[str, int]) -> dict[str, float]:
    """How often each piece is used when every word is segmented in its most probable way."""
    scored = _scored(pieces, counts)
    model = models.Unigram([(piece, score) for piece, score in scored], None, False)
    used = [0] * len(scored)
    for word, count in words.items():
        for token in model.tokenize(word):
            used[token.id] += count
    return {piece: float(used[id]) for id, (piece, _) in enumerate(scored) if id >= len(SPECIALS)}


def _scored(pieces: list[str], counts: dict[str, float]) -> list[list[Any]]:
    """Special tokens and pieces with their log-probability in nats, rounded to be the same anywhere."""
    total = sum(counts[piece] for piece in pieces) or 1.0
    scores = [round(math.log(max(counts[piece], SEEN_BYTES) / total), 6) for piece in pieces]
    lowest = min(scores) - 10.0
    return [[name, lowest] for name in SPECIALS] + [list(pair) for pair in zip(pieces, scores)]
