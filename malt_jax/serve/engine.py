"""The backend of an endpoint: a thread drives the devices, and the event loop hears of what they
draw."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from absl import logging

from malt_jax.rollout.team import Team
from malt_jax.serve import ticket as tickets
from malt_jax.serve.backend import Answered, Busy, Event, Message, Options
from malt_jax.serve.batcher import GAUGES, Batcher, Counts
from malt_jax.serve.ticket import Ticket
from malt_jax.serve.watch import Watched

_Command = Callable[[Batcher], Any]


class Engine:
    """A team as a `serve.backend.Backend`.

    Args:
        team: its model, roles and adapters.
        rows: sequences decoded at a time.
        queue: passes that may wait for a row; a request beyond them is refused as `Busy`.
        watched: where the adapters come from. Others that appear there are taken up without a
            pause; what is under way ends under those it began with.
    """

    def __init__(
        self, team: Team, *, rows: int = 64, queue: int = 256, watched: Watched | None = None
    ):
        self._team, self._rows, self._watched = team, rows, watched
        self._most = rows + queue
        # Of the event loop's thread: passes under way and waiting, requests that are not begun.
        self._passes = self._preparing = self._refused = 0
        self._closing = False
        self._ended = threading.Event()
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._batcher: Batcher | None = None  # once it is ready
        self._counts, self._gauges = Counts(), dict.fromkeys(GAUGES, 0)
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._drive, name="engine", daemon=True)
        self._thread.start()

    @property
    def models(self) -> Sequence[str]:
        """`team`, `team-vote`, and each role's name."""
        return "team", "team-vote", *self.roles

    @property
    def roles(self) -> Sequence[str]:
        """The roles, in the order in which they write."""
        return [role.name for role in self._team.roles]

    @property
    def ready(self) -> bool:
        """Whether the first programs are compiled."""
        return self._batcher is not None

    @property
    def fault(self) -> Exception | None:
        """See `Backend.fault`."""
        return self._fault

    def ask(self, question: str, options: Options) -> AsyncGenerator[Event, None]:
        """See `Backend.ask`."""
        return self._events(partial(tickets.of_question, question=question), options)

    def chat(
        self, role: str, messages: Sequence[Message], options: Options
    ) -> AsyncGenerator[Event, None]:
        """See `Backend.chat`."""
        prepare = partial(tickets.of_conversation, name=role, messages=messages)
        return self._events(prepare, options)

    def counters(self) -> Mapping[str, float]:
        """Counters and gauges by Prometheus name, without labels."""
        counts = self._counts
        totals = {
            "requests_finished": counts.finished,
            "requests_failed": counts.failed,
            "requests_cancelled": counts.cancelled,
            "requests_refused": self._refused,
            "tokens_read": counts.read,
            "tokens_shared": counts.shared,
            "tokens_computed": counts.read - counts.shared,
            "tokens_written": counts.written,
            "adapter_swaps": counts.swaps,
        }
        gauges = {f"malt_{name}": float(value) for name, value in self._gauges.items()}
        return {f"malt_{name}_total": float(value) for name, value in totals.items()} | gauges

    async def close(self) -> None:
        """Ends when what runs is finished; asks for more are refused as `Busy`."""
        self._closing = True
        self._ended.set()
        self._commands.put(_look)
        await asyncio.to_thread(self._thread.join)

    async def _events(
        self, prepare: Callable[..., Ticket], options: Options
    ) -> AsyncGenerator[Event, None]:
        batcher = self._open_to(options)
        heard: asyncio.Queue[Event | Exception] = asyncio.Queue()
        tell = partial(_tell, asyncio.get_running_loop(), heard)
        ticket: Ticket | None = None
        self._passes += options.votes
        self._preparing += 1
        try:
            try:  # not on the loop: a chat template may take its time, and a long text as well
                ticket = await asyncio.to_thread(prepare, batcher.team, options=options, tell=tell)
                self._commands.put(partial(Batcher.begin, ticket=ticket))
            except ValueError:
                self._refused += 1
                raise
            finally:
                self._preparing -= 1
                self._commands.put(_look)
            while True:
                event = await heard.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Answered):
                    return
        finally:
            self._passes -= options.votes
            if ticket is not None:
                self._commands.put(partial(Batcher.cancel, ticket=ticket))

    def _open_to(self, options: Options) -> Batcher:
        """Raises what keeps a request from being taken."""
        if self._fault is not None:
            raise RuntimeError(f"the engine has ended: {self._fault}") from self._fault
        if options.votes > self._most:
            raise ValueError(f"votes: {options.votes}; give at most {self._most}")
        reason = ""
        if self._closing or self._batcher is None:
            reason = "the server is ending" if self._closing else "the model is not ready yet"
        elif self._passes + options.votes > self._most:
            reason = f"{self._passes} passes are under way; try again"
        if reason or self._batcher is None:
            self._refused += 1
            raise Busy(reason)
        return self._batcher

    def _drive(self) -> None:
        """Drives the devices, until the end: the thread's own."""
        batcher: Batcher | None = None
        try:
            batcher = Batcher(self._team, self._rows)
            cold = batcher.warm_up()
            warm = bool(next(cold, True))
            self._batcher, self._counts = batcher, batcher.counts
            if self._watched is not None:
                threading.Thread(target=self._watch, name="adapters", daemon=True).start()
            while not (self._closing and self._idle(batcher)):
                for command in self._asked(wait=warm and not batcher.busy):
                    command(batcher)
                if batcher.busy:
                    batcher.step()
                elif not warm:  # of the wider programs, while nobody waits
                    warm = bool(next(cold, True))
                self._gauges = batcher.gauges()
        except Exception as error:
            logging.exception("the engine has ended")
            self._fault = error
            if batcher is not None:
                batcher.abandon(error)
        finally:
            self._batcher = None
            self._ended.set()

    def _idle(self, batcher: Batcher) -> bool:
        return not (batcher.busy or self._preparing) and self._commands.empty()

    def _asked(self, *, wait: bool) -> Iterator[_Command]:
        """The commands that there are; if need be, waits for one."""
        with contextlib.suppress(Empty):
            yield self._commands.get(block=wait)
            while True:
                yield self._commands.get_nowait()

    def _watch(self) -> None:
        """Takes up adapters that come: a thread of its own, so that reading them stops nobody."""
        watched = self._watched
        while watched is not None and not self._ended.wait(watched.seconds):
            adapters = watched.changed()
            if adapters is not None:
                logging.info("other adapters: requests from now on are answered under them")
                self._commands.put(partial(Batcher.swap, adapters=adapters))


def _look(batcher: Batcher) -> None:
    """Wakes the thread, which then looks whether it is to end."""


def _tell(
    loop: asyncio.AbstractEventLoop, heard: "asyncio.Queue[Event | Exception]", event: Any
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody listens
        loop.call_soon_threadsafe(heard.put_nowait, event)
