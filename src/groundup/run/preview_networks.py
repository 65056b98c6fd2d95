"""What networks that are no language models will see, before they are trained: rows of tables as numbers, images,
pairs as ids, and the first steps in an environment or moves on a board."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from groundup.data.boards import Boards, game_of
from groundup.data.environments import Environments, make
from groundup.data.image_operations import AugmentOptions
from groundup.data.image_options import ImageOptions
from groundup.data.image_preview import preview
from groundup.data.image_set import read_images
from groundup.data.table_options import TableOptions
from groundup.data.table_scaler import Preprocessor
from groundup.data.table_set import TablePart, read_table
from groundup.data.table_stream import TableStream, collate
from groundup.errors import printable
from groundup.evaluation.episodes import random_policy
from groundup.recipe.tree import EnvironmentData, GameData, ImageData, Recipe, TableData
from groundup.run.pictures import require_sheet
from groundup.run.prediction import room_options
from groundup.run.translation import translation_work
from groundup.text.chat import Rendered
from groundup.text.tokenizer import AnyTokenizer

SHOWN = 8
"""Numbers of an observation that are shown."""

NETWORK_KINDS = ("table", "images", "environment", "game")
"""The kinds of data that `preview_network` shows."""

Shown = dict[str, Any]


class RowsShown(NamedTuple):
    """The first rows of a training set as tokens, the tokenizer, the ledger, and how many rows the set has."""

    rows: list[Rendered]
    tokenizer: AnyTokenizer
    ledger: dict[str, Any]
    total: int


def preview_network(recipe: Recipe, rows: int, *, augment: bool, out: str | None) -> Shown:
    """The first training rows of a table or a set of images, random steps in an environment, or random moves of games.

    Args:
        recipe: checked.
        rows: how many.
        augment: of images: draw the sheet with what training changes below; of a table: also the numbers as training
            may change them.
        out: of images: where the sheet goes.

    Returns:
        title, facts {name: value}, answer (what the answer of a row is called), headers and rows: [{place, answer,
        cells: a line of texts and numbers under each of the headers}], total (how many rows there are; None where they
        have no end), ledger, sheet.
    """
    if isinstance(recipe.data, TableData):
        return _table(recipe.data, rows, recipe.seed if augment else None)
    if isinstance(recipe.data, ImageData):
        return _images(recipe.data, rows, augment, out)
    if isinstance(recipe.data, GameData):
        return _game(recipe.data, rows, recipe.seed)
    assert isinstance(recipe.data, EnvironmentData)
    return _environment(recipe.data, rows, recipe.seed)


def _found(title: str, facts: Shown, answer: str, headers: list[str], rows: list[Shown], **more: Any) -> Shown:
    empty: Shown = {"total": None, "ledger": {}, "sheet": None}
    return {"title": title, "facts": facts, "answer": answer, "headers": headers, "rows": rows} | empty | more


def _table(data: TableData, rows: int, seed: int | None) -> Shown:
    """With a seed, also what the noise of training may make of each row."""
    table = read_table(room_options(data, TableOptions), [])
    part, names, embedded = table.parts["train"], table.preprocessor.names, table.preprocessor.embedded
    facts = {
        "features": f"{len(names)} numbers from {len(table.columns.features) - len(embedded)} columns",
        "embedded": ", ".join(f"{name} ({codes} codes)" for name, codes in zip(embedded, table.preprocessor.codes)),
        "target": ", ".join(table.columns.target),
        "labels": ", ".join(f"{label} {count}" for label, count in table.counts.items()),
    }
    changed = part if seed is None else _changed(part, data, table.preprocessor, rows, seed)
    headers = ["feature", "cell", "number", "in training"][: 3 if seed is None else 4]
    shown = []
    for number, row in enumerate(part.rows[:rows]):
        numbers = zip([*names, *embedded], _seen(part, number), _seen(changed, number), strict=True)
        cells = [[name, str(_raw(row.cells, name)), x, "" if y == x else f"→ {y:.4g}"] for name, x, y in numbers]
        cells = [line[: len(headers)] for line in cells]
        shown.append({"place": row.place, "answer": row.answer, "cells": cells})
    if seed is not None:
        facts["noise"] = f"standard deviation {data.noise:g}; swap {data.swap:g} of the features"
    facts = {name: value for name, value in facts.items() if value}
    more = {"total": len(part.rows), "ledger": table.card, "findings": table.findings}
    return _found("table", facts, "answer", headers, shown, **more)


def _changed(part: TablePart, data: TableData, preprocessor: Preprocessor, rows: int, seed: int) -> TablePart:
    """The first rows with noise on them."""
    changes: dict[str, Any] = {"noise": data.noise, "swap": data.swap, "feature_of": preprocessor.feature_of}
    stream = TableStream(part, task=data.task, rows=1, seed=seed, numeric=len(preprocessor.numeric), **changes)
    chosen = np.arange(min(rows, len(part.rows)))
    batch = collate(part, chosen, data.task)
    stream.change(batch, chosen, 0, 0)
    codes = batch["category_BK"].numpy() if "category_BK" in batch else None
    return part.first(len(chosen))._replace(features_NF=batch["features_BF"].numpy(), category_NK=codes)


def _seen(part: TablePart, number: int) -> list[float]:
    """What goes in of a row: its features, then its codes."""
    codes: list[float] = [] if part.category_NK is None else part.category_NK[number].tolist()
    return [*map(float, part.features_NF[number]), *codes]


def _raw(cells: Any, name: str) -> Any:
    """The cell that a feature was made of; a category's columns are named COLUMN=CATEGORY."""
    source = (
        name if name in cells else next((column for column in cells if name.startswith((f"{column}=", column))), "")
    )
    return cells.get(source, "")


def _images(data: ImageData, rows: int, augment: bool, out: str | None) -> Shown:
    sheet = None if out is None else require_sheet(out)
    with tempfile.TemporaryDirectory(prefix="groundup-show-") as folder:
        images = read_images(room_options(data, ImageOptions), [], Path(folder))
        if sheet is not None:
            preview(images, data.augment if augment else AugmentOptions(), sheet, number=max(rows, 16))
        form, preparation = images.preparation.form, images.preparation
        facts = {
            "size": f"{form.height} × {form.width} pixels, {form.channels} channels, resize {form.resize}",
            "normalise": preparation.normalise,
            "mean": ", ".join(f"{one:.4f}" for one in preparation.mean),
            "deviation": ", ".join(f"{one:.4f}" for one in preparation.deviation),
            "augment": ", ".join(one.kind for one in data.augment.operations),
            "labels": ", ".join(preparation.labels),
        }
        train = [row for row in images.rows if row.side == "train"]
        shown = [
            {"place": row.place, "answer": row.answer, "cells": _pixels(images.images[row.number])}
            for row in train[:rows]
        ]
    facts = {name: value for name, value in facts.items() if value}
    headers = ["channel", "range", "mean"]
    more = {"total": len(train), "ledger": images.card, "sheet": out, "findings": images.findings}
    return _found("images", facts, "label", headers, shown, **more)


def _pixels(image_CHW: Any) -> list[list[Any]]:
    """The least, greatest and mean byte of each channel."""
    return [
        [str(number), f"{int(one.min())} to {int(one.max())}", float(one.mean())]
        for number, one in enumerate(image_CHW)
    ]


def _environment(data: EnvironmentData, rows: int, seed: int) -> Shown:
    options = data.environment.model_copy(update={"count": 1})
    probe = make(options)
    spaces = {"observations": probe.observation_space, "actions": probe.action_space}
    limit = probe.spec.max_episode_steps
    probe.close()
    environments = Environments(options, seed)
    policy, generator = random_policy(environments), torch.Generator().manual_seed(seed)
    steps = []
    for number in range(1, rows + 1):
        taken = environments.step(policy(environments.observation_EO, generator))
        ended = "terminated" if taken.terminated_E[0] else "truncated" if taken.truncated_E[0] else ""
        steps.append(
            {
                "place": f"step {number}" + (f", {ended}" if ended else ""),
                "answer": f"{float(taken.reward_E[0]):g}",
                "cells": [
                    ["observation", _numbers(taken.observation_EO[0])],
                    ["action", _numbers(taken.action[0])],
                ],
            }
        )
    environments.close()
    facts = {name: printable(str(space), 200) for name, space in spaces.items()}
    facts |= {"goes in": f"{list(environments.observation_shape)} numbers", "time limit": f"{limit} steps"}
    return _found(f"environment {options.id}", facts, "reward", ["step", "numbers"], steps)


def _game(data: GameData, rows: int, seed: int) -> Shown:
    """Random legal moves, and the boards that they were made on: what a search would choose from."""
    game, random = game_of(data.game), np.random.default_rng(seed)
    board_1HW, number, move, steps = game.start(1), 1, 0, list[Shown]()
    for _ in range(rows):
        move += 1
        chosen_1 = random.choice(np.flatnonzero(game.legal(board_1HW)[0]), size=1)
        cells = [*_squares(board_1HW), ["move", str(chosen_1[0])]]
        board_1HW = game.play(board_1HW, chosen_1)
        over_1, worth_1 = game.outcome(board_1HW)
        ended = ("won" if worth_1[0] < 0 else "drawn") if over_1[0] else ""
        steps.append({"place": f"game {number}, move {move}", "answer": ended, "cells": cells})
        if ended:
            board_1HW, number, move = game.start(1), number + 1, 0
    facts = {
        "board": f"{game.rows} × {game.columns} squares, {game.in_a_row} in a line win",
        "moves": f"0 to {game.moves - 1}, " + ("a column" if game.falls else "a square, row by row"),
        "goes in": f"{list(game.shape)} numbers: own stones, the other's, empty squares",
        "symmetries": f"{len(game.symmetries.square_YS)}",
    }
    return _found(f"game {game.name}", facts, "outcome", ["board", "x moves next"], steps)


def _squares(board_1HW: Boards) -> list[list[str]]:
    """A line for each row of a board: x for the stones of the player to move, o for the other's."""
    return [[f"row {number}", " ".join(".xo"[stone] for stone in line)] for number, line in enumerate(board_1HW[0])]


def _numbers(values: torch.Tensor) -> str:
    flat = values.flatten().tolist()
    return ", ".join(f"{one:.4g}" for one in flat[:SHOWN]) + (" …" if len(flat) > SHOWN else "")


def preview_pairs(recipe: Recipe, rows: int) -> RowsShown:
    """The first training pairs as they will be learnt: the ids of the source, what begins the target, and its ids,
    which alone are learned."""
    with tempfile.TemporaryDirectory(prefix="groundup-show-") as folder:
        work = translation_work(recipe, Path(folder), say=lambda line: None)
    encoded, texts = work.pairs["train"], work.rows["train"]
    shown = []
    for pair, index in list(zip(encoded.pairs, encoded.indices, strict=True))[:rows]:
        ids = [*pair.source.tolist(), int(pair.tokens[0]), *pair.target.tolist()]
        learned = [False] * (len(pair.source) + 1) + [True] * len(pair.target)
        text = f"{texts[index].source}  →  {texts[index].target}"
        shown.append(Rendered(ids, learned, [-1] * len(ids), text))
    return RowsShown(shown, work.tokenizer, work.card, len(encoded.pairs))
