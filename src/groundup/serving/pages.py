"""The files of the web page, from a list that is made when the server starts: a path that is not in it is not there,
and no path that a client sends ever reaches the file system."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import Response

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
PREFIX = "/page/"
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


class File(NamedTuple):
    """One file of the page, in memory."""

    content: bytes
    kind: str
    tag: str


def files(folder: Path = FOLDER) -> dict[str, File]:
    """The files of a folder by the path of their URL: index.html at `/`, each below `/page/`. Links and unknown
    types are left out."""
    found: dict[str, File] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.rglob("*")):
        linked = any(part.is_symlink() for part in (path, *path.parents) if part.is_relative_to(folder))
        if path.is_file() and not linked and path.suffix in TYPES:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[PREFIX + path.relative_to(folder).as_posix()] = File(content, TYPES[path.suffix], tag)
    if PREFIX + INDEX in found:
        found["/"] = found[PREFIX + INDEX]
    return found


def mount(app: FastAPI, found: dict[str, File]) -> None:
    """Serve those files, and nothing else, from memory."""
    for path, file in found.items():
        app.add_api_route(path, _serving(file), methods=["GET"], include_in_schema=False)


def _serving(file: File) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        headers = {"etag": file.tag, "cache-control": "no-cache", "content-security-policy": POLICY}
        if file.tag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers={**headers, "content-type": file.kind})

    return serve
