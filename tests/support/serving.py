"""A backend that answers by rule, and the endpoint over it on a port of its own, in a thread."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from malt_jax.serve import address, server
from malt_jax.serve.backend import (
    Answered,
    Began,
    Busy,
    Delta,
    Ended,
    Event,
    Message,
    Options,
)
from malt_jax.serve.guard import Limits
from malt_jax.serve.http import application

ROLES = ("generator", "verifier", "refiner")
PROMPT_TOKENS, SHARED = 10, 4
FLOOD = "x" * 20_000


@dataclass
class FakeBackend:
    """Answers with the number of the pass, one word at a time. `boom` in a question fails in the
    middle, `flood` writes for ever, `slow` waits before the second word until `release` is set."""

    room: int = 64
    ready: bool = True
    fault: Exception | None = None
    models: Sequence[str] = ("team", "team-vote", *ROLES)
    roles: Sequence[str] = ROLES
    under_way: int = 0
    asked: list[tuple[object, Options]] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    pace: float = 0.0  # seconds a word
    release: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    async def ask(self, question: str, options: Options) -> AsyncGenerator[Event, None]:
        if not question.strip():
            raise ValueError("the question is empty")
        async with self._taken(question, options):
            roles = self.roles[len(options.written) :]
            for role in roles:
                for run in range(options.votes):
                    yield Began(run, role, PROMPT_TOKENS)
                async for event in self._written(role, question, options):
                    yield event
            answers = [str(answer) for answer in self._answers(options)]
            votes = Counter(answers)
            winner = votes.most_common(1)[0][0]
            text = self.text(self.roles[-1], answers.index(winner), options)
            yield Answered(winner, text, votes, True, *self._tokens(options.votes * len(roles)))

    async def chat(
        self, role: str, messages: Sequence[Message], options: Options
    ) -> AsyncGenerator[Event, None]:
        async with self._taken(tuple(messages), options):
            yield Began(0, role, PROMPT_TOKENS)
            async for event in self._written(role, messages[-1].content, options):
                yield event
            yield Answered("", self.text(role, 0, options), {}, None, *self._tokens(1))

    async def _written(
        self, role: str, question: str, options: Options
    ) -> AsyncGenerator[Event, None]:
        for place in range(3):
            for run in range(options.votes):
                await asyncio.sleep(self.pace)
                word = self.text(role, run, options).split(" ")[place]
                yield Delta(run, role, word if place == 0 else f" {word}")
            if "boom" in question:
                raise RuntimeError("planted")
            if "slow" in question:
                await self.release.wait()
            while "flood" in question:
                await asyncio.sleep(0)
                yield Delta(0, role, FLOOD)
        finish = "length" if options.max_tokens == 3 else "stop"
        for run in range(options.votes):
            yield Ended(run, role, self.text(role, run, options), finish, 3)

    def text(self, role: str, run: int, options: Options) -> str:
        """What a role writes: the seed and the pass are all that it depends on."""
        return f"{role} says {self._answers(options)[run]}"

    def _answers(self, options: Options) -> list[int]:
        return [(options.seed or 0) + (1 if run == 2 else 0) for run in range(options.votes)]

    def _tokens(self, turns: int) -> tuple[int, int, int]:
        return turns * PROMPT_TOKENS, turns * SHARED, turns * 3

    @contextlib.asynccontextmanager
    async def _taken(self, question: object, options: Options) -> AsyncGenerator[None, None]:
        if self.under_way >= self.room:
            raise Busy
        self.asked.append((question, options))
        self.under_way += 1
        try:
            yield
            self.ended["whole"] += 1
        except (GeneratorExit, asyncio.CancelledError):
            self.ended["closed"] += 1
            raise
        finally:
            self.under_way -= 1

    def counters(self) -> Mapping[str, float]:
        return {"malt_tokens_written_total": 3.0, "malt_rows_in_use": self.under_way}

    async def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Served:
    """An endpoint that runs."""

    url: str
    port: int
    backend: FakeBackend
    loop: asyncio.AbstractEventLoop
    client: httpx.Client

    def released(self) -> None:
        """Lets the slow questions go on."""
        self.loop.call_soon_threadsafe(self.backend.release.set)

    def post(self, path: str, body: object, **options: object) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def get(self, path: str, **options: object) -> httpx.Response:
        return self.client.get(path, **options)

    def chat(self, text: str = "1+1", **fields: object) -> httpx.Response:
        body = {"model": "team", "messages": [{"role": "user", "content": text}], **fields}
        return self.post("/v1/chat/completions", body)


def client(url: str) -> httpx.Client:
    """A client with a connection a request, not made ready for TLS, which would take its time."""
    alone = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(base_url=url, verify=False, timeout=30, limits=alone)


@contextlib.contextmanager
def serving(
    backend: FakeBackend | None = None, token: str = "", limits: Limits | None = None
) -> Iterator[Served]:
    """The endpoint over a backend, in a thread, until the end of the context."""
    backend, limits = backend or FakeBackend(), limits or Limits()
    listening = address.listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    running = server.server(application(backend, token, limits), limits)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=[running.serve([listening])])
    thread.start()
    url = f"http://127.0.0.1:{port}"
    try:
        with client(url) as plain:
            yield Served(url, port, backend, loop, plain)
    finally:
        running.should_exit = True
        loop.call_soon_threadsafe(backend.release.set)
        thread.join(30)
        assert not thread.is_alive()
        loop.close()
