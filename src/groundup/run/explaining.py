"""`groundup explain-prediction`: which row, image or text of which model is explained. How, is in explained.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from groundup.api import LoadedModel
from groundup.data.chat_rows import SetAside
from groundup.data.image_options import ImageLimits
from groundup.data.image_set import read_unlabelled
from groundup.errors import GroundupError, nearest, printable
from groundup.evaluation.attribution import STEPS
from groundup.models.heads import Headed
from groundup.models.predictor import Predictor
from groundup.run.explained import Explanation, explained
from groundup.run.explaining_inputs import Input, image_input, table_input, text_input
from groundup.run.loaded_network import LoadedNetworkModel
from groundup.run.loaded_rows import LoadedImagePredictor, LoadedPredictor, LoadedTablePredictor
from groundup.run.predicting import read_texts

EXPLAINED = ("classify", "multilabel", "regress")


def explain_prediction(
    loaded: LoadedModel | LoadedNetworkModel,
    *,
    text: str | None = None,
    files: Sequence[str] = (),
    row: int = 1,
    column: str | None = None,
    label: str | None = None,
    method: str = "integrated_gradients",
    steps: int = STEPS,
) -> Explanation:
    """What a model's answer to one input rests on.

    Args:
        loaded: what `groundup.load` gives, for images, rows of a table, or texts.
        text: the input itself; without it
        files: as for `predict`, of which
        row: this row or image is taken, from 1.
        column: of a table of texts, the one that holds them.
        label: to explain; None takes the likeliest.
        method: one of attribution.METHODS.
        steps: of integrated gradients.

    Raises:
        GroundupError: E-EVAL-070 a model that cannot be explained, -071 a score that is not finite, -072 an unknown
            label, -073 there is no such row, -074 an input of another kind; what reading the input raises.
    """
    model = _explicable(loaded)
    given = _ready(loaded, model, text, files, row, column)
    if label is not None and label not in model.labels:
        raise _no_label(loaded.name, label, model.labels)
    unit, zero = _unit(loaded)
    return explained(model, given, name=loaded.name, label=label, method=method, steps=steps, unit=unit, zero=zero)


def _ready(
    loaded: LoadedModel | LoadedNetworkModel,
    model: Headed | Predictor,
    text: str | None,
    files: Sequence[str],
    row: int,
    column: str | None,
) -> Input:
    """The input that is meant.

    Raises:
        GroundupError: E-EVAL-073 there is no such row, E-EVAL-074 a text that the model does not read; what reading the
            files raises.
    """
    if isinstance(loaded, LoadedModel):
        assert isinstance(model, Headed)
        words, place = (text, "the text given") if text is not None else _chosen_text(files, row, column)
        return text_input(model, loaded.tokenizer, words, place, loaded.device)
    if text is not None or column is not None:
        raise _unfit(loaded)
    assert isinstance(model, Predictor)
    aside: list[SetAside] = []
    if isinstance(loaded, LoadedTablePredictor):
        rows, _ = loaded.rows_of(files, aside, ())
        _require_row(files, row, len(rows), len(aside))
        scaling = loaded.options.preprocessing.scaling
        return table_input(model, loaded.said, loaded.preprocessor, scaling, rows[row - 1], loaded.device)
    assert isinstance(loaded, LoadedImagePredictor)
    images_NCHW, places = read_unlabelled(files, loaded.preparation, ImageLimits(), aside)
    _require_row(files, row, len(places), len(aside))
    image_CHW = np.ascontiguousarray(images_NCHW[row - 1])
    return image_input(model, loaded.preparation, image_CHW, places[row - 1], loaded.device)


def _chosen_text(files: Sequence[str], row: int, column: str | None) -> tuple[str, str]:
    """A text of files and where it stands.

    Raises:
        GroundupError: E-EVAL-073 there is no such row; E-EVAL-020 no row has a text.
    """
    rows, aside = read_texts(files, column)
    _require_row(files, row, len(rows), sum(aside.values()))
    chosen = rows[row - 1]
    return chosen["text"], f"{chosen['file']}:{chosen['line']}"


def _explicable(loaded: LoadedModel | LoadedNetworkModel) -> Headed | Predictor:
    """The network of a model whose answers can be explained. Raises E-EVAL-070."""
    model = loaded.predictor if isinstance(loaded, LoadedPredictor) else loaded.model
    if not isinstance(model, Headed | Predictor):
        what = "it writes text" if isinstance(loaded, LoadedModel) else f"it {loaded.does}"
    elif model.kind in EXPLAINED:
        return model
    else:
        what = f"its head is of kind {model.kind}"
    raise GroundupError(
        "E-EVAL-070",
        f"predictions of this model cannot be explained: {what}",
        where=printable(loaded.name),
        why="attributions need one number to explain: the score of a label, or a predicted number",
        fix=f"name a model of kind {', '.join(EXPLAINED)} (images, tables or texts)",
        exit_code=2,
    )


def _unit(loaded: LoadedModel | LoadedNetworkModel) -> tuple[float, float]:
    """Scale and zero of a predicted number in the unit of the data."""
    if not isinstance(loaded, LoadedTablePredictor):
        return 1.0, 0.0
    return loaded.preprocessor.unit, float(loaded.preprocessor.restore_target(0.0))


def _no_label(name: str, label: str, labels: list[str]) -> GroundupError:
    near = nearest(label, labels)
    return GroundupError(
        "E-EVAL-072",
        f"the model has no label {printable(label)!r}",
        where=printable(name),
        why=f"it has these: {printable(', '.join(labels), 300)}" if labels else "it predicts a number",
        fix=f"did you mean {near}?" if near else "choose one of them" if labels else "leave --label out",
        exit_code=2,
    )


def _unfit(loaded: LoadedNetworkModel) -> GroundupError:
    assert isinstance(loaded, LoadedPredictor)
    return GroundupError(
        "E-EVAL-074",
        f"a text was given, and this model answers {loaded.row}",
        where=printable(loaded.name),
        why="a network reads what it was trained on and nothing else",
        fix="--input FILE --row N" + ("\n--image FILE" if isinstance(loaded, LoadedImagePredictor) else ""),
        exit_code=2,
    )


def _require_row(files: Sequence[str], row: int, there: int, aside: int) -> None:
    """Refuse a number behind the last row. Raises E-EVAL-073."""
    if row <= there:
        return
    raise GroundupError(
        "E-EVAL-073",
        f"row {row:,} was asked for, and there {'is' if there == 1 else 'are'} {there:,}",
        where=printable(", ".join(files), 300) + (f": {aside:,} more were set aside" if aside else ""),
        why="rows are counted from 1, as predict prints them, without those that are set aside",
        fix=f"--row N with N from 1 to {there:,}" if there else "groundup data check FILE   (shows what is in it)",
        exit_code=2,
    )
