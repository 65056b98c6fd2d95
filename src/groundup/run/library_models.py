"""The models on disk that the page lists: those of runs and those that were named, from headers and small files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.errors import GroundupError
from groundup.report.reading import mapping, read_object, read_text, read_yaml, text_of
from groundup.run.foreign import digest_of, kind_of
from groundup.run.library_places import id_of, leads_outside, name_below
from groundup.serving.library import Json, ModelLine

FAULTS = (GroundupError, OSError, ValueError, KeyError, TypeError, RecursionError)
"""What reading a damaged or a foreign model may raise."""
DEEPEST = 4
"""Levels of folders below one that was named in which models are looked for."""
MOST_LABELS = 1000
LOOK_AGAIN_SECONDS = 2.0


class ModelFolders:
    """Finds models and says what they are; what was read of a model is kept until its files change."""

    def __init__(self, root: Path, named: Sequence[Path]) -> None:
        self.root, self.named = root, named
        self._known: dict[Path, tuple[object, ModelLine]] = {}
        self._loose: list[tuple[Path, str]] = []
        self._until = 0.0
        self._lock = threading.Lock()

    def lines(self, runs: Mapping[str, Path], summary: Callable[[Path], Json]) -> list[ModelLine]:
        """Every model: that of each run by the name of the run, then those below the named places, then those that
        lie in the folder of runs without a run."""
        places: dict[Path, tuple[str, str, Path | None]] = {
            folder / "model": (name_below(folder, self.root), id, folder)
            for id, folder in runs.items()
            if (folder / "model" / "model.json").is_file()
        }
        with self._lock:
            seen = {path.resolve() for path in places}
            for path, name in self._others():
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    places[path] = (name, "", None)
            return sorted(
                (self._line(path, *place, summary) for path, place in places.items()), key=lambda line: line.name
            )

    def _others(self) -> list[tuple[Path, str]]:
        """Models that are not found by a run, each with a name, looked for anew after a while."""
        if time.monotonic() >= self._until:
            root = self.root.resolve()
            named = [(path, label(path, place)) for place in self.named for path in find_models(place)]
            below = [(path, label(path, self.root)) for path in find_models(self.root) if not strays(path, root)]
            self._loose = [*named, *below]
            self._until = time.monotonic() + LOOK_AGAIN_SECONDS
        return self._loose

    def _line(self, path: Path, name: str, run: str, folder: Path | None, summary: Callable[[Path], Json]) -> ModelLine:
        said = {} if folder is None else summary(folder)  # a run may end after its model was written
        state = (_state(path), *(said.get(name) for name in ("steps", "outcome", "recipe_digest")))
        known = self._known.get(path)
        if known is not None and known[0] == state:
            return known[1]
        line = describe(path, name, run, folder, summary)
        self._known[path] = (state, line)
        return line


def describe(path: Path, name: str, run: str, folder: Path | None, summary: Callable[[Path], Json]) -> ModelLine:
    """What is known of the model at `path`; of one that cannot be read, why not."""
    # knows every kind of model: a second that a server starts without
    from groundup.run.inspection import inspect_model

    shown = str(folder or path)
    id = run or id_of(str(path))
    try:
        found = inspect_model(str(path))
        digest = digest_of(path) if (path / "manifest.json").is_file() else None
        lineage = lineage_of(folder, run, summary) if folder is not None else {}
    except FAULTS as fault:
        return ModelLine(id=id, name=name, path=shown, fault=str(fault)[:600])
    base = found["base"]
    if base and not lineage.get("base"):
        lineage["base"] = base.get("path") if isinstance(base, dict) else text_of(base)
    return ModelLine(
        id=id,
        name=name,
        path=shown,
        kind=text_of(found["kind"]),
        family=text_of(found["family"] or found["architecture"]),
        parameters=found["parameters"],
        bytes=found["bytes"],
        types={text_of(key): int(value) for key, value in mapping(found["types"]).items() if isinstance(value, int)},
        digest=digest,
        labels=[text_of(label) for label in list(found["labels"] or [])[:MOST_LABELS]],
        lineage=lineage,
        options={key: text_of(value) for key, value in mapping(found["options"]).items()},
    )


def lineage_of(folder: Path, run: str, summary: Callable[[Path], Json]) -> Json:
    """Where the model of a run comes from: the run, its data and their digest, its base, how far it was trained."""
    recipe = read_yaml(read_text(folder / "recipe.yaml", []), "recipe.yaml", [])
    data, card = mapping(recipe.get("data")), read_object(folder / "data" / "card.json", [])
    said = summary(folder)
    files: Any = data.get("files")
    return {
        "run_id": run,
        "run": str(folder),
        "data": [text_of(file) for file in files][:50] if isinstance(files, list) else [],
        "data_digest": text_of(card.get("corpus_digest") or card.get("digest")) or None,
        "base": text_of(mapping(recipe.get("model")).get("init_from")) or None,
        "steps": said.get("steps"),
        "outcome": said.get("outcome"),
        "recipe_digest": said.get("recipe_digest"),
    }


def find_models(place: Path) -> list[Path]:
    """Models at or below a place: folders with model.json or config.json and weights, and GGUF files. Links below it
    are not followed."""
    if place.is_file():
        return [place]
    found: list[Path] = []
    for folder, below, names in os.walk(place):
        here = Path(folder)
        if len(here.relative_to(place).parts) >= DEEPEST:
            below.clear()
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "checkpoints")
        weights = [name for name in names if name.endswith(".safetensors")]
        if weights and ("model.json" in names or (kind_of(here) == "hugging_face")):
            found.append(here)
        found += [here / name for name in sorted(names) if name.endswith(".gguf") and not (here / name).is_symlink()]
    return found


def label(path: Path, place: Path) -> str:
    """What a model is called in the list: where it lies below the place where it was found. The folder `model`, in
    which it is the only one, says nothing."""
    parts = path.relative_to(place).parts or (path.absolute().name,)
    if parts[-1] == "model":
        parts = parts[:-1] or (path.absolute().parent.name,)
    return "/".join(parts)


def strays(path: Path, root: Path) -> bool:
    """Whether a model in the folder of runs is, or holds, a link to a place outside it."""
    return leads_outside(path, root) if path.is_dir() else not path.resolve().is_relative_to(root)


def _state(path: Path) -> object:
    try:
        places = [path] if path.is_file() else sorted(path.iterdir())
        return [(place.name, place.stat().st_mtime_ns, place.stat().st_size) for place in places]
    except OSError:
        return None
