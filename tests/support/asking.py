"""A small team that is asked, and what an engine tells of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace

import adapters
import small

import malt_jax
from malt_jax.api.asking import Team
from malt_jax.models import Adapter
from malt_jax.serve.backend import Answered, Delta, Ended, Event
from malt_jax.serve.engine import Engine

PROMPTS = {
    "generator": "Solve {question}",
    "verifier": "Check {question}: {generator}",
    "refiner": "{question} {generator} {verifier}",
}
LENGTHS = {"generator": 12, "verifier": 10, "refiner": 9}


def adapter(seed: int) -> Adapter:
    return adapters.filled(small.model(scale=4.0).config, seed)


def team(played: Mapping[str, Adapter | None] | None = None, *, endless: bool = False) -> Team:
    """The roles of a random model, and the adapters under which they are played. An `endless` team
    writes as much as it may."""
    made = malt_jax.team(
        small.model(scale=4.0),
        PROMPTS,
        "arithmetic",
        adapters=played or {},
        max_new_tokens=LENGTHS,
        temperature=1.0,
        rows=16,
    )
    return replace(made, sampler=replace(made.sampler, stop_ids=())) if endless else made


async def heard(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


def texts(events: list[Event]) -> dict[tuple[int, str], str]:
    """What each role wrote in each pass. The pieces must be that text."""
    ended = {(e.run, e.role): e.text for e in events if isinstance(e, Ended)}
    pieces = dict.fromkeys(ended, "")
    for event in events:
        if isinstance(event, Delta):
            pieces[event.run, event.role] += event.text
    assert pieces == ended
    assert isinstance(events[-1], Answered)
    return ended


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def ready(engine: Engine) -> Engine:
    await until(lambda: engine.ready, 300)
    return engine


def quiet(engine: Engine) -> Callable[[], bool]:
    """Whether nothing is held by anybody."""

    def holds() -> bool:
        counters = engine.counters()
        return not counters["malt_rows_busy"] and not counters["malt_cache_pages_used"]

    return holds


def run(engine: Engine, test: Callable[[Engine], Awaitable[None]]) -> None:
    """A test of an engine that is ready."""

    async def whole() -> None:
        await test(await ready(engine))

    asyncio.run(whole())
