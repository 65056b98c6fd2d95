"""A served process under load: requests that are abandoned, two hundred at once, and a stop while it answers.

The model is tiny, so that what is measured is the server; long, so `make faults` runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import PATIENCE, Live, eventually, health_of, serving
from tests.small_models import small_tokenizer, writing_model

pytestmark = pytest.mark.slow

ROWS, WAITING = 4, 16
COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
CALLERS = 12
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writing_model(tmp_path_factory.mktemp("model") / "tiny", small_tokenizer(), context=4096)


@pytest.fixture(scope="module")
def live(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    limits = ("--rows", str(ROWS), "--waiting", str(WAITING))
    with serving(tmp_path_factory.mktemp("live"), f"tiny={model}", *limits) as found:
        yield found


def body(number: int, **more: Any) -> dict[str, Any]:
    said = f"the soup {number} was good and the waiter " * (1 + number % 5)
    return {"model": "tiny", "prompt": said, "max_tokens": 8, "ignore_eos": True, "temperature": 0, **more}


def ask(live: Live, number: int) -> int:
    """Send one request; every third is abandoned at a moment that the number decides."""
    chance = random.Random(number)
    stream = number % 2 == 0
    if number % 3:
        status, headers, _ = live.post(COMPLETION, body(number))
        assert status == 200 or (status == 429 and int(headers["retry-after"]) >= 1)
        return status
    content = json.dumps(body(number, stream=stream, max_tokens=8 if stream else 400)).encode()
    head = f"POST {COMPLETION} HTTP/1.1\r\nHost: {live.host}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    host, port = live.host.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as line:
        moment = chance.randrange(4)
        # half a request; a whole one and not a byte of the answer; a little later; within the answer
        line.sendall(request[: chance.randrange(1, len(request))] if moment == 0 else request)
        if moment == 2:
            time.sleep(chance.random() * 0.05)
        if moment == 3 and stream:
            line.recv(1 + chance.randrange(900))
    return 0


def ask_many(live: Live, numbers: range) -> Counter[int]:
    with ThreadPoolExecutor(CALLERS) as pool:
        found = Counter(pool.map(lambda number: ask(live, number), numbers))
    eventually(live.at_rest, "an abandoned answer still has its place")
    return found


def test_S6_a_thousand_requests_a_third_of_them_abandoned_leave_nothing(live: Live) -> None:
    ask_many(live, range(200))
    eventually(lambda: live.weight()["files"] <= 64, "connections stay open")
    early = live.weight()
    found = ask_many(live, range(200, 1000))
    eventually(lambda: live.weight()["files"] <= early["files"], f"more files than {early}: {live.weight()}")
    late, measured = live.weight(), live.measured()
    print(f"\nafter 200: {early}; after 1,000: {late}; {dict(found)} (0: abandoned)")
    print({name: value for name, value in measured.items() if "total" in name})
    assert set(found) <= {0, 200, 429} and found[0] == len([n for n in range(200, 1000) if n % 3 == 0])
    assert late["memory"] - early["memory"] < 24 * MEBIBYTE
    assert late["threads"] <= early["threads"] + 4, "only pools may grow, which are bounded"
    assert measured["groundup_failed_total"] == 0
    with ThreadPoolExecutor(ROWS + WAITING) as pool:  # all places are there, and answer as an idle server does
        whole = list(pool.map(lambda n: live.post(COMPLETION, body(7, max_tokens=32)), range(ROWS + WAITING)))
    assert {status for status, _, _ in whole} == {200}
    assert len({said["choices"][0]["text"] for _, _, said in whole}) == 1


def test_S7_two_hundred_at_once_get_200_or_429_and_health_answers_throughout(live: Live) -> None:
    async def all_at_once() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=live.address, timeout=PATIENCE, limits=limits) as client:
            return await asyncio.gather(
                *(client.post(COMPLETION, json=body(n, max_tokens=200)) for n in range(200))
            )

    with health_of(live) as seconds:
        answers = asyncio.run(all_at_once())
    found = Counter(answer.status_code for answer in answers)
    middle, most = seconds[len(seconds) // 2], seconds[-1]
    print(f"\n{dict(found)}; /health, {len(seconds)} times: median {1000 * middle:.1f} ms,"
          f" p99 {1000 * seconds[int(len(seconds) * 0.99)]:.1f} ms, most {1000 * most:.1f} ms")  # fmt: skip
    assert set(found) == {200, 429} and found[200] >= ROWS + WAITING
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1 and answer.json()["error"]["type"]
        else:
            assert answer.json()["usage"]["completion_tokens"] == 200
    assert most < 1.0
    eventually(live.at_rest, "places are still taken")


def test_S16_told_to_stop_it_ends_the_streams_that_it_began_and_takes_no_more(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, f"tiny={model}") as live:
        lines = []
        for number in range(3):
            line = live.line()
            more = body(number, stream=True, max_tokens=1500)
            line.request("POST", COMPLETION, json.dumps(more), {"content-type": "application/json"})
            answer = line.getresponse()
            assert answer.status == 200 and answer.readline().startswith(b"data: ")
            lines.append((line, answer))
        live.process.terminate()

        def refuses() -> bool:
            with contextlib.closing(live.line()) as line:
                try:
                    line.request("GET", "/v1/models")
                    answer = line.getresponse()
                except OSError:
                    return True  # all has ended already
                return answer.status == 503 and int(answer.headers["retry-after"]) >= 1

        eventually(refuses, "a server that stops must not take requests")
        for line, answer in lines:
            with contextlib.closing(line):
                events = [one[6:] for one in answer.read().decode().split("\n\n") if one.startswith("data: ")]
            assert events[-1] == "[DONE]", events[-3:]
            assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
        assert live.process.wait(PATIENCE) == 0
