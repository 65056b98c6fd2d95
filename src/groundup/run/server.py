"""The server put together: models on a shelf, the runs of a folder, the application, and the process that serves it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from groundup.errors import GroundupError
from groundup.inference.engine import EngineOptions
from groundup.inference.packed import Precision
from groundup.run.library import RunsLibrary
from groundup.run.serving import ModelShelf, Say, ShelfOptions
from groundup.serving.app import build
from groundup.serving.options import ServerOptions
from groundup.serving.serve import run

if TYPE_CHECKING:
    from fastapi import FastAPI

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What `groundup serve` was asked for; see docs/serve.md."""

    models: tuple[str, ...] = ()
    runs: Path = Path("runs")
    data: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    strict: bool = False
    precision: Precision = "float32"
    rows: int = 8
    waiting: int = 64
    cache_tokens: int = 16384
    memory_gib: float | None = None
    speculate: bool = True
    draft: Path | None = None


def application(asked: ServeOptions, say: Say) -> tuple[FastAPI, ModelShelf, ServerOptions]:
    """The application and its shelf; no model is loaded yet.

    Raises:
        GroundupError: E-MODEL-004, E-SERVE-003 for the models; E-SERVE-010, -011 for whom it would let in.
    """
    memory = int(asked.memory_gib * GIB) if asked.memory_gib else int(psutil.virtual_memory().total * 0.8)
    engine = EngineOptions(asked.rows, asked.waiting, asked.cache_tokens)
    how = ShelfOptions(
        precision=asked.precision, engine=engine, memory_bytes=memory, speculate=asked.speculate, draft=asked.draft
    )
    shelf = ModelShelf(asked.models, how, say)
    options = ServerOptions(
        host=asked.host,
        port=asked.port,
        keys=asked.keys,
        allowed_hosts=asked.allowed_hosts,
        allowed_origins=asked.allowed_origins,
        strict=asked.strict,
        queue=asked.rows + asked.waiting + 64,  # the engine says when it has enough; beside it others may ask
    )
    paths = [place.path for place in shelf.places()]
    library = RunsLibrary(asked.runs, data=asked.data, models=paths)
    return build(shelf, options, library=library), shelf, options


def serve_models(asked: ServeOptions, on_ready: Callable[[str, list[str]], None], say: Say) -> None:
    """Serve until SIGTERM or SIGINT, then let what is under way end.

    Args:
        asked: see there.
        on_ready: called with the address and the names once requests are taken and the first models are loaded.
        say: receives a line for each model that is loaded or unloaded.

    Raises:
        GroundupError: as `application`; E-SERVE-012 the address cannot be had; what loading the models raises.
    """
    app, shelf, options = application(asked, say)
    failed: list[GroundupError] = []

    def load(address: str) -> None:
        """Beside the server, which answers /health meanwhile, and /ready truthfully."""
        try:
            shelf.load_first()
        except GroundupError as error:
            failed.append(error)
            os.kill(os.getpid(), signal.SIGTERM)  # the way in which a server ends, whoever asks for it
            return
        on_ready(address, shelf.names())

    def start(address: str) -> None:
        threading.Thread(target=load, args=(address,), name="groundup-load", daemon=True).start()

    try:
        run(app, options, start)
    finally:
        shelf.close(0.0)
    if failed:
        raise failed[0]
