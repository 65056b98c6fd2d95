"""Models behind the server: which are offered under what names, loaded when they are asked for, within a memory budget.

Here paths become models and engines; what an answer is, and everything of HTTP, is elsewhere.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.adapters import adapter_names, merge
from groundup.api import LoadedModel
from groundup.errors import GroundupError, nearest, printable
from groundup.inference.engine import EngineOptions
from groundup.inference.packed import Precision
from groundup.inference.speculate import Drafter, DraftModel, PromptLookup
from groundup.machine.memory import release_memory
from groundup.models.heads import Headed
from groundup.run.engines import engine_for, runner_for, why_plain
from groundup.run.foreign import digest_of, kind_of
from groundup.run.loaded_network import LoadedNetworkModel
from groundup.run.models import MODEL_FILE, find_model
from groundup.run.opening import load as load_model
from groundup.run.served_models import ServedEmbedder, ServedLanguage
from groundup.serving.served import Served

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ShelfOptions:
    """How models are loaded.

    Attributes:
        precision: of the weights of language models in the compiled form.
        engine: limits of each engine; None of `cache_tokens` takes what the budget of memory leaves, up to a default.
        memory_bytes: what the files of all loaded models may have together; None: no limit. The model that was asked
            least recently is unloaded for one that is asked now.
        speculate: guess ahead in texts that repeat themselves.
        draft: a smaller model with the same tokenizer, to guess ahead.
        device: where networks without a compiled form run.
    """

    precision: Precision = "float32"
    engine: EngineOptions = field(default_factory=EngineOptions)
    memory_bytes: int | None = None
    speculate: bool = True
    draft: Path | None = None
    device: str = "auto"


@dataclass
class _Place:
    """One name: where its model lies, and the model if it is loaded."""

    path: Path
    created: int
    size: int
    served: Served | None = None
    card: dict[str, Any] = field(default_factory=dict)
    """What is known of the model since it was first loaded."""
    used: float = 0.0


class ModelShelf:
    """Models by name; implements serving.served.Shelf.

    Args:
        models: paths, or NAME=PATH.
        options: how they are loaded.
        say: receives a line for each that is loaded or unloaded.

    Raises:
        GroundupError: E-MODEL-004 there is no model at a path; E-SERVE-003 two have one name.
    """

    def __init__(self, models: Sequence[str], options: ShelfOptions, say: Say = lambda line: None) -> None:
        self.options, self.say = options, say
        self._places: dict[str, _Place] = {}
        self._loading = threading.RLock()
        """Held while a model comes or goes: one at a time, so that none is counted twice or not at all."""
        self._closed = False
        for given in models:
            name, path = named(given)
            found = find_model(path)
            if name in self._places:
                raise _twice(name, path)
            self._places[name] = _Place(path, int(found.stat().st_mtime), _bytes(found) + _base_bytes(found))
        self._wanted = list(self._places)

    def names(self) -> list[str]:
        return list(self._places)

    def places(self) -> list[_Place]:
        """Where the models lie."""
        return list(self._places.values())

    def cards(self) -> list[dict[str, Any]]:
        cards = []
        for name, place in self._places.items():
            card = place.card or {"path": str(place.path), "bytes": place.size}
            cards.append({"name": name, "created": place.created, "loaded": place.served is not None, **card})
        return cards

    def loaded(self) -> list[Served]:
        return [place.served for place in self._places.values() if place.served is not None]

    def find(self, name: str) -> Served | None:
        place = self._places.get(name)
        if place is None:
            return None
        place.used = time.monotonic()
        return place.served

    def get(self, name: str) -> Served:
        place = self._places.get(name)
        if place is None:
            raise _unknown(name, self.names())
        return self.find(name) or self._load(name, place)

    def _load(self, name: str, place: _Place) -> Served:
        with self._loading:
            if place.served is None:  # nobody else was faster
                self._make_room(name, place)
                self.say(f"loading {printable(name)} from {printable(str(place.path))}")
                place.served = serve_model(name, place.path, self.options, place.created)
                card = place.card = place.served.card
                self.say(f"{printable(name)} is ready: {card['family']}, {card['form']}, {card['seconds_to_load']} s")
            return place.served

    def unload(self, name: str) -> None:
        place = self._places.get(name)
        if place is None:
            raise _unknown(name, self.names())
        with self._loading:
            served, place.served = place.served, None
            if served is not None:
                _close(served, 60.0)
                del served
                release_memory()
                self.say(f"unloaded {printable(name)}")

    def load_first(self) -> None:
        """Load what fits of what was asked for at the start, so that the first request does not wait."""
        free = self.options.memory_bytes
        for name in list(self._wanted):
            place = self._places[name]
            if free is not None:
                if place.size > free and name != self.names()[0]:
                    self._wanted.remove(name)
                    continue
                free -= place.size
            self.get(name)

    def ready(self) -> bool:
        return not self._closed and all(self._places[name].served is not None for name in self._wanted)

    def close(self, seconds: float) -> None:
        self._closed = True
        until = time.monotonic() + seconds
        for place in self._places.values():
            if place.served is not None:
                _close(place.served, max(0.0, until - time.monotonic()))
                place.served = None

    def _make_room(self, name: str, wanted: _Place) -> None:
        """Unload what was not asked for the longest time, until the model fits. Raises E-SERVE-002."""
        limit = self.options.memory_bytes
        if limit is None:
            return
        if wanted.size > limit:
            raise _too_large(name, wanted.size, limit)
        while True:
            loaded = [(p.used, n) for n, p in self._places.items() if p.served is not None]
            if sum(self._places[n].size for _, n in loaded) + wanted.size <= limit:
                return
            oldest = min(loaded)[1]
            self._wanted = [one for one in self._wanted if one != oldest]
            self.unload(oldest)


def serve_model(name: str, path: Path, options: ShelfOptions, created: int) -> Served:
    """Load a model in the form that the server asks for.

    Raises:
        GroundupError: E-SERVE-004 a model that nothing can be asked of over HTTP; what loading raises.
    """
    began = time.monotonic()
    loaded = load_model(path, device=options.device)
    served = Served(name, created, _card(path, loaded))
    if isinstance(loaded, LoadedModel) and not isinstance(loaded.model, Headed):
        _serve_language(served, loaded, options)
    elif isinstance(loaded, LoadedModel) and isinstance(loaded.model, Headed) and loaded.model.kind == "embed":
        served.embedder = ServedEmbedder(loaded)
        served.card["abilities"] = ["embed"]
    else:
        _serve_classifier(served, loaded, path)
    served.card["seconds_to_load"] = round(time.monotonic() - began, 2)
    return served


def _serve_language(served: Served, loaded: LoadedModel, options: ShelfOptions) -> None:
    model: Any = loaded.model
    if adapter_names(model) and why_plain(model, options.precision):
        try:
            merge(model)  # the same logits, on weights that are packed like any others
        except GroundupError as error:
            if error.code != "E-ADAPT-007":
                raise
    drafter = _drafter(loaded, options)
    engine, form = engine_for(model, precision=options.precision, options=options.engine, drafter=drafter)
    served.language = language = ServedLanguage(loaded.tokenizer, loaded.chat_template, engine.start())
    served.card |= {
        "abilities": ["chat", "complete"] if loaded.chat_template is not None else ["complete"],
        "precision": form.precision,
        "form": form.kind + (f" ({form.reason})" if form.reason else ""),
        "weight_bytes": form.weight_bytes,
        "context": language.context,
        "cache_bytes": engine.budget.tokens * engine.runner.shape.token_bytes,
    }
    if form.kind == "compiled":  # its weights are copies: those of the module go
        loaded.model = None  # type: ignore[assignment]
        del model
        release_memory()


def _serve_classifier(served: Served, loaded: LoadedModel | LoadedNetworkModel, path: Path) -> None:
    from groundup.run.served_classifier import ServedClassifier, judges  # and all kinds of rows with it

    if not judges(loaded):
        raise _nothing_to_ask(served.name, path)
    served.classifier = classifier = ServedClassifier(loaded)
    served.card |= {"abilities": [f"classify:{classifier.kind}"], "labels": list(classifier.labels)}
    served.card["columns"] = list(classifier.columns)


def _drafter(loaded: LoadedModel, options: ShelfOptions) -> Drafter | None:
    """What guesses ahead. Raises E-SERVE-005 for a small model with another tokenizer."""
    if options.draft is None:
        return PromptLookup() if options.speculate else None
    small = load_model(options.draft, device=options.device)
    if not isinstance(small, LoadedModel) or small.tokenizer.digest != loaded.tokenizer.digest:
        raise GroundupError(
            "E-SERVE-005",
            "the model that is to guess ahead has another tokenizer, or writes no text",
            where=f"--draft {printable(str(options.draft))}",
            why="its guesses are compared token by token with what the model chooses",
            fix="name a smaller model of the same family, trained with the same tokenizer",
            exit_code=2,
        )
    runner, _ = runner_for(small.model, options.precision)  # type: ignore[arg-type]
    return DraftModel(runner, sequences=options.engine.rows)


def _card(path: Path, loaded: LoadedModel | LoadedNetworkModel) -> dict[str, Any]:
    """What is said of a model in listings."""
    found = find_model(path)
    network: Any = loaded.model
    card: dict[str, Any] = {
        "path": str(path),
        "bytes": _bytes(found),
        "format": "groundup" if (found / MODEL_FILE).is_file() else kind_of(found),
        "digest": digest_of(found),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "precision": str(next(network.parameters()).dtype).removeprefix("torch."),
        "form": "plain",
    }
    if not isinstance(loaded, LoadedModel):
        return card | {"family": loaded.said.family}  # type: ignore[attr-defined]
    said = loaded.said
    assert said is not None
    card |= {"family": said.family, "context": network.context, "vocabulary": network.vocabulary}
    card["adapters"] = [adapter.kind for adapter in said.adapters]
    lineage = {"base": said.base.path, "base_digest": said.base.digest} if said.base is not None else {}
    if (path / "recipe.yaml").is_file():
        lineage["run"] = str(path)
    return card | {"lineage": lineage}


def named(given: str) -> tuple[str, Path]:
    """The name and the path of NAME=PATH, or of a path: the last part that says something."""
    name, separator, rest = given.partition("=")
    if separator and name and "/" not in name and not Path(given).expanduser().exists():
        return name, Path(rest).expanduser()
    path = Path(given).expanduser()
    parts = [part for part in path.resolve().parts if part not in ("model", "checkpoints", "pretrained")]
    return (path.stem if path.suffix == ".gguf" else parts[-1] if parts else "model"), path


def _close(served: Served, seconds: float) -> None:
    if isinstance(served.language, ServedLanguage):
        served.language.engine.close(seconds)


def _bytes(path: Path) -> int:
    """Size of a model's files."""
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _base_bytes(path: Path) -> int:
    """Size of the base that a model of adapters stands on."""
    described = path / MODEL_FILE
    if not described.is_file():
        return 0
    base = json.loads(described.read_text(encoding="utf-8")).get("base")
    place = Path(base["path"]) if isinstance(base, dict) and isinstance(base.get("path"), str) else None
    return _bytes(place) if place is not None and place.exists() else 0


def _unknown(name: str, names: Sequence[str]) -> GroundupError:
    near = nearest(name, list(names))
    return GroundupError(
        "E-SERVE-001",
        f"there is no model {printable(name, 100)!r}",
        where="model",
        why=f"served are: {printable(', '.join(names), 300) or 'none'}",
        fix=f"did you mean {near}?" if near else "GET /v1/models lists them",
        exit_code=2,
    )


def _too_large(name: str, size: int, limit: int) -> GroundupError:
    return GroundupError(
        "E-SERVE-002",
        f"the model {printable(name, 100)} does not fit: {size / 1e6:,.0f} MB, and {limit / 1e6:,.0f} MB may be used",
        where="--memory",
        why="the machine would swap, and every answer would take minutes",
        fix="groundup serve … --memory GIB   (more), or a smaller model",
    )


def _twice(name: str, path: Path) -> GroundupError:
    return GroundupError(
        "E-SERVE-003",
        f"two models have the name {printable(name)}",
        where=printable(str(path)),
        why="a request names the model that is to answer",
        fix=f"groundup serve … other={printable(str(path))}   (gives it another name)",
        exit_code=2,
    )


def _nothing_to_ask(name: str, path: Path) -> GroundupError:
    return GroundupError(
        "E-SERVE-004",
        f"the model {printable(name)} cannot be asked anything over HTTP",
        where=printable(str(path)),
        why="the server offers models that write, that judge texts, images or rows, or that make vectors of texts",
        fix="groundup inspect MODEL   (says what it is made for)",
        exit_code=2,
    )

