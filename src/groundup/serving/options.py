"""How the server listens, whom it lets in, and how much it takes. What is generated, and with what memory, is said to
the engine, not here."""

from __future__ import annotations

import ipaddress
import socket
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from groundup.errors import GroundupError, printable

LEAST_KEY = 16
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

Seconds = Annotated[float, Field(gt=0.0, le=86_400.0, allow_inf_nan=False)]


class ServerOptions(BaseModel):
    """The settings of a server."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    host: str = Field(default="127.0.0.1", description="the address to listen at; another than loopback needs a key")
    port: int = Field(default=8000, ge=0, le=65535, description="the port, 0 to 65535; 0 takes any that is free")
    keys: tuple[str, ...] = Field(default=(), repr=False, description="who knows one of these may ask; none: anybody")
    allowed_hosts: tuple[str, ...] = Field(default=(), description="more names that the Host header may have")
    allowed_origins: tuple[str, ...] = Field(default=(), description="other sites whose pages may ask, by origin")
    strict: bool = Field(default=False, description="refuse fields that no OpenAI request has")
    queue: int = Field(default=128, ge=1, le=100_000, description="requests under way at once; more are told to wait")
    max_body_bytes: int = Field(default=8 << 20, ge=1 << 10, le=1 << 30, description="the longest request body")
    body_seconds: Seconds = Field(default=30.0, description="how long a client may take to send a request")
    request_seconds: Seconds = Field(default=1800.0, description="how long an answer may take")
    keep_alive_seconds: Seconds = Field(default=5.0, description="a comment is sent in a stream silent for so long")
    drain_seconds: Seconds = Field(default=30.0, description="how long answers under way may go on after SIGTERM")
    schema_depth: int = Field(default=32, ge=1, le=60, description="the deepest JSON schema of an answer or a tool")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(options: ServerOptions) -> None:
    """Refuse to be open by accident.

    Raises:
        GroundupError: E-SERVE-010 another address than loopback without a key; E-SERVE-011 a key is easily guessed
            or cannot stand in a header.
    """
    if not is_loopback(options.host) and not options.keys:
        raise GroundupError(
            "E-SERVE-010",
            f"the server is to listen at {printable(options.host, 60)}, and no key is set",
            where=f"--host {printable(options.host, 60)}",
            why="everybody who reaches this address could use the models and read the runs",
            fix="give a file with a key (--key-file), or listen at 127.0.0.1",
            exit_code=2,
        )
    for number, key in enumerate(options.keys, 1):
        if len(key) < LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise GroundupError(
                "E-SERVE-011",
                f"key {number} is not fit to be one: it has {len(key)} characters",
                where="--key-file",
                why=f"fewer than {LEAST_KEY} characters can be guessed; a header holds ASCII without spaces",
                fix="python -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one",
                exit_code=2,
            )


def allows_host(options: ServerOptions, name: str) -> bool:
    """Whether a Host header may name the server so.

    A page of another site reaches this machine by a name of its own that it points here (DNS rebinding); so names
    are only taken if they are known. An address cannot be rebound, and is taken where the server is not local.
    """
    known = {*LOOPBACK_NAMES, options.host.lower(), *(allowed.lower() for allowed in options.allowed_hosts)}
    if name in known:
        return True
    if is_loopback(options.host):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == socket.gethostname().lower()
    return True
