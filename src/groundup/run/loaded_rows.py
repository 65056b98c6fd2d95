"""Networks that answer rows of tables, or images, with labels or numbers, loaded and ready to be asked.

Rows come from files or from Python; what makes them into numbers stands in preparation.json beside the weights.

Shapes: N rows or images, C channels, H height, W width, L labels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.data.chat_rows import SetAside
from groundup.data.image_arrays import Block
from groundup.data.image_check import ImageRow
from groundup.data.image_decode import shape_images
from groundup.data.image_files import find_images
from groundup.data.image_load import Found, answers_of, load, look
from groundup.data.image_options import ImageLimits, ImageOptions
from groundup.data.image_set import ImagePart, Preparation, read_unlabelled
from groundup.data.labelled_rows import LabelledLedger
from groundup.data.table_options import TableOptions
from groundup.data.table_rows import TableRow
from groundup.data.table_scaler import Preprocessor
from groundup.data.table_set import TablePart, make_part, read_rows_to_predict
from groundup.errors import GroundupError, printable
from groundup.evaluation import METRICS, choose_metrics, compare, measure
from groundup.evaluation.metrics import LabelScores
from groundup.models.predictor import Predictor
from groundup.run.answers import METRICS_OF, Rows, logits_of, score_rows
from groundup.run.evaluation_texts import MALFORMED_LIMIT
from groundup.run.loaded_network import LoadedNetworkModel, malformed_preparation
from groundup.run.measuring_rows import another_question, measured, require_measurable
from groundup.run.networks import LoadedNetwork
from groundup.run.predicting import answer_of
from groundup.run.prediction import ImageRows, TableRows

SHOWN = 5


class Read(NamedTuple):
    """Rows of files that wait for an answer: where each stands, the rows, and what was set aside."""

    places: list[dict[str, Any]]
    rows: Rows
    set_aside: Counter[str]


class Measured(NamedTuple):
    """Labelled rows of files: where each stands, how right the network is, and what was set aside."""

    places: list[str]
    scores: LabelScores
    set_aside: Counter[str]


class LoadedPredictor(LoadedNetworkModel):
    """A network that answers rows; what a row is, the subclasses know."""

    does = "answers rows with labels or numbers"
    use = "groundup predict {} --files FILE"
    row: ClassVar[str] = ""

    def __init__(self, loaded: LoadedNetwork, *, device: torch.device, name: str, autocast: torch.dtype | None) -> None:
        super().__init__(loaded.model, device=device, name=name, autocast=autocast)
        assert isinstance(loaded.model, Predictor)
        self.said, self.predictor = loaded.said, loaded.model

    @property
    def labels(self) -> list[str]:
        """In the order of the outputs; none for numbers."""
        return list(self.said.labels)

    @abstractmethod
    def _given(self, data: Any) -> Rows:
        """Rows that were handed over in Python."""

    @abstractmethod
    def _read(self, files: Sequence[str]) -> Read:
        """Rows of files, without their answers."""

    @abstractmethod
    def _measure(self, files: Sequence[str]) -> Measured:
        """Rows of files with their answers, and the scores of the network on them."""

    def predict(self, data: Any) -> list[dict[str, Any]]:
        """What the network says of each row: {label, probability, probabilities of the five likeliest}, {labels,
        probabilities}, or {value} in the unit of the data.

        Args:
            data: of a table rows {column: cell}; of images uint8 (N, C, H, W) or (N, H, W), of any size; or the names
                of files for either, as in `predict_files`.

        Raises:
            GroundupError: E-EVAL-065 it is something else; E-DATA-112, -114, -115, -116 for cells that cannot be
                used, all of them at once.
        """
        if isinstance(data, str | Path) or (
            isinstance(data, Sequence) and any(isinstance(d, str | Path) for d in data)
        ):
            return self.predict_files([data] if isinstance(data, str | Path) else data)[0]
        return self._answers(self._given(data))

    def predict_files(
        self, files: Sequence[str | Path], *, column: str | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """`predict` for the rows of files, each with its place, and how many were set aside for which reason.

        Raises:
            GroundupError: E-EVAL-064 if none is left; E-EVAL-065 for a `column`, which only texts need; E-DATA-001,
                E-DATA-110 and what reading the files raises.
        """
        if column is not None:
            raise self._unfit(f"the column {printable(column)!r} was named as the text", "leave --text out")
        read = self._read([str(file) for file in files])
        said = self._answers(read.rows)
        return [place | answer for place, answer in zip(read.places, said, strict=True)], dict(read.set_aside)

    def evaluate(
        self,
        files: Sequence[str | Path],
        metrics: Sequence[str] = (),
        against: Any = None,
        *,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Measure the network on files whose rows have answers; the same fields as of LoadedModel.evaluate.

        Args:
            files: as in a recipe's `data.files`; all their rows are measured, but for images that are named as
                training ones where others are not.
            metrics: names; none means label_loss and accuracy, or squared_error in the unit of the data.
            against: another predictor of the same labels, judged on the rows that both can read.
            seed: of the bootstrap.

        Raises:
            GroundupError: E-EVAL-001, 002 for metrics, 004 nothing to measure, 005 too many malformed rows, 023 the
                other model answers another question; what reading the files raises.
        """
        if against is not None and not self._alike(against):
            raise another_question(self.name, f"{self.said.kind} of {self.row}", against.name)
        own = METRICS_OF[self.said.kind]
        names = choose_metrics(metrics, [METRICS[own[0]].data]) if metrics else list(own)
        given = [str(file) for file in files]
        mine = self._measure(given)
        found = measured(self.name, against.name if against else None, given, len(mine.places), mine.set_aside)
        found["metrics"] = {n: measure(n, mine.scores, seed=seed).as_dict() | {"unit": METRICS[n].unit} for n in names}
        if against is not None:
            other = against._measure(given)
            both = set(mine.places) & set(other.places)
            if not both:
                raise another_question(self.name, "it can read no row that the other can", against.name)
            after, before = (_only(one, both) for one in (mine, other))
            found["comparison"] = [line.as_dict() for line in compare(before, after, names, seed=seed)]
            found["compared_rows"] = len(both)
        return found

    def _alike(self, other: object) -> bool:
        return (
            isinstance(other, LoadedPredictor)
            and type(other) is type(self)
            and (other.said.kind, other.said.labels) == (self.said.kind, self.said.labels)
        )

    def _answers(self, rows: Rows) -> list[dict[str, Any]]:
        if not len(rows):
            return []
        said = logits_of(self.predictor, rows, **self._how)
        return [answer_of(self.predictor, torch.from_numpy(np.asarray(one))) for one in self._restored(said)]

    def _restored(self, said: NDArray[np.float64]) -> NDArray[np.float64]:
        return said

    @property
    def _how(self) -> dict[str, Any]:
        return {"device": self.device, "autocast": self.autocast}

    def _unfit(self, what: str, fix: str) -> GroundupError:
        return GroundupError(
            "E-EVAL-065",
            f"{what}, and this model answers {self.row}",
            where=printable(self.name),
            why="a network reads what it was trained on and nothing else",
            fix=fix,
            exit_code=2,
        )

    def _known(self, rows: Sequence[Any], aside: Counter[str]) -> list[Any]:
        """The rows whose labels the network has; the others are counted."""
        kept = []
        for row in rows:
            unknown = sorted(set(row.labels) - set(self.said.labels)) if self.said.labels else []
            if unknown:
                aside[f"the model has no label {printable(unknown[0])}"] += 1
            else:
                kept.append(row)
        return kept


def _only(found: Measured, both: set[str]) -> LabelScores:
    """The scores of some rows, in the order of their places."""
    order = sorted((place, number) for number, place in enumerate(found.places) if place in both)
    chosen = [number for _, number in order]
    return LabelScores(*(values[chosen] for values in found.scores))


def _counted(aside: Sequence[SetAside]) -> Counter[str]:
    return Counter(item.reason for item in aside)


class LoadedTablePredictor(LoadedPredictor):
    """A network that answers rows of a table.

    Attributes:
        preprocessor: how cells become numbers, as fitted in training.
    """

    row = "rows of a table"

    def __init__(self, loaded: LoadedNetwork, **how: Any) -> None:
        super().__init__(loaded, **how)
        told: Mapping[str, Any] = loaded.said.preparation
        try:
            self.preprocessor = Preprocessor.from_dict(told["columns"])
            self.options = TableOptions.model_validate(told["options"])
            self.target = [str(name) for name in told["target"]]
            codes, vectors = self.preprocessor.codes, [number for number, _ in loaded.said.embeddings]
            if codes != vectors:
                raise ValueError(f"the categorical columns have {codes} codes, the network has {vectors} vectors")
        except (KeyError, TypeError, ValueError) as error:
            raise malformed_preparation(loaded, error) from error

    def _given(self, data: Any) -> Rows:
        if not isinstance(data, Sequence) or not all(isinstance(row, Mapping) for row in data):
            columns = ", ".join((*self.preprocessor.numeric, *self.preprocessor.categorical)[:SHOWN])
            raise self._unfit(
                f"{printable(type(data).__name__)} was handed over", f"give [{{column: cell}}], columns: {columns} …"
            )
        if not data:
            return TableRows(TablePart([], np.zeros((0, *self.said.shape), dtype=np.float32), None), self.said.kind)
        features, codes = self.preprocessor.transform(data), self.preprocessor.codes_of(data)
        return TableRows(TablePart([], features, None, codes), self.said.kind)

    def _read(self, files: Sequence[str]) -> Read:
        aside: list[SetAside] = []
        rows, _ = self.rows_of(files, aside, ())
        if not rows:
            raise GroundupError(
                "E-EVAL-064",
                f"no row is left to predict: {len(aside):,} were set aside",
                where="\n".join(f"{printable(a.file)}:{a.line}: {printable(a.reason)}" for a in aside[:SHOWN])
                or printable(", ".join(files)),
                why="a prediction needs a row whose cells can all be used",
                fix="mend the rows: groundup data check FILE   (shows what is in them)",
            )
        part = make_part(rows, self.preprocessor, self.options.task, self.said.labels, labelled=False)
        places: list[dict[str, Any]] = [{"file": row.file, "line": row.line} for row in rows]
        return Read(places, TableRows(part, self.said.kind), _counted(aside))

    def rows_of(
        self, files: Sequence[str], aside: list[SetAside], target: Sequence[str]
    ) -> tuple[list[TableRow], LabelledLedger]:
        """The rows of files; those set aside are added to `aside`. Raises E-DATA-110 for a missing column."""
        try:
            return read_rows_to_predict(files, self.preprocessor, self.options, aside, target=target)
        except GroundupError as error:
            if error.code == "E-DATA-110":  # what a recipe could say does not help a model that is trained
                error.fix = (
                    "add the columns; an unknown value stands there as an empty cell\n"
                    f"groundup inspect {printable(self.name)} --json   (lists all columns)"
                )
            raise

    def _measure(self, files: Sequence[str]) -> Measured:
        aside: list[SetAside] = []
        rows, ledger = self.rows_of(files, aside, self.target)
        reasons = _counted(aside)
        kept = self._known(rows, reasons)
        require_measurable(files, len(kept), ledger, reasons, MALFORMED_LIMIT)
        part = make_part(kept, self.preprocessor, self.options.task, self.said.labels)
        scores = score_rows(self.predictor, TableRows(part, self.said.kind), **self._how)
        if self.said.kind == "regress":  # squared errors in the unit of the table
            scores = scores._replace(nats=scores.nats * self.preprocessor.unit**2)
        return Measured([row.place for row in kept], scores, reasons)

    def _restored(self, said: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.preprocessor.restore_target(said) if self.said.kind == "regress" else said


class LoadedImagePredictor(LoadedPredictor):
    """A network that answers images.

    Attributes:
        preparation: size, channels and scales that every image gets.
    """

    row = "images"

    def __init__(self, loaded: LoadedNetwork, **how: Any) -> None:
        super().__init__(loaded, **how)
        try:
            self.preparation = Preparation.from_dict(loaded.said.preparation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise malformed_preparation(loaded, error) from error

    def _rows(self, images_NCHW: NDArray[np.uint8], answers: NDArray[Any] | None = None) -> ImageRows:
        part = ImagePart(images_NCHW, np.arange(len(images_NCHW)), answers)
        return ImageRows(part, self.preparation, self.said.kind)

    def _given(self, data: Any) -> Rows:
        images = np.asarray(data)
        if images.ndim == 3:
            images = images[:, None]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not images[0:1].size:
            raise self._unfit(
                f"an array of shape {list(images.shape)} and type {images.dtype} was handed over",
                "give uint8 of shape (images, 1 or 3 channels, height, width) or (images, height, width), or files",
            )
        return self._rows(np.ascontiguousarray(shape_images(images, self.preparation.form)))

    def _read(self, files: Sequence[str]) -> Read:
        aside: list[SetAside] = []
        images, places = read_unlabelled(files, self.preparation, ImageLimits(), aside)
        return Read([{"path": place} for place in places], self._rows(images), _counted(aside))

    def _measure(self, files: Sequence[str]) -> Measured:
        form, ledger, aside = self.preparation.form, LabelledLedger(), list[SetAside]()
        regress = self.said.kind == "regress"
        options = ImageOptions(
            files=list(files), task="regress" if regress else "classify", size=[form.height, form.width]
        )
        found: Found = []
        for item in find_images(files, options, ledger, side="test"):
            if isinstance(item, SetAside):
                aside.append(item)
            else:
                found.append(item)
        trained = [item for item in found if item.side in ("train", "validation")]
        if len(trained) == len(found):
            trained = []  # they were asked for by name
        else:
            found = [item for item in found if item.side not in ("train", "validation")]
        _, found = look(found, options.limits, ledger, aside)
        images, rows = load(found, form, options, ledger, aside, None)
        reasons = _counted(aside)
        if trained:
            number = sum(len(item.images) if isinstance(item, Block) else 1 for item in trained)
            reasons["its name says that it is for training, and there are others for testing"] = number
        kept: list[ImageRow] = self._known(rows, reasons)
        require_measurable(files, len(kept), ledger, reasons, MALFORMED_LIMIT)
        answers = answers_of(kept, len(images), self.said.labels)
        part = ImagePart(images, np.array([row.number for row in kept], dtype=np.int64), answers)
        scores = score_rows(self.predictor, ImageRows(part, self.preparation, self.said.kind), **self._how)
        return Measured([row.place for row in kept], scores, reasons)
