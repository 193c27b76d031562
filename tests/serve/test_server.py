"""Where it listens, under which token, and how it ends."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from serving import FakeBackend, client

from malt_jax.serve import address, server
from malt_jax.serve.guard import Limits

TOKEN = "0123456789abcdef"


def events(port: int, question: str, lines: list[str]) -> None:
    body = {"question": question}
    try:
        with (
            client(f"http://127.0.0.1:{port}") as asking,
            asking.stream("POST", "/v1/team/events", json=body) as answer,
        ):
            lines.extend(line for line in answer.iter_lines() if line)
    except httpx.RemoteProtocolError:
        lines.append("cut off")


def ended_while_it_answers(
    backend: FakeBackend, question: str, limits: Limits
) -> tuple[list[str], bool]:
    """What a client read of an answer that was under way at SIGTERM, and whether one that came
    later was still let in. Signals are for the main thread, so the clients are in another."""
    listening = address.listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    lines: list[str] = []
    let_in: list[bool] = []

    def clients() -> None:
        asking = threading.Thread(target=events, args=[port, question, lines])
        asking.start()
        while not lines:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            let_in.append(True)
        except OSError:
            let_in.append(False)
        asking.join()

    thread = threading.Thread(target=clients)
    thread.start()
    server.run(backend, listening, limits=limits)
    thread.join()
    return lines, let_in[0]


def test_a_signal_lets_what_is_under_way_end() -> None:
    before = signal.getsignal(signal.SIGTERM)
    backend = FakeBackend(pace=0.1)
    lines, let_in = ended_while_it_answers(backend, "1+1", Limits())
    assert '"kind":"answered"' in lines[-1]
    assert not let_in
    assert backend.closed
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_does_not_end_is_ended_after_the_grace() -> None:
    backend = FakeBackend(pace=0.05)
    started = time.monotonic()
    lines, _ = ended_while_it_answers(backend, "slow", Limits(grace_seconds=1))
    assert 1 < time.monotonic() - started < 10
    assert lines[-1] == "cut off"
    assert backend.closed
    assert backend.under_way == 0


def test_a_backend_that_fails_ends_the_server() -> None:
    backend = FakeBackend(fault=ValueError("the KV cache has no room for a page"))
    with pytest.raises(ValueError, match="no room for a page"):
        server.run(backend, address.listen("127.0.0.1", 0))
    assert backend.closed


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_are_let_in_with_a_token_only(host: str) -> None:
    with pytest.raises(ValueError, match=f"--host={host}: .* --token-file=FILE, or MALT_TOKEN"):
        address.listen(host, 0)


def test_a_port_or_host_that_cannot_be_had_is_named() -> None:
    first = address.listen("localhost", 0)
    with first, pytest.raises(ValueError, match=r"--port: .* give another one"):
        address.listen(*first.getsockname()[:2])
    with pytest.raises(ValueError, match="--port: 65536"):
        address.listen("127.0.0.1", 65536)
    for host in ("no such host", "192.0.2.1"):
        with pytest.raises(ValueError, match="--host: "):
            address.listen(host, 0, TOKEN)


def test_the_token_is_of_a_file_or_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(address.TOKEN, raising=False)
    assert address.read_token("") == ""
    monkeypatch.setenv(address.TOKEN, TOKEN)
    assert address.read_token("") == TOKEN
    (tmp_path / "token").write_text(f"{TOKEN[::-1]}\n")
    assert address.read_token(str(tmp_path / "token")) == TOKEN[::-1]


@pytest.mark.parametrize("content", ["", "short", "with a space in it", "ünicode-0123456789abc"])
def test_a_token_that_is_no_secret_is_refused_without_being_shown(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"--token-file={file}") as refused:
        address.read_token(str(file))
    assert not content or content not in str(refused.value)
    with pytest.raises(ValueError, match="nowhere"):
        address.read_token(str(tmp_path / "nowhere"))
