"""Clients that go away (C24, S6), readers that are slow (S7), and a server that is told to stop (S16), behind a real
socket where the socket matters."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from house import CHAT, CLOSED, COMPLETION, Gate, chat_body, error_of, house, served

from groundup.errors import GroundupError
from groundup.serving.options import ServerOptions
from groundup.serving.serve import bind
from groundup.serving.specimen import Specimen


def endless(gate: Any = lambda count: None, **options: Any) -> Specimen:
    return Specimen(context=1_000_000, script=lambda prompt, wanted: "z" * 900_000, before_token=gate, **options)


def raw(address: str, body: dict[str, Any], path: str = CHAT) -> socket.socket:
    """A connection that has sent a request and read nothing."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=CLOSED)
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n"
    )
    connection.sendall(head.encode() + b"\r\n" + content)
    return connection


WAITING = """
import sys
from groundup.serving.app import build
from groundup.serving.options import ServerOptions
from groundup.serving.serve import run
from groundup.serving.specimen import Specimen, shelf

def wait(count):
    if count == 3:
        print("waiting", flush=True)
        sys.stdin.readline()

options = ServerOptions(port=0, drain_seconds=float(sys.argv[1]))
model = shelf(Specimen(before_token=wait))
run(build(model, options), options, lambda address: print(address, flush=True))
print("ended", flush=True)
"""


class Process:
    """A server in a process of its own, that writes its address first."""

    def __init__(self, script: str, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None and self.process.stdin is not None
        self.out, self.input = self.process.stdout, self.process.stdin
        self.address = self.out.readline().strip()

    def go_on(self) -> None:
        self.input.write("\n")
        self.input.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.input.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("at", [0, 5])
def test_S6_C24_a_client_that_goes_away_frees_its_place_within_one_token(stream: bool, at: int) -> None:
    gate = Gate(at)  # 0: in the prefill, before the first byte; 5: in the middle
    language = endless(gate)
    app = house(language)
    with served(app) as address:
        connection = raw(address, chat_body(stream=stream, n=2))
        assert gate.reached.wait(CLOSED)
        connection.close()
        deadline = time.monotonic() + CLOSED
        while app.state.desk.under_way:
            assert time.monotonic() < deadline, "the request goes on without its client"
            time.sleep(0.001)
        gate.open.set()  # only now does the model take its next step
        assert language.wait_idle(CLOSED)
    assert language.counts["cancelled"] == 2 and gate.most <= at + 1


@pytest.mark.parametrize("stream", [True, False])
def test_C24_S6_leaving_while_the_prompt_is_read_or_the_model_loaded(stream: bool) -> None:
    reading, go = threading.Event(), threading.Event()

    class Slow(Specimen):
        def chat_ids(self, messages: Any, *, go_on: bool = False) -> list[int]:
            reading.set()
            assert go.wait(CLOSED)
            return super().chat_ids(messages, go_on=go_on)

    language = Slow(context=1_000_000, script=lambda prompt, wanted: "z" * 900_000)
    app = house(language)
    with served(app) as address:
        connection = raw(address, chat_body(stream=stream))
        assert reading.wait(CLOSED)
        connection.close()
        assert httpx.get(f"{address}/health").status_code == 200
        go.set()
        deadline = time.monotonic() + CLOSED
        while app.state.desk.under_way:
            assert time.monotonic() < deadline, "the request goes on without its client"
            time.sleep(0.001)
        assert language.wait_idle(CLOSED)
        assert language.counts["answers"] == language.counts["cancelled"], "nobody reads what is written"
        assert language.counts["answer_tokens"] < 900_000
        assert httpx.post(f"{address}{CHAT}", json=chat_body(max_tokens=2)).status_code == 200


def abandon(address: str, count: int, language: Specimen) -> None:
    for number in range(count):
        connection = raw(address, chat_body(stream=number % 2 == 0))
        if number % 3:
            connection.settimeout(CLOSED)
            if number % 2 == 0:
                connection.recv(1 + 400 * (number % 5))
        connection.close()
    assert language.wait_idle(CLOSED)


def abandons(count: int) -> None:
    language = endless(lambda step: time.sleep(0.0002), places=16)
    app = house(language, queue=16)
    with served(app) as address:
        process = psutil.Process()

        def state() -> tuple[int, int]:
            while app.state.desk.under_way:
                time.sleep(0.001)
            gc.collect()
            return process.num_fds(), process.memory_info().rss

        abandon(address, 60, language)
        files, memory = state()
        abandon(address, count, language)
        later_files, later_memory = state()
        assert later_files <= files + 8
        assert later_memory < memory + (24 << 20)
        assert httpx.post(f"{address}{CHAT}", json=chat_body(max_tokens=2)).status_code == 200


def test_S6_many_abandons_leave_nothing_behind() -> None:
    abandons(90)


@pytest.mark.slow
def test_S6_a_thousand_abandons_leave_nothing_behind() -> None:
    abandons(1000)


BUSY = """
import time
from groundup.serving.app import build
from groundup.serving.options import ServerOptions
from groundup.serving.serve import run
from groundup.serving.specimen import Specimen, shelf

options = ServerOptions(port=0, queue=64)
model = shelf(Specimen(places=48, before_token=lambda count: time.sleep(0.02)))
run(build(model, options), options, lambda address: print(address, flush=True))
"""


def test_S7_many_clients_at_once_get_200_or_429_and_health_stays_quick() -> None:
    server = Process(BUSY)
    try:
        # all requests are sent before any answer is read, so that nothing but the server takes time
        clients = [raw(server.address, {**chat_body(stream=n % 2 == 0)}) for n in range(200)]
        times = []
        with httpx.Client(base_url=server.address) as client:
            for _ in range(40):
                began = time.perf_counter()
                assert client.get("/health").status_code == 200
                times.append(time.perf_counter() - began)
        statuses = []
        for connection in clients:
            with connection, connection.makefile("rb") as answer:
                statuses.append(int(answer.readline().split()[1]))
                if statuses[-1] == 429:
                    assert b"retry-after: 1\r\n" in list(iter(answer.readline, b"\r\n"))
        assert set(statuses) == {200, 429} and statuses.count(200) >= 48
        assert sorted(times)[20] < 0.1 and max(times) < 1.0  # the largest is the machine's, with other tests beside
        again = httpx.post(f"{server.address}{CHAT}", json=chat_body())
        assert again.status_code == 200
    finally:
        server.end()


def test_S7_a_slow_reader_holds_up_nobody_and_not_for_ever() -> None:
    language = endless(lambda step: time.sleep(0.0005))
    app = house(language, request_seconds=0.5)
    with served(app) as address:
        connection = raw(address, chat_body(stream=True, n=4, logprobs=True, top_logprobs=20))  # and never reads
        while not language.counts["answer_tokens"]:
            time.sleep(0.001)
        answer = httpx.post(f"{address}{CHAT}", json=chat_body(max_tokens=3))
        assert answer.status_code == 200
        assert language.wait_idle(CLOSED)
        connection.close()


def test_an_answer_that_takes_too_long_is_ended() -> None:
    gate = Gate(2)
    app = house(Specimen(before_token=gate), request_seconds=0.1)
    try:
        with served(app) as address:
            whole = httpx.post(f"{address}{CHAT}", json=chat_body())
            assert error_of(whole, 503)["code"] == "timeout"
            gate.at = 2
            streamed = httpx.post(f"{address}{CHAT}", json=chat_body(stream=True))
            assert streamed.status_code == 200 and '"code":"timeout"' in streamed.text.split("\n\n")[-2]
    finally:
        gate.open.set()


def test_S1_a_malformed_request_is_answered_in_the_one_shape() -> None:
    with served(house()) as address:
        host, port = address.removeprefix("http://").split(":")
        for sent in (
            b"NONSENSE\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n",
            b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        ):
            with socket.create_connection((host, int(port)), timeout=CLOSED) as connection:
                connection.sendall(sent)
                found = b""
                while part := connection.recv(65536):
                    found += part
            head, _, body = found.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ") and set(json.loads(body)["error"]) == {
                "message", "type", "param", "code",
            }  # fmt: skip


def test_S1_headers_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.serving import serve

    monkeypatch.setattr(serve, "HEADER_SECONDS", 0.05)
    with served(house()) as address:
        host, port = address.removeprefix("http://").split(":")
        for sent in (b"", b"GET / HTTP/1.1\r\nx: "):
            with socket.create_connection((host, int(port)), timeout=CLOSED) as connection:
                connection.sendall(sent)
                found = b""
                while part := connection.recv(65536):
                    found += part
            assert b" 408 " in found.split(b"\r\n")[0]
        with httpx.Client(base_url=address) as client:  # one that is kept alive is not a slow one
            assert client.get("/health").status_code == 200


SMALL_BODIES = """
from groundup.serving.app import build
from groundup.serving.options import ServerOptions
from groundup.serving.serve import run
from groundup.serving.specimen import shelf

options = ServerOptions(port=0, max_body_bytes=1 << 20)
run(build(shelf(), options), options, lambda address: print(address, flush=True))
"""


def most_memory(process: int) -> int:
    """Bytes that a process had in memory at its worst."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the most memory is read from Linux's /proc")
def test_S1_a_hundred_megabytes() -> None:
    """In a process of its own: what the client holds must not count, and what was freed since must."""
    server = Process(SMALL_BODIES)
    try:
        url, headers = f"{server.address}{COMPLETION}", {"content-type": "application/json"}
        error_of(httpx.post(url, content=b"x" * (2 << 20), headers=headers, timeout=30), 413)
        before = most_memory(server.process.pid)
        error_of(httpx.post(url, content=iter([b"x" * (1 << 20)] * 20), headers=headers, timeout=30), 413)
        error_of(httpx.post(url, content=b"x" * (100 << 20), headers=headers, timeout=30), 413)
        assert most_memory(server.process.pid) < before + (12 << 20)
    finally:
        server.end()


def test_S1_a_client_that_sends_half_a_body() -> None:
    with served(house(body_seconds=0.05)) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=CLOSED) as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: 100\r\n\r\n{"
            )
            found = b""
            while part := connection.recv(65536):
                found += part
        assert found.startswith(b"HTTP/1.1 408 ") and b'"request_timeout"' in found


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_S16_told_to_stop_it_finishes_what_it_began(stop: signal.Signals) -> None:
    server = Process(WAITING, "60")
    try:
        with httpx.Client(base_url=server.address, timeout=CLOSED) as client:
            with client.stream("POST", CHAT, json=chat_body(stream=True)) as live:
                lines = live.iter_lines()
                assert server.out.readline() == "waiting\n"
                server.process.send_signal(stop)
                while (answer := httpx.post(f"{server.address}{CHAT}", json=chat_body())).status_code == 200:
                    pass  # the signal is on its way
                assert error_of(answer, 503)["code"] == "server_stopping" and answer.headers["retry-after"]
                assert httpx.get(f"{server.address}/health").json() == {"status": "stopping"}
                server.go_on()
                text = "\n".join(lines)
            assert "[DONE]" in text and '"finish_reason":"stop"' in text
        assert server.process.wait(CLOSED) == 0
        assert server.out.readline() == "ended\n"
    finally:
        server.end()


def test_S16_an_answer_that_outlasts_the_stop_ends_with_an_error() -> None:
    server = Process(WAITING, "0.1")
    try:
        with httpx.Client(base_url=server.address, timeout=CLOSED) as client:
            with client.stream("POST", CHAT, json=chat_body(stream=True)) as live:
                lines = live.iter_lines()
                assert server.out.readline() == "waiting\n"
                server.process.send_signal(signal.SIGTERM)
                text = "\n".join(lines)
            assert '"code":"server_stopping"' in text and "[DONE]" not in text
        server.go_on()
        assert server.process.wait(CLOSED) == 0
    finally:
        server.end()


def test_a_port_that_is_taken_is_a_plain_error() -> None:
    with bind(ServerOptions(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GroundupError) as caught:
            bind(ServerOptions(port=port))
        assert caught.value.code == "E-SERVE-012" and str(port) in caught.value.what
    with pytest.raises(GroundupError):
        bind(ServerOptions(host="no.such.host.invalid"))


def test_S1_two_lengths_of_one_body_are_refused() -> None:
    """What stands in front of the server may go by the other one: request smuggling."""
    raw = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    with served(house()) as address, socket.create_connection(("127.0.0.1", httpx.URL(address).port or 0)) as client:
        client.settimeout(20)
        client.sendall(raw)
        said = b""
        while piece := client.recv(65536):
            said += piece
    assert said.startswith(b"HTTP/1.1 400") and said.count(b"HTTP/1.1 ") == 1
