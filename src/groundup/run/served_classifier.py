"""A model that judges texts, images or rows, in the form that the server asks for; with what decided, on request."""

from __future__ import annotations

import csv
import tempfile
import threading
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from groundup.api import LoadedModel
from groundup.models.heads import Headed
from groundup.run.explaining import EXPLAINED, explain_prediction
from groundup.run.explaining_page import overlay
from groundup.run.loaded_network import LoadedNetworkModel
from groundup.run.loaded_rows import LoadedImagePredictor, LoadedTablePredictor
from groundup.run.pictures import as_png


@dataclass
class ServedClassifier:
    """A model that judges texts, images or rows; see serving.served.Classifier."""

    loaded: LoadedModel | LoadedNetworkModel
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def kind(self) -> Literal["text", "image", "table"]:
        if isinstance(self.loaded, LoadedImagePredictor):
            return "image"
        return "table" if isinstance(self.loaded, LoadedTablePredictor) else "text"

    @property
    def labels(self) -> tuple[str, ...]:
        if isinstance(self.loaded, LoadedImagePredictor | LoadedTablePredictor):
            return tuple(self.loaded.labels)
        assert isinstance(self.loaded.model, Headed)
        return tuple(self.loaded.model.labels)

    @property
    def columns(self) -> tuple[str, ...]:
        if not isinstance(self.loaded, LoadedTablePredictor):
            return ()
        return (*self.loaded.preprocessor.numeric, *self.loaded.preprocessor.categorical)

    def predict(self, inputs: Sequence[str | bytes | Mapping[str, Any]]) -> list[dict[str, Any]]:
        with self._lock:
            if self.kind != "image":
                return self.loaded.predict(list(inputs))  # type: ignore[arg-type]
            answers: list[dict[str, Any]] = []
            with tempfile.TemporaryDirectory(prefix="groundup-") as folder:
                for number, item in enumerate(inputs):
                    answers += self.loaded.predict([_put(item, Path(folder) / f"{number:06}")])
        return [{name: value for name, value in answer.items() if name != "path"} for answer in answers]

    def explain(self, item: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
        with self._lock, tempfile.TemporaryDirectory(prefix="groundup-") as folder:
            if isinstance(item, str):
                found = explain_prediction(self.loaded, text=item)
            else:
                found = explain_prediction(self.loaded, files=[_put(item, Path(folder) / "input")])
        said: dict[str, Any] = {"target": found.label, "method": found.method, "score": found.found.score}
        if found.image_CHW is not None and found.heat_HW is not None:
            picture = as_png(overlay(found.image_CHW, found.heat_HW))
            return said | {"picture": "data:image/png;base64," + b64encode(picture).decode()}
        names = [part.name if part.cell is None else f"{part.name} = {part.cell}" for part in found.parts]
        return said | {"pieces": [{"text": n, "weight": part.amount} for n, part in zip(names, found.parts)]}


def _put(item: str | bytes | Mapping[str, Any], place: Path) -> str:
    """An image or a row as a file that the readers of `predict` take."""
    if isinstance(item, bytes):
        path = place.with_suffix(".png")  # what it is, its first bytes tell
        path.write_bytes(item)
        return str(path)
    assert isinstance(item, Mapping)
    path = place.with_suffix(".csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(item))
        writer.writeheader()
        writer.writerow(dict(item))
    return str(path)


def judges(loaded: LoadedModel | LoadedNetworkModel) -> bool:
    """Whether a model judges texts, images or rows."""
    if isinstance(loaded, LoadedImagePredictor | LoadedTablePredictor):
        return True
    return isinstance(loaded, LoadedModel) and isinstance(loaded.model, Headed) and loaded.model.kind in EXPLAINED
