"""Who is let in (S14), how much (S1, S7), and what of the disk can be reached (S13)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from house import CHAT, KEY, Caller, Gate, caller, chat_body, error_of, house

from groundup.errors import GroundupError
from groundup.serving import pages
from groundup.serving.options import ServerOptions, allows_host
from groundup.serving.specimen import Specimen


def keyed(*authorization: str, path: str = "/v1/models", method: str = "GET") -> Any:
    headers = [("authorization", value) for value in authorization]
    return caller(keys=("another-key-of-the-server", KEY)).request(method, path, headers=headers)


def test_S14_the_right_key() -> None:
    assert keyed(f"Bearer {KEY}").status_code == 200
    assert keyed(f"bearer {KEY}").status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [KEY],
        [f"Basic {KEY}"],
        [f"Bearer {KEY}x"],
        [f"Bearer {KEY[:-1]}"],
        [f"Bearer {KEY}", f"Bearer {KEY}"],
        [f"Bearer {KEY}", "Bearer wrong"],
        ["Bearer \xff\xfe"],
    ],
)
def test_S14_a_missing_wrong_or_repeated_key(given: list[str]) -> None:
    answer = caller(keys=("another-key-of-the-server", KEY)).request(
        "GET", "/v1/models", headers=[(b"authorization", value.encode("latin-1")) for value in given]
    )
    assert error_of(answer, 401)["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == 'Bearer realm="groundup"'
    assert KEY not in answer.text


@pytest.mark.parametrize("path", ["/ready", "/metrics", "/openapi.json", "/conformance", "/nowhere", "/v1/models/a",
                                  "/health/", "/page/none.js"])  # fmt: skip
def test_S14_everything_else_is_denied_without_a_key(path: str) -> None:
    error_of(keyed(path=path), 401)


def test_S14_health_and_the_page_need_no_key() -> None:
    assert keyed(path="/health").status_code == 200
    assert keyed(path="/").status_code in (200, 404 if not pages.files() else 200)
    error_of(keyed(path="/", method="POST"), 401)


def test_S14_keys_are_compared_as_digests_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time must tell neither how much of a key is right nor which one."""
    from groundup.serving import guard

    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(guard.hmac, "compare_digest", compare)
    server = caller(keys=(KEY, "another-key-of-the-server"))
    for given in (KEY, KEY[:-1], "x", "x" * 5000):
        compared.clear()
        server.get("/v1/models", headers={"authorization": f"Bearer {given}"})
        assert len(compared) == 2 and {len(side) for pair in compared for side in pair} == {32}


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:1", "a@localhost",
                                  "localhost:80:80", "", "192.168.0.7", "[::1", "localhost/x"])  # fmt: skip
def test_S14_a_foreign_host(host: str) -> None:
    assert error_of(caller().get("/v1/models", headers={"host": host}), 403)["code"] == "invalid_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:9", "[::1]:8000", "localhost."])
def test_S14_its_own_names(host: str) -> None:
    assert caller().get("/v1/models", headers={"host": host}).status_code == 200


def test_S14_two_hosts() -> None:
    answer = caller().get("/v1/models", headers=[("host", "localhost"), ("host", "evil.example")])
    error_of(answer, 400)


def test_S14_hosts_of_a_server_that_others_reach() -> None:
    wide = ServerOptions(host="0.0.0.0", keys=(KEY,), allowed_hosts=("models.example",))
    assert allows_host(wide, "10.1.2.3") and allows_host(wide, "models.example") and allows_host(wide, "fe80::1")
    assert not allows_host(wide, "evil.example")  # a name that somebody else can point here


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:81", "https://localhost.evil", "x"]
)
def test_S14_a_foreign_origin(origin: str) -> None:
    answer = caller().get("/v1/models", headers={"origin": origin})
    assert error_of(answer, 403)["code"] == "invalid_origin"
    assert "access-control-allow-origin" not in answer.headers


def test_S14_its_own_origin_and_one_that_is_allowed() -> None:
    server = caller(allowed_origins=("https://app.example",))
    assert server.get("/v1/models", headers={"origin": "http://localhost"}).status_code == 200
    answer = server.get("/v1/models", headers={"origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    before = server.request(
        "OPTIONS", CHAT, headers={"origin": "https://app.example", "access-control-request-method": "POST"}
    )
    assert before.status_code == 204 and "POST" in before.headers["access-control-allow-methods"]
    asked = {"origin": "https://app.example", "access-control-request-headers": "x-stainless-os, bad name, accept"}
    allowed = server.request("OPTIONS", CHAT, headers=asked).headers["access-control-allow-headers"]
    assert allowed.split(", ") == ["authorization", "content-type", "x-stainless-os", "badname", "accept"]
    keyed = caller(allowed_origins=("https://app.example",), keys=("k" * 32,))
    refused = keyed.get("/v1/models", headers={"origin": "https://app.example"})
    assert error_of(refused, 401) and refused.headers["access-control-allow-origin"] == "https://app.example"
    assert "retry-after" in refused.headers["access-control-expose-headers"]
    own = server.get("/v1/models", headers={"origin": "http://localhost"})
    assert "access-control-allow-origin" not in own.headers


def test_S14_open_by_accident_is_refused() -> None:
    for options, code in (
        ({"host": "0.0.0.0"}, "E-SERVE-010"),
        ({"host": "192.168.1.1"}, "E-SERVE-010"),
        ({"host": "example.org"}, "E-SERVE-010"),
        ({"keys": ("short",)}, "E-SERVE-011"),
        ({"keys": ("with a space in it, though long",)}, "E-SERVE-011"),
    ):
        with pytest.raises(GroundupError) as caught:
            house(**options)
        assert caught.value.code == code
    assert KEY not in repr(ServerOptions(keys=(KEY,)))


@pytest.mark.parametrize("path", ["/", "/v1/models", "/nowhere", CHAT])
def test_every_answer_has_the_headers_of_safety(path: str) -> None:
    headers = caller().get(path).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == ("no-cache" if path == "/" and pages.files() else "no-store")


class Feed:
    """A client that sends its body in its own time, and never says how long it is."""

    def __init__(self, *chunks: bytes, then: asyncio.Event | None = None) -> None:
        self.chunks, self.then, self.taken = list(chunks), then, 0

    async def receive(self) -> dict[str, Any]:
        if self.chunks:
            self.taken += 1
            return {"type": "http.request", "body": self.chunks.pop(0), "more_body": True}
        if self.then is not None:
            await self.then.wait()
        return {"type": "http.request", "body": b"", "more_body": False}


def post(app: Any, feed: Feed, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "localhost", "content-type": "application/json", **headers}
    scope = {
        "type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b"",
        "scheme": "http", "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items()],
        "root_path": "", "http_version": "1.1", "server": ("localhost", 80), "client": None, "asgi": {},
    }  # fmt: skip
    asyncio.run(app(scope, feed.receive, send))
    head = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], head, json.loads(b"".join(m.get("body", b"") for m in sent[1:]))


def test_S1_a_body_without_a_length_is_cut_at_the_limit() -> None:
    feed = Feed(*[b"x" * 1000] * 50)
    status, headers, body = post(house(max_body_bytes=10_000), feed)
    assert status == 413 and headers["connection"] == "close" and set(body["error"]) >= {"message", "code"}


def test_S1_a_length_over_the_limit_is_refused_unread_if_the_client_waits() -> None:
    feed = Feed(*[b"x" * 1000] * 50)
    status, _, _ = post(house(max_body_bytes=10_000), feed, content_length="100000000", expect="100-continue")
    assert status == 413 and feed.taken == 0


@pytest.mark.parametrize("length", ["-1", "1e3", "\u0663", "9" * 30, "0x10", ""])
def test_S1_a_length_that_is_none(length: str) -> None:
    headers = {"content_length": length.encode("utf-8").decode("latin-1")}
    status, _, _ = post(house(), Feed(b"{}"), **headers)
    assert status in (400, 413)


def test_S1_a_slow_client() -> None:
    status, headers, body = post(house(body_seconds=0.05), Feed(b"{", then=asyncio.Event()))
    assert status == 408 and headers["connection"] == "close" and body["error"]["code"] == "request_timeout"


def test_S7_a_full_house_says_when_to_come_again_and_health_answers() -> None:
    gate = Gate()
    app = house(Specimen(before_token=gate), queue=2)

    async def work() -> None:
        import httpx

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            asked = [asyncio.create_task(client.post(CHAT, json=chat_body())) for _ in range(2)]
            await asyncio.to_thread(gate.reached.wait, 5.0)
            full = await client.post(CHAT, json=chat_body())
            assert error_of(full, 429)["type"] == "rate_limit_error" and full.headers["retry-after"] == "1"
            assert (await client.get("/health")).json() == {"status": "ok"}
            gate.open.set()
            assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200, 200]
            assert (await client.post(CHAT, json=chat_body())).status_code == 200

    asyncio.run(work())
    assert app.state.desk.under_way == 0


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2f..%2fetc/passwd",
        "/page/..%2f..%2fapp.py",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..\\app.py",
        "/page//etc/passwd",
        "/page/%00",
        "/page/index.html/",
        "/page/index.html%00.js",
        "/etc/passwd",
    ],
)
def test_S13_no_path_reaches_the_disk(path: str) -> None:
    from urllib.parse import unquote

    server = caller()
    error_of(server.get(path), 404)
    error_of(server.get(unquote(path).replace("\x00", "%00")), 404)


def test_S13_links_and_unknown_types_are_not_served(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.js").write_text("secret")
    page = tmp_path / "page"
    (page / "sub").mkdir(parents=True)
    (page / "index.html").write_text("<title>x</title>")
    (page / "sub" / "a.js").write_text("1")
    (page / "notes.py").write_text("2")
    (page / ".env").write_text("3")
    (page / "link.js").symlink_to(outside / "secret.js")
    (page / "linked").symlink_to(outside)
    found = pages.files(page)
    assert set(found) == {"/", "/page/index.html", "/page/sub/a.js"}
    assert found["/page/sub/a.js"].kind == "text/javascript; charset=utf-8"


def test_the_page_is_served_with_its_policy_and_a_tag(tmp_path: Path) -> None:
    from fastapi import FastAPI

    (tmp_path / "index.html").write_text("<title>x</title>")
    app = FastAPI()
    pages.mount(app, pages.files(tmp_path))
    first = Caller(app).get("/")
    assert (
        first.headers["content-type"].startswith("text/html")
        and "default-src 'self'" in first.headers["content-security-policy"]
    )
    again = Caller(app).get("/", headers={"if-none-match": f'"x", {first.headers["etag"]}'})
    assert again.status_code == 304 and not again.content


def test_the_measurements_name_routes_and_nothing_that_a_client_chose() -> None:
    server = Caller(house())
    server.chat()
    server.get("/nowhere/secret-path")
    server.get("/v1/models/secret-name")
    server.request("WOBBLE", "/health")
    text = server.get("/metrics").text
    assert 'groundup_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0' in text
    assert 'route="unmatched",status="404"' in text and 'route="/v1/models/{name:path}",status="404"' in text
    assert 'groundup_answers_total{model="writer"} 1.0' in text and 'groundup_running{model="writer"} 0.0' in text
    assert "secret" not in text and "WOBBLE" not in text
    assert server.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    other = Caller(house())
    assert "chat" not in other.get("/metrics").text  # each server counts for itself


def test_ready_tells_loading_and_stopping() -> None:
    server = Caller(house())
    desk = server.app.state.desk
    assert server.get("/ready").json() == {"status": "ready"}
    desk.shelf.is_ready = False
    answer = server.get("/ready")
    assert error_of(answer, 503)["code"] == "not_ready" and answer.headers["retry-after"]
    desk.draining = True
    assert server.get("/health").json() == {"status": "stopping"}
    error_of(server.get("/ready"), 503)


def test_requests_for_one_model_wait_for_it_together() -> None:
    import threading

    from groundup.serving.specimen import shelf

    models = shelf()
    inner, calls, go = models.get, [], threading.Event()

    def slow(name: str) -> Any:
        calls.append(name)
        assert go.wait(5.0)
        return inner(name)

    models.get = slow  # type: ignore[method-assign]
    models.find = lambda name: None  # type: ignore[method-assign]
    app = house(models=models)

    async def work() -> None:
        import httpx

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            asked = [asyncio.create_task(client.post("/tokenize", json={"prompt": "a"})) for _ in range(10)]
            while app.state.desk.under_way < 10:
                await asyncio.sleep(0)
            assert (await client.get("/health")).status_code == 200
            go.set()
            assert all(answer.status_code == 200 for answer in await asyncio.gather(*asked))

    asyncio.run(work())
    assert calls == ["writer"]
