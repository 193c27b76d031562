"""All requests in one batch: who waits, who writes, pass by pass of the sampler.

One base is resident with its adapters side by side; whatever request and role a row belongs to, it
decodes beside the others. What drives it calls `step` from one thread.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

import numpy as np
from absl import logging

from malt_jax.models.lora import Adapter
from malt_jax.rollout.roles import Role
from malt_jax.rollout.team import Team
from malt_jax.sampler import ByRequest, Completion, Request, Session, Work
from malt_jax.sampler.session import Pass
from malt_jax.sampler.spec import memory
from malt_jax.serve.backend import Began, Delta, Ended, Finish
from malt_jax.serve.spelling import Spelling
from malt_jax.serve.ticket import Ticket

Adapters = Mapping[str, Adapter | None]
GAUGES = ("requests_running", "requests_waiting", "rows_busy", "cache_pages_used")
"""Requests that have begun and that have not, rows that decode, pages that they hold."""
_Row = tuple[Request, Sequence[int], Completion | None]
_NOT_FINITE = "the model's logits are not finite under these adapters; another request may succeed"


@dataclass(eq=False)
class _Writing:
    """One role's text in one pass while it is written."""

    ticket: Ticket
    run: int
    place: int  # of the role among those that write
    spelling: Spelling
    taken: int = 0  # tokens of its row that are spelled

    @property
    def role(self) -> Role:
        return self.ticket.roles[self.place]


@dataclass(eq=False)
class _Generation:
    """A session over one set of adapters, and the requests that end under it.

    `waiting` is a heap of what the sampler is to be asked: the earliest request's first, and of
    that what is nearest to its end.
    """

    adapters: Adapters
    session: Session
    slots: Mapping[str, int]  # by role; 0 is the base
    waiting: list[tuple[int, int, int, Request]] = field(default_factory=list)
    tickets: dict[Ticket, int] = field(default_factory=dict)  # in the order in which they came
    asked: dict[Request, _Writing] = field(default_factory=dict)

    def next(self) -> Request | None:
        """What the sampler is to begin; what was let go of meanwhile is passed over."""
        while self.waiting:
            *_, request = heappop(self.waiting)
            if request in self.asked:
                return request
        return None


@dataclass
class Counts:
    """What was done since the beginning."""

    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    read: int = 0  # tokens of prompts
    shared: int = 0  # of these, computed before
    written: int = 0
    swaps: int = 0


class Batcher:
    """A team's requests, answered side by side.

    Args:
        team: whose sampler has the model; `rows` sequences decode at a time.
    """

    def __init__(self, team: Team, rows: int):
        sampler = replace(team.sampler, rows=rows, siblings=1)
        # Fixed now: what fits must not depend on what is free when it is asked.
        budget = sampler.kv_gib or memory(sampler).granted / 2**30
        self.team = replace(team, sampler=replace(sampler, kv_gib=budget))
        self.counts = Counts()
        self._order = itertools.count()
        self._current = self._generation(team.adapters)
        self._draining: list[_Generation] = []

    def warm_up(self) -> Iterator[None]:
        """Compiles the programs that requests would wait for, of the narrowest passes first.
        Between two widths requests may be answered; they must have ended before the next."""
        session, size = self._current.session, self.team.sampler.config.vocab_size
        shards = len(session.shards)
        # Twice in the narrowest: a fresh pool is another argument to the compiler.
        for first, n in enumerate([1, 1, *session.widths]):
            # Prompts that begin alike: a part of a page is copied as well.
            prompts = iter([[first, i // size % size, i % size] for i in range(n * shards)])
            keys = np.zeros((1, 2), np.uint32)

            def take(
                prompts: Iterator[list[int]] = prompts, keys: np.ndarray = keys
            ) -> Request | None:
                prompt = next(prompts, None)
                return None if prompt is None else Request(prompt, keys, 2)

            for _ in session.run(take):
                pass
            if first:
                yield

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return any(generation.tickets for generation in self._generations)

    def begin(self, ticket: Ticket) -> None:
        """Takes a request up. It is told its events, the last of which is `Answered` or an
        exception."""
        generation = self._current
        generation.tickets[ticket] = next(self._order)
        with self._failing(ticket):
            for run in range(len(ticket.texts)):
                self._ask(generation, ticket, run, 0)

    def cancel(self, ticket: Ticket) -> None:
        """Lets a request go; one that has ended stays as it is."""
        if self._leave(ticket):
            self.counts.cancelled += 1

    def swap(self, adapters: Adapters) -> None:
        """Has the requests that come from now on answered under other adapters; those under way end
        under theirs."""
        self.counts.swaps += 1
        self.renew(adapters)

    def renew(self, adapters: Adapters | None = None) -> None:
        """Begins another session for what comes, under the same adapters unless others are
        given."""
        before = self._current
        self._current = self._generation(before.adapters if adapters is None else adapters)
        if before.tickets:
            self._draining.append(before)

    def step(self) -> None:
        """One pass of the sampler, for each set of adapters that is in use."""
        for generation in self._generations:
            if generation.tickets:
                self._advance(generation)

    def abandon(self, error: Exception) -> None:
        """Ends all requests with an error."""
        for generation in self._generations:
            for ticket in list(generation.tickets):
                self._fail(ticket, error)

    def gauges(self) -> dict[str, int]:
        """What is under way, by the names of `GAUGES`."""
        tickets = [ticket for generation in self._generations for ticket in generation.tickets]
        running = sum(bool(ticket.prompts) for ticket in tickets)
        rows = sum(generation.session.busy for generation in self._generations)
        pages = sum(generation.session.pages for generation in self._generations)
        return dict(zip(GAUGES, (running, len(tickets) - running, rows, pages), strict=True))

    @property
    def _generations(self) -> Sequence[_Generation]:
        return (*self._draining, self._current)

    def _generation(self, adapters: Adapters) -> _Generation:
        distinct: list[Adapter | None] = [None]
        slots = {}
        for role in self.team.roles:
            adapter = adapters.get(role.name)
            place = next((i for i, other in enumerate(distinct) if other is adapter), len(distinct))
            distinct += [adapter] if place == len(distinct) else []
            slots[role.name] = place
        session = Session(self.team.sampler, distinct, ByRequest(), Work())
        return _Generation(adapters, session, slots)

    def _ask(self, generation: _Generation, ticket: Ticket, run: int, place: int) -> None:
        """Has the sampler asked for a role's text in a pass."""
        role = ticket.roles[place]
        request = Request(
            ticket.prompt(role, ticket.texts[run]),
            ticket.keys(role, run),
            role.max_new_tokens,
            generation.slots[role.name] if ticket.options.trained else 0,
            sampling=ticket.sampling,
        )
        spelling = Spelling(self.team.tokenizer, ticket.options.stop)
        generation.asked[request] = _Writing(ticket, run, place, spelling)
        number = generation.tickets[ticket]
        heappush(generation.waiting, (number, -place, next(self._order), request))

    def _advance(self, generation: _Generation) -> None:
        session = generation.session
        try:
            begun = session.admit(generation.next)
            if not session.busy:
                raise RuntimeError("the KV cache has no room left")
            for request, shared in begun:
                self._began(generation.asked[request], request, shared)
            passed = session.decode()
        except Exception as error:  # of the devices: what was on them is lost
            logging.exception("a pass of the sampler failed")
            for ticket in list(generation.tickets):
                self._fail(ticket, error)
            if generation is self._current:
                self.renew()
            return
        self._hear(generation, passed)

    def _began(self, writing: _Writing, request: Request, shared: int) -> None:
        writing.ticket.read(writing.role, request.prompt, shared)
        self.counts.read += len(request.prompt)
        self.counts.shared += shared
        writing.ticket.tell(Began(writing.run, writing.role.name, len(request.prompt)))

    def _hear(self, generation: _Generation, passed: Pass) -> None:
        """Hands on what a pass drew."""
        rows = generation.session.running()
        drawn: list[_Row] = [(request, tokens, None) for request, _, tokens in rows]
        drawn += [(request, child.tokens, child) for request, (child,) in passed.ended]
        for request, tokens, whole in drawn:
            writing = generation.asked.get(request)
            if writing is None:  # its ticket has ended in this very pass
                continue
            with self._failing(writing.ticket):
                self._more(generation, request, writing, tokens, whole)
        for request in passed.failed:
            if request in generation.asked:
                self._fail(generation.asked[request].ticket, FloatingPointError(_NOT_FINITE))
        if passed.failed and generation is self._current:
            self.renew()  # what is not finite lies in pages of the old session

    def _more(
        self,
        generation: _Generation,
        request: Request,
        writing: _Writing,
        tokens: Sequence[int],
        whole: Completion | None,
    ) -> None:
        ticket, spelling, role = writing.ticket, writing.spelling, writing.role.name
        text = spelling.feed(tokens[writing.taken :])
        self.counts.written += len(tokens) - writing.taken
        writing.taken = len(tokens)
        text += spelling.end() if whole else ""
        if text:
            ticket.tell(Delta(writing.run, role, text))
        if not whole and not spelling.stopped:
            return
        generation.session.cancel(request)
        del generation.asked[request]
        finish: Finish = "stop" if spelling.stopped or (whole and whole.stopped) else "length"
        ticket.written += spelling.tokens
        ticket.texts[writing.run][role] = spelling.text
        ticket.tell(Ended(writing.run, role, spelling.text, finish, spelling.tokens))
        if writing.place + 1 < len(ticket.roles):
            self._ask(generation, ticket, writing.run, writing.place + 1)
            return
        ticket.passes -= 1
        if not ticket.passes:
            answered = ticket.answered()
            self._leave(ticket)
            self.counts.finished += 1
            ticket.tell(answered)

    @contextmanager
    def _failing(self, ticket: Ticket) -> Iterator[None]:
        """An error inside is the request's alone: of a task's own code, say."""
        try:
            yield
        except Exception as error:
            logging.exception("a request failed")
            self._fail(ticket, error)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        self._leave(ticket)
        self.counts.failed += 1
        failure = RuntimeError(f"the request could not be answered: {error}")
        failure.__cause__ = error
        ticket.tell(failure)

    def _leave(self, ticket: Ticket) -> bool:
        """Frees what a request holds; whether it was under way."""
        generation = next((g for g in self._generations if ticket in g.tickets), None)
        if generation is None:
            return False
        del generation.tickets[ticket]
        for request in [r for r, writing in generation.asked.items() if writing.ticket is ticket]:
            del generation.asked[request]
            generation.session.cancel(request)
        self._draining = [other for other in self._draining if other.tickets]
        return True
