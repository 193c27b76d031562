"""The driver of every strategy: keeps the sampler busy with what the questions' trees ask for, and
the grader with the answers that come out of it."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from absl import logging

from malt_jax import grading
from malt_jax.grading import Sample
from malt_jax.rollout import records
from malt_jax.rollout.keys import node_keys
from malt_jax.rollout.records import Row
from malt_jax.rollout.roles import prompt_ids
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Ask, Node, Strategy, Tree
from malt_jax.runtime import hosts, process
from malt_jax.sampler import Completion, Request, Work
from malt_jax.tasks import Task
from malt_jax.types import Grade, Question
from malt_jax.workdir import shards

Hear = Callable[[Question, Sequence[Node]], Any]


def store(
    directory: Path, strategy: Strategy, questions: Sequence[Question], per_shard: int, title: str
) -> None:
    """Grows what `directory` does not hold yet of the questions' trees, in shards of `per_shard`
    questions. See `shards.grow`."""
    work = Work()

    def grow_rows(
        pending: Sequence[Question], progress: Callable[[int], Any]
    ) -> Iterator[list[Row]]:
        return grow(strategy, pending, progress, work)

    shards.grow(
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
    graded = _Grading(strategy.team.task)
    whole: deque[Tree] = deque()

    def hear(question: Question, nodes: Sequence[Node]) -> None:
        progress(len(nodes))
        graded.submit(question, nodes)

    def rows() -> list[Row]:
        tree = whole.popleft()
        return records.rows(strategy.team, tree, graded.take(tree.question))

    try:
        for tree in expand(strategy, questions, hear, work):
            whole.append(tree)
            while whole and (len(whole) > _WAITING or graded.done(whole[0].question, 0)):
                graded.wait(whole[0].question)
                yield rows()
        while whole:
            graded.wait(whole[0].question)
            yield rows()
    except (Exception, KeyboardInterrupt, process.Stopped):
        deadline = time.monotonic() + _LAST_SECONDS
        while whole:
            if not graded.done(whole[0].question, deadline - time.monotonic()):
                whole.popleft()
                continue
            try:
                last = rows()
            except Exception:  # of a grader: what ended the sampling is to be told
                continue
            yield last
        raise


@dataclass(frozen=True)
class _Grading:
    """The grades of trees that grow, those to come as well."""

    task: Task
    of_question: dict[str, list[tuple[list[Node], Future[list[Grade]]]]] = field(
        default_factory=dict
    )

    def submit(self, question: Question, nodes: Sequence[Node]) -> None:
        """Sends those of a question's nodes that answer."""
        answering = [node for node in nodes if node.answers]
        samples = [
            Sample(
                node.text,
                question.answer,
                not node.completion.stopped,
                question.choices,
                question.text,
            )
            for node in answering
        ]
        grades = self.of_question.setdefault(question.id, [])
        if samples:
            grades.append((answering, grading.submit(self.task, samples)))

    def done(self, question: Question, seconds: float) -> bool:
        """Whether a question's grades are there, at the latest in so many seconds."""
        under_way = [grades for _, grades in self.of_question[question.id]]
        return all(grades.done() for grades in under_way) or (
            seconds > 0 and not futures.wait(under_way, seconds).not_done
        )

    def wait(self, question: Question) -> None:
        """Until they are there, or a signal is."""
        while not self.done(question, 0.2):
            process.heed()

    def take(self, question: Question) -> dict[Node, Grade]:
        """The grades of a question's nodes, which are then forgotten. Raises what the grader
        did."""
        return {
            node: grade
            for nodes, grades in self.of_question.pop(question.id)
            for node, grade in zip(nodes, grades.result(), strict=True)
        }


def expand(
    strategy: Strategy,
    questions: Iterable[Question],
    hear: Hear = lambda question, nodes: None,
    work: Work | None = None,
) -> Iterator[Tree]:
    """Each question's tree as soon as it is whole, its nodes by depth and path. `hear` is told of
    every request's nodes as they come.

    The roles of all open trees decode side by side, each under its own adapter. What was begun is
    finished before more is begun, and in that order, so that little is open at a time and a shard
    is whole early: of what is asked for, the earliest question's goes first, and of that the
    deepest.

    Raises ValueError for a question of which the strategy asks nothing.
    """
    team = strategy.team
    adapters = [team.adapters.get(role.name) for role in team.roles]
    distinct = [a for i, a in enumerate(adapters) if all(a is not b for b in adapters[:i])]
    slots = {
        role.name: next(i for i, b in enumerate(distinct) if b is a)
        for role, a in zip(team.roles, adapters, strict=True)
    }
    begun, order = enumerate(questions), itertools.count()
    pending: list[tuple[int, int, int, _Open, Ask]] = []

    def follow(open_tree: _Open, fresh: Sequence[Node]) -> None:
        for ask in strategy.asks(open_tree.tree, fresh):
            depth = 0 if ask.parent is None else ask.parent.depth + 1
            heappush(pending, (open_tree.place, -depth, next(order), open_tree, ask))
            open_tree.unfinished += 1

    def take() -> Request | None:
        if not pending:
            place, question = next(begun, (0, None))
            if question is None:
                return None
            follow(_Open(place, Tree(question)), ())
            if not pending:
                raise ValueError(f"question {question.id!r}: the strategy asks nothing of it")
        *_, open_tree, ask = heappop(pending)
        return _request(team, open_tree, ask, slots[ask.adapter])

    sampled = team.sampler.run(take, distinct, sampling=team.sampling, work=work)
    for request, completions in sampled:
        open_tree, ask = request.tag
        tree = open_tree.tree
        fresh = _nodes(team, ask, request, completions)
        tree.nodes += fresh
        open_tree.unfinished -= 1
        hear(tree.question, fresh)
        follow(open_tree, fresh)
        if not open_tree.unfinished:
            yield Tree(tree.question, sorted(tree.nodes, key=lambda node: (node.depth, node.path)))


@dataclass
class _Open:
    """A tree that grows: the place of its question among the questions, and how many of its
    requests are not finished."""

    place: int
    tree: Tree
    unfinished: int = 0


def _request(team: Team, open_tree: _Open, ask: Ask, slot: int) -> Request:
    question, hint = open_tree.tree.question, team.task.answer_hint
    prompt = prompt_ids(ask.role, question, hint, ask.seen, ask.limits, team.tokenizer)
    keys = node_keys(team.seed, team.stream, question.id, ask.paths)
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
