"""Tables and images with answers as work for a run: labels or numbers are predicted by a classic network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contract import Batch, Objective, Source
from groundup.data.chat_rows import SetAside
from groundup.data.image_options import ImageOptions
from groundup.data.image_set import ImagePart, ImageSet, Preparation, read_images
from groundup.data.image_stream import ImageStream, image_batches
from groundup.data.labelled_options import Side
from groundup.data.table_options import TableOptions
from groundup.data.table_set import TablePart, TableSet, read_table
from groundup.data.table_stream import TableStream, table_batches
from groundup.evaluation.metrics import LabelScores
from groundup.models.categories import embedding_width
from groundup.objectives import OBJECTIVES
from groundup.recipe.tree import ImageData, Recipe, TableData
from groundup.run.answers import METRICS_OF, ROWS_AT_ONCE, Rows, logits_of, row_results, score_rows
from groundup.run.cards import write_card, write_quarantine
from groundup.run.deciding import decided, held_rows
from groundup.run.measuring import FIRST_ROWS, evaluate_rows
from groundup.run.network_work import Beginning, NetworkWork, begin, require_whole_batches
from groundup.run.networks import NetworkSaid, one_row
from groundup.run.results import Scores
from groundup.run.work import Say

MANY_ROWS = 512
"""Rows of an evaluation that are computed at once, where a row is small."""


@dataclass(frozen=True)
class TableRows:
    """Rows of a table to answer; implements answers.Rows."""

    part: TablePart
    task: str

    def __len__(self) -> int:
        return len(self.part.features_NF)

    @property
    def targets(self) -> NDArray[Any]:
        """What is right, as the network answers."""
        assert self.part.target is not None
        return self.part.target

    def batches(self) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
        """In the order of the rows."""
        for batch in table_batches(self.part, task=self.task, rows=MANY_ROWS):  # type: ignore[arg-type]
            yield batch, batch["row_B"].numpy()


@dataclass(frozen=True)
class ImageRows:
    """Images to answer; implements answers.Rows."""

    part: ImagePart
    preparation: Preparation
    task: str

    def __len__(self) -> int:
        return len(self.part.index)

    @property
    def targets(self) -> NDArray[Any]:
        """What is right."""
        assert self.part.answers is not None
        found: NDArray[Any] = self.part.answers[self.part.index]
        return found

    def batches(self) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
        """In the order of the images."""
        return image_batches(self.part, self.preparation, rows=ROWS_AT_ONCE)


@dataclass(kw_only=True)
class PredictionWork(NetworkWork):
    """A table or a set of images, of which one is there."""

    table: TableSet | None = None
    images: ImageSet | None = None

    def source(self) -> Source:
        """A fresh training stream."""
        data, rows, seed = self.recipe.data, self.recipe.budget.micro_batch or 1, self.recipe.seed
        if self.images is not None:
            assert isinstance(data, ImageData)
            return ImageStream(
                self.images.part("train"),
                self.images.preparation,
                rows=rows,
                seed=seed,
                balanced=data.balanced,
                augment=data.augment,
            )
        assert self.table is not None and isinstance(data, TableData)
        return TableStream(
            self.table.parts["train"],
            task=data.task,
            rows=rows,
            seed=seed,
            balanced=data.balanced,
            noise=data.noise,
            numeric=len(self.table.preprocessor.numeric),
            swap=data.swap,
            feature_of=self.table.preprocessor.feature_of,
        )

    @property
    def rows_per_epoch(self) -> int:
        """Training rows."""
        return len(self.rows("train"))

    def rows(self, side: Side) -> TableRows | ImageRows:
        """One side of the data, to answer."""
        if self.images is not None:
            return ImageRows(self.images.part(side), self.images.preparation, self.said.kind)
        assert self.table is not None
        return TableRows(self.table.parts[side], self.said.kind)

    def first_rows(self, side: Side, most: int) -> Rows:
        """The first rows of a side."""
        if self.images is not None:
            part = self.images.part(side)
            return ImageRows(replace(part, index=part.index[:most]), self.images.preparation, self.said.kind)
        assert self.table is not None
        return TableRows(self.table.parts[side].first(most), self.said.kind)

    @property
    def measured(self) -> Side:
        """The side that the closing evaluation is made on: test, or validation where there is no test."""
        return "test" if len(self.rows("test")) else "validation"

    def objective(self, model: nn.Module) -> Objective:
        """The objective that the recipe names; label counts are for balanced weights."""
        options = self.recipe.objective
        assert options is not None
        if options.kind != "classify":
            return OBJECTIVES[options.kind][1](options, model)
        return OBJECTIVES["classify"][1](options, model, self.counts())

    def counts(self) -> dict[str, int]:
        """Training rows of each label."""
        if self.table is not None:
            return self.table.counts
        found = np.bincount(self.rows("train").targets, minlength=len(self.said.labels))
        return dict(zip(self.said.labels, found.tolist(), strict=True))

    def example(self) -> dict[str, Tensor]:
        """A batch of one row."""
        return one_row(self.said, self.device)

    @property
    def _how(self) -> dict[str, Any]:
        return {"device": self.device, "autocast": self.dtype}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """The validation rows."""
        return evaluate_rows(model, self.rows("validation"), **self._how)

    def score(self, model: nn.Module, *, final: bool) -> Scores:
        """The rows of the measured side."""
        side = self.measured
        rows = self.rows(side) if final else self.first_rows(side, FIRST_ROWS)
        if not len(rows):
            return Scores({})
        scores = score_rows(model, rows, **self._how)
        return Scores({side: self._in_units(scores)}, partial=not final)

    def _in_units(self, scores: LabelScores) -> LabelScores:
        """Squared errors in the unit of the table, where the network learns a scaled target."""
        if self.table is None or self.said.kind != "regress":
            return scores
        return scores._replace(nats=scores.nats * self.table.preprocessor.unit**2)

    def metric_names(self, scores: Any) -> Sequence[str]:
        """By the task."""
        return METRICS_OF[self.said.kind]

    def results(self, model: nn.Module) -> dict[str, Any]:
        """Confusions, curves and mistakes, or the spread of errors; and what decided a few of the answers."""
        side = self.measured
        rows, validation = self.rows(side), self.rows("validation")
        if not len(rows):
            return {}
        said = logits_of(model, rows, **self._how)
        found = row_results(
            model,
            rows,
            said,
            self.said.labels,
            data=side,
            texts=self._names(side),
            validation=validation if side == "test" and len(validation) else None,
            restore=np.asarray if self.table is None else self.table.preprocessor.restore_target,
            **self._how,
        )
        return found | decided(model, self, partial(held_rows, model, self, said))

    def _names(self, side: Side) -> list[str]:
        """Where each row stands, for the report."""
        if self.images is not None:
            return [row.place for row in self.images.rows if row.side == side]
        assert self.table is not None
        return [row.place for row in self.table.parts[side].rows]


def prediction_work(recipe: Recipe, folder: Path, *, say: Say) -> PredictionWork:
    """Read the data and fill in every number that does not need a measurement of speed."""
    begun = begin(recipe)
    data, table, images = begun.recipe.data, None, None
    aside: list[SetAside] = []
    try:
        if isinstance(data, ImageData):
            images = read_images(room_options(data, ImageOptions), aside, folder / "data")
            labels = images.preparation.labels
            said = image_network(begun, images, kind=data.task, outputs=len(labels) or 1)
        else:
            table = read_table(room_options(data, TableOptions), aside)
            said = _table_network(begun, table)
    finally:
        write_quarantine(folder / "data", aside)
    found = table if table is not None else images
    assert found is not None
    write_card(folder / "data", found.card)
    for line in found.findings:
        say(f"note: {line}")
    work = PredictionWork(**begun.settled(said, found.card), table=table, images=images)
    require_whole_batches(work)
    return work


def image_network(begun: Beginning, images: ImageSet, *, kind: str, outputs: int) -> NetworkSaid:
    """What the model folder of a network that reads images will say."""
    form = images.preparation.form
    return NetworkSaid(
        family=begun.family,
        options=begun.options,
        shape=(form.channels, form.height, form.width),
        outputs=outputs,
        kind=kind,
        labels=list(images.preparation.labels),
        reads="image_BCHW",
        preparation={"kind": "images", **images.preparation.as_dict()},
    )


def _table_network(begun: Beginning, table: TableSet) -> NetworkSaid:
    data = begun.recipe.data
    assert isinstance(data, TableData)
    return NetworkSaid(
        family=begun.family,
        options=begun.options,
        shape=(table.parts["train"].features_NF.shape[1],),
        outputs=len(table.labels) or 1,
        kind=data.task,
        labels=table.labels,
        reads="features_BF",
        preparation={
            "kind": "table",
            "columns": table.preprocessor.to_dict(),
            "target": list(table.columns.target),
            "options": room_options(data, TableOptions).model_dump(),
        },
        # code 0 stands for no category, and makes no vector wider
        embeddings=[(codes, embedding_width(codes - 1)) for codes in table.preprocessor.codes],
    )


def room_options(data: Any, kind: Any) -> Any:
    """The part of a data section that the room of the data knows."""
    return kind(**{name: dict(data)[name] for name in kind.model_fields})
