"""`groundup serve [MODEL …]`: models behind an OpenAI-compatible server, and its page. Only parsing and printing."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from groundup.cli.terminal import Painter
from groundup.errors import GroundupError, printable

LARGEST_KEY_FILE = 64 * 1024


def serve(arguments: argparse.Namespace) -> int:
    """Serve until a signal; 0 when everything under way was answered."""
    require_extra()
    keys = read_keys(arguments.key_file)
    from groundup.run.server import ServeOptions, serve_models

    painter = Painter()
    options = ServeOptions(
        models=tuple(arguments.models),
        runs=Path(arguments.runs).expanduser(),
        data=tuple(Path(path).expanduser() for path in arguments.data),
        host=arguments.host,
        port=arguments.port,
        keys=keys,
        allowed_hosts=tuple(arguments.allow_host),
        allowed_origins=tuple(arguments.allow_origin),
        strict=arguments.strict,
        precision=arguments.precision,
        rows=arguments.rows,
        waiting=arguments.waiting,
        cache_tokens=arguments.cache_tokens,
        memory_gib=arguments.memory,
        speculate=not arguments.no_speculation,
        draft=None if arguments.draft is None else Path(arguments.draft).expanduser(),
    )

    def ready(address: str, models: list[str]) -> None:
        if arguments.json:
            print(json.dumps({"address": address, "models": models}, ensure_ascii=False), flush=True)
            return
        address = address.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")
        painter.print(f"listening at {address}   (Ctrl-C ends it)")
        painter.print(f"  page       {address}/")
        if models:
            painter.print(f"  API        {address}/v1   (OpenAI-compatible)")
            painter.print(f"  models     {printable(', '.join(models), 200)}")
            painter.print("  a client   OPENAI_BASE_URL=" + address + "/v1 OPENAI_API_KEY=" + ("…" if keys else "none"))

    say = (lambda line: None) if arguments.json else (lambda line: painter.print(painter.paint(line, "dim")))
    serve_models(options, ready, say)
    return 0


def read_keys(path: str | None) -> tuple[str, ...]:
    """The keys of a file, one a line; empty lines and lines that begin with # do not count.

    Raises:
        GroundupError: E-USE-024 it cannot be read, or holds none.
    """
    if path is None:
        return ()
    place = Path(path).expanduser()
    try:
        with place.open(encoding="utf-8") as file:
            lines = file.read(LARGEST_KEY_FILE).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _no_keys(path, f"cannot be read: {printable(str(error))}") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))
    if not keys:
        raise _no_keys(path, "holds no key")
    return keys


def require_extra() -> None:
    """Raises E-USE-025 where the libraries of the server are not installed."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise GroundupError(
            "E-USE-025",
            f"the server needs {error.name}, which is not installed",
            where="groundup serve",
            why="the libraries of the server are an extra, so that training does not carry them",
            fix=install("serve"),
            exit_code=2,
        ) from error


def install(extra: str) -> str:
    """The command that installs an extra of this groundup: of the clone that it runs from, or as a package."""
    clone = Path(__file__).resolve().parents[3]
    from_clone = clone.joinpath("pyproject.toml").is_file() and clone.joinpath("src", "groundup").is_dir()
    words = ["-e", f"{clone}[{extra}]"] if from_clone else [f"groundup[{extra}]"]
    return shlex.join([sys.executable, "-m", "pip", "install", *words])


def _no_keys(path: str, what: str) -> GroundupError:
    return GroundupError(
        "E-USE-024",
        f"the key file {what}",
        where=printable(path),
        why="without a key the server would answer nobody, or everybody",
        fix="python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > keys.txt   (one key a line)",
        exit_code=2,
    )
