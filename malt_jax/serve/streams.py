"""Requests under way: the events of several at once, ended where their client is gone."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from malt_jax.serve.backend import Event


class Gone(Exception):
    """The client has closed the connection."""


async def together(
    runs: Sequence[AsyncGenerator[Event, None]], receive: Receive, pause: float
) -> AsyncGenerator[tuple[int, Event] | None, None]:
    """Every event with the number of its run, as they come; None after `pause` seconds without one.

    However it ends, it closes the runs. Raises `Gone` when `receive` tells of the client's end, and
    what a run raises.
    """
    gone = asyncio.create_task(_gone(receive))
    upcoming = {asyncio.create_task(_next(run)): i for i, run in enumerate(runs)}
    try:
        while upcoming:
            done, _ = await asyncio.wait(
                {gone, *upcoming}, timeout=pause, return_when=asyncio.FIRST_COMPLETED
            )
            if gone in done:
                raise Gone
            if not done:
                yield None
            for task in [task for task in upcoming if task in done]:
                i = upcoming.pop(task)
                if (event := task.result()) is not None:
                    upcoming[asyncio.create_task(_next(runs[i]))] = i
                    yield i, event
    finally:
        tasks = [gone, *upcoming]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run in runs:
            await run.aclose()


class EventStream(Response):
    """Server-sent events, each a JSON object; None is a comment that keeps the line open."""

    def __init__(self, messages: AsyncGenerator[Mapping[str, Any] | str | None, None]) -> None:
        super().__init__(headers={"x-accel-buffering": "no"}, media_type="text/event-stream")
        del self.headers["content-length"]
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer, as ASGI has it."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        async with aclosing(self._messages) as messages:
            await send(start)
            async for message in messages:
                line = b": \n\n" if message is None else _line(message)
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def compact(value: object) -> bytes:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _line(message: Mapping[str, Any] | str) -> bytes:
    return b"data: %b\n\n" % (message.encode() if isinstance(message, str) else compact(message))


async def _next(run: AsyncGenerator[Event, None]) -> Event | None:
    return await anext(run, None)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
