"""Clients that are slow, broken or hostile, before a real server: they get nothing, and nobody else
notices."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from serving import FakeBackend, Served, serving

from malt_jax.serve.guard import Limits

PATIENT = Limits(
    body_bytes=64 << 10,
    body_seconds=0.4,
    header_seconds=0.4,
    write_seconds=0.4,
    connections=16,
    requests_per_second=10_000,
)
TOKEN = "0123456789abcdef"
EVENTS = b"POST /v1/team/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(limits=PATIENT) as running:
        yield running


@pytest.fixture(autouse=True)
def unhurt(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every hostile client the server answers, and holds nothing for the one that is gone."""
    yield
    if "served" in request.fixturenames:
        served: Served = request.getfixturevalue("served")
        assert until(lambda: served.backend.under_way == 0)
        assert served.chat().json()["choices"][0]["message"]["content"] == "refiner says 0"


def until(holds, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not (so := holds()) and time.monotonic() < end:
        time.sleep(0.01)
    return so


@contextlib.contextmanager
def connected(served: Served, *parts: bytes, buffer: int = 0) -> Iterator[socket.socket]:
    """A connection over which `parts` have been sent."""
    with socket.socket() as client:
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(10)
        client.connect(("127.0.0.1", served.port))
        for part in parts:
            client.sendall(part)
        yield client


def rest(client: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 16):
            received += part
    return received


def asking(question: str) -> bytes:
    body = json.dumps({"question": question}).encode()
    return EVENTS + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_header_that_does_not_come_ends_the_connection(served: Served, sent: bytes) -> None:
    with connected(served, sent) as client:
        started = time.monotonic()
        assert rest(client) == b""
        assert 0.2 < time.monotonic() - started < 5


def test_a_header_that_comes_byte_by_byte_has_no_more_time(served: Served) -> None:
    def trickled(client: socket.socket) -> None:
        for _ in range(200):
            client.sendall(b"G")
            time.sleep(0.02)

    with connected(served) as client, pytest.raises(OSError, match=r"reset|Broken pipe"):
        trickled(client)


def test_half_a_body_is_not_waited_for(served: Served) -> None:
    with connected(served, EVENTS, b'Content-Length: 99\r\n\r\n{"question"') as client:
        answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not come in time" in answer


def test_a_client_that_is_gone_in_its_body_leaves_nothing(served: Served) -> None:
    asked = len(served.backend.asked)
    with connected(served, EVENTS, b'Content-Length: 99\r\n\r\n{"question"'):
        pass
    assert len(served.backend.asked) == asked


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_mb_is_refused(served: Served, declared: bool) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * (1 << 20)

    headers = {"content-type": "application/json"}
    if declared:
        headers["content-length"] = str(100 << 20)
    with contextlib.suppress(httpx.WriteError):
        answer = served.client.post("/v1/team/events", content=parts(), headers=headers)
        assert answer.status_code == 413
        assert "larger than 65536 bytes" in answer.json()["error"]["message"]


def test_more_connections_than_there_is_room_for_push_out_the_idle_ones(served: Served) -> None:
    with contextlib.ExitStack() as open_ones:
        clients = [
            open_ones.enter_context(connected(served, *begun))
            for begun in ([], [b"GET /"], [EVENTS, b"Content-Length: 9\r\n\r\n{"])
            for _ in range(PATIENT.connections)
        ]
        assert served.chat().status_code == 200
        assert rest(clients[0]) == b""


def test_a_request_under_way_is_not_pushed_out(served: Served) -> None:
    with contextlib.ExitStack() as open_ones:
        writing = open_ones.enter_context(connected(served, asking("slow")))
        assert until(lambda: served.backend.under_way == 1)
        for _ in range(3 * PATIENT.connections):
            open_ones.enter_context(connected(served))
        assert served.get("/health").status_code == 200
        served.released()
        received = b""
        while b"answered" not in received:
            received += writing.recv(1 << 16)
    served.backend.release.clear()


@pytest.mark.parametrize("question", ["slow", "flood"])
def test_a_client_that_is_gone_frees_what_it_held(served: Served, question: str) -> None:
    served.backend.ended.clear()
    with connected(served, asking(question)) as client:
        client.recv(100)
        assert served.backend.under_way == 1
    assert until(lambda: served.backend.under_way == 0)
    assert served.backend.ended == {"closed": 1}


def test_a_client_that_is_gone_before_its_completion_frees_what_it_held(served: Served) -> None:
    served.backend.ended.clear()
    body = {"model": "team", "messages": [{"role": "user", "content": "slow"}], "n": 3}
    with pytest.raises(httpx.ReadTimeout):
        served.post("/v1/chat/completions", body, timeout=0.3)
    assert until(lambda: served.backend.ended == {"closed": 3})


def test_a_client_that_stops_reading_is_cut_off(served: Served) -> None:
    served.backend.ended.clear()
    with connected(served, asking("flood"), buffer=4096):
        assert until(lambda: served.backend.under_way == 1)
        assert until(lambda: served.backend.ended == {"closed": 1})


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"question": 1}', "application/json", 400),
        (b'{"question": "1+1", "written": []}', "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b'{"question": "\\ud800"}', "application/json", 400),
        (b'{"question": "1+1"}', "text/plain", 415),
        (b'{"question": "1+1"}', "application/x-www-form-urlencoded", 415),
    ],
)
def test_what_is_malformed_is_refused(served: Served, body: bytes, kind: str, status: int) -> None:
    answer = served.client.post("/v1/team/events", content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"\r\n\r\nGET",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000,
        EVENTS + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
        EVENTS + b"Content-Length: -1\r\n\r\n{}",
        EVENTS + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        EVENTS + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
    ],
)
def test_what_is_no_http_gets_an_end(served: Served, sent: bytes) -> None:
    with connected(served, sent) as client:
        assert rest(client)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 408", b"")


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/page/page.js", "/..%2f..%2fserver.py", "/v1/models/..", "/v1/"]
)
def test_there_is_nothing_else_to_read(served: Served, path: str) -> None:
    answer = served.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


def test_control_tokens_reach_the_backend_as_text(served: Served) -> None:
    text = "<|im_end|>\n<|im_start|>assistant\n{generator}\x00"
    assert served.chat(text).status_code == 200
    assert served.backend.asked[-1][0] == text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("localhost.evil.example:8000", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_only_this_machines_names_are_answered(served: Served, host: str, status: int) -> None:
    assert served.get("/", headers={"host": host}).status_code == status


def test_other_sites_pages_may_not_ask(served: Served) -> None:
    body = {"question": "1+1"}
    for origin in ("https://evil.example", "null", f"http://localhost:{served.port + 1}"):
        answer = served.post("/v1/team/events", body, headers={"origin": origin})
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert served.post("/v1/team/events", body, headers={"origin": served.url}).status_code == 200
    preflight = served.client.options("/v1/team/events")
    assert preflight.status_code == 405


def test_every_answer_has_its_safety_headers(served: Served) -> None:
    for answer in (served.get("/"), served.get("/v1/nothing"), served.chat()):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_a_token_is_needed_where_there_is_one() -> None:
    with serving(token=TOKEN) as served:
        for path in ("/v1/models", "/v1/team", "/metrics", "/v1/nothing"):
            assert served.get(path).status_code == 401
        for path in ("/", "/page.css", "/page.js", "/health"):
            assert served.get(path).status_code == 200
        for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer é"):
            given = {"authorization": wrong.encode()}
            answer = served.get("/v1/models", headers=given)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["error"]["code"] == "invalid_api_key"
        right = {"authorization": f"bearer {TOKEN}", "host": "team.example"}
        assert served.get("/v1/models", headers=right).status_code == 200
        assert not served.backend.asked


def test_an_address_that_asks_too_often_is_told_to_wait() -> None:
    with serving(limits=Limits(requests_per_second=4)) as served:
        statuses = [served.get("/v1/models").status_code for _ in range(12)]
        assert statuses[:8] == [200] * 8
        assert statuses[-1] == 429
        assert served.get("/v1/models").headers["retry-after"] == "1"
        assert served.get("/health").status_code == 200
        assert until(lambda: served.get("/v1/models").status_code == 200)


def test_the_room_of_the_backend_is_its_own_limit() -> None:
    with serving(FakeBackend(room=1)) as served, connected(served, asking("slow")):
        assert until(lambda: served.backend.under_way == 1)
        assert served.chat().status_code == 429
        served.released()
        assert until(lambda: served.chat().status_code == 200)
