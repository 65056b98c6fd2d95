"""Training texts before and after the noise that a recipe asks for, for `groundup data show --augment`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from groundup.data import labelled_stream, parallel_stream
from groundup.data.labelled_examples import Example
from groundup.recipe.tree import LabelledData, PairData
from groundup.run.entry import read_recipe
from groundup.run.preview import answer_of, prepared_labels
from groundup.run.translation import translation_work
from groundup.text.tokenizer import AnyTokenizer


class RowChanged(NamedTuple):
    """A row's ids before and after the noise, and its answer, which stays as it is."""

    answer: str
    before: list[int]
    after: list[int]


class RowsChanged(NamedTuple):
    """The first rows of a training set, the changes that the recipe asks for, and the tokenizer."""

    rows: list[RowChanged]
    changes: dict[str, float]
    tokenizer: AnyTokenizer


def preview_noise(recipe_path: str, rows: int, overrides: Sequence[str]) -> RowsChanged:
    """The first training rows of labelled texts or pairs, with the noise that the first epoch would put on them if it
    took them in this order."""
    recipe = read_recipe(Path(recipe_path), overrides)
    data, shown = recipe.data, list[RowChanged]()
    with tempfile.TemporaryDirectory(prefix="groundup-show-") as folder:
        if isinstance(data, LabelledData):
            labels, tokenizer = prepared_labels(recipe, Path(folder))
            part = labels.parts["train"]
            for place, (row, example) in enumerate(zip(part.rows[:rows], part.examples[:rows], strict=True)):
                counters, after = (recipe.seed, 0, place), example
                if labels.noise is not None:
                    after = labelled_stream.noisy(example, labels.noise, counters)
                shown.append(RowChanged(answer_of(row), _ids(example), _ids(after)))
            return RowsChanged(shown, data.augment.chosen, tokenizer)
        assert isinstance(data, PairData)
        work = translation_work(recipe, Path(folder), say=lambda line: None)
        encoded, texts = work.pairs["train"], work.rows["train"]
        first = list(zip(encoded.pairs, encoded.indices, strict=True))[:rows]
        for place, (pair, index) in enumerate(first):
            counters, changed = (recipe.seed, 0, place), pair
            if work.noise is not None:
                changed = parallel_stream.noisy(pair, work.noise, counters)
            shown.append(RowChanged(texts[index].target, pair.source.tolist(), changed.source.tolist()))
        return RowsChanged(shown, data.augment.chosen, work.tokenizer)


def _ids(example: Example) -> list[int]:
    return [int(id) for piece in example.pieces for id in piece.ids]
