"""The endpoint: OpenAI's chat completions over a backend, the team's own events, and the page."""

import hashlib
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from absl import logging
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from malt_jax.serve import request as requests
from malt_jax.serve.backend import Backend, Busy, Delta, Event
from malt_jax.serve.completions import Answer, Choice
from malt_jax.serve.fields import Body, decoded, shown
from malt_jax.serve.guard import Guard, Limits
from malt_jax.serve.metrics import FIRST, WHOLE, Metrics
from malt_jax.serve.refused import Refused, of_backend
from malt_jax.serve.streams import EventStream, Gone, together

_PAGE = Path(__file__).parent / "page"
_SILENCE_SECONDS = 15.0  # proxies end a connection on which nothing comes for a minute
_CLIENT_GONE = 499  # nobody reads it; a number for the metrics

Run = AsyncGenerator[Event, None]
Item = tuple[int, Event] | None
Render = Callable[[int, Event], Iterator[Mapping[str, Any]]]


def application(backend: Backend, token: str = "", limits: Limits | None = None) -> ASGIApp:
    """The endpoint over a backend. With a `token` every request for what is not public needs it,
    without one only this machine's own names are taken as the Host."""
    metrics = Metrics()
    endpoint = _Endpoint(backend, metrics)
    routes = [
        *(Route(path, _file(name, kind)) for path, name, kind in _FILES),
        Route("/health", endpoint.health),
        Route("/metrics", endpoint.metrics_text),
        Route("/v1/models", endpoint.models),
        Route("/v1/models/{model:path}", endpoint.model),
        Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
        Route("/v1/team", endpoint.team),
        Route("/v1/team/events", endpoint.team_events, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers=_HANDLERS)
    app.router.redirect_slashes = False
    return Guard(app, metrics, token, limits or Limits())


@dataclass(frozen=True)
class _Endpoint:
    backend: Backend
    metrics: Metrics
    created: int = field(default_factory=lambda: int(time.time()))

    async def health(self, request: Request) -> Response:
        ready = self.backend.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def metrics_text(self, request: Request) -> Response:
        text = self.metrics.text(self.backend.counters(), self.backend.ready)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        models = [self._model(name) for name in self.backend.models]
        return JSONResponse({"object": "list", "data": models})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name not in self.backend.models:
            raise Refused(404, f"there is no model {shown(name)}", code="model_not_found")
        return JSONResponse(self._model(name))

    def _model(self, name: str) -> Mapping[str, Any]:
        return {"id": name, "object": "model", "created": self.created, "owned_by": "malt_jax"}

    async def team(self, request: Request) -> Response:
        backend = self.backend
        return JSONResponse({"roles": [*backend.roles], "ready": backend.ready})

    async def chat(self, request: Request) -> Response:
        asked = requests.chat(await self._body(request), self.backend.models)
        roles = self.backend.roles if asked.of_team else (asked.model,)
        choices = [Choice(i, roles, asked.options.votes) for i in range(asked.n)]
        answer = Answer(asked.model, choices, asked.include_usage)
        events = self._events(asked.model, self._runs(asked), request)
        if not asked.stream:
            texts: list[defaultdict[str, str]] = [defaultdict(str) for _ in choices]
            async for item in events:
                if item is not None:
                    index, event = item
                    for name, text in choices[index].told(event):
                        texts[index][name] += text
            return JSONResponse(answer.whole(texts))
        messages = _messages(await anext(events, None), events, answer.chunks)
        return EventStream(_framed(answer, messages))

    async def team_events(self, request: Request) -> Response:
        question, options = requests.team(await self._body(request), self.backend.roles)
        events = self._events(requests.TEAM, [self.backend.ask(question, options)], request)
        return EventStream(_messages(await anext(events, None), events, _as_json))

    async def _body(self, request: Request) -> Body:
        body = decoded(await request.body())
        if not self.backend.ready:
            raise Refused(503, "the model is not ready; try again", code="not_ready", retry=2)
        return body

    def _runs(self, asked: requests.ChatRequest) -> Sequence[Run]:
        """One a choice. The first has the request's seed, the others seeds that follow from it."""
        choices = [
            replace(asked.options, seed=_seed(asked.options.seed, i)) for i in range(asked.n)
        ]
        if asked.of_team:
            return [self.backend.ask(asked.question, options) for options in choices]
        return [self.backend.chat(asked.model, asked.messages, options) for options in choices]

    async def _events(
        self, model: str, runs: Sequence[Run], request: Request
    ) -> AsyncGenerator[Item, None]:
        """The events of all runs, timed. Raises `Refused` for what a backend raises."""
        started, first, begun = time.perf_counter(), True, False
        items = together(runs, request.receive, _SILENCE_SECONDS)
        try:
            async for item in items:
                if first and item and isinstance(item[1], Delta):
                    self.metrics.observe(FIRST, model, time.perf_counter() - started)
                    first = False
                begun = begun or item is not None
                yield item
            self.metrics.observe(WHOLE, model, time.perf_counter() - started)
        except Gone:
            self.metrics.gone += 1
            raise
        except Exception as error:
            if isinstance(error, Busy) or (isinstance(error, ValueError) and not begun):
                raise of_backend(error) from error
            logging.exception("a request of %s failed", model)
            raise Refused(500, "the server failed; its log says how") from error
        finally:
            await items.aclose()


async def _messages(
    first: Item, events: AsyncGenerator[Item, None], render: Render
) -> AsyncGenerator[Mapping[str, Any] | None, None]:
    """What events become, as far as their client stays. What goes wrong in their middle is the last
    message."""
    try:
        for message in render(*first) if first else ():
            yield message
        async for item in events:
            if item is None:
                yield None
            else:
                for message in render(*item):
                    yield message
    except Refused as refused:
        yield refused.body()
    except Gone:
        pass
    finally:
        await events.aclose()


async def _framed(
    answer: Answer, messages: AsyncGenerator[Mapping[str, Any] | None, None]
) -> AsyncGenerator[Mapping[str, Any] | str | None, None]:
    """A stream of chunks with its beginning, and its end if it comes to one."""
    failed = False
    try:
        for chunk in answer.first():
            yield chunk
        async for message in messages:
            failed = failed or bool(message and "error" in message)
            yield message
        if not failed:
            for chunk in answer.last():
                yield chunk
            yield "[DONE]"
    finally:
        await messages.aclose()


def _as_json(index: int, event: Event) -> Iterator[Mapping[str, Any]]:
    yield {"kind": type(event).__name__.lower(), **vars(event)}


def _seed(seed: int | None, choice: int) -> int | None:
    if seed is None or choice == 0:
        return seed
    digest = hashlib.sha256(f"{seed} {choice}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


_FILES = (
    ("/", "index.html", "text/html"),
    ("/page.css", "page.css", "text/css"),
    ("/page.js", "page.js", "text/javascript"),
)


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (_PAGE / name).read_bytes()

    async def file(request: Request) -> Response:
        return Response(content, media_type=kind)

    return file


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {shown(request.scope['path'])}: {error.detail}"
    response = Refused(error.status_code, message).response()
    response.headers.update(error.headers or {})
    return response


async def _on_failure(request: Request, error: Exception) -> Response:
    return Refused(500, "the server failed; its log says how").response()


async def _on_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)


_HANDLERS: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    Refused: _on_refused,
    HTTPException: _on_http,
    Exception: _on_failure,
    Gone: _on_gone,
    ClientDisconnect: _on_gone,
}
