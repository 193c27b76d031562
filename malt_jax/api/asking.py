"""A team that is asked: from where it lies to its answers, one or many, whole or as they are
written."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from malt_jax import tasks
from malt_jax.api import sources
from malt_jax.config.names import choices
from malt_jax.config.settings import Settings
from malt_jax.rollout import roles
from malt_jax.rollout import team as rollout
from malt_jax.runtime import mesh
from malt_jax.sampler import Sampler, Sampling
from malt_jax.serve import ticket as tickets
from malt_jax.serve.backend import Answered, Ended, Event, Options
from malt_jax.serve.batcher import Batcher
from malt_jax.serve.engine import Engine
from malt_jax.serve.ticket import Ticket
from malt_jax.serve.watch import Watched


@dataclass(frozen=True)
class Solution:
    """A team's answer to a question."""

    answer: str = ""
    """The one with the most votes, in the task's canonical form; empty if no pass gave one."""
    text: str = ""
    """What the last role wrote in the pass that answers."""
    votes: Mapping[str, int] = field(default_factory=dict)
    """How many passes gave each answer."""
    verdict: bool | None = None
    """Whether the critique in that pass accepts the solution; None where it does not say."""
    transcript: tuple[Mapping[str, str], ...] = ()
    """What every role wrote, pass by pass."""
    tokens_read: int = 0
    """Prompt tokens of all passes together; a prompt with several samples counts once."""
    tokens_shared: int = field(default=0, compare=False)
    """Of these, how many had been computed before, for this question or another: it depends on what
    was asked before, as nothing else here does."""
    tokens_written: int = 0
    """Sampled tokens of all passes together."""
    error: str = ""
    """Of a question among others: why it has no answer."""


@dataclass(frozen=True)
class Team(rollout.Team):
    """A team of roles that can be asked. `malt_jax.team` makes one of its parts, `Team.load` from
    what a run left.

    Answers are computed side by side and follow from the team, the question, its options and their
    seed, whatever else is asked at the same time. One thread asks at a time.
    """

    watched: Watched | None = None
    """Where the adapters came from."""

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        adapters: Mapping[str, str | Path] | None = None,
        base: bool = False,
        rows: int = 0,
    ) -> "Team":
        """The team of a work directory, or of a recipe and adapters from elsewhere.

        Args:
            source: a work directory, or a recipe by name or file.
            adapters: PEFT directories by role, in place of those of the work directory; a role that
                is not named plays under the base.
            base: the team before training, every role under the base.
            rows: sequences decoded at a time; 0: `config.sample.rows`.

        Raises ValueError, by the name of the file or role, for a source that is neither, a team
        that is not trained yet, and an adapter of another base or role, or one that is damaged.
        """
        return cls.of(sources.settings(source), adapters=adapters, base=base, rows=rows)

    @classmethod
    def of(
        cls,
        given: Settings,
        *,
        adapters: Mapping[str, str | Path] | None = None,
        base: bool = False,
        rows: int = 0,
    ) -> "Team":
        """`load`, from settings."""
        sizes, sample = given.mesh, given.sample
        devices = mesh.make(sizes.data, sizes.fsdp, sizes.tensor)
        chain = roles.chain(given)
        model = sources.base(given, devices)
        watched = None if base else sources.adapters(given, model, devices, adapters or {})
        return cls(
            sampler=Sampler(
                model.config,
                model.params,
                devices,
                rows or sample.rows,
                model.tokenizer.stop_ids,
                model.tokenizer.pad_id,
                siblings=min(max(given.branching), 4),
                kv_gib=sample.kv_gib,
            ),
            tokenizer=model.tokenizer,
            roles=chain,
            adapters=watched.load() if watched else {},
            task=tasks.chosen(given),
            sampling=Sampling(sample.temperature, sample.top_k, sample.top_p),
            seed=given.seed,
            random_stream="collect",
            base=model.content_hash,
            verdicts=sources.verdicts(given),
            watched=watched,
        )

    def solve(self, question: str, votes: int = 3, **options: Any) -> Solution:
        """The answer to a question: `votes` passes through the roles, and their majority.

        Of answers with as many votes the one that appeared first wins. `options` are those of
        `serve.backend.Options`: temperature, top_k, top_p, max_tokens, seed (the team's if none is
        given), stop, trained, written.

        Raises ValueError for a question that is empty or too long, and for an option that does not
        exist or makes no sense.
        """
        return _solution(self, list(self.stream(question, votes, **options)), options)

    def solve_all(
        self, questions: Iterable[str], votes: int = 3, **options: Any
    ) -> Iterator[Solution]:
        """The answers to many questions, in their order, each as soon as it and those before it are
        there. One that cannot be answered has an `error`, and costs no other its answer.

        Raises ValueError for an option that does not exist or makes no sense.
        """
        asked = _options(self, votes, options)
        waiting: deque[_Asked] = deque()
        try:
            for question in questions:
                waiting.append(_begun(self, question, asked))
                while sum(not asking.done for asking in waiting) * votes >= 2 * self.sampler.rows:
                    self._batcher.step()
                while waiting and waiting[0].done:
                    yield _answer(self, waiting.popleft(), options)
            while waiting:
                while not waiting[0].done:
                    self._batcher.step()
                yield _answer(self, waiting.popleft(), options)
        finally:
            for asking in waiting:
                self._let_go(asking)

    def stream(self, question: str, votes: int = 1, **options: Any) -> Iterator[Event]:
        """The answer to a question while it is written: the events of `serve.backend`, the last of
        which is `Answered`. To leave off frees what the question holds. Raises as `solve` does."""
        begun = _begun(self, question, _options(self, votes, options))
        try:
            while True:
                while begun.events:
                    event = begun.events.popleft()
                    if isinstance(event, Exception):
                        raise event
                    yield event
                    if isinstance(event, Answered):
                        return
                self._batcher.step()
        finally:
            self._let_go(begun)

    def engine(self, *, rows: int = 0, queue: int = 256) -> Engine:
        """What serves this team: a `serve.backend.Backend` with a thread of its own, which takes up
        adapters that are exported anew. Of `rows` decoded at a time 0 is at most 64."""
        rows = rows or min(self.sampler.rows, 64)
        return Engine(self, rows=rows, queue=queue, watched=self.watched)

    @cached_property
    def _batcher(self) -> Batcher:
        return Batcher(self, self.sampler.rows)

    def _let_go(self, asked: "_Asked") -> None:
        if asked.ticket is not None:
            self._batcher.cancel(asked.ticket)


@dataclass(eq=False)
class _Asked:
    """A question under way: its events so far, those that were read left out."""

    ticket: Ticket | None
    events: deque[Event | Exception]

    @property
    def done(self) -> bool:
        """Whether no event is to come."""
        return bool(self.events) and isinstance(self.events[-1], Answered | Exception)


def _options(team: Team, votes: int, options: Mapping[str, Any]) -> Options:
    known = {field.name for field in fields(Options)}
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"no option {unknown[0]!r}; {choices(unknown[0], sorted(known))}")
    asked = Options(**{"seed": team.seed, **options, "votes": votes})
    tickets.check(asked)
    return asked


def _begun(team: Team, question: str, options: Options) -> _Asked:
    """A question as it is taken up; one that is refused has that as its only event."""
    events: deque[Event | Exception] = deque()
    try:
        ticket = tickets.of_question(team._batcher.team, question, options, events.append)
    except ValueError as error:
        return _Asked(None, deque([error]))
    team._batcher.begin(ticket)
    return _Asked(ticket, events)


def _answer(team: Team, asked: _Asked, options: Mapping[str, Any]) -> Solution:
    last = asked.events[-1]
    if isinstance(last, Exception):
        return Solution(error=str(last))
    return _solution(team, [e for e in asked.events if not isinstance(e, Exception)], options)


def _solution(team: Team, events: Iterable[Event], options: Mapping[str, Any]) -> Solution:
    """What a question's events come to."""
    written: Mapping[str, str] = options.get("written", {})
    texts: dict[int, dict[str, str]] = {}
    for event in events:
        if isinstance(event, Ended):
            texts.setdefault(event.run, dict(written))[event.role] = event.text
    assert isinstance(event, Answered)
    order = [role.name for role in team.roles]
    return Solution(
        answer=event.answer,
        text=event.text,
        votes=event.votes,
        verdict=event.verdict,
        transcript=tuple({name: texts[run][name] for name in order} for run in sorted(texts)),
        tokens_read=event.tokens_read,
        tokens_shared=event.tokens_shared,
        tokens_written=event.tokens_written,
    )
