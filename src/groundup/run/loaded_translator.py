"""A translator, loaded and ready to be asked: translations of texts and of the lines of files, and how near they come
to references.

Shapes: N sentences, R resamples, C columns of counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from groundup.data.chat_rows import SetAside
from groundup.data.clean import clean_text
from groundup.data.labelled_rows import LabelledLedger
from groundup.data.options import PrepareOptions
from groundup.data.parallel_options import ParallelColumns
from groundup.data.parallel_stream import encode_pairs
from groundup.data.parallel_text import USUAL, ParallelRow, _tabbed_lines, read_pairs
from groundup.data.sources import open_sources
from groundup.errors import GroundupError
from groundup.evaluation import METRICS, choose_metrics, compare, counts, judge, measure
from groundup.evaluation.metrics import LabelScores
from groundup.evaluation.statistics import CONFIDENCE, RESAMPLES, Array
from groundup.evaluation.translation import (
    CHRF_ORDER,
    Tokenization,
    bleu,
    bleu_counts,
    chrf,
    chrf_counts,
)
from groundup.run.evaluation_texts import MALFORMED_LIMIT
from groundup.run.loaded_network import LoadedNetworkModel
from groundup.run.measuring_rows import another_question, measured, require_measurable
from groundup.run.predicting import read_texts
from groundup.run.translation import (
    BEAMS,
    TRANSLATED,
    Translator,
    score_pairs,
    tokenization_of,
    translate_texts,
)
from groundup.run.translation import (
    METRICS as TOKEN_METRICS,
)

TEXT_METRICS = ("chrf", "bleu")
"""Of the translations themselves, 0 to 100, higher is better."""

SOURCES = tuple(dict.fromkeys(first for first, _ in USUAL))
"""Usual names of the column to translate."""

TEXTS_AT_ONCE = 64

_CLEANING = PrepareOptions(files=["-"])


class Encoded(NamedTuple):
    """How well a translator knew the targets of pairs: the number of each pair among the rows, and its scores."""

    indices: list[int]
    scores: LabelScores
    dropped: int


class LoadedTranslator(LoadedNetworkModel):
    """A network that translates, with its tokenizer."""

    does = "translates texts"
    use = "groundup predict {} --files FILE   (a translation for each line)"

    def __init__(
        self, translator: Translator, *, device: torch.device, name: str, autocast: torch.dtype | None
    ) -> None:
        super().__init__(translator.model, device=device, name=name, autocast=autocast)
        self.translator, self.tokenizer = translator.model, translator.tokenizer

    def translate(self, texts: Sequence[str], beams: int = BEAMS) -> list[str]:
        """The likeliest translation of each text that the search finds; of an empty text an empty one. A text that is
        longer than the model's context is cut; `predict` says which are.

        Args:
            texts: any number.
            beams: translations that are kept while searching, 1 is greedy.
        """
        clean = [_clean(text) for text in texts]
        filled = [text for text in clean if text]
        said: list[str] = []
        for start in range(0, len(filled), TEXTS_AT_ONCE):
            some = filled[start : start + TEXTS_AT_ONCE]
            said += translate_texts(self.translator, self.tokenizer, some, beams=beams)
        found = iter(said)
        return [next(found) if text else "" for text in clean]

    def predict(self, texts: Sequence[str], beams: int = BEAMS) -> list[dict[str, Any]]:
        """[{translation, cut}]: `cut` says whether the end of the text was not read."""
        texts = [texts] if isinstance(texts, str) else texts
        longest = self.translator.context
        said = self.translate(texts, beams)
        return [
            {"translation": one, "cut": len(self.tokenizer.encode(_clean(text))) > longest}
            for text, one in zip(texts, said, strict=True)
        ]

    def predict_files(
        self, files: Sequence[str | Path], *, column: str | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """A translation for each row: [{file, line, text, translation, cut}], and what was set aside.

        Args:
            files: a text file has one text a line.
            column: the name of the column of a table, or its number from 1 in tab-separated lines without names;
                None looks for a usual name.

        Raises:
            GroundupError: E-EVAL-020 no row has a text in the column.
        """
        if column is not None and column.isdecimal():
            rows, aside = _numbered(files, column)
        else:
            rows, aside = read_texts(files, column, (*SOURCES, "text", "sentence"))
        said = self.predict([row["text"] for row in rows])
        return [row | answer for row, answer in zip(rows, said, strict=True)], aside

    def evaluate(
        self,
        files: Sequence[str | Path],
        metrics: Sequence[str] = (),
        against: Any = None,
        *,
        columns: Sequence[str] = (),
        sentences: int = TRANSLATED,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Measure the translator on pairs; the same fields as of LoadedModel.evaluate.

        Args:
            files: pairs as in a recipe's `data.files`; all are measured.
            metrics: out of token_loss and token_accuracy (given the reference so far), chrf and bleu (of its own
                translations); none means all four.
            against: another translator; the token metrics are compared only if both have one tokenizer.
            columns: source and target, by name or by number from 1; none takes usual names.
            sentences: how many of the first pairs are translated for chrf and bleu.
            seed: of the bootstrap.

        Raises:
            GroundupError: E-EVAL-001, 002 for metrics, 004, 005 for rows, 023 the other model does not translate;
                E-DATA-105 for columns, E-DATA-107 if every pair is longer than the context.
        """
        if against is not None and not isinstance(against, LoadedTranslator):
            raise another_question(self.name, "translates", against.name)
        plain = [name for name in metrics if name not in TEXT_METRICS]
        tokens = choose_metrics(plain, ["translations"]) if plain else [] if metrics else list(TOKEN_METRICS)
        texts = [name for name in TEXT_METRICS if name in metrics or not metrics]
        rows, aside = _pairs([str(file) for file in files], columns)
        own = self._encoded(rows)
        if own.dropped:
            aside["it has no token, or is longer than the model's context"] += own.dropped
        found = measured(self.name, against.name if against else None, files, len(own.indices), aside)
        found["metrics"] = {n: measure(n, own.scores, seed=seed).as_dict() | {"unit": METRICS[n].unit} for n in tokens}
        if against is not None and tokens:
            if against.tokenizer.digest == self.tokenizer.digest:
                other = against._encoded(rows)
                both = sorted(set(own.indices) & set(other.indices))
                after, before = (_only(one, both) for one in (own, other))
                found["comparison"] = [line.as_dict() for line in compare(before, after, tokens, seed=seed)]
            else:
                found["not_compared"] = tokens
        if texts:
            chosen = [rows[index] for index in own.indices[:sentences]]
            self._enter_texts(found, texts, chosen, against, seed)
        return found

    def _enter_texts(
        self,
        found: dict[str, Any],
        names: Sequence[str],
        rows: Sequence[ParallelRow],
        against: LoadedTranslator | None,
        seed: int,
    ) -> None:
        """Translate, and enter chrF and BLEU with their intervals, and the paired difference where there are two."""
        references = [row.target for row in rows]
        cut = tokenization_of(references)
        columns = [
            _columns(model.translate([row.source for row in rows]), references, cut)
            for model in (self, against)
            if model is not None
        ]
        wide = columns[0].shape[1]

        def scores(sums_RC: Array) -> dict[str, Array]:
            own = _of_sums(sums_RC[:, :wide])
            if len(columns) == 1:
                return own
            other = _of_sums(sums_RC[:, wide:])
            both = {f"before {name}": value for name, value in other.items()}
            return own | both | {f"change {name}": own[name] - other[name] for name in own}

        together = np.concatenate(columns, axis=1)
        each = np.ones(len(rows))
        got = counts.intervals(scores, each, together, confidence=CONFIDENCE, resamples=RESAMPLES, seed=seed)
        found["translated"] = len(rows)
        found["metrics"] |= {name: got[name].as_dict() | {"unit": "0 to 100"} for name in names}
        if against is not None:
            found["comparison"] += [
                {
                    "metric": name,
                    "before": got[f"before {name}"].as_dict(),
                    "after": got[name].as_dict(),
                    "difference": got[f"change {name}"].as_dict(),
                    "verdict": judge(got[f"change {name}"], True),
                }
                for name in names
            ]

    def _encoded(self, rows: Sequence[ParallelRow]) -> Encoded:
        begin = self.tokenizer.begin_id
        assert begin is not None
        pairs = encode_pairs(
            rows,
            self.tokenizer.encode,
            begin_id=begin,
            end_id=self.tokenizer.end_id,
            max_length=self.translator.context,
        )
        scores = score_pairs(
            self.translator, pairs.pairs, pad_id=self.tokenizer.pad_id, device=self.device, autocast=self.autocast
        )
        return Encoded(pairs.indices, scores, len(rows) - len(pairs.indices))


def _clean(text: str) -> str:
    """A text as those of training were cleaned: one normal form, no control characters, single spaces."""
    return " ".join(clean_text(text, _CLEANING).text.split())


def _only(found: Encoded, both: Sequence[int]) -> LabelScores:
    place = {index: number for number, index in enumerate(found.indices)}
    chosen = [place[index] for index in both]
    return LabelScores(*(values[chosen] for values in found.scores))


def _columns(translations: Sequence[str], references: Sequence[str], cut: Tokenization) -> Array:
    """What chrF and BLEU count of each sentence, float64 (N, C)."""
    pairs = zip(translations, references, strict=True)
    return np.array([[*chrf_counts(*pair), *bleu_counts(*pair, cut)] for pair in pairs], dtype=np.float64)


def _of_sums(sums_RC: Array) -> dict[str, Array]:
    return {"chrf": chrf(sums_RC[:, : 3 * CHRF_ORDER]), "bleu": bleu(sums_RC[:, 3 * CHRF_ORDER :])}


def _pairs(files: Sequence[str], columns: Sequence[str]) -> tuple[list[ParallelRow], Counter[str]]:
    """The pairs of files, and how many rows were set aside for which reason."""
    named = [int(name) if name.isdecimal() else name for name in columns]
    chosen = ParallelColumns(source=named[0], target=named[1]) if named else ParallelColumns()
    ledger, rows = LabelledLedger(), list[ParallelRow]()
    try:
        for item in read_pairs(files, chosen, ledger, side="test"):
            if not isinstance(item, SetAside):
                rows.append(item)
    except GroundupError as error:
        if error.code == "E-DATA-105":
            error.fix = "--columns SOURCE TARGET   (their names, or their numbers from 1 where lines have no names)"
        raise
    aside = Counter(dict(ledger.set_aside))
    require_measurable(files, len(rows), ledger, aside, MALFORMED_LIMIT)
    return rows, aside


def _numbered(files: Sequence[str | Path], column: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """One column of tab-separated lines without names."""
    rows: list[dict[str, Any]] = []
    aside: Counter[str] = Counter()
    for source in open_sources([str(file) for file in files], [])[0]:
        for line, fields, problem in _tabbed_lines(source):
            text = (fields or {}).get(column, "").strip()
            if text:
                rows.append({"file": source.name, "line": line, "text": text})
            else:
                aside[problem or f"no text in column {column}"] += 1
    return rows, dict(aside)
