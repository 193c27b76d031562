"""The driver of every strategy: keeps the sampler busy with what the questions' trees ask for, and
the grader with the answers that come out of it."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from absl import logging

from malt_jax.rollout import records
from malt_jax.rollout.grades import Grades
from malt_jax.rollout.keys import node_keys
from malt_jax.rollout.records import Row
from malt_jax.rollout.roles import prompt_ids
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Ask, Node, Strategy, Tree
from malt_jax.runtime import hosts, process
from malt_jax.sampler import Completion, Request, Work
from malt_jax.types import Question
from malt_jax.workdir import growth

Hear = Callable[[Question, Sequence[Node]], Any]


def store(
    directory: Path, strategy: Strategy, questions: Sequence[Question], per_shard: int, title: str
) -> None:
    """Grows what `directory` does not hold yet of the questions' trees, in shards of `per_shard`
    questions. See `growth.grow`."""
    work = Work()

    def grow_rows(
        pending: Sequence[Question], progress: Callable[[int], Any]
    ) -> Iterator[list[Row]]:
        return grow(strategy, pending, progress, work)

    growth.grow(
        directory,
        questions,
        grow_rows,
        records.SCHEMA,
        per_shard=per_shard,
        nodes_per_question=strategy.nodes,
        title=title,
        part=hosts.part(strategy.team.sampler.mesh),
    )
    logging.info("%s: %s", title, work.summary())


_WAITING = 64  # trees that may wait for their grades before sampling waits for them
_LAST_SECONDS = 3.0  # for grades that are under way when sampling ends: a third of the grace


def grow(
    strategy: Strategy,
    questions: Sequence[Question],
    progress: Callable[[int], Any],
    work: Work,
) -> Iterator[list[Row]]:
    """The rows of each question's tree (`records.SCHEMA`), by depth and path, as soon as the tree
    is whole and graded, about in the order of the questions. `progress` hears of new nodes.

    Answers are graded as they come, beside the sampler. Where sampling ends early (a signal, a
    fault), the trees that are whole by then are still given before the error is raised.
    """
    grades = Grades(strategy.team.task)
    whole: deque[Tree] = deque()

    def rows() -> list[Row]:
        tree = whole.popleft()
        return records.rows(strategy.team, tree, grades.take(tree.question))

    try:
        for tree in expand(
            strategy, questions, lambda _, fresh: progress(len(fresh)), work, grades
        ):
            whole.append(tree)
            while whole and (len(whole) > _WAITING or grades.done(whole[0].question, 0)):
                grades.wait([whole[0].question])
                yield rows()
        while whole:
            grades.wait([whole[0].question])
            yield rows()
    except (Exception, KeyboardInterrupt, process.Stopped):
        deadline = time.monotonic() + _LAST_SECONDS
        while whole:
            if not grades.done(whole[0].question, deadline - time.monotonic()):
                whole.popleft()
                continue
            try:
                last = rows()
            except Exception:  # of a grader: what ended the sampling is to be told
                continue
            yield last
        raise


def expand(
    strategy: Strategy,
    questions: Iterable[Question],
    hear: Hear = lambda question, nodes: None,
    work: Work | None = None,
    grades: Grades | None = None,
) -> Iterator[Tree]:
    """Each question's tree as soon as it is whole, its nodes by depth and path. `hear` is told of
    every request's nodes as they come, and `grades` is sent them.

    The roles of all open trees decode side by side, each under its own adapter. What was begun is
    finished before more is begun, and in that order, so that little is open at a time and a shard
    is whole early: of what is asked for, the earliest question's goes first, and of that the
    deepest. While a tree waits for the grades that its strategy reads, others are sampled.

    Raises ValueError for a question of which the strategy asks nothing, and for a strategy that
    reads grades on hosts that work in step.
    """
    team = strategy.team
    if strategy.graded is not None:
        grades = grades or Grades(team.task)
        if team.sampler.mesh.is_multi_process:
            raise ValueError(
                "config.mesh: a strategy that reads grades cannot sample on hosts that work in "
                "step, whose grades come at different times; let fsdp x tensor fit into one host"
            )
    adapters = [team.adapters.get(role.name) for role in team.roles]
    distinct = [a for i, a in enumerate(adapters) if all(a is not b for b in adapters[:i])]
    slots = {
        role.name: next(i for i, b in enumerate(distinct) if b is a)
        for role, a in zip(team.roles, adapters, strict=True)
    }
    frontier = _Frontier(strategy, enumerate(questions), grades)

    def take() -> Request | None:
        if (asked := frontier.next()) is None:
            return None
        open_tree, ask = asked
        return _request(team, open_tree, ask, slots[ask.adapter])

    try:
        for request, completions in team.sampler.run(
            take, distinct, sampling=team.sampling, work=work
        ):
            open_tree, ask = request.tag
            fresh = _nodes(team, ask, request, completions)
            hear(open_tree.tree.question, fresh)
            frontier.add(open_tree, fresh)
            while frontier.whole:
                yield frontier.whole.popleft()
    except (Exception, KeyboardInterrupt, process.Stopped):
        yield from frontier.whole
        raise
    yield from frontier.whole


@dataclass
class _Open:
    """A tree that grows: the place of its question among the questions, and how many of its
    requests are not finished."""

    place: int
    tree: Tree
    unfinished: int = 0


@dataclass
class _Frontier:
    """All trees that grow.

    `pending` is a heap of what is asked for and not begun, and `running` counts what is begun and
    not finished. `complete` are trees without either, which wait for the strategy to read their
    grades; `whole` those that it asks no more for.
    """

    strategy: Strategy
    questions: Iterator[tuple[int, Question]]
    grades: Grades | None
    pending: list[tuple[int, int, int, _Open, Ask]] = field(default_factory=list)
    running: int = 0
    complete: list[_Open] = field(default_factory=list)
    whole: deque[Tree] = field(default_factory=deque)
    order: Iterator[int] = field(default_factory=itertools.count)

    def next(self) -> tuple[_Open, Ask] | None:
        """What to begin next, or None if there is nothing at present: what is running, or the end,
        comes before it."""
        while True:
            self._settle()
            if not self.pending and len(self.complete) < _WAITING:
                self._begin()
            if self.pending:
                self.running += 1
                *_, open_tree, ask = heappop(self.pending)
                return open_tree, ask
            if self.running or not self.complete or self.grades is None:
                return None
            self.grades.wait([open_tree.tree.question for open_tree in self.complete])

    def add(self, open_tree: _Open, fresh: Sequence[Node]) -> None:
        """Adds a finished request's nodes to its tree."""
        self.running -= 1
        open_tree.unfinished -= 1
        open_tree.tree.nodes += fresh
        if self.grades is not None:
            self.grades.submit(open_tree.tree.question, fresh)
        self._follow(open_tree, self.strategy.asks(open_tree.tree, fresh))
        if not open_tree.unfinished:
            self.complete.append(open_tree)
            self._settle()

    def _begin(self) -> None:
        place, question = next(self.questions, (0, None))
        if question is not None:
            tree = Tree(question)
            self._follow(_Open(place, tree), self.strategy.asks(tree, ()))
            if not self.pending:
                raise ValueError(f"question {question.id!r}: the strategy asks nothing of it")

    def _follow(self, open_tree: _Open, asks: Iterable[Ask]) -> None:
        for ask in asks:
            depth = 0 if ask.parent is None else ask.parent.depth + 1
            heappush(self.pending, (open_tree.place, -depth, next(self.order), open_tree, ask))
            open_tree.unfinished += 1

    def _settle(self) -> None:
        """Has the strategy read the grades that are there. A tree of which it asks no more is
        whole."""
        graded, grades = self.strategy.graded, self.grades
        for open_tree in tuple(self.complete):
            question = open_tree.tree.question
            if graded and grades and not grades.done(question, 0):
                continue
            nodes = sorted(open_tree.tree.nodes, key=lambda node: (node.depth, node.path))
            tree = Tree(question, nodes)
            if graded and grades:
                self._follow(open_tree, graded(tree, grades.of(question)))
            self.complete.remove(open_tree)
            if not open_tree.unfinished:
                self.whole.append(tree)


def _request(team: Team, open_tree: _Open, ask: Ask, slot: int) -> Request:
    question, hint = open_tree.tree.question, team.task.answer_hint
    prompt = prompt_ids(ask.role, question, hint, ask.seen, ask.limits, team.tokenizer)
    keys = node_keys(team.seed, team.random_stream, question.id, ask.paths)
    return Request(prompt, keys, ask.role.max_new_tokens, slot, tag=(open_tree, ask))


def _nodes(team: Team, ask: Ask, request: Request, completions: Sequence[Completion]) -> list[Node]:
    return [
        Node(
            role=ask.role.name,
            path=path,
            parent=ask.parent,
            prompt=list(request.prompt),
            completion=completion,
            text=team.tokenizer.decode(completion.tokens),
            adapter=ask.adapter,
            answers=ask.answers,
        )
        for path, completion in zip(ask.paths, completions, strict=True)
    ]
