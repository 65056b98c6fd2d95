"""A recipe's text: prepared once into the run folder, then packed rows for training and documents to measure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from groundup.data.mask import MaskedPacker, Masking
from groundup.data.options import PrepareOptions
from groundup.data.pack import TextPacker
from groundup.data.prepare import Corpus, clean_corpus, tokenize_corpus
from groundup.data.shards import TokenSet
from groundup.data.stream import PackedStream, Packer
from groundup.errors import GroundupError
from groundup.recipe.tree import Recipe, TextData
from groundup.run.masked import hides_tokens, masking_of
from groundup.run.noise import masks_rows
from groundup.text.options import TokenizerOptions
from groundup.text.tokenizer import AnyTokenizer, Tokenizer
from groundup.text.train import train_tokenizer

Say = Callable[[str], None]

DEFAULT_VOCABULARY = 4096
USUAL_TOKENIZER = TokenizerOptions(kind="bpe", vocabulary=DEFAULT_VOCABULARY)
"""Where a recipe says nothing."""

TOKENS = "tokens"
"""The folder of the token shards inside a folder of prepared data."""
MAIN = "main"
"""The name of the only source of a recipe without a mixture."""


@dataclass
class PreparedTexts:
    """Tokenized sources, by name; `masking` where some of their tokens are hidden."""

    tokenizer: AnyTokenizer
    train: dict[str, TokenSet]
    held_out: dict[str, TokenSet]
    weights: dict[str, float]
    cards: dict[str, Any] = field(default_factory=dict)
    masking: Masking | None = None

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of training text for each target, mixed as the rows are."""
        total = sum(self.weights.values())
        shares = {name: weight / total for name, weight in self.weights.items()}
        return sum(
            share * self.train[name].num_bytes / max(1, self.train[name].num_tokens - self.train[name].num_documents)
            for name, share in shares.items()
        )

    def packers(self, *, context: int, seed: int) -> dict[str, Packer]:
        """One packer for each source."""
        return {
            name: self._packer(documents, {"context": context, "seed": seed + number, "pad_id": self.tokenizer.pad_id})
            for number, (name, documents) in enumerate(self.train.items())
        }

    def _packer(self, documents: TokenSet, how: dict[str, int]) -> Packer:
        return TextPacker(documents, **how) if self.masking is None else MaskedPacker(documents, self.masking, **how)


def prepare_texts(
    recipe: Recipe, folder: Path, tokenizer: AnyTokenizer | None, *, say: Say, workers: int = 0
) -> PreparedTexts:
    """Clean, train the tokenizer if there is none yet, and tokenize; what is already done is found again.

    Args:
        recipe: with text data.
        folder: where the prepared data goes, such as RUN/data.
        tokenizer: of the model to go on with; None trains one on the training part.
        say: receives lines of progress.
        workers: processes; 0 for all usable cores.
    """
    data = recipe.data
    assert isinstance(data, TextData)
    if tokenizer is not None:
        masking_of(recipe, tokenizer)  # refused before the work is done
    if data.prepared is not None:
        found = _already_prepared(Path(data.prepared).expanduser(), tokenizer)
        return replace(found, masking=masking_of(recipe, found.tokenizer))
    sources = {name: _preparation(source) for name, source in data.sources.items()} or {MAIN: _preparation(data)}
    weights = {name: source.weight for name, source in data.sources.items()} or {MAIN: 1.0}
    folders = {name: folder if name == MAIN else folder / name for name in sources}
    corpora = {
        name: clean_corpus(options, folders[name], workers=workers, progress=say) for name, options in sources.items()
    }
    if tokenizer is None:
        tokenizer = _tokenizer_of(recipe, corpora, folder, say)
    train, held_out = {}, {}
    for name, corpus in corpora.items():
        sets = tokenize_corpus(corpus, tokenizer, folders[name] / TOKENS, workers=workers)
        train[name] = sets.pop(sources[name].split.train)
        for number, (split, documents) in enumerate(sets.items()):
            if documents.num_documents:  # the first is what the source itself is measured on
                held_out[name if number == 0 else f"{name} {split}"] = documents
    cards = {name: corpus.card for name, corpus in corpora.items()}
    return PreparedTexts(tokenizer, train, held_out, weights, cards, masking_of(recipe, tokenizer))


def _preparation(options: PrepareOptions) -> PrepareOptions:
    """The part of a section that preparation knows."""
    return PrepareOptions(**{name: dict(options)[name] for name in PrepareOptions.model_fields})


def own_tokenizer(texts: Iterable[str], recipe: Recipe) -> Tokenizer:
    """A tokenizer as a recipe asks for; where it asks for none, a usual one, no larger than the texts allow."""
    return train_tokenizer(texts, _options_of(recipe), at_most=recipe.tokenizer is None)


def _options_of(recipe: Recipe) -> TokenizerOptions:
    options = recipe.tokenizer or USUAL_TOKENIZER
    if options.mask is None and (hides_tokens(recipe) or masks_rows(recipe)):
        return options.model_copy(update={"mask": True})
    return options


def _tokenizer_of(recipe: Recipe, corpora: dict[str, Corpus], folder: Path, say: Say) -> Tokenizer:
    """The tokenizer that was trained here before with the same options on the same text, or a new one."""
    options = _options_of(recipe)
    wanted = {
        "options": options.model_dump(),
        "texts": {name: corpus.digest for name, corpus in corpora.items()},
    }
    note = folder / "tokenizer-made-from.json"
    try:
        if json.loads(note.read_text(encoding="utf-8")) == wanted:
            return Tokenizer.load(folder)
    except (OSError, ValueError, GroundupError):
        pass  # there is none yet, or it was made from something else: train it

    def texts() -> Iterator[str]:
        for corpus in corpora.values():
            yield from corpus.texts("train")

    say(f"tokenizer: training {options.kind}" + (f" of {options.vocabulary:,}" if options.vocabulary else ""))
    tokenizer = own_tokenizer(texts(), recipe)
    tokenizer.save(folder)
    note.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    return tokenizer


def _already_prepared(folder: Path, tokenizer: AnyTokenizer | None) -> PreparedTexts:
    """Open what `groundup prepare` made."""
    own = Tokenizer.load(folder)
    if tokenizer is not None and tokenizer.digest != own.digest:
        raise GroundupError(
            "E-DATA-090",
            "the prepared data was tokenized by another tokenizer than the model's",
            where=f"{folder}: {own.digest[:12]}, model: {tokenizer.digest[:12]}",
            why="the same ids would mean other text",
            fix="groundup prepare --files … --tokenizer MODEL --out DIR   (with the model's tokenizer)",
        )
    train = TokenSet.open(folder / TOKENS, "train", tokenizer_digest=own.digest)
    card_file = folder / "card.json"
    card = json.loads(card_file.read_text(encoding="utf-8")) if card_file.is_file() else {}
    held_out = {}
    if "held_out" in card.get("splits", {"held_out": 1}):
        held_out = {MAIN: TokenSet.open(folder / TOKENS, "held_out", tokenizer_digest=own.digest)}
    return PreparedTexts(own, {MAIN: train}, held_out, {MAIN: 1.0}, {MAIN: card})


def text_stream(recipe: Recipe, prepared: PreparedTexts) -> PackedStream:
    """The training stream of a resolved recipe."""
    packers = prepared.packers(context=recipe.data.context or 0, seed=recipe.seed)
    return PackedStream(packers, weights=prepared.weights, rows=recipe.budget.micro_batch or 1, seed=recipe.seed)
