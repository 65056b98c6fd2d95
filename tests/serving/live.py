"""`groundup serve` as a process of its own, and what can be seen of it from outside. No test."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE = 120.0
"""Seconds after which something that must happen is given up; a shared machine can be slow."""
LISTENER = """
import http.client, json, select, sys, time
seconds, line = [], http.client.HTTPConnection(sys.argv[1], timeout=60)
while not (len(seconds) > 3 and select.select([sys.stdin], [], [], 0)[0]):
    began = time.perf_counter()
    line.request("GET", "/health")
    answer = line.getresponse()
    assert answer.status == 200 and answer.read(), answer.status
    seconds.append(time.perf_counter() - began)
    if len(seconds) == 3:
        print("ready", flush=True)
    time.sleep(0.01)
print(json.dumps(sorted(seconds)))
"""
"""Asks /health over and over, in a process of its own: the threads of the test would delay it."""


@dataclass
class Live:
    """A server that runs."""

    host: str
    process: subprocess.Popen[str]
    errors: Path
    seconds_to_ready: float

    @property
    def address(self) -> str:
        return f"http://{self.host}"

    @property
    def api(self) -> str:
        return f"{self.address}/v1"

    def line(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, timeout=timeout)

    def get(self, path: str) -> str:
        line = self.line()
        with contextlib.closing(line):
            line.request("GET", path)
            answer = line.getresponse()
            body = answer.read().decode()
        assert answer.status == 200, body
        return body

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Status, headers and body of an answer."""
        line = self.line()
        with contextlib.closing(line):
            line.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            answer = line.getresponse()
            said = json.loads(answer.read())
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, said

    def measured(self) -> dict[str, float]:
        """What /metrics shows, without labels but those of status."""
        found: dict[str, float] = {}
        for line in self.get("/metrics").splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] = found.get(name.partition("{")[0], 0.0) + float(value)
        return found

    def at_rest(self) -> bool:
        """Whether nothing is answered but the question itself."""
        found = self.measured()
        return (
            found["groundup_running"] == found["groundup_waiting"] == 0 and found["groundup_requests_under_way"] == 1
        )

    def weight(self) -> dict[str, int]:
        """Memory in bytes, file descriptors and threads of the process."""
        process = psutil.Process(self.process.pid)
        with process.oneshot():
            return {
                "memory": process.memory_info().rss, "files": process.num_fds(), "threads": process.num_threads()
            }  # fmt: skip

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)


@contextlib.contextmanager
def serving(folder: Path, *words: str) -> Iterator[Live]:
    """A server of the models and options; at the end it is told to stop, and must do so in peace."""
    errors = folder / "errors.txt"
    command = [sys.executable, "-m", "groundup", "serve", *words, "--port", "0", "--json", "--runs", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    began = time.monotonic()
    with (
        errors.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, errors.read_text()
            host = json.loads(line)["address"].removeprefix("http://")
            live = Live(host, process, errors, time.monotonic() - began)
            yield live
            code = live.stop() if process.poll() is None else process.returncode
        finally:
            process.kill()
    assert code == 0 and "Traceback" not in errors.read_text(), errors.read_text()


@contextlib.contextmanager
def health_of(live: Live) -> Iterator[list[float]]:
    """How long each /health took while the block ran, in seconds, sorted; filled in at its end."""
    found: list[float] = []
    words = [sys.executable, "-c", LISTENER, live.host]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield found
        process.stdin.close()
        found += json.loads(process.stdout.readline())


def eventually(holds: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def package_file(package: str, pattern: str) -> Path:
    """The first file or folder of an installed package that fits; the test is skipped where there is none."""
    found = util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"the package {package} is not installed")
    files = sorted(Path(found.origin).parent.glob(pattern))
    if not files:
        pytest.skip(f"the package {package} holds no {pattern}")
    return files[0]
