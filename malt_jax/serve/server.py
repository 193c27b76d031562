"""The process that listens: connections that are slow or idle make room, and a signal ends it when
what is under way has been answered."""

import asyncio
import math
import resource
import socket
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from absl import logging
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from malt_jax.runtime import process
from malt_jax.serve.address import BACKLOG
from malt_jax.serve.backend import Backend
from malt_jax.serve.guard import Limits
from malt_jax.serve.http import application

_HEADER_BYTES = 16 << 10


def run(
    backend: Backend, listening: socket.socket, token: str = "", limits: Limits | None = None
) -> None:
    """Serves until a signal ends it, and then what is under way. For the main thread.

    Raises what has ended the backend, if that was the end.
    """
    limits = limits or Limits()
    running = server(application(backend, token, limits), limits)
    address, port = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    logging.info("open http://%s:%d/", shown, port)
    with ended_by_signals(running):
        asyncio.run(_serve(running, listening, backend))


async def _serve(running: uvicorn.Server, listening: socket.socket, backend: Backend) -> None:
    watching = asyncio.create_task(_end_with(backend, running))
    try:
        await running.serve(sockets=[listening])
    finally:
        watching.cancel()
        await backend.close()
    if backend.fault is not None:
        raise backend.fault


async def _end_with(backend: Backend, running: uvicorn.Server) -> None:
    """Ends the server once its backend has failed: whoever watches the process starts another."""
    while backend.fault is None:
        await asyncio.sleep(0.5)
    running.should_exit = True


def server(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """A server of `app`, to be run by `serve`."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2  # files for what else is open
    config = uvicorn.Config(
        app,
        http=_protocol(limits, min(limits.connections, room)),
        ws="none",
        loop="asyncio",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="error",
        backlog=BACKLOG,
        timeout_keep_alive=math.ceil(limits.idle_seconds),
        timeout_graceful_shutdown=math.ceil(limits.grace_seconds),
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are `ended_by_signals`' business, which ends the process with exit code 0."""
        yield


@contextmanager
def ended_by_signals(running: uvicorn.Server) -> Iterator[None]:
    """In it SIGTERM, Ctrl-C and the end of the terminal (unless ignored) let the server finish; a
    second one ends it at once. For the main thread."""

    def end(number: int, frame: object) -> None:
        running.force_exit = running.should_exit
        running.should_exit = True

    with process.on_signals(end):
        yield


def _protocol(limits: Limits, most: int) -> type[asyncio.Protocol]:
    """HTTP/1.1 with limits that uvicorn does not have: of the time that a request's header takes,
    of the time that a client does not read what it is sent, and of connections. When there are
    more than `most`, the one that has been without a whole request for longest makes room."""
    waiting: OrderedDict[Any, None] = OrderedDict()

    class Protocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                oldest = next(iter(waiting), self)
                waiting.pop(oldest, None)
                oldest.transport.abort()
                if oldest is self:
                    return
            self._settle()

        def connection_lost(self, exc: Exception | None) -> None:
            waiting.pop(self, None)
            _stop(self._timer)
            _stop(self._unread)
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            self._settle()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._settle()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(limits.write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _stop(self._unread)

        def _settle(self) -> None:
            """Whether a request is whole, only begun, or still to come."""
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering and not self.cycle.more_body:
                waiting.pop(self, None)
            else:
                waiting.setdefault(self)
            if answering or self.timeout_keep_alive_task is not None:
                _stop(self._timer)
                self._timer = None
            elif self._timer is None:
                self._timer = self.loop.call_later(limits.header_seconds, self.transport.abort)

    return Protocol


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
