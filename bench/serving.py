"""The server with SmolLM2-135M under load: eight clients that stream at once beside one alone, how long each waits for
its first token, and how long the server takes to say that it lives meanwhile."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import smollm2
from sides import Comparison, compared, compared_less

CLIENTS, TOKENS, HEALTH_LIMIT = 8, 48, 0.1


@dataclass
class Stream:
    """What one client saw: seconds to its first token and to its end, and how many pieces of text came."""

    first: float
    last: float
    pieces: int


@contextmanager
def server(precision: str) -> Iterator[int]:
    """A running server; its port."""
    source = str(smollm2.gguf())
    command = [sys.executable, "-m", "groundup", "serve", source, "--port", "0", "--precision", precision, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
        threading.Thread(target=process.stdout.read, daemon=True).start()
        try:
            yield port
        finally:
            process.terminate()


def stream(port: int, number: int) -> Stream:
    body = {
        "model": smollm2.gguf().stem, "stream": True, "max_tokens": TOKENS, "temperature": 1.0, "seed": number,
        "messages": [{"role": "user", "content": f"Tell me a story about the number {number}."}],
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    began, first, pieces = time.perf_counter(), 0.0, 0
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    for line in answer:
        if line.startswith(b"data: {") and (json.loads(line[6:])["choices"] or [{}])[0].get("delta", {}).get("content"):
            pieces += 1
            first = first or time.perf_counter() - began
    return Stream(first, time.perf_counter() - began, pieces)


def together(port: int, clients: int) -> tuple[list[Stream], float]:
    """Streams of so many clients at once, and the seconds until the last one ended."""
    found: list[Stream] = []
    threads = [threading.Thread(target=lambda n=n: found.append(stream(port, n))) for n in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, time.perf_counter() - began


def health(port: int, stop: threading.Event, times: list[float]) -> None:
    while not stop.is_set():
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/health")
        connection.getresponse().read()
        times.append(time.perf_counter() - began)
        time.sleep(0.05)


def measure(python: str, rounds: int, *, small: bool) -> Iterator[Comparison]:
    for precision in ("int8", "float32"):
        with server(precision) as port:
            together(port, 1)
            rates, waits, lives = [], [], []
            for _ in range(rounds):
                alone, alone_seconds = together(port, 1)
                stop, times = threading.Event(), list[float]()
                watcher = threading.Thread(target=health, args=(port, stop, times))
                watcher.start()
                many, seconds = together(port, CLIENTS)
                stop.set()
                watcher.join()
                rates.append((sum(s.pieces for s in many) / seconds, sum(s.pieces for s in alone) / alone_seconds))
                waits.append((max(s.first for s in many), statistics.median(s.first for s in alone)))
                lives.append((max(times), HEALTH_LIMIT))
        yield compared(f"{CLIENTS} clients, {precision}", "one client", rates, "pieces/s")
        yield compared_less(f"first token, the slowest of {CLIENTS}, {precision}", "one client", waits, "s")
        yield compared_less(f"slowest /health meanwhile, {precision}", "the limit", lives, "s")
