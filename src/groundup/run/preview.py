"""What the model will see, before it is trained: rendered rows for `groundup data show`, and a recipe's data
prepared into a folder for `groundup prepare RECIPE`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from groundup.contract import IGNORE
from groundup.data.labelled_examples import Example
from groundup.data.labelled_rows import LabelledRow
from groundup.data.mask import Masking
from groundup.errors import GroundupError
from groundup.recipe.tree import DEFAULT_CONTEXT, LABELLED_CONTEXT, ChatData, LabelledData, Recipe, TextData
from groundup.run import models
from groundup.run.chats import prepare_chats
from groundup.run.entry import read_recipe
from groundup.run.growing import grown
from groundup.run.labels import PreparedLabels, prepare_labels
from groundup.run.language import tokenizer_of_chats, tokenizer_of_labels
from groundup.run.preview_networks import RowsShown
from groundup.run.texts import PreparedTexts, Say, prepare_texts
from groundup.text.chat import Rendered
from groundup.text.tokenizer import AnyTokenizer


def preview_rows(recipe_path: str, rows: int, overrides: Sequence[str]) -> RowsShown:
    """The first rows of a recipe's training data as they will be learnt."""
    recipe = read_recipe(Path(recipe_path), overrides)
    base = _base(recipe)
    context = _context(recipe, base)
    with tempfile.TemporaryDirectory(prefix="groundup-show-") as folder:
        if isinstance(recipe.data, ChatData):
            tokenizer = base.tokenizer if base else tokenizer_of_chats(recipe, Path(folder), lambda line: None)
            template = base.chat if base else None
            chats = prepare_chats(recipe, tokenizer, template, context=context, folder=None, show=rows)
            return RowsShown(chats.shown, tokenizer, chats.ledger, sum(chats.ledger["fit"].values()))
        if isinstance(recipe.data, LabelledData):
            labels, tokenizer = prepared_labels(recipe, Path(folder))
            part = labels.parts["train"]
            pairs = zip(part.rows[:rows], part.examples[:rows], strict=True)
            shown = [_labelled(row, example) for row, example in pairs]
            return RowsShown(shown, tokenizer, labels.ledger, len(part.rows))
        texts = prepare_texts(recipe, Path(folder), base.tokenizer if base else None, say=lambda line: None)
        shown = []
        for documents in texts.train.values():
            for index in range(min(rows - len(shown), documents.num_documents)):
                ids = [int(i) for i in documents.document(index)[: context + 1]]
                if texts.masking is not None:
                    shown.append(_hidden(ids[:context], texts.masking, texts.tokenizer, recipe.seed))
                    continue
                text = texts.tokenizer.decode(ids, skip_specials=False)
                # the first token has nothing before it to be predicted from
                shown.append(Rendered(ids, [False] + [True] * (len(ids) - 1), [-1] * len(ids), text))
        ledger = {name: card.get("ledger", {}) for name, card in texts.cards.items()}
        total = sum(documents.num_documents for documents in texts.train.values())
        return RowsShown(shown, texts.tokenizer, ledger, total)


def prepared_labels(recipe: Recipe, folder: Path) -> tuple[PreparedLabels, AnyTokenizer]:
    """The labelled rows of a recipe as its model will read them, and the tokenizer."""
    base = _base(recipe)
    tokenizer = base.tokenizer if base else tokenizer_of_labels(recipe, folder, lambda line: None)
    context = min(_context(recipe, base), LABELLED_CONTEXT)
    return prepare_labels(recipe, tokenizer, context=context, folder=None), tokenizer


def _base(recipe: Recipe) -> models.Described | None:
    """What the recipe starts from, with the tokens that it adds."""
    if recipe.init_from is None:
        return None
    return grown(models.load_described(Path(recipe.init_from))[0], recipe.adapters)[0]


def _context(recipe: Recipe, base: models.Described | None) -> int:
    own = base.options.context if base else DEFAULT_CONTEXT
    return recipe.data.context or recipe.language.context or own


def answer_of(row: LabelledRow) -> str:
    """What is right of a labelled row."""
    return ", ".join(row.labels) if row.labels else row.answer


def _hidden(ids: list[int], masking: Masking, tokenizer: AnyTokenizer, seed: int) -> Rendered:
    """A text with some of its tokens hidden; the chosen ones are predicted."""
    tokens = np.array(ids, dtype=np.int64)
    given, target = masking.apply(tokens, np.ones(len(ids), dtype=np.bool_), np.random.default_rng(seed))
    text = tokenizer.decode(given.tolist(), skip_specials=False)
    return Rendered(given.tolist(), (target != IGNORE).tolist(), [-1] * len(ids), text)


def _labelled(row: LabelledRow, example: Example) -> Rendered:
    """A labelled row as it will be read; no token of it is predicted, its answer stands in the text."""
    ids = [int(id) for piece in example.pieces for id in piece.ids]
    return Rendered(ids, [False] * len(ids), [-1] * len(ids), f"{row.text}  →  {answer_of(row)}")


def prepare_recipe_data(recipe_path: str, overrides: Sequence[str], out: Path, workers: int, say: Say) -> PreparedTexts:
    """Prepare a text recipe's data into `out`, tokenizer included, for `data.prepared`."""
    recipe = read_recipe(Path(recipe_path), overrides)
    if not isinstance(recipe.data, TextData):
        raise GroundupError(
            "E-USE-042",
            f"groundup prepare is for running text, and the data of this recipe is {recipe.data.kind}",
            where=recipe_path,
            why="such data is read and checked in a moment whenever it is trained on",
            fix="groundup data show RECIPE   (shows what training will see)",
            exit_code=2,
        )
    base = _base(recipe)
    texts = prepare_texts(recipe, out, base.tokenizer if base else None, say=say, workers=workers)
    texts.tokenizer.save(out)
    return texts
